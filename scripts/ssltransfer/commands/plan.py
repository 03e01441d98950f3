"""State of a suite: which scores exist, which do not and why, what has to be done by hand, and what the rest costs.

Snakemake alone decides what runs (``uv run snakemake -n``); this looks at files that have a fixed place.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssltransfer.commands.suite import ChosenSuite
from ssltransfer.config.costs import GPU_RATE, MACHINE, Cost, estimate_costs
from ssltransfer.config.suite import Cell, Suite
from ssltransfer.report.adoption import adopt_scores
from ssltransfer.report.manual_steps import ManualStep, manual_step_lines, manual_steps
from ssltransfer.report.missing import EARLIER, MissingScore, missing_scores

SHOWN = 10
"""Largest number of failures that are listed one by one."""
SMALLEST = 0.005
"""Hours and gigabytes below this number are not shown."""


@dataclass(frozen=True)
class Plan:
    """What a suite has and what it still needs.

    Attributes
    ----------
    chosen : ChosenSuite
    there : list of Cell
        Cells with a score.
    missing : list of MissingScore
        The other cells, with the reason where a job failed.
    by_hand : dict of str to ManualStep
        Dataset, model or protocol that needs a hand -> what to do.
    costs : list of Cost
        Work that the missing scores need.
    running : bool
        Whether a run is at work in the folder, or was killed: the log of a job at work is like that of a killed one.
    """

    chosen: ChosenSuite
    there: list[Cell]
    missing: list[MissingScore]
    by_hand: dict[str, ManualStep]
    costs: list[Cost]
    running: bool = False

    @property
    def failed(self) -> list[MissingScore]:
        """The missing scores that a failed job stands in the way of."""
        return [score for score in self.missing if score.failed]


def plan_suite(chosen: ChosenSuite) -> Plan:
    """Look at the files of a suite in the working directory."""
    suite = chosen.suite
    there, absent = [], []
    adopted = adopt_scores(suite, lambda cell: _has_score(suite, cell)).scores
    for cell in suite.cells():
        (there if cell in adopted or _has_score(suite, cell) else absent).append(cell)
    missing = missing_scores(suite, absent, chosen.options, files=chosen.files)
    running = any(Path(".snakemake/locks").glob("*.lock"))
    return Plan(chosen, there, missing, manual_steps(suite, absent), estimate_costs(suite, absent), running)


def _has_score(suite: Suite, cell: Cell) -> bool:
    shown = (cell, suite.shown_instead(cell))
    return any(Path("results/scores", c.protocol, c.model, f"{c.dataset}.json").exists() for c in shown if c)


def describe(plan: Plan, cells: bool = False) -> str:
    """Describe a plan for the terminal.

    Parameters
    ----------
    plan : Plan
    cells : bool
        Whether to list every missing score.
    """
    suite, total = plan.chosen.suite, len(plan.there) + len(plan.missing)
    failed = "failed or is at work" if plan.running else "failed"
    lines = [
        f"Suite {suite.name}: {len(plan.there)} of {total} scores are there; {len(plan.missing)} are missing, "
        f"{len(plan.failed)} of them behind a job that {failed}",
        "",
        *_counts("Model", plan, list(suite.models), "model"),
        "",
        *_counts("Dataset", plan, list(dict.fromkeys(cell.dataset for cell in suite.cells())), "dataset"),
    ]
    if cells and plan.missing:
        lines += ["", "Missing scores:"]
        lines += [f"  {s.model}, {s.dataset}, {s.protocol}: {_with_log(s)}" for s in plan.missing]
    else:
        earlier = [score for score in plan.missing if score.reason.startswith(EARLIER)]
        lines += _reasons(f"Each job that {failed}, with the number of scores behind it:", plan.failed)
        lines += _reasons("Failures that a change may have mended, with the number of scores behind them:", earlier)
    if plan.by_hand:
        lines += ["", *manual_step_lines(plan.by_hand)]
    if plan.missing:
        lines += ["", *_cost_lines(plan.costs)]
    elif not plan.chosen.report.exists():
        lines += ["", f"{plan.chosen.report} is missing"]
    else:
        return "\n".join([*lines, "", f"Report: {plan.chosen.report}"])
    commands = [plan.chosen.snakemake("-n"), plan.chosen.snakemake("--logger rich")]
    lines += ["", "See each job, then run, with progress bars:", *(f"  {command}" for command in commands)]
    return "\n".join(lines)


def _reasons(title: str, scores: Sequence[MissingScore]) -> list[str]:
    """Lines with the reasons of missing scores and their numbers; none without scores."""
    reasons: dict[str, int] = {}
    for score in scores:
        reasons[_with_log(score)] = reasons.get(_with_log(score), 0) + 1
    lines = ["", title] if reasons else []
    lines += [f"  {count}: {reason}" for reason, count in list(reasons.items())[:SHOWN]]
    return lines + [f"  and {len(reasons) - SHOWN} more: --cells lists all"] * (len(reasons) > SHOWN)


def _with_log(score: MissingScore) -> str:
    return f"{score.reason} ({score.log})" if score.log else score.reason


def _counts(title: str, plan: Plan, names: Sequence[str], column: str) -> list[str]:
    """Lines of a table of counts, one for each model or dataset."""
    columns = ("there", "missing", "failed")
    rows = {name: dict.fromkeys(columns, 0) for name in names}
    failed = set(plan.failed)
    for cell in plan.there:
        rows[getattr(cell, column)]["there"] += 1
    for score in plan.missing:
        rows[getattr(score, column)]["missing"] += 1
        rows[getattr(score, column)]["failed"] += score in failed
    width = max(map(len, [title, *names]))
    lines = ["  ".join([title.ljust(width), *columns])]
    for name, row in rows.items():
        note = "  by hand" if f"{column} {name}" in plan.by_hand else ""
        lines.append("  ".join([name.ljust(width), *(str(row[c] or "-").rjust(len(c)) for c in columns)]) + note)
    return lines


def _cost_lines(costs: Sequence[Cost]) -> list[str]:
    lines = ["Cost of what is missing     core hours   GPU hours   gigabytes"]
    for cost in costs:
        numbers = (cost.core_hours, cost.gpu_hours, cost.size / 1e9)
        if max(numbers) < SMALLEST:
            continue
        shown = "   ".join((f"{number:.2f}" if number >= SMALLEST else "-").rjust(9) for number in numbers)
        lines.append(f"  {'start of jobs' if cost.stage == 'job' else cost.stage:24}   {shown}")
    core, gpu, size = (sum(getattr(cost, name) for cost in costs) for name in ("core_hours", "gpu_hours", "size"))
    rest = sum(cost.core_hours for cost in costs if not cost.gpu_hours)
    free = shutil.disk_usage(Path()).free
    enough = "" if size < free else ", which is not enough: another --directory, or --config keep_images=false"
    return [
        *lines,
        f"About {_hours(core)} on one core without a GPU; with one, {_hours(gpu)} of GPU time and {_hours(rest)} on "
        f"one core. Disk: {size / 1e9:.1f} GB, {free / 1e9:.0f} GB are free{enough}.",
        f"Core hours follow from times measured on {MACHINE}, GPU hours from counted operations at an assumed "
        f"{GPU_RATE / 1e12:g} TFLOP/s (resources/unit-costs.csv); downloads are not counted.",
    ]


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{math.ceil(60 * hours)} min"
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
