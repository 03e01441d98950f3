"""Surface normals (v1 section 4.4, v2 section 4.4): data, code words, network, training, evaluation, angles, pictures.

Normals are unit vectors in the frame of the camera: x to the right, y up, z towards the camera.
"""
