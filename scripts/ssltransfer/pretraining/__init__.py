"""Pretraining of a backbone on the images of any data set: `source: pretrain:RECIPE` in config/models.tsv.

`augmentation` makes random views of a batch, `methods` holds one loss a method, `recipe` hands both to the engine.
"""
