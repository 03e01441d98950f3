"""Occlusion attention (paper section 4.4): how much the features change when a mask covers each part of an image.

A pixel's attention is the mean error of the masks that cover it. ``mask_grid``: mask positions, maps and diffusion;
``receptive_field``: geometry of layers; ``occlusion``: errors of all masks; ``evaluation``: maps, scores and pictures.
"""
