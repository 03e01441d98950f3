"""Many-shot linear evaluation (paper section 4.1)."""
