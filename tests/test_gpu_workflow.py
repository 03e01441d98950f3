"""Several GPUs on one machine: stand-ins that the driver lists, and on which torch cannot compute."""

import re
import shutil
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest

from ssltransfer import device
from workflow import put_driver, succeed, workspace

pytestmark = pytest.mark.slow
MODELS = ("toy-random", "toy-simclr", "toy-supervised")
NORMS = {"toy-simclr": "none"}
FEATURES = [
    f"results/features/{model}/{dataset}/resize16.{NORMS.get(model, 'imagenet')}.npy"
    for model in MODELS
    for dataset in ("digits", "textures")
]
FINETUNED = [f"results/scores/toy-finetune/{model}/digits.json" for model in MODELS]


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Let the driver list as many GPUs as asked for."""
    for name in device.GRANTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda count: put_driver(tmp_path / "bin", count)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A working directory in which features and finetunings can start."""
    folder = workspace(tmp_path_factory.mktemp("prepared"))
    images = [f"results/datasets/{dataset}/resize16.npy" for dataset in ("digits", "textures")]
    succeed(folder, *(f"results/checkpoints/{model}.safetensors" for model in MODELS), *images)
    shutil.rmtree(folder / "logs")
    return folder


def rules_started(output):
    """The rules of the jobs of a run, in the order in which they were started."""
    return re.findall(r"^(?:local)?rule (\w+):", output, re.M)


def spans(folder):
    """GPU -> sorted times between which each job of a run had it, by the logs of the jobs."""
    found = {}
    for path in (folder / "logs").rglob("*.log"):
        log = path.read_text()
        begin = re.search(r"^(\S+ \S+),(\d+) takes GPU (\S+), one of 3$", log, re.M)
        end = re.search(r"^(\S+ \S+),(\d+) cost ", log, re.M)
        times = [datetime.fromisoformat(f"{match[1]}.{match[2]}") for match in (begin, end)]
        found.setdefault(begin[3], []).append(times)
    return {gpu: sorted(times) for gpu, times in found.items()}


def test_jobs_run_on_gpus_of_their_own_with_the_same_results(tmp_path, prepared, gpus):
    gpus(3)
    many, one = (shutil.copytree(prepared, tmp_path / name) for name in ("many", "one"))
    config = many / "config/config.yaml"
    config.write_text(re.sub(r"steps: \d+", "steps: 15", config.read_text()))  # longer than the jobs' starts differ
    output = succeed(many, *FEATURES, *FINETUNED, "--cores", "3")
    assert re.search(r"Provided resources: .*gpu\D+(\d)", output)[1] == "3"
    used = spans(many)
    print(*(f"{gpu} {begin:%T.%f} {end:%T.%f}" for gpu in sorted(used) for begin, end in used[gpu]), sep="\n")
    assert sorted(used) == ["GPU-a", "GPU-b", "GPU-c"]
    assert sum(map(len, used.values())) == len(FEATURES + FINETUNED)
    for times in used.values():
        assert all(first[1] <= second[0] for first, second in pairwise(times))
    # Torch sees no GPU here: said once in each log, and nothing is an error.
    assert all(log.read_text().count("the GPU is not used") == 1 for log in (many / "logs").rglob("*.log"))

    output = succeed(one, *FEATURES, "--resources", "gpu=1")
    assert re.search(r"Provided resources: .*gpu\D+(\d)", output)[1] == "1"
    for path in FEATURES:
        assert np.array_equal(np.load(many / path), np.load(one / path)), path


def test_cheap_jobs_that_can_start_go_before_trainings(tmp_path, prepared, gpus):
    gpus(1)
    folder = shutil.copytree(prepared, tmp_path / "order")
    kinds = "linear", "knn", "labels", "estimators", "fewshot", "calibration"
    scores = [f"results/scores/toy-{kind}/toy-random/digits.json" for kind in kinds]
    rules = rules_started(succeed(folder, FINETUNED[0], *scores, "--cores", "1"))
    assert len(rules) == 3 + len(kinds) and rules[0] == "extract_features" and rules[-1] == "evaluate_finetune", rules


@pytest.mark.parametrize(
    ("count", "arguments", "features", "training"),
    [
        (8, (), 2, 2),
        (2, (), 5, 8),  # three models share the cores
        (8, ("--resources", "gpu=16"), 1, 1),
        (8, ("--resources", "gpu=1"), 5, 8),
        (4, ("--config", "keep_images=false"), 4, 4),
        (32, ("--config", "keep_images=false"), 1, 1),
        (0, (), 5, 1),
        (0, ("--config", "keep_images=false"), 5, 1),
    ],
)
def test_jobs_leave_cores_for_every_gpu(tmp_path, gpus, count, arguments, features, training):
    gpus(count)
    folder = workspace(tmp_path / "run")
    output = succeed(folder, "--dry-run", "--cores", "16", *arguments)
    for rule, threads in (("extract_features", features), ("evaluate_finetune", training)):
        blocks = re.findall(rf"^(?:local)?rule {rule}:\n((?: +.*\n)+)", output, re.M)
        assert blocks
        assert {int(n[1]) if (n := re.search(r"threads: (\d+)", block)) else 1 for block in blocks} == {threads}, rule
