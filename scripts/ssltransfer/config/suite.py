"""A validated suite: its cells, the settings of each, and the files that they are computed from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ssltransfer import datasets as dataset_sources
from ssltransfer.config.blocks import other_backend
from ssltransfer.config.norms import PAPER_NORMS, evaluated_norms
from ssltransfer.errors import InputError
from ssltransfer.files import expand_path
from ssltransfer.settings import job_settings


@dataclass(frozen=True)
class Cell:
    """One score: a protocol's settings block, a model and a dataset."""

    protocol: str
    model: str
    dataset: str


@dataclass(frozen=True)
class Suite:
    """A validated suite.

    Attributes
    ----------
    config : dict
        The suite's keys and settings blocks with defaults filled in.
    models : dict of str to dict
        Rows of `models.tsv` that list this suite, by id, with defaults filled in; `suites` split into a list.
    datasets : dict of str to dict
        All valid rows of `datasets.tsv` by id; counts as int, or None where the index is to tell them.
    recipes : dict of str to dict
        Pretraining recipes by name.
    input_norms : dict of str to str
        Input normalisations by name, as jobs read them (see `norm_table.mean_and_std`).
    invalid : dict of str to str
        Model or dataset whose row is not valid -> what is wrong with it.
    left_out : dict of Cell to str
        Scores of the suite that need such a row -> what is wrong with it; empty unless `available` is set.
    """

    config: dict
    models: dict[str, dict]
    datasets: dict[str, dict]
    recipes: dict[str, dict]
    input_norms: dict[str, str] = field(default_factory=lambda: {name: name for name in PAPER_NORMS})
    invalid: dict[str, str] = field(default_factory=dict)
    left_out: dict[Cell, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The suite's id."""
        return self.config["suite"]

    def cells(self) -> Iterator[Cell]:
        """All scores of the suite but those that are left out, in the order of its tasks."""
        for protocol, names in self.config["tasks"].items():
            for dataset in names:
                for model in self.models_of(protocol):
                    yield Cell(protocol, model, dataset)

    def models_of(self, protocol: str) -> list[str]:
        """Models that a protocol measures."""
        return list(self.config["models_of"].get(protocol, self.models))

    def shown_instead(self, cell: Cell) -> Cell | None:
        """The cell whose score may be shown in place of this one: detectron2's of a task of the torchvision backend.

        detectron2 is what the paper used, and a detector takes hours; so its score is shown where it is there and the
        other one is not.
        """
        other = other_backend(self.config["protocols"], cell.protocol, "detectron2")
        return replace(cell, protocol=other) if other not in (None, cell.protocol) else None

    def check_data_root(self, indexes: Path = Path("results/datasets")) -> None:
        """Require the folder of the data, if datasets of the tasks are still to be read from it.

        Without this check, a mistyped folder would start downloads.

        Parameters
        ----------
        indexes : Path
            Folder of the datasets that have an index already.

        Raises
        ------
        InputError
            If `data_root` is another folder than the default one, and not there.
        """
        root = Path(self.config["data_root"])
        if root == dataset_sources.DOWNLOAD_FOLDER or root.is_dir():
            return
        for cell in self.cells():
            source = dataset_sources.parse_dataset_source(self.datasets[cell.dataset]["source"])
            absolute = Path(expand_path(source.name)).is_absolute()
            if source.kind not in dataset_sources.READ_KINDS or source.kind == "hf" or absolute:
                continue
            if not (indexes / cell.dataset / "index.parquet").exists():
                raise InputError(
                    f"config: data_root: {root} is not a folder, and dataset {cell.dataset!r} is to be read from it; "
                    "correct the path, or leave data_root out to read downloads only"
                )

    def settings(self, protocol: str, model: str = "") -> dict:
        """The settings block of a protocol with all defaults filled in; for a model with a size, with its transform."""
        settings, size = self.config["protocols"][protocol], self.models.get(model, {}).get("size")
        if size and "transform" in settings:
            return settings | {"transform": resized_transform(settings["transform"], size)}
        return settings

    def job_settings(self, protocol: str, model: str = "") -> dict:
        """The part of a settings block that jobs depend on (see `settings.job_settings`)."""
        return job_settings(self.settings(protocol, model))

    def kind(self, protocol: str) -> str:
        """The kind of a protocol: ``linear``, ``fewshot``, ..."""
        return self.settings(protocol)["kind"]

    def image_dataset(self, dataset: str) -> str:
        """The dataset whose images (and features) `dataset` uses: itself, or the one it relabels."""
        source = dataset_sources.parse_dataset_source(self.datasets[dataset]["source"])
        return source.name if source.kind == "column" else dataset

    def norms(self, protocol: str, model: str) -> list[str]:
        """Input normalisations under which a model is evaluated."""
        return evaluated_norms(self.settings(protocol).get("normalisation", ""), self.models[model]["norm"])

    def feature_files(self, cell: Cell) -> list[str]:
        """Feature files that a cell's score is computed from, one for each input normalisation."""
        transform = self.settings(cell.protocol, cell.model)["transform"]
        pool = self.models[cell.model]["pool"]
        precision = self.settings(cell.protocol).get("precision", "float32")
        readout = (f".{pool}" if pool else "") + (f".{precision}" if precision != "float32" else "")
        folder = f"results/features/{cell.model}/{self.image_dataset(cell.dataset)}"
        return [f"{folder}/{transform}.{norm}{readout}.npy" for norm in self.norms(cell.protocol, cell.model)]

    def recipe(self, model: str) -> dict | None:
        """The pretraining recipe of a model, or None if its weights are published ones."""
        kind, _, name = self.models[model]["source"].partition(":")
        return self.recipes[name] if kind == "pretrain" else None


def resized_transform(transform: str, size: str | int) -> str:
    """Return a transform with another side in pixels: ``resize224`` and 518 give ``resize518``.

    ``square257``, the geometry of the official few-shot code, has one size.
    """
    return re.sub(r"^(resize|stretch)\d+$", rf"\g<1>{size}", transform)


def side_of(transform: str) -> int:
    """Return the side in pixels of the images that a transform makes."""
    return 224 if transform == "square257" else int(transform.lstrip("abcdefghijklmnopqrstuvwxyz"))
