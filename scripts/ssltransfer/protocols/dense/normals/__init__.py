"""Surface normals (v1 section 4.4, v2 section 4.4).

``ground_truth``, ``codebook``, ``dataset``: known normals, their labels and the images; ``network``, ``training``: the
network; ``angles``, ``evaluation``, ``pictures``: errors, scores and pictures; ``settings``: the settings block.

Normals are unit vectors in the frame of the camera: x to the right, y up, z towards the camera.
"""
