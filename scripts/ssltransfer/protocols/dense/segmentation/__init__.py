"""Semantic segmentation (v2 section 4.4, Table 5), and the frozen linear probe of DINOv3.

``masks``, ``dataset``: masks, their labels and the images; ``network``, ``training``: the network; ``metrics``,
``prediction``, ``evaluation``, ``outcomes``, ``pictures``: predicted classes, scores and pictures; ``settings``: the
settings block.
"""
