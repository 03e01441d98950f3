"""Mean and standard deviation of input normalisations, read without torch."""

import re

from ssltransfer.errors import InputError

Channels = tuple[float, float, float]

BUILT_IN: dict[str, tuple[Channels, Channels]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""The two of the paper, which are the same in every version; SimCLR v1 and v2 take plain pixels."""

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PATTERN = re.compile(rf"([a-z0-9-]+)=({_NUMBER}(?:/{_NUMBER}){{2}}):({_NUMBER}(?:/{_NUMBER}){{2}})")


def mean_and_std(norm: str) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of the channels, in units of pixel / 255.

    Parameters
    ----------
    norm : str
        ``imagenet`` or ``none``, else with its values, ``NAME=m/m/m:s/s/s``: jobs get the values of a row of
        `config/norms.tsv` as a parameter, so that a changed row makes them again.

    Raises
    ------
    InputError
        If it has another form.
    """
    if norm in BUILT_IN:
        return BUILT_IN[norm]
    match = _PATTERN.fullmatch(norm)
    if match is None:
        raise InputError(f"norm: found {norm!r}, expected {' or '.join(BUILT_IN)}, or NAME=MEAN/MEAN/MEAN:STD/STD/STD")
    mean, std = (tuple(map(float, text.split("/"))) for text in match.group(2, 3))
    return mean, std  # type: ignore[return-value]  # three numbers each by the pattern


def norm_name(norm: str) -> str:
    """Return the name of an input normalisation without its values."""
    return norm.partition("=")[0]
