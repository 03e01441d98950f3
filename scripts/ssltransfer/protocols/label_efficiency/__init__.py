"""Label-efficiency curves: transfer with few labelled images, on cached features."""
