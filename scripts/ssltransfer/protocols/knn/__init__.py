"""k-nearest-neighbour classification on cached features."""
