"""Score files: values of one model, dataset and protocol, with settings, provenance and warnings.

Light on imports, because every protocol's job writes one; `score_reader` reads and checks them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssltransfer.files import write_json
from ssltransfer.jobs import RUN, log
from ssltransfer.results.outcome_file import Outcome, assign_values, save_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.score_schema import SCHEMA_VERSION

FULL = "full"
"""Schedule of a training that was not shortened."""


@dataclass(frozen=True)
class Measurement:
    """The result of a protocol for one model and one dataset.

    Attributes
    ----------
    kind : str
        What was measured, a key of `metric_info.KINDS`.
    values : list of dict
        ``metric``, ``setting``, ``value``, ``unit``; `write` adds the intervals of the outcomes.
    checkpoint : dict
        Source and hash of the checkpoint.
    preprocessing : dict
        Transform and normalisation of the input.
    details : dict
        Anything else that explains the values.
    warnings : list of str
        Caveats of the values.
    more : dict
        Further entries of the score file that only some protocols have: ``selected``, ``curve``, ``episodes``.
    coverage : dict or None
        Images and classes that were used, of those promised (see `datasets.coverage.coverage`); None if unknown.
    schedule : str, dict or None
        Of a protocol that trains: `FULL`, or what was shortened (see `training_schedule`). None for others.
    precision : str
        Of the network that the features or predictions come from; empty where it is that of the settings block.
    outcomes : list of Outcome
        What each test unit contributes to each value.
    """

    kind: str
    values: list[dict]
    checkpoint: dict
    preprocessing: dict
    details: dict
    warnings: list[str]
    more: dict = field(default_factory=dict)
    coverage: dict | None = None
    schedule: str | dict | None = None
    precision: str = ""
    outcomes: list[Outcome] = field(default_factory=list)


def training_schedule(shortened: str) -> str | dict:
    """Return the entry `schedule` of a protocol that trains; `shortened` is empty where nothing was."""
    return {"shortened": shortened} if shortened else FULL


def computed_precision(precision: str, device: str | None) -> str:
    """Return the precision in which a network computed: what the settings say, but a CPU has no tf32."""
    return "float32" if (precision, device) == ("tf32", "cpu") else precision


def write(
    path: str | Path,
    cell: Mapping[str, str],
    measurement: Measurement,
    settings: Mapping,
    versions: dict[str, str],
    usage: dict,
) -> None:
    """Write a score file with its intervals, the outcomes that belong to it, and its warnings to the log.

    The outcomes (see `outcome_header.outcome_path`) are no declared output of a rule: Snakemake compares the settings
    of a finished job only if it has a record of every output, which jobs of before there were outcomes do not have.

    Parameters
    ----------
    path : str or Path
    cell : mapping
        ``model``, ``protocol`` and ``dataset``: the wildcards of the job.
    measurement : Measurement
    settings : mapping
        The complete settings block.
    versions : dict of str
        Packages, and the version of the protocol.
    usage : dict
        See `jobs.JobUsage.report`.
    """
    for warning in measurement.warnings:
        log.warning("%s", warning)
    trained = measurement.details.get("training_cost", {})
    memory = [cost["device_memory_mib"] for cost in (trained, usage) if "device_memory_mib" in cost]
    device = trained.get("device", usage.get("device"))
    values, outcomes = with_intervals(measurement)
    entries = {
        "schema": SCHEMA_VERSION,
        "kind": measurement.kind,
        "values": values,
        "coverage": measurement.coverage,
        "schedule": measurement.schedule,
        "settings": dict(settings),
        "preprocessing": measurement.preprocessing,
        "checkpoint": measurement.checkpoint,
        "details": measurement.details,
        "warnings": measurement.warnings,
        "versions": versions,
        "precision": measurement.precision or computed_precision(settings.get("precision", "float32"), device),
        "device_memory_mib": max(memory, default=None),
        "run": RUN,
        "cost": usage,
    }
    write_json(path, dict(cell.items()) | entries | measurement.more)
    if outcomes:  # after the score, so that they are never older
        save_outcomes(outcome_path(path), outcomes)


def with_intervals(measurement: Measurement) -> tuple[list[dict], list[Outcome]]:
    """Return the values of a measurement with their intervals, and the outcomes with the values they belong to."""
    outcomes = assign_values(measurement.values, measurement.outcomes) if measurement.outcomes else []
    intervals = {outcome.name: asdict(outcome.interval) for outcome in outcomes if outcome.interval}
    return [value | intervals.get((value["setting"], value["metric"]), {}) for value in measurement.values], outcomes


def join_versions(trained: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Join the versions of a training and of its evaluation; where packages differ, both are named."""
    both = {name: ", ".join(dict.fromkeys(str(v[name]) for v in (trained, own) if name in v)) for name in trained | own}
    return both | {"protocol": f"{trained['protocol']}.{own['protocol']}"}


def percent(metric: str, value: float, setting: str = "") -> dict:
    """Return one entry of `values`: a percentage."""
    return {"metric": metric, "setting": setting, "value": value, "unit": "percent"}
