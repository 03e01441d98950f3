"""Small files that were made to exhaust their reader: each is read or refused in one line, within its limits."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hostile import ATTACKS, MEMORY, SECONDS

from workflow import REPOSITORY

HARMLESS = {
    *("zip with a symbolic link.zip", "a long name for many values.pkl"),
    *("XML of 180,000 levels.xml", "XML of one tag with 100,000 attributes.xml"),
    *(f"{kind} of 7,000 x 7,000.{suffix}" for kind, suffix in (("16-bit grey", "png"), ("RGBA", "png"))),
    *("mask of 7,000 x 7,000.png", "WebP of 7,000 x 7,000.webp"),
}
"""Files that are read, for what they cost (a link in a zip file becomes a file with its target as text)."""

QUICK = (
    *("archive with data.pkl and DATA.PKL.pth", "archive with the record DATA.PKL alone.pt"),
    "archive with a second directory behind its locator.pth",
    *("integers of one hash as keys.pth", "tuples within tuples as a key.pkl", "tuples of one hash as keys.pth"),
    *("one text encoded again and again.pkl", "one mapping copied again and again.pth"),
    *("a call with many arguments, again and again.pkl, BYOL", "named tuples without end.pkl"),
    *("classes of storages without end.pth", "a long name for many values.pth", "tensors of 100,000 axes.pth"),
    *("classifier of 10^11 rows.pth", "JPEG of 7,000 x 7,000 with 400 further scans.jpg"),
    *("tar with a sparse member of 1 TiB.tar", "tar whose pax header gives another size.tar"),
    *("tar whose header is its size.tar", "tar with a device.tar", "tar with a hard link to a link.tar"),
    *("tar with a hard link to a file outside.tar", "zip with a symbolic link.zip"),
    *("zip whose members share their bytes.zip", "XML of a billion laughs.xml", "XML with a file as entity.xml"),
    *(".mat whose sizes are not there.mat", ".mat of 2^30 structures without fields.mat"),
    *("YAML of merged mappings.yaml", "YAML that contains itself.yaml", "YAML of 100,000 brackets.yaml"),
    *("outcomes whose array claims 3 GB.npz", "score of 100,000 levels.json"),
    *("parquet with a dot in the name of its labels.parquet", "parquet with a class of the number 2^40.parquet"),
)
"""At least one file for each limit, in under a minute of processor time."""


def read(names: Sequence[str]) -> dict[str, tuple]:
    """Read the files in processes of their own, which is the only way to know the memory of each."""
    words = [sys.executable, str(REPOSITORY / "tests/hostile.py"), *names]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    return {name: cost for name, *cost in rows}


def check(names: Sequence[str]) -> None:
    found = read(names)
    assert set(names) == set(found)
    for name, (_, outcome, mib, seconds) in found.items():
        assert mib * 2**20 < MEMORY and seconds < SECONDS, (name, mib, seconds)
        assert not outcome.startswith("ended") and "\n" not in outcome, (name, outcome)
        assert outcome == "read" if name in HARMLESS else outcome != "read", (name, outcome)


def test_small_files_cost_little():
    check(QUICK)


@pytest.mark.slow
def test_all_small_files_cost_little():
    check([name for name in ATTACKS if name not in QUICK])
