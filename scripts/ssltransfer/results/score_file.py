"""Score files: values of one model, dataset and protocol, with settings, provenance and warnings.

Light on imports, because every protocol's job writes one; `scores` reads and checks them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ssltransfer.files import write_json
from ssltransfer.jobs import RUN, log

SCHEMA_VERSION = 2
"""Version of the form of score files; those of version 1 do not name it, and have neither coverage nor run."""
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
        ``metric``, ``setting``, ``value``, ``unit`` and, where there is an interval, ``low`` and ``high``.
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


def training_schedule(shortened: str) -> str | dict:
    """Return the entry `schedule` of a protocol that trains; `shortened` is empty where nothing was."""
    return {"shortened": shortened} if shortened else FULL


def write(
    path: str | Path,
    cell: Mapping[str, str],
    measurement: Measurement,
    settings: Mapping,
    versions: dict[str, str],
    usage: dict,
) -> None:
    """Write a score file, and its warnings to the log.

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
    entries = {
        "schema": SCHEMA_VERSION,
        "kind": measurement.kind,
        "values": measurement.values,
        "coverage": measurement.coverage,
        "schedule": measurement.schedule,
        "settings": dict(settings),
        "preprocessing": measurement.preprocessing,
        "checkpoint": measurement.checkpoint,
        "details": measurement.details,
        "warnings": measurement.warnings,
        "versions": versions,
        "precision": settings.get("precision", "float32"),
        "device_memory_mib": usage.get("device_memory_mib"),
        "run": RUN,
        "cost": usage,
    }
    write_json(path, dict(cell.items()) | entries | measurement.more)


def join_versions(trained: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Join the versions of a training and of its evaluation; where packages differ, both are named."""
    both = {name: ", ".join(dict.fromkeys(str(v[name]) for v in (trained, own) if name in v)) for name in trained | own}
    return both | {"protocol": f"{trained['protocol']}.{own['protocol']}"}


def percent(metric: str, value: float, setting: str = "", half_width: float | None = None) -> dict:
    """Return one entry of `values`: a percentage, with its 95 % interval (clipped to 0..100) if it has one."""
    entry = {"metric": metric, "setting": setting, "value": value, "unit": "percent"}
    if half_width is not None:
        entry |= {"low": max(0.0, value - half_width), "high": min(100.0, value + half_width)}
    return entry
