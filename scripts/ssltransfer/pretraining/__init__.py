"""Pretraining of a backbone on the images of any dataset: `source: pretrain:RECIPE` in config/models.tsv.

`augmentation` makes random views of a batch, `methods` holds one loss per method, and `recipe` trains by them.
"""
