"""Backbones: how they are built, read from converted checkpoints, optimised for inference and run over images."""
