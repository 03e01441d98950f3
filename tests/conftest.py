"""Fixtures shared by all tests."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from workflow import succeed, workspace

# No test is timed: machines are shared.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

REPOSITORY = Path(__file__).parents[1]
SAMPLES = Path(os.environ.get("SSLTRANSFER_SAMPLES", REPOSITORY.parent / "shared" / "data"))
"""Folder with small samples of the real datasets in their original layouts, which are not part of the repository."""

# Small arrays everywhere: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST = ("test_hostile", "test_pretend_cuda", "test_segmentation_workflow", "test_slurm")


def pytest_addoption(parser):
    parser.addoption("--record-versions", action="store_true", help="record the hashes of the code with its versions")
    parser.addoption("--foreign", action="store_true", help="install TensorFlow and haiku, and let them write files")
    parser.addoption("--environments", action="store_true", help="install every conda environment's packages anew")
    parser.addoption("--unshared", action="store_true", help="run jobs without shared storage; as root, install rsync")
    parser.addoption("--slurm", action="store_true", help="start a SLURM cluster; as root, install it where missing")


def pytest_collection_modifyitems(items):
    """Mark every test that waits for the finished toy run as slow, and every one that computes on a GPU as `gpu`.

    The longest files come first, so that of several processes none is left alone with one of them at the end.
    """
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in items:
        if "finished" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
        if "any_gpu" in item.fixturenames:
            item.add_marker(pytest.mark.gpu)


class SharedRunScheduling(LoadFileScheduling):
    """Each file of tests stays in one process, and all files that wait for the finished toy run share one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "finished" if re.search(r"def test_.*\bfinished\b", (REPOSITORY / file).read_text()) else file


def pytest_xdist_make_scheduler(config, log):
    """Let `-n 2 --dist loadfile` make the toy run once, and take the files in their order."""
    config.option.loadscopereorder = False
    return SharedRunScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder with small samples of the real datasets, `SAMPLES`."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no samples of the real datasets in {SAMPLES} (SSLTRANSFER_SAMPLES names another folder)")
    return SAMPLES


@pytest.fixture
def any_gpu(monkeypatch):
    """The GPU of this machine, as jobs use it, or else a pretended one (tests/pretend_gpu)."""
    import torch

    from ssltransfer.device import choose_device, has_gpu

    # torch reads CUDA_VISIBLE_DEVICES when it first asks for GPUs, so `choose_device` goes first.
    if has_gpu() and (device := choose_device()).type == "cuda":
        yield device
        return
    monkeypatch.syspath_prepend(Path(__file__).parent / "pretend_gpu")
    from pretend_cuda import pretend_cuda

    with pretend_cuda():
        yield torch.device("cuda")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A working directory in which the toy suite has run; tests must leave it as it was."""
    folder = workspace(tmp_path_factory.mktemp("toy run"))
    output = succeed(folder)
    assert output.rstrip().splitlines()[-1] == "Report: results/toy/report.html"
    return folder
