"""New rows of the tables of models and datasets: completed from the files, checked as by a suite, and appended."""

from collections.abc import Mapping
from pathlib import Path

from ssltransfer.config.dataset_rows import METRICS_OF_TASK, check_dataset_table
from ssltransfer.config.model_rows import check_model_table
from ssltransfer.datasets import READ_KINDS, Source, location, parse_dataset_source
from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.models.architecture import TWINS, is_resnet
from ssltransfer.models.timm_catalog import networks_of

SOURCE_KINDS = ("http", "https", "file", "hf", "timm", "torchvision", "pretrain", "module", "features")
"""Beginnings of the sources of models; other text is a path."""


def model_row(model: str, source: str, cells: Mapping[str, str]) -> dict[str, str]:
    """Return the row of a model; of a file on this machine, `arch` and `format` are found if they are not given.

    Of weights that timm or torchvision publish, `arch` is known from the source.

    Parameters
    ----------
    model : str
        Id.
    source : str
        Path of a file of weights, or a `source` of ``config/models.tsv``.
    cells : mapping
        Further cells; empty ones are left out.

    Raises
    ------
    InputError
        If the file does not load.
    """
    row = {"model": model, "source": source} | {name: cell for name, cell in cells.items() if cell}
    if arch := _published_arch(source):
        row = {"arch": arch} | row
    if source.partition(":")[0] not in SOURCE_KINDS:
        row["source"] = f"file:{Path(source).expanduser().resolve()}"
    path = row["source"].removeprefix("file:")
    if path == row["source"] or " " in path or "{" in path:  # not one file on this machine
        return row
    from ssltransfer.checkpoints.inspection import inspect_checkpoint

    found = inspect_checkpoint(Path(path), row.get("arch", ""), row.get("format", "auto"))
    if not found.loads:
        raise InputError(found.problem)
    return row | {"arch": found.arch} | ({} if found.format == "auto" else {"format": found.format})


def _published_arch(source: str) -> str:
    """Return the `arch` of weights that timm or torchvision publish; empty if the source does not say it."""
    kind, _, rest = source.partition(":")
    if kind == "timm":
        return source.partition(".")[0]
    if kind == "hf":
        networks = networks_of("/".join(rest.split("/")[:2]).partition("@")[0])
        return f"timm:{networks[0]}" if len(networks) == 1 else ""
    name = rest.partition("_Weights.")[0].lower()  # ResNet18_Weights.IMAGENET1K_V1
    if kind != "torchvision" or name not in TWINS:
        return ""
    return name if is_resnet(name) else f"torchvision:{name}"


def dataset_row(dataset: str, source: str, data_root: str, cells: Mapping[str, str]) -> dict[str, str]:
    """Return the row of a dataset with the counts of its images.

    Parameters
    ----------
    dataset : str
        Id.
    source : str
        Folder with ``train/CLASS/*``, csv file with the columns ``image,label,split``, or a `source` of
        ``config/datasets.tsv`` that is read from the data root.
    data_root : str
        Folder that relative sources and original datasets are in.
    cells : mapping
        Further cells; empty ones have defaults.

    Raises
    ------
    InputError
        If the images cannot be indexed.
    """
    given = {name: cell for name, cell in cells.items() if cell}
    row = {"dataset": dataset, "label": dataset, "task": "single-label"} | given
    if ":" not in source or Path(source).expanduser().exists():
        path = Path(source).expanduser().resolve()
        source = f"{'csv' if path.suffix.lower() == '.csv' else 'folder'}:{path}"
    parsed = parse_dataset_source(source)
    if row["task"] not in METRICS_OF_TASK:
        raise InputError(f"--task: found {row['task']!r}, expected one of {', '.join(METRICS_OF_TASK)}")
    row = {"metric": METRICS_OF_TASK[row["task"]][0], "source": source} | row
    return row | _counts(dataset, row["task"], parsed, data_root)


def _counts(dataset: str, task: str, source: Source, data_root: str) -> dict[str, str]:
    """Index the images and count classes and parts."""
    from ssltransfer.datasets.hub_shards import obtain_hub_dataset
    from ssltransfer.datasets.index import count_parts
    from ssltransfer.datasets.indexing import IndexParams, generate_dataset, index_source

    params = IndexParams(dataset=dataset, task=task, source=source, counts={}, allow_subset=False, on_error="fail")
    if source.kind == "generated":
        index = generate_dataset(params).index
    elif source.kind in READ_KINDS:
        if source.kind == "hf":
            obtain_hub_dataset(source, data_root)
        index = index_source(params, data_root, location(source, data_root))
    else:
        raise InputError(f"source {source.kind}: is made of other datasets; write its row by hand (docs/datasets.md)")
    return {what: str(count) for what, count in count_parts(index).items()}


def append_model(table: Path, row: Mapping[str, str]) -> str:
    """Append the row of a model to its table; returns the line. InputError if a suite could not be read with it."""
    return _append(table, row, "model", short=True)


def append_dataset(table: Path, row: Mapping[str, str]) -> str:
    """Append the row of a dataset to its table; returns the line. InputError if a suite could not be read with it."""
    return _append(table, row, "dataset", short=False)


def _append(table: Path, row: Mapping[str, str], key: str, short: bool) -> str:
    """Append a row; `short` leaves out empty cells at its end. The lines that are there stay as they are."""
    try:
        text = table.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{table} is missing; run this in the folder of your clone, or name it with --table") from None
    except UnicodeDecodeError:
        raise InputError(f"{table} is not UTF-8; save the table as text with tabs in the encoding UTF-8") from None
    end = "\r\n" if "\r\n" in text else "\n"
    header = next((line for line in text.removeprefix("\ufeff").splitlines() if line.strip()), "")
    columns = [name.strip().strip('"') for name in header.split("\t")]
    if wrong := [name for name in row if name not in columns]:
        raise InputError(f"{table}: column {wrong[0]!r} is missing, in which {row[wrong[0]]!r} belongs; add it")
    for name, cell in row.items():
        if not cell.isprintable() or cell != cell.strip():
            raise InputError(f"{key} {row[key]!r}: {name} is {cell!r}; take out tabs, line ends and blanks around it")
    at = columns.index(key)
    if any(line.split("\t")[at : at + 1] == [row[key]] for line in text.splitlines()):
        raise InputError(f"{table}: {key} {row[key]!r} exists already; choose another id, or edit its row")
    line = "\t".join(row.get(name, "") for name in columns)
    line = line.rstrip("\t") if short else line
    with atomic_write(table) as temporary:
        gap = "" if text.endswith("\n") or not text else end
        temporary.write_bytes(f"{text}{gap}{line}{end}".encode())
        try:
            (check_model_table if key == "model" else check_dataset_table)(temporary, row[key])
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(table))) from None
    return line
