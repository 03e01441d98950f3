"""Evaluation protocols: ways to measure the transfer of a model. One package or module per type of protocol."""
