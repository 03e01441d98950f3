"""Provenance of the numbers of a suite: code, versions, machines, inputs, and the time of each rule.

Jobs write their cost into the last line of their log (`jobs.job`), on whatever machine they run.
"""

import csv
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import Source, parse_dataset_source, parse_members
from ssltransfer.files import file_hash, package_data, read_json, write_json
from ssltransfer.jobs import GPU_UNUSED, package_versions
from ssltransfer.results.marks import ELSEWHERE
from ssltransfer.settings import config_schema

COST = re.compile(r"^[-\d]{10} [\d:,]{12} cost (\{.*\})$")
REPOSITORY = package_data(".")
TABLES = ("models", "datasets", "pretraining", "blocks")
"""Keys of a suite that name files."""
SUBJECTS = {
    **dict.fromkeys(
        ("fetch_checkpoint", "fetch_head", "convert_checkpoint", "verify_checkpoint", "pretrain_model"), "model"
    ),
    **dict.fromkeys(
        ("obtain_dataset", "obtain_hub_dataset", "index_dataset", "generate_dataset", "generate_shapes"), "dataset"
    ),
    **dict.fromkeys(
        (
            "relabel_dataset",
            "sample_images",
            "prepare_images",
            "prepare_normals",
            "draw_masks",
            "compare_representations",
        ),
        "dataset",
    ),
    **dict.fromkeys(
        (
            "list_checkpoints",
            "derive_outcomes",
            "make_tables",
            "make_published_tables",
            "plot_figures",
            "write_provenance",
            "write_report",
        ),
        "suite",
    ),
}
"""Rule -> what the first part of the names of its logs is, for rules whose logs name no cell."""
PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "torch", "torchvision", "snakemake")


