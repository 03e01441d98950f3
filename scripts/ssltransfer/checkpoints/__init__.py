"""From published files to one format: fetch, verify, convert, prove.

A converted checkpoint is a safetensors file with torchvision's ResNet names, float32, without classifier, and its
provenance in the header.
"""
