"""Feature inversion (paper section 4.4).

``deep_image_prior``: the networks; ``inversion``: their optimisation; ``similarity``, ``lpips_networks``: the metrics;
``evaluation``: scores and pictures; ``settings``: the settings block.
"""