def write_provenance(path: str | Path, suite: str, tables: str | Path, config: dict, root: str | Path = "") -> None:
    """Collect (see `collect`) and write the provenance of the measured scores in a table folder."""
    with Path(tables, "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["protocol"], row["model"], row["dataset"]) for row in rows if row["source"] == "measured"}
    content = collect(suite, cells, config, package_versions(*PACKAGES), root)
    adopted = [row["source"].removeprefix(ELSEWHERE) for row in rows if row["source"].startswith(ELSEWHERE)]
    write_json(path, content | ({"adopted": _counts(adopted)} if adopted else {}))


def collect(
    suite: str,
    cells: Iterable[tuple[str, str, str]],
    config: dict,
    versions: dict[str, str],
    root: str | Path = "",
) -> dict:
    """Collect the provenance of the scores of a suite from score files, indexes, logs and tables.

    Parameters
    ----------
    suite : str
    cells : iterable of (str, str, str)
        Protocol, model and dataset of each score.
    config : dict
        Configuration of the suite; its tables are found as the workflow finds them.
    versions : dict of str
        Versions of the packages in the driver's environment.
    root : path
        Folder of ``results/``. Logs are read in the working directory: those of a storage stay there.

    Returns
    -------
    dict
        ``suite``, ``date``, ``revision``, ``versions`` and ``machines`` (all that took part), ``gpu_unused`` (reasons
        why jobs computed on the CPU although there is a GPU, with their number), ``rules`` (jobs and seconds),
        ``configuration``, ``settings`` (of each protocol, defaults included), ``inputs`` (checksums of tables, indexes
        and published checkpoints).
    """
    cells = set(cells)
    paths = (Path(root, "results", "scores", protocol, model, f"{dataset}.json") for protocol, model, dataset in cells)
    scores = [read_json(path) for path in sorted(paths) if path.is_file()]
    tables = {key: _table(config, key) for key in TABLES}
    checkpoints = {score["model"]: score["checkpoint"] for score in scores if "checkpoint" in score}
    datasets = _datasets(cells, tables["datasets"], checkpoints)
    known = {"model": {model for _, model, _ in cells}, "dataset": datasets, "suite": {suite}}
    jobs = [job for job in _finished_jobs(Path("logs")) if _belongs(job[0], cells, known)]
    costs = [(log, cost) for log, cost, _ in jobs]
    return {
        "suite": suite,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(REPOSITORY),
        "versions": _versions([versions, *(score.get("versions", {}) for score in scores)]),
        "machines": _counts(cost["machine"] for _, cost in costs),
        "gpu_unused": _counts(reason for _, _, reason in jobs if reason),
        "rules": _rules((log.split("/")[0], cost) for log, cost in costs),
        "configuration": config,
        "settings": {score["protocol"]: score["settings"] for score in scores},
        "inputs": {
            "tables": {_shown(path): file_hash(path) for path in tables.values() if path.is_file()},
            "indexes": {
                name: file_hash(path)
                for name in sorted(datasets)
                if (path := Path(root, "results", "datasets", name, "index.parquet")).is_file()
            },
            "checkpoints": {
                model: {key: found[key] for key in ("source", "files", "recipe") if key in found}
                for model, found in sorted(checkpoints.items())
            },
        },
    }


def revision(repository: Path) -> dict | None:
    """Commit of a checkout, and whether files differ from it; None outside of a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=True).stdout

    if not (repository / ".git").exists():
        return None  # git would answer for a repository around it
    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def report_lines(provenance: dict) -> dict[str, str]:
    """Lines that a report shows: heading -> text."""
    commit = provenance["revision"]
    inputs = provenance["inputs"]
    rules = sorted(provenance["rules"].items(), key=lambda item: -item[1]["seconds"])
    lines = {
        "made": provenance["date"],
        "code": "not a git checkout" if commit is None else commit["commit"] + (" (changed)" * commit["changed"]),
        **{name: ", ".join(found) for name, found in provenance["versions"].items()},
        "machines": "; ".join(f"{name} ({_jobs(count)})" for name, count in provenance["machines"].items()),
        "GPU not used": "; ".join(
            f"{reason} ({_jobs(count)} computed on the CPU)"
            for reason, count in provenance.get("gpu_unused", {}).items()
        ),
        "wall time": ", ".join(f"{name} {_seconds(cost['seconds'])} ({_jobs(cost['jobs'])})" for name, cost in rules),
        "measured elsewhere": "; ".join(
            f"{name} ({count} values)" for name, count in provenance.get("adopted", {}).items()
        ),
        "inputs": f"{len(inputs['indexes'])} indexes, {len(inputs['checkpoints'])} checkpoints; "
        "their checksums are in provenance.json",
    }
    return {key: text for key, text in lines.items() if text}


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _seconds(value: float) -> str:
    hours, minutes = divmod(round(value) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes > 9 else f"{value:.0f} s"


def _shown(path: Path) -> str:
    """A path as it can be shown to others: without the place of this repository."""
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def _table(config: dict, key: str) -> Path:
    path = Path(config.get(key, config_schema()["properties"][key]["default"]))
    return path if path.exists() or path.is_absolute() else REPOSITORY / path


def _datasets(cells: set, table: Path, checkpoints: dict[str, dict]) -> set[str]:
    """Datasets of the scores, those whose images they share, and those that models were pretrained on."""
    used = {dataset for _, _, dataset in cells}
    for row in read_table(table, invalid={}) if table.is_file() else ():
        if row["dataset"] in used:
            used |= named_datasets(parse_dataset_source(row["source"]))
    recipes = (found.get("recipe") for found in checkpoints.values())
    return used | {recipe["dataset"] for recipe in recipes if isinstance(recipe, dict) and "dataset" in recipe}


def named_datasets(source: Source) -> set[str]:
    """Datasets, and original datasets, that a source names."""
    if source.kind == "one-of":
        return {member.dataset for member in parse_members(source.name)[0]}
    return {source.name} if source.kind in ("column", "original") else set()


def _finished_jobs(logs: Path) -> Iterator[tuple[str, dict, str]]:
    """Log (path below `logs`, without suffix), cost, and why no GPU was used, of every finished job."""
    for path in sorted(logs.rglob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines and (found := COST.search(lines[-1])):
            reason = next((line.partition(GPU_UNUSED)[2] for line in lines if GPU_UNUSED in line), "")
            yield str(path.relative_to(logs).with_suffix("")), json.loads(found[1]), reason


def _belongs(log: str, cells: set, known: dict[str, set[str]]) -> bool:
    """Whether a job of this suite wrote the log; those of other suites and earlier models are in the same folders.

    `known` are its models, datasets and name.
    """
    rule, first, *others = log.split("/")
    if rule in ("extract_features", "import_features", "find_neighbours"):
        return first in known["model"] and others[0] in known["dataset"]
    if len(others) == 2:
        return (first, *others) in cells
    return rule not in SUBJECTS or first in known[SUBJECTS[rule]]


def _versions(found: Iterable[dict]) -> dict[str, list[str]]:
    versions: dict[str, set[str]] = {}
    for each in found:
        for name, version in each.items():
            if name != "protocol":
                versions.setdefault(name, set()).add(str(version))
    return {name: sorted(values) for name, values in sorted(versions.items())}


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _rules(costs: Iterable[tuple[str, dict]]) -> dict[str, dict]:
    rules: dict[str, dict] = {}
    for rule, cost in costs:
        entry = rules.setdefault(rule, {"jobs": 0, "seconds": 0.0, "longest": 0.0, "peak_memory_mib": 0})
        entry["jobs"] += 1
        entry["seconds"] = round(entry["seconds"] + cost["seconds"], 1)
        entry["longest"] = max(entry["longest"], round(cost["seconds"], 1))
        entry["peak_memory_mib"] = max(entry["peak_memory_mib"], cost["peak_memory_mib"])
    return dict(sorted(rules.items()))
