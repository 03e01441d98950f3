"""Label-efficiency curves: transfer with few labelled images, on cached features.

``subsets``: random subsets; ``subset_lists``: published ones; ``selection``: the penalty; ``evaluation``: the curve;
``settings``: the settings block.
"""
