"""Evaluation protocols: what a model is put through. One package or module per type of protocol."""
