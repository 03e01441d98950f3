"""Failed jobs and missing scores: for each the reason, and the command that makes it."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ssltransfer.config.suite import Cell, Suite
from ssltransfer.datasets import parse_dataset_source
from ssltransfer.files import read_json, write_json
from ssltransfer.jobs import ERROR
from ssltransfer.report.old_failures import changed_since, superseded
from ssltransfer.report.provenance import COST, named_datasets

LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
"""Beginning of a line of a job's log."""
NOT_FOR_SCORES = ("fetch_head", "verify_checkpoint", "list_checkpoints")
"""Rules without which all scores can be measured."""
OF_IMAGES = ("extract_features", "import_features", "prepare_images")
"""Rules whose logs end in the name of a transform."""
NOT_MEASURED = "not measured yet"
"""Reason of a score that no failed job stands in the way of."""
EARLIER = "failed before a change of"
"""Beginning of the reason of a score whose job was told something else when it failed; the file follows."""
SHOWN_FAILURES = 20
"""Largest number of failures that are listed one by one at the end of a run."""


class MissingScore(NamedTuple):
    """A score that does not exist: its cell, the reason, the log that tells it, and the command that measures it."""

    protocol: str
    model: str
    dataset: str
    reason: str
    log: str
    command: str

    @property
    def failed(self) -> bool:
        """Whether a failed job stands in its way, as far as is known now."""
        return self.reason != NOT_MEASURED and not self.reason.startswith(EARLIER)


class FailedJob(NamedTuple):
    """A job that failed: its rule, the values of its wildcards, and its log (empty if it has none)."""

    rule: str
    wildcards: tuple[str, ...]
    log: str


def failure(log: str | Path) -> str | None:
    """Return the reason of a job's failure, the error at the end of its log, or that something stopped the job.

    Returns
    -------
    str or None
        None if the job finished.
    """
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    last = next((line for line in reversed(lines) if line.strip()), "")
    if COST.search(last):
        return None
    text = LOG_TIME.sub("", last).strip()
    if not text:
        return "ended without a message"
    # A line without a time ends a traceback.
    if text.startswith(ERROR) or not LOG_TIME.match(last):
        return text.removeprefix(ERROR)
    return f"ended without an error, so something stopped it; run again (its last line: {text})"


