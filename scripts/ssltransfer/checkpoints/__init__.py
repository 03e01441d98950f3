"""Checkpoints: fetch published files, verify them, convert them to one format, and check the result on ImageNet.

A converted checkpoint is a safetensors file with torchvision's ResNet names, float32, without classifier, and its
provenance in the header.
"""
