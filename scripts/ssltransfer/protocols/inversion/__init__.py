"""Feature inversion (paper section 4.4)."""