def failed_logs(folder: str | Path = "logs") -> Iterator[tuple[str, tuple[str, ...], str, Path]]:
    """Yield (rule, wildcards, reason, path) for the log of every job that did not finish, the latest first.

    Jobs whose result is there all the same, and newer, are left out.
    """
    logs = sorted(Path(folder).rglob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in logs:
        rule, *values = path.relative_to(folder).with_suffix("").parts
        reason = failure(path)
        if reason is not None and values and rule not in NOT_FOR_SCORES and not superseded(path, folder):
            # The last part of these names an image size, which does not say whose job it was.
            yield rule, tuple(values[:-1] if rule in OF_IMAGES else values), reason, path


def missing_scores(
    suite: Suite,
    cells: Iterable[Cell],
    options: str = "",
    logs: str | Path = "logs",
    files: Sequence[str | Path] = (),
) -> list[MissingScore]:
    """Find out why scores are missing.

    Parameters
    ----------
    suite : Suite
        The suite.
    cells : iterable of Cell
        Cells without a score.
    options : str
        Options of the command that measures one, such as ``--configfile config/paper-v2.yaml``.
    logs : path
        Folder of the logs of all jobs.
    files : sequence of path
        Files of the suite, whose changes leave it open whether a job fails again.

    Returns
    -------
    list of MissingScore
        In the order of `cells`. The reason is the last line of the latest failed job that the score needs, or what is
        wrong with a row that it needs. A failure from before a change of the configuration, or of a file that the user
        gives, says so.
    """
    failed = list(failed_logs(logs))
    found = []
    for cell in cells:
        reason, log = _reason(suite, cell, failed, files)
        score = f"results/scores/{cell.protocol}/{cell.model}/{cell.dataset}.json"
        command = f"uv run snakemake {score} {options}".strip()
        found.append(MissingScore(cell.protocol, cell.model, cell.dataset, reason, log, command))
    return found


def _reason(
    suite: Suite, cell: Cell, failed: list[tuple[str, tuple[str, ...], str, Path]], files: Sequence[str | Path]
) -> tuple[str, str]:
    """Return why a score is missing, and the log that tells it (empty if none does)."""
    if cell in suite.left_out:
        return suite.left_out[cell], ""
    single, several = _needed(suite, cell)
    for rule, values, reason, log in failed:
        if (single if len(values) == 1 else several).issuperset(values):
            told = f"{', '.join(filter(None, (rule, *values)))}: {reason}"
            changed = changed_since(suite, values, log, files)
            return (f"{EARLIER} {changed}: {told}" if changed else told), str(log)
    return NOT_MEASURED, ""


def _needed(suite: Suite, cell: Cell) -> tuple[set[str], set[str]]:
    """Names in the logs of the jobs that a score needs: of jobs with one wildcard, and of those with several.

    The first are the model, its LPIPS networks, and all datasets that it, or the cell, is made of.
    """
    settings, recipe = suite.settings(cell.protocol), suite.recipe(cell.model) or {}
    datasets, left = set(), {cell.dataset, recipe.get("dataset", cell.dataset)}
    while left:
        datasets |= left
        rows = (suite.datasets[name] for name in left if name in suite.datasets)
        left = {name for row in rows for name in named_datasets(parse_dataset_source(row["source"]))} - datasets
    protocols = {cell.protocol, settings.get("of", cell.protocol)}
    cells = protocols | {cell.model, cell.dataset, suite.image_dataset(cell.dataset)}
    return datasets | {cell.model, *settings.get("lpips", ())}, cells


def by_reason(missing: Sequence[MissingScore]) -> list[list[MissingScore]]:
    """Group missing scores by their reason, the one that costs most first."""
    groups: dict[tuple[str, str], list[MissingScore]] = {}
    for score in missing:
        groups.setdefault((score.reason, score.log), []).append(score)
    return sorted(groups.values(), key=len, reverse=True)


def write_missing(path: str | Path, missing: Sequence[MissingScore]) -> None:
    """Write missing scores as JSON, if that is news: a later file makes the summary again."""
    content = {"missing": [list(score) for score in missing]}
    if not (Path(path).is_file() and read_json(path) == content):
        write_json(path, content)


def read_missing(path: str | Path) -> list[MissingScore]:
    """Read missing scores that `write_missing` wrote."""
    return [MissingScore(*score) for score in read_json(path)["missing"]]


def missing_lines(missing: Sequence[MissingScore], suite: Suite, results: str | Path = "results") -> list[str]:
    """Describe the scores that a report lacks for the terminal, one line for each reason; none if it lacks none.

    Parameters
    ----------
    missing : sequence of MissingScore
        Scores that do not exist.
    suite : Suite
        The suite.
    results : path
        Folder of the results; the suite's tables there list the scores that exist but were left out.
    """
    table = Path(results, suite.name, "tables", "left-out.csv")
    groups = [(len(group), f"{group[0].reason}{_in_log(group[0].log)}") for group in by_reason(missing)]
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            left_out = {row["file"] for row in csv.DictReader(file)}
        groups.append((len(left_out), f"left out, not measured as this suite says ({table})"))
    total = sum(1 for _ in suite.cells()) + len(suite.left_out)
    lines = [f"Missing: {sum(count for count, _ in groups)} of {total} scores"] if groups else []
    return lines + [f"  {count}: {reason}" for count, reason in groups]


def failed_job_lines(jobs: Sequence[FailedJob]) -> list[str]:
    """Describe failed jobs for the terminal: rule, wildcards, reason and log of each."""
    lines = [f"Failed: {len(jobs)} job{'s' * (len(jobs) != 1)}"]
    for job in sorted(jobs)[:SHOWN_FAILURES]:
        reason = failure(job.log) if job.log else None
        reason = (reason or "no reason found").removeprefix(f"{job.wildcards[-1] if job.wildcards else ''}: ")
        lines.append(f"  {', '.join(filter(None, (job.rule, *job.wildcards)))}: {reason}{_in_log(job.log)}")
    if len(jobs) > SHOWN_FAILURES:
        lines.append(f"  and {len(jobs) - SHOWN_FAILURES} more; their logs are in the folder logs")
    return lines


def _in_log(log: str) -> str:
    return f" ({log})" if log else ""
