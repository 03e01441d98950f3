"""Checks of the command line: targets that no rule can make, and options that are given twice."""

import re
from collections.abc import Collection, Sequence

from ssltransfer.config.load import PUBLISHED
from ssltransfer.config.suite import Suite
from ssltransfer.errors import known_names

IDS = {
    **dict.fromkeys(("scores", "per-image", "pictures", "curves", "predictions"), ("protocol", "model", "dataset")),
    **dict.fromkeys(("trained", "inverted", "attention"), ("protocol", "model", "dataset")),
    "features": ("model", "dataset"),
    "datasets": ("dataset",),
    **dict.fromkeys(("checkpoints", "verification"), ("model",)),
}
"""Folder of ``results`` -> what the parts of a path below it name, from the left."""
SUITE_FILES = r"results/([^/]+)/(report\.html|provenance\.json|checkpoints\.tsv|tables|figures)/?"


def target_problem(target: str, suite: Suite) -> str:
    """Return what is wrong with the ids in a target of the command line, as one line; empty if nothing is.

    Snakemake's own message names no rule, but neither the suite nor the names that it knows.
    """
    asked = re.fullmatch(SUITE_FILES, target)
    if asked and asked[1] not in (suite.name, *PUBLISHED):
        return (
            f"{target}: this configuration is of suite {suite.name!r}, not {asked[1]!r}; name that suite's "
            "configuration with --configfile"
        )
    folder, *parts = target.removeprefix("results/").split("/")
    known = {"protocol": suite.config["protocols"], "model": suite.models, "dataset": suite.datasets}
    if not target.startswith("results/") or folder not in IDS:
        return ""
    for what, part in zip(IDS[folder], parts, strict=False):
        # The last one has the suffix of the file.
        name = part if part in known[what] else part.partition(".")[0]
        if name not in known[what]:
            return f"{target}: {suite.invalid.get(name) or _unknown(what, name, known[what], suite)}"
    return ""


def _unknown(what: str, name: str, known: Collection[str], suite: Suite) -> str:
    return f"suite {suite.name!r} has no {what} {name!r}; {known_names(name, known)}"


def repeated_option(words: Sequence[str], *options: str) -> str | None:
    """Return the first of some options that a command line gives more than once; None if it gives none so."""
    given = [word.partition("=")[0] for word in words]
    return next((option for option in options if given.count(option) > 1), None)
