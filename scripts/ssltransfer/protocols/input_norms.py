"""The choice among input normalisations, where a protocol evaluates several (paper, first version)."""

from collections.abc import Iterable

BIASED = (
    "the input normalisation was chosen on the test score (normalisation: test-max), which biases that score upwards"
)


def bias_warnings(normalisation: str) -> list[str]:
    """Return the warning that a score needs if its input normalisation was chosen on the test images."""
    return [BIASED] if normalisation == "test-max" else []


def describe_input(transform: str, normalisation: str, candidates: Iterable[str], chosen: str | dict[str, str]) -> dict:
    """Return the entry `preprocessing` of a score file.

    Parameters
    ----------
    transform, normalisation : str
        As in the settings block.
    candidates : iterable of str
        The input normalisations that were evaluated.
    chosen : str or dict of str
        The one that the score was computed with, or, where they differ, that of each setting.
    """
    return {"transform": transform, "norm": chosen, "candidates": list(candidates), "normalisation": normalisation}
