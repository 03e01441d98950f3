"""How well do pretrained visual representations transfer? The library behind the workflow.

Data flows one way: checkpoints, datasets -> images -> pretraining -> features -> protocols -> scores ->
tables -> figures -> report. No module imports one that stands later in that order, and none imports Snakemake.
"""

import sys

from ssltransfer.interrupts import end_quietly

if hasattr(sys.modules["__main__"], "snakemake"):  # a job, whose imports take seconds in which Ctrl-C may come
    end_quietly()
