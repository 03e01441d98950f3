"""Occlusion attention (paper section 4.4)."""
