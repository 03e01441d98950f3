"""Similarity of the representations of models: debiased linear CKA on the same images."""
