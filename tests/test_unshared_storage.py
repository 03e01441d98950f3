"""Jobs that share no file system: each starts in an empty folder and has what Snakemake brings from a storage."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from installation import UnavailableError, install_plugins, install_programs

from ssltransfer.files import read_json
from ssltransfer.models.resnet import build_resnet
from workflow import REPOSITORY, environment, numbers, succeed

pytestmark = pytest.mark.slow

PLUGINS = ("snakemake-executor-plugin-cluster-generic", "snakemake-storage-plugin-fs", "sysrsync", "toml")
SCORE = "results/scores/toy-linear/own/digits.json"

#: Starts a job in an empty folder of its own, where nothing is left for the next one, and prints which.
SUBMIT = """#!/bin/sh
node=$(mktemp -d {nodes}/XXXXXXXX)
cp "$1" $node.sh
( cd $node && setsid sh -c "sh $node.sh >$node.log 2>&1; echo \\$? >$node.end" ) </dev/null >/dev/null 2>&1 &
echo $node
"""
STATUS = """#!/bin/sh
if [ ! -f "$1.end" ]; then echo running; elif [ "$(cat "$1.end")" = 0 ]; then echo success; else echo failed; fi
"""


def repository(folder: Path) -> Path:
    """Make a repository of the tracked files, as they are, with the toy suite of one model from a file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    configure(folder)
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def configure(folder: Path) -> Path:
    shutil.copytree(REPOSITORY / "tests/config", folder / "config", dirs_exist_ok=True)
    suite = yaml.safe_load((folder / "config/config.yaml").read_text())
    suite |= {"tasks": {"toy-linear": ["digits"]}, "models_of": {}}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(suite))
    header = (folder / "config/models.tsv").read_text().splitlines()[0]
    row = "own\tOwn\tnone\tresnet-1x1x1x1-w4\tfile:own.pth\tauto\t\timagenet\t\ttoy\tMIT\t"
    (folder / "config/models.tsv").write_text(f"{header}\n{row}\n")
    torch.manual_seed(0)
    torch.save(build_resnet("resnet-1x1x1x1-w4").state_dict(), folder / "own.pth")
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def storage(request, tmp_path_factory):
    """Run the suite without a shared file system; returns the storage and the folders of the jobs."""
    if not request.config.getoption("--unshared"):
        pytest.skip("needs the option --unshared: as root, it may install Debian's rsync")
    folder = tmp_path_factory.mktemp("unshared")
    (folder / "nodes").mkdir()
    variables = environment() | {"PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}"}
    try:
        install_programs(["rsync"], ["rsync"])
        variables |= install_plugins(tmp_path_factory.mktemp("plugins"), *PLUGINS)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    submit = script(folder / "submit", SUBMIT.format(nodes=folder / "nodes"))
    status = script(folder / "status", STATUS)
    words = [
        *(sys.executable, "-m", "snakemake", "results/toy/tables", "results/toy/provenance.json"),
        *("--configfile", "config/config.yaml", "--workflow-profile", "none", "--jobs", "2"),
        *("--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit)),
        *("--cluster-generic-status-cmd", str(status), "--seconds-between-status-checks", "1"),
        *("--shared-fs-usage", "none", "--job-deploy-sources"),
        *("--default-storage-provider", "fs", "--default-storage-prefix", str(folder / "storage")),
    ]
    done = subprocess.run(
        words,
        cwd=repository(folder / "repository"),
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return folder / "storage", sorted((folder / "nodes").glob("*.end"))


def test_results_are_those_of_shared_storage(storage, tmp_path):
    succeed(configure(tmp_path), "results/toy/tables")
    found = numbers(storage[0])
    assert SCORE in found
    assert found == numbers(tmp_path)
    assert (storage[0] / SCORE.replace("scores", "outcomes")).with_suffix(".npz").is_file()


def test_the_provenance_tells_of_what_lies_in_the_storage(storage):
    provenance = read_json(storage[0] / "results/toy/provenance.json")
    assert set(provenance["inputs"]["indexes"]) == {"digits"} and set(provenance["inputs"]["checkpoints"]) == {"own"}
    assert set(provenance["settings"]) == {"toy-linear"}


def test_downloads_and_preparation_stay_where_snakemake_runs(storage):
    """The checkpoint's file is no input of a job elsewhere."""
    rules = sorted(path.with_suffix(".sh").read_text().partition('"rule": "')[2].split('"')[0] for path in storage[1])
    assert rules == ["evaluate_linear", "extract_features", "generate_dataset"]
