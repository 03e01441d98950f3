"""Making the index of a dataset from its source, with the checks that every index has to pass."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from ssltransfer.datasets.downloads import where_to_place
from ssltransfer.datasets.generated import Generated
from ssltransfer.datasets.images import find_unreadable
from ssltransfer.datasets.index import Index, MissingError, count_parts, select
from ssltransfer.datasets.index_checks import (
    check_classes,
    check_counts,
    check_files,
    check_index,
    duplicate_images,
    untrained_classes,
)
from ssltransfer.datasets.layout import missing
from ssltransfer.datasets.sources import Source, image_root, load, location
from ssltransfer.errors import InputError

log = logging.getLogger(__name__)


class IndexParams(TypedDict):
    """The row of `datasets.tsv` and the settings of the suite that an index depends on.

    Attributes
    ----------
    dataset : str
        Id of the dataset, for messages.
    task : str
        ``single-label``, ``multi-label`` or another task of `datasets.tsv`.
    source : sequence of str
        Fields of a `Source`.
    counts : dict of str to int
        Expected numbers of classes and of images per split; those that the row leaves empty are not in it.
    allow_subset : bool
        Whether other counts and classes without a training image are only a warning.
    on_error : {'fail', 'skip'}
        Whether unreadable images are left out of the index; with ``fail`` they are an error of the jobs that read them.
    """

    dataset: str
    task: str
    source: Sequence[str]
    counts: dict[str, int]
    allow_subset: bool
    on_error: Literal["fail", "skip"]


def index_source(
    params: IndexParams,
    data_root: str | Path,
    index_file: str | Path,
    workers: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda iterable, total: iterable,
) -> Index:
    """Index an original dataset or a user's own images.

    Parameters
    ----------
    params : IndexParams
    data_root, index_file : path
        See `dataset.Dataset`; the index is not written.
    workers : int
        Number of threads that decode images, with ``on_error: skip``.
    progress : callable
        Wraps (iterable, total).

    Raises
    ------
    InputError
        If the dataset is missing (with what to place where), its layout is damaged, an image is missing, or the
        index fails `check_index`, `check_counts` or `check_classes`.
    """
    name, source = params["dataset"], Source(*params["source"])
    path = location(source, data_root)
    if not path.exists():
        raise InputError(f"{name}: {missing(path)}; {where_to_place(source)}")
    options = {"variant": source.variant} if source.variant else {}
    if source.kind == "csv":
        options["multi_label"] = params["task"] == "multi-label"
    root = image_root(source, data_root, index_file)
    try:
        index = load(source).index(path, **options)
        check_index(index, name, root)
        check_files(index, name, root)
    except MissingError as error:
        raise InputError(f"{error}; {where_to_place(source)}") from None
    if source.kind != "original":
        index = replace(index, warnings=[*index.warnings, *duplicate_images(index, root)])
    for warning in index.warnings:
        log.warning("%s", warning)
    promised = count_parts(index) | params["counts"]
    with _tolerated("allow_subset", params["allow_subset"]), _explained(index.warnings):
        check_counts(index, name, params["counts"])
    with _tolerated("allow_subset", params["allow_subset"]):
        check_classes(index, name)
    if params["on_error"] == "skip":
        problems = find_unreadable(root, index.image, workers, progress)
        for problem in problems.values():
            log.warning("on_error: skip: %s", problem)
        if problems:
            skipped = Counter(index.split[row] for row in problems)
            index = select(index, [row for row in range(len(index)) if row not in problems])
            check_index(index, name, root)
            index = replace(index, skipped=dict(skipped))
            if emptied := untrained_classes(index):
                log.warning("on_error: skip: %s", emptied)
                index.warnings.append(f"on_error: skip left out unreadable images: {emptied}")
    return replace(index, promised=promised)


@contextmanager
def _explained(warnings: Sequence[str]) -> Iterator[None]:
    """Append warnings of an index to an error about it."""
    try:
        yield
    except InputError as error:
        raise InputError("; note: ".join([str(error), *warnings])) from None


@contextmanager
def _tolerated(setting: str, active: bool) -> Iterator[None]:
    """Turn an input error into a warning that names the setting which allows it, if that is active."""
    try:
        yield
    except InputError as error:
        if not active:
            raise
        log.warning("%s: %s", setting, error)


def generate_dataset(params: IndexParams) -> Generated:
    """Generate the images and the index of a built-in dataset; InputError if it is not as `datasets.tsv` says."""
    generated = load(Source(*params["source"])).generate()
    _check(generated.index, params)
    return replace(generated, promised=dict(params["counts"]))


def relabel(index: Index, params: IndexParams) -> Index:
    """Index the images of another dataset with one of its extra columns as labels.

    Parameters
    ----------
    index : Index
        Of the dataset that the source names.
    params : IndexParams
        Of the new dataset.

    Raises
    ------
    InputError
        If there is no such column, or the new index fails `check_index` or `check_counts`.
    """
    source = Source(*params["source"])
    if source.variant not in index.extra:
        raise InputError(
            f"{params['dataset']}: dataset {source.name} has no column {source.variant!r}; "
            f"found {', '.join(index.extra) or 'none'}"
        )
    index = replace(index, label=index.extra[source.variant], extra={}, promised=dict(params["counts"]))
    _check(index, params)
    return index


def _check(index: Index, params: IndexParams) -> None:
    check_index(index, params["dataset"])
    check_counts(index, params["dataset"], params["counts"])
    check_classes(index, params["dataset"])
