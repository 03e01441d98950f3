"""The benchmark of a GPU ends in time (that it runs to its end is a test of tests/test_pretend_cuda.py)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/gpu.py"


@pytest.mark.slow
def test_parts_without_time_are_left_out_and_named(tmp_path):
    page = tmp_path / "gpu.md"
    subprocess.run([sys.executable, SCRIPT, "--small", "--seconds", "0.1", "--output", page], check=True, timeout=120)
    parts = re.split("^## ", page.read_text(), flags=re.MULTILINE)[1:]
    assert len(parts) == 6 and all(part.rstrip().endswith("left out: time") for part in parts)
