"""How well do pretrained visual representations transfer? The library behind the workflow.

Data flows one way: checkpoints, datasets -> images -> pretraining -> features -> protocols -> scores ->
tables -> figures -> report. No module imports one that stands later in that order, and none knows Snakemake.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssltransfer.evaluation import Evaluation, evaluate, evaluate_features

__all__ = ["Evaluation", "evaluate", "evaluate_features"]


def __getattr__(name: str) -> Any:
    """Import the functions for notebooks when they are first used; jobs import their own modules alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ssltransfer import evaluation

    return getattr(evaluation, name)
