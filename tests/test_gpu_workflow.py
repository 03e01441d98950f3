"""Several GPUs on one machine: stand-ins that the driver lists, and on which torch cannot compute."""

import re

import numpy as np
import pytest

from ssltransfer import device
from workflow import succeed, workspace

pytestmark = pytest.mark.slow
MODELS = ("toy-random", "toy-supervised")
FEATURES = [f"results/features/{model}/digits/resize16.imagenet.npy" for model in MODELS]


@pytest.fixture
def three_gpus(tmp_path, monkeypatch):
    """A machine whose driver lists three GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor gpu in a b c; do echo "GPU 0: stand-in (UUID: GPU-$gpu)"; done\n')
    program.chmod(0o755)
    for name in device.GRANTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_jobs_run_on_gpus_of_their_own_with_the_same_results(tmp_path, three_gpus):
    many, one = workspace(tmp_path / "many"), workspace(tmp_path / "one")
    output = succeed(many, *FEATURES, "--cores", "3")
    assert re.search(r"Provided resources: .*gpu\D+(\d)", output)[1] == "3"
    logs = [path.read_text() for path in (many / "logs").rglob("*.log")]
    assert [log for log in logs if re.search(r"takes GPU GPU-[abc], one of 3", log)]
    # Torch sees no GPU here: said once in each log, and nothing is an error.
    assert all("the GPU is not used" in log for log in logs if "takes GPU" in log)

    output = succeed(one, *FEATURES, "--resources", "gpu=1")
    assert re.search(r"Provided resources: .*gpu\D+(\d)", output)[1] == "1"
    for path in FEATURES:
        assert np.array_equal(np.load(many / path), np.load(one / path)), path
