"""How well do pretrained visual representations transfer? The library behind the workflow.

Data flows one way: checkpoints, datasets -> images -> pretraining -> features -> protocols -> scores ->
tables -> figures -> report. No module imports one that stands later in that order, and none knows Snakemake.
"""
