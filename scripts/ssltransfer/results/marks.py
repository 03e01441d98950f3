"""Marks of a score: measured on part of the data, after a shortened training, or elsewhere."""

from collections.abc import Iterable, Mapping
from typing import Any

MARKS = ("partial", "shortened")
"""Columns of the tidy table that say in words what is missing; empty for a full measurement."""
ELSEWHERE = "elsewhere:"
"""Beginning of the source of scores that were measured elsewhere (see `report.adoption`)."""
WHOLE_DATASET = ("fewshot", "inversion", "attention")
"""Kinds that are measured on all images of a dataset; the others are measured on its test part, or one by one
(``leave_one_out``) where it has none."""
TRAINING_IMAGES = ("estimators",)
"""Kinds that are computed from the training and validation images."""
PARTS = {"images": ("train", "val", "test"), "test images": ("test",), "training images": ("train", "val")}
"""Images that a score counts -> the parts of a dataset that hold them."""


def partial(score: Mapping, promised: Mapping[str, int | None] | None = None) -> str:
    """Say on which part of the data a score was measured.

    Classes alone do not mark a score: few-shot leaves out small classes of complete data, as the paper does, and the
    warnings of the score say so.

    Parameters
    ----------
    score : mapping
        A checked score file.
    promised : mapping of str to int, optional
        Images that the dataset should have in ``train``, ``val`` and ``test`` (None: unknown), for what the score does
        not say.

    Returns
    -------
    str
        Such as ``500 of 10000 test images``; empty where the score covers everything, or where that is unknown.
    """
    coverage, texts = score.get("coverage") or {}, []
    for name, (used, total) in _images(score, coverage.get("images", {}), promised or {}).items():
        if total is not None and used != total:
            texts.append(f"{used} of {total} {name}")
    if coverage.get("skipped"):
        texts.append(f"{coverage['skipped']} unreadable images skipped")
    left_out = coverage.get("classes", {}).get("left_out")
    if texts and left_out:
        texts.append(f"without classes {', '.join(left_out)}")
    return ", ".join(texts)


def _images(score: Mapping, covered: Mapping, promised: Mapping[str, int | None]) -> dict[str, tuple[int, int | None]]:
    """Images of each part that a score used, and those that there should be (None if unknown).

    Scores of version 0.1.0 count their images in the details alone, and training images are counted nowhere else.
    """
    details = score.get("details", {})
    own = "images" if score["kind"] in WHOLE_DATASET or details.get("leave_one_out") else "test images"
    own = "training images" if score["kind"] in TRAINING_IMAGES else own
    counted = details.get("images")
    used = {}
    if isinstance(counted, int):
        used[own] = counted
    elif parts := counted_parts(counted):
        used = {own: parts["test"], "training images": parts["train"] + parts["val"]}
    totals = {name: total_images(promised, PARTS[name]) for name in used}
    if covered.get("promised") is not None:
        used[own], totals[own] = covered["used"], covered["promised"]
    return {name: (count, totals[name]) for name, count in used.items()}


def counted_parts(counted: Any) -> dict[str, int]:
    """Return the numbers of images of each part that the details of a score count; empty where they do not."""
    if not isinstance(counted, Mapping) or not {"train", "test"} <= set(counted):
        return {}
    parts = {part: counted.get(part, 0) for part in ("train", "val", "test")}
    return parts if all(isinstance(count, int) for count in parts.values()) else {}


def total_images(counts: Mapping[str, int | None], parts: Iterable[str]) -> int | None:
    """Return the number of images of a dataset in these parts; None if one of them is unknown."""
    known = [counts.get(part) for part in parts]
    return None if None in known else sum(filter(None, known))


def shortened(score: Mapping) -> str:
    """Say how the training behind a score was shortened; empty where it was not, or where that is unknown."""
    schedule = score.get("schedule")
    return schedule["shortened"] if isinstance(schedule, Mapping) else ""
