"""Manual steps: what a suite needs that no job can provide, such as datasets behind a login."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

from ssltransfer.checkpoints.sources import given_file, local_files
from ssltransfer.config.suite import Cell, Suite
from ssltransfer.datasets import location, parse_dataset_source, parse_members
from ssltransfer.datasets.downloads import DOWNLOADS, Download, where_to_place
from ssltransfer.hub import PREFIX
from ssltransfer.models.user_code import code_file


@dataclass(frozen=True)
class ManualStep:
    """What has to be done by hand.

    Attributes
    ----------
    text : str
        What is missing, and what to do.
    page, size, tree, login, licence, copies : str
        Of datasets: their page, what has to be downloaded in all, the required content of their folder, the account
        that is needed, and known copies elsewhere; empty where there is nothing to say.
    """

    text: str
    page: str = ""
    size: str = ""
    tree: str = ""
    login: str = ""
    licence: str = ""
    copies: str = ""

    def lines(self) -> list[str]:
        """Return the text, and a line for each other field that is not empty."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return [self.text, *(f"{name}: {value}" for name, value in values.items() if value)]


def manual_steps(suite: Suite, cells: Iterable[Cell]) -> dict[str, ManualStep]:
    """Return the datasets, models and protocols that no job can provide for scores, each with what to do.

    Parameters
    ----------
    suite : Suite
    cells : iterable of Cell
        The scores, which do not exist.

    Returns
    -------
    dict of str to ManualStep
        Such as ``dataset cars`` -> what is missing, where it is published, and its licence.
    """
    return dict(_steps(suite, list(cells)))


def manual_step_lines(steps: Mapping[str, ManualStep]) -> list[str]:
    """Describe manual steps for the terminal; nothing where there are none."""
    lines = ["To be done by hand:"] if steps else []
    for name, step in steps.items():
        first, *others = step.lines()
        lines += [f"  {name}: {first}", *(f"    {line}" for line in others)]
    return lines


def _steps(suite: Suite, cells: list[Cell]) -> Iterator[tuple[str, ManualStep]]:
    datasets = dict.fromkeys(name for cell in cells for name in _image_datasets(suite, cell.dataset))
    for name in datasets:
        source = parse_dataset_source(suite.datasets[name]["source"])
        path = location(source, suite.config["data_root"])
        # A dataset that has an index was there before, maybe on another machine.
        known = path.exists() or Path(f"results/datasets/{name}/index.parquet").exists()
        if source.kind in ("original", "folder", "csv", "masks") and not known:
            download = DOWNLOADS.get(source.name) if source.kind == "original" else None
            if download is None:
                yield f"dataset {name}", ManualStep(f"{path} is missing; {where_to_place(source)}")
            elif not download.files:
                yield f"dataset {name}", _dataset_step(path, download, suite, name)
    for model in dict.fromkeys(cell.model for cell in cells):
        files = [path for path in local_files(suite.models[model]["source"]) if not Path(path).is_file()]
        if files and not Path(f"results/checkpoints/{model}.safetensors").exists():
            text = f"{files[0]} is missing; place it there or correct the source of its row"
            yield f"model {model}", ManualStep(text)
    yield from _absent_of_users(suite, cells)
    for protocol in dict.fromkeys(cell.protocol for cell in cells):
        settings = suite.settings(protocol)
        if settings.get("backend") == "detectron2" and find_spec("detectron2") is None:
            text = "detectron2 is not installed; add --sdm conda or --config detection=torchvision"
            yield f"protocol {protocol}", ManualStep(text)


def _dataset_step(path: Path, download: Download, suite: Suite, name: str) -> ManualStep:
    """Return what is to be done for an original dataset that no program can download."""
    text = f"{path} is missing and cannot be downloaded ({download.reason}); place it there, or set data_root"
    rows = [
        f"dataset {other}, which is downloaded, is a dataset of its own"
        for other, row in suite.datasets.items()
        if other.startswith(f"{name}-") and row["source"].startswith(PREFIX)
    ]
    return ManualStep(
        text,
        page=download.page,
        size=download.size,
        tree=download.tree,
        login=download.login or "none",
        licence=suite.datasets[name]["licence"] or "not stated",
        copies="; ".join([*rows, *filter(None, [download.copies])]),
    )


def _absent_of_users(suite: Suite, cells: Iterable[Cell]) -> Iterator[tuple[str, ManualStep]]:
    """Yield files of a user's own code, and features that are given, that are missing."""
    paths = {}
    for cell in cells:
        row = suite.models[cell.model]
        kind, _, name = row["arch"].partition(":")
        if kind == "python":
            paths[code_file(name)] = cell.model
        elif kind == "none":
            paths[given_file(row["source"], suite.image_dataset(cell.dataset))] = cell.model
    for path, model in paths.items():
        if not path.is_file():
            yield f"model {model}", ManualStep(f"{path} is missing; place it there or correct its row")


def _image_datasets(suite: Suite, dataset: str) -> list[str]:
    """Datasets that the images of a dataset are taken from."""
    dataset = suite.image_dataset(dataset)
    source = parse_dataset_source(suite.datasets[dataset]["source"])
    return [member.dataset for member in parse_members(source.name)[0]] if source.kind == "one-of" else [dataset]
