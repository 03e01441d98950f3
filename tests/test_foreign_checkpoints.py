"""The light readers against TensorFlow, haiku and dill themselves; installs them, so only with --foreign."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from ssltransfer.checkpoints.convert import read_published
from ssltransfer.models.resnet import build_resnet
from workflow import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "packages", "format", "arch", "suffixes"),
    [
        ("write_simclr.py", ["tensorflow-cpu"], "simclr", "resnet-2x1x1x2-w4-samepool", (".index", "-00001")),
        ("write_byol.py", ["dm-haiku", "jax", "dill"], "byol", "resnet-2x1x1x2-w4-same", (".pkl",)),
    ],
)
def test_files_written_by_the_original_framework(tmp_path, request, script, packages, format, arch, suffixes):
    if not request.config.getoption("--foreign") or not shutil.which("uv"):
        pytest.skip("needs uv and the option --foreign, which installs TensorFlow and haiku")
    options = [option for package in packages for option in ("--with", package)]
    path = REPOSITORY / "tests" / "foreign" / script
    subprocess.run(["uv", "run", "--no-project", *options, "python", path, tmp_path], check=True)
    expected = np.load(tmp_path / "expected.npz")
    files = sorted(file for file in tmp_path.iterdir() if file.name.endswith(suffixes))
    backbone = build_resnet(arch)
    backbone.load_state_dict(read_published(files, format, arch).state)
    with torch.inference_mode():
        features = backbone.eval()(torch.from_numpy(expected["images"]).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(features, expected["features"], rtol=1e-4, atol=1e-4)
