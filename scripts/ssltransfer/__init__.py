"""How well do pretrained visual representations transfer? The library behind the workflow.

Data flows one way: checkpoints, datasets -> images -> pretraining -> features -> protocols -> scores ->
tables -> figures -> report. No module imports one that stands later in that order, and none imports Snakemake.
"""

import sys
from importlib import import_module

from ssltransfer.interrupts import end_quietly

__all__ = ["Evaluation", "evaluate", "evaluate_features"]

if hasattr(sys.modules["__main__"], "snakemake"):  # a job, whose imports take seconds in which Ctrl-C may come
    end_quietly()


def __getattr__(name: str) -> object:
    """Import the functions for notebooks when they are first used; jobs import their own modules alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ssltransfer.evaluation.evaluate"), name)
