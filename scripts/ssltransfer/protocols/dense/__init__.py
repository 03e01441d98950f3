"""Dense prediction: one value per pixel."""
