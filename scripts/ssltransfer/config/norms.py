"""The table of input normalisations."""

from pathlib import Path

from ssltransfer.config.table_file import read_table
from ssltransfer.errors import InputError
from ssltransfer.models.norm_table import mean_and_std

PAPER_NORMS = ("imagenet", "none")
"""Input normalisations of the paper's models."""
BOTH_NORMS = ("test-max", "validation-max")
"""Values of `normalisation` for which a model is evaluated under both of `PAPER_NORMS`."""


def read_norms(path: Path) -> dict[str, str]:
    """Read the table of input normalisations: name -> text that `norm_table.mean_and_std` reads.

    Raises
    ------
    InputError
        If a row has no three means and standard deviations, or changes one of the paper's.
    """
    norms = {name: name for name in PAPER_NORMS}
    for row in read_table(path, short_rows=True):
        name = row.get("norm", "")
        text = f"{name}={row.get('mean', '')}:{row.get('std', '')}"
        try:
            values = mean_and_std(text)
        except InputError:
            raise InputError(
                f"{path}, row {name!r}: found the values {text.partition('=')[2]!r}, expected three numbers for mean "
                "and std, as in 0.485/0.456/0.406"
            ) from None
        if 0.0 in values[1]:
            raise InputError(f"{path}, row {name!r}: found a standard deviation of 0; write one above it")
        if name in PAPER_NORMS and values != mean_and_std(name):
            raise InputError(f"{path}, row {name!r}: the paper's normalisations do not change; give yours another name")
        norms[name] = name if name in PAPER_NORMS else text
    return norms


def evaluated_norms(normalisation: str, own: str) -> list[str]:
    """Input normalisations that a value of `normalisation` in a settings block asks for; `own` is the model's.

    Where both of the paper's are asked for, a model with another one is evaluated under that and plain pixels.
    """
    if normalisation in PAPER_NORMS:
        return [normalisation]
    if normalisation not in BOTH_NORMS:
        return [own]
    return list(PAPER_NORMS) if own in PAPER_NORMS else [own, "none"]
