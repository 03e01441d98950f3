"""Outcome files: what each test unit contributes to the metrics of a score, the only input of intervals and tests.

Predictions are reduced to outcomes once per cell, by the job that measures it, so that comparing many models reads
small files. A unit is whatever is resampled: a test image, a scene of several images, or a few-shot episode.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.errors import InputError, damaged
from ssltransfer.files import atomic_write
from ssltransfer.results.outcome_header import HEADER, SCHEMA_VERSION, parse_header
from ssltransfer.row_file import load_arrays

TOLERANCE = 5e-4
"""Largest relative difference of a value computed from stored files, which are rounded to float32, from its score."""
ARRAYS = ("values", "strata", "replicates")
"""Names of the arrays of an outcome that have a meaning for every metric; any other is a part of its metric."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of one value, in the unit of its metric.

    Attributes
    ----------
    low, high : float
    method : str
        How it was computed, such as ``Wilson``.
    level : float
        The coverage that it has, which for some methods is below the nominal 0.95 (see `analysis.uncertainty`).
    """

    low: float
    high: float
    method: str
    level: float = 0.95


@dataclass(frozen=True)
class Outcome:
    """What each unit of a test set contributes to one metric.

    Attributes
    ----------
    metric, setting : str
        As in the score file.
    value : float
        The value in the score file, to which everything here belongs.
    units : str
        What the units are: ``test images``, ``scenes``, ``episodes``.
    identity : str
        Fingerprint of the units and their order. Two models are compared only where it is equal.
    values : ndarray, shape (units,)
        Contribution of each unit, where the metric is `scale` times their mean (or the mean over strata of their
        means): right or wrong, correct queries, a similarity. Empty where the metric is no such mean.
    scale : float
        100 for a percentage of right answers.
    strata : ndarray of int, shape (units,), or empty
        Stratum (class) of each unit, where the metric is a mean over strata of means.
    replicates : ndarray of float32, shape (resamples,), or empty
        Values of the metric on bootstrap resamples of the units, where it is no mean. The resamples are the same for
        all outcomes of one identity, so that differences of two models are differences of their replicates.
    parts : dict of ndarray
        Per-unit statistics that `replicates` are computed from: ranks, true positives, intersections, histograms.
    interval : Interval or None
    note : str
        Why there is no interval, or what a reader of it must know; may be empty.
    """

    metric: str
    setting: str
    value: float
    units: str
    identity: str
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    scale: float = 1.0
    strata: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    interval: Interval | None = None
    note: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """Setting and metric, as in a `Task`."""
        return self.setting, self.metric


def assign_values(values: Sequence[Mapping], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes with the values of the score file that they belong to.

    Parameters
    ----------
    values : sequence of mapping
        Entries ``values`` of a score file; each has its outcome.
    outcomes : sequence of Outcome

    Raises
    ------
    InputError
        A value has no outcome, or another one than it by more than `TOLERANCE`.
    """
    by_name, found = {outcome.name: outcome for outcome in outcomes}, []
    for entry in values:
        name, value = (entry["setting"], entry["metric"]), entry["value"]
        outcome = by_name.get(name)
        if outcome is None:
            raise InputError(f"no outcomes of {' '.join(filter(None, name))}")
        if abs(outcome.value - value) > TOLERANCE * max(1.0, abs(value)):
            raise InputError(f"{' '.join(filter(None, name))} is {outcome.value:.8g}, the score file says {value:.8g}")
        interval = outcome.interval
        if interval is not None:
            interval = replace(interval, low=min(interval.low, value), high=max(interval.high, value))
        found.append(replace(outcome, value=value, interval=interval))
    return found


def identity(*arrays: np.ndarray) -> str:
    """Fingerprint of the units of a test set, made of arrays that are the same for all models: labels, names."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(repr(array.shape).encode(), checksum))
    return f"{checksum:08x}"


def save_outcomes(path: str | Path, outcomes: list[Outcome]) -> None:
    """Write the outcomes of a cell as a compressed npz file."""
    header: list[dict] = []
    arrays: dict[str, Any] = {}
    for number, outcome in enumerate(outcomes):
        own = {name: getattr(outcome, name) for name in ARRAYS} | outcome.parts
        arrays |= {f"{number}.{name}": array for name, array in own.items() if array.size}
        texts = ("metric", "setting", "value", "units", "identity", "scale", "note")
        interval = asdict(outcome.interval) if outcome.interval else None
        header.append({name: getattr(outcome, name) for name in texts} | {"interval": interval})
    content = json.dumps({"schema": SCHEMA_VERSION, "outcomes": header})
    arrays[HEADER] = np.frombuffer(content.encode(), np.uint8)
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_outcomes(path: str | Path) -> dict[tuple[str, str], Outcome]:
    """Read what `save_outcomes` wrote, by setting and metric; InputError if the file is something else."""
    arrays = load_arrays(path, "outcomes")
    found = {}
    for number, entry in enumerate(parse_header(path, arrays.get(HEADER, np.empty(0, np.uint8)).tobytes())):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        _check_arrays(path, number, own)
        parts = {name: array for name, array in own.items() if name not in ARRAYS}
        known = {name: array for name, array in own.items() if name in ARRAYS}
        interval = Interval(**entry["interval"]) if entry["interval"] else None
        outcome = Outcome(**entry | known | {"interval": interval, "parts": parts})
        found[outcome.name] = outcome
    return found


def _check_arrays(path: str | Path, number: int, own: Mapping[str, np.ndarray]) -> None:
    """Require the arrays of an outcome to be of numbers and of its units; InputError otherwise."""
    units = own["values"].size if "values" in own else 0
    for name, array in own.items():
        kinds = "iu" if name == "strata" else "biuf"
        if array.dtype.kind not in kinds or (name in ARRAYS and array.ndim != 1):
            raise damaged(path, f"{name} of outcome {number} is {array.dtype} {array.shape}, no list of numbers")
        if name == "strata" and len(array) != units:
            raise damaged(path, f"outcome {number} has {units} values and {len(array)} strata")
