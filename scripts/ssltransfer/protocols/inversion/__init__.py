"""Feature inversion (paper section 4.4).

``deep_image_prior``: the networks; ``inversion``: their optimisation; ``image_similarity``, ``lpips_networks``:
metrics; ``evaluation``: scores and pictures; ``settings``: the settings block.
"""
