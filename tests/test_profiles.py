"""What rules ask for is a number for inputs of any size, and the profiles add what belongs to a cluster."""

import contextlib
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ssltransfer.commands.suite import read_suite
from ssltransfer.config.costs import job_hours
from workflow import REPOSITORY

PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in REPOSITORY.glob("profiles/*/profile.yaml")}


def rules():
    """Name -> body of every rule; one that is derived from another has both bodies."""
    found = {}
    for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        for block in re.split(r"\n(?=\S)", path.read_text()):
            if head := re.match(r"(?:rule|use rule (\w+) as) (\w+)(?: with)?:\n", block):
                found[head[2]] = (head[1], block)
    return {name: block + (found[base][1] if base else "") for name, (base, block) in found.items()}


RULES = rules()
#: Megabytes of input for 100,000 images: pixels, features, or an index that lists them.
LARGEST = {
    "extract_features": 15_000,
    "import_features": 2_000,
    "pretrain_model": 15_000,
    "prepare_images": 5,
    "prepare_normals": 5,
    "index_dataset": 1,
}
JOBS = {name for name, body in RULES.items() if "script:" in body and "localrule: True" not in body}


def function_of(file, name, **names):
    """A function of a rule file, among these names."""
    text = (REPOSITORY / "workflow/rules" / file).read_text()
    exec(re.search(rf"^def {name}\b.*?^(?=\S)", text[text.index(f"def {name}") :], re.M | re.S)[0], names)
    return names[name]


ONE_DAY = 1440


def request(
    rule, key, linear_memory=lambda wildcards: (0, 16_000), hours=0.0, most=ONE_DAY, memory=10**6, warn=None,
    gpu=False, shared=True,
):  # fmt: skip
    """The function that gives a resource of a rule, with this estimate of hours; a derived rule may have its own."""
    kind = {"mem_mb": "megabytes", "runtime": "minutes"}[key]
    suite = SimpleNamespace(config={"max_runtime": most, "max_memory": memory})
    names = {
        kind: function_of(
            "common.smk", kind, math=math, SUITE=suite, SHARED=shared, asks_gpu=lambda rule: gpu, warn_of_limit=warn
        ),
        "validation_draws": lambda wildcards: 1,
        "linear_memory": linear_memory,
        "label_efficiency_memory": linear_memory,
        "hours_of": lambda part: lambda wildcards, gpu: hours,
        "hours_of_features": lambda wildcards, gpu: hours,
        "hours_of_neighbours": lambda wildcards, gpu: hours,
        "hours_to_pretrain": lambda wildcards, gpu: hours,
    }
    asked = eval(re.search(rf"\b{key}=({kind}\(.*)\)?,\n", RULES[rule])[1], names)
    name = {} if key == "mem_mb" else {"rulename": rule}
    return lambda wildcards, size, attempt: asked(wildcards, SimpleNamespace(size_mb=size), attempt, **name)


def test_requests_are_read():
    assert {"extract_features", "generate_shapes"} <= JOBS and "fetch_head" not in JOBS
    assert request("evaluate_linear", "mem_mb")(None, 10, 2) == 2 * (4000 + 60)


@pytest.mark.parametrize(
    ("solver", "classes", "train", "megabytes", "least", "most"),
    [
        ("converged", 101, 75_750, 827, 8962, 8962),  # six times the features, as before there was a limit
        ("converged", 101, 75_750, 1654, 13_924, 13_924),
        ("converged", 1000, 1_281_167, 10_500, 20_000, 24_000),  # ImageNet, on a machine of 24 GiB
        ("converged", 1000, 1_281_167, 21_000, 22_000, 24_576),
        ("converged", 1000, 1_281_167, 300, 20_000, 24_000),  # few features, but as many logits
        ("converged", None, None, 10_500, 16_000, 16_000),
        ("official", 1000, 1_281_167, 10_500, 67_000, 67_000),
    ],
)
def test_memory_of_linear_jobs_follows_features_and_logits(solver, classes, train, megabytes, least, most):
    suite = SimpleNamespace(
        settings=lambda protocol: {"solver": solver, "validation_fraction": 0.2},
        datasets={"d": {"classes": classes, "train": train, "val": 0, "test": 10, "task": "single-label"}},
        norms=lambda protocol, model: ["imagenet", "none"] if megabytes in (1654, 21_000) else ["imagenet"],
    )
    limits = function_of("inputs.smk", "linear_memory", SUITE=suite)
    wildcards = SimpleNamespace(protocol="linear", dataset="d", model="m")
    amount = request("evaluate_linear", "mem_mb", limits)
    assert least <= amount(wildcards, megabytes, 1) <= most
    assert amount(wildcards, megabytes, 2) == 2 * amount(wildcards, megabytes, 1)


@pytest.mark.parametrize(
    ("task", "norms", "least"),
    [("single-label", 1, 12 + 8 + 8), ("single-label", 3, 12 + 3 * 16), ("multi-label", 1, 16 + 8 + 8)],
)
def test_memory_of_linear_jobs_follows_labels_and_all_images_that_are_scored(task, norms, least):
    """In GB: a thousand classes, and a million images each in the training, the validation and the test part."""
    row = {"classes": 1000, "train": 10**6, "val": 10**6, "test": 10**6, "task": task}
    suite = SimpleNamespace(
        settings=lambda protocol: {"solver": "converged", "validation_fraction": 0.2},
        datasets={"d": row},
        norms=lambda protocol, model: [str(number) for number in range(norms)],
    )
    limits = function_of("inputs.smk", "linear_memory", SUITE=suite)
    trained = 16 if task == "multi-label" else 12  # the final fit is of the validation part, too
    assert limits(SimpleNamespace(protocol="linear", dataset="d", model="m"))[0] == 4000 + 1000 * (least + trained)


@pytest.mark.parametrize(
    ("percent", "per_class", "lists", "least", "most"),
    [
        ([1, 10], [1, 2], [], 10_000, 16_000),  # ImageNet: 128,000 images, each in four of five folds
        ([], [1], ["simclr-10-percent"], 10_000, 16_000),
        ([], [1, 100], [], 9_000, 16_000),
        ([50], [1], [], 30_000, 40_000),
        ([], [10**9], [], 60_000, 75_000),  # never more than all images
    ],
)
def test_memory_of_label_efficiency_jobs_follows_the_largest_subset(percent, per_class, lists, least, most):
    row = {"classes": 1000, "train": 1_281_167, "val": 0, "test": 50_000, "task": "single-label"}
    settings = {"percent": percent, "images_per_class": per_class, "lists": lists}
    suite = SimpleNamespace(settings=lambda protocol: settings, datasets={"d": row})
    limits = function_of("inputs.smk", "label_efficiency_memory", SUITE=suite)
    amount = request("evaluate_label_efficiency", "mem_mb", limits)
    wildcards = SimpleNamespace(protocol="labels", dataset="d", model="m")
    assert least <= amount(wildcards, 10_500, 1) <= most
    assert amount(wildcards, 0.01, 1) == limits(wildcards)[0]


def test_rules_that_use_a_gpu_ask_for_one_on_a_cluster():
    users = {name for name in JOBS if "gpu=GPU_HERE" in RULES[name]}
    assert PROFILES["slurm"]["set-resources"] == {rule: {"gpu": 1} for rule in users}
    assert "set-threads" not in PROFILES["slurm"]


@pytest.mark.parametrize("rule", sorted(JOBS))
def test_requests_grow_with_data_and_attempt(rule):
    """From a toy run to 100,000 images of 224 x 224 pixels, or their features under two normalisations."""
    for key, lowest, highest in (("mem_mb", 1000, 100_000), ("runtime", 10, ONE_DAY)):
        amount = request(rule, key)
        values = [[amount(None, size, attempt) for attempt in (1, 2, 3)] for size in (0.01, LARGEST.get(rule, 1600))]
        assert all(isinstance(value, int) and lowest <= value <= highest for row in values for value in row), values
        assert values[0] <= values[1]
        if key == "mem_mb":
            assert all(row[0] < row[1] <= row[2] == amount(None, 0.01, 9) or row is values[1] for row in values), values
        elif rule not in RESUMING:
            assert values[0][0] < values[0][1] <= values[0][2], values


RESUMING = {
    "prepare_images", "pretrain_model", "evaluate_finetune", "train_detector", "train_detectron2", "train_normals",
    "train_segmentation", "invert_features", "evaluate_attention",
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(RESUMING))
def test_a_job_that_goes_on_with_its_work_asks_for_the_same_time_again(rule):
    """Otherwise it would wait longer in the queue each time, and outgrow its partition."""
    times = {request(rule, "runtime")(None, 0.01, attempt) for attempt in (1, 2, 3, 20)}
    assert len(times) == 1 and times <= set(range(10, 61))


def test_these_are_the_jobs_that_go_on_with_their_work():
    assert {rule for rule in JOBS if "resumable(" in script_of(rule)} | {"prepare_images"} == RESUMING


def script_of(rule):
    """Text of the script of a rule."""
    return (REPOSITORY / "scripts" / Path(re.findall(r'script:\n\s+"(\S+)"', RULES[rule])[-1]).name).read_text()


@pytest.mark.parametrize("rule", sorted(name for name in JOBS if "hours=" in RULES[name]))
def test_time_is_three_times_the_estimate_up_to_the_limit_of_the_partition(rule):
    assert request(rule, "runtime", hours=5.01)(None, 0.01, 1) == math.ceil(3 * 5.01 * 60)
    warnings = []
    for hours, most in ((50, ONE_DAY), (50, 300), (0, 12)):
        asked = request(rule, "runtime", hours=hours, most=most, warn=lambda *words: warnings.append(words))
        assert {asked(None, 0.01, n) for n in (1, 2)} == {most}
    # Those that would be stopped, and begin anew.
    assert warnings == ([] if rule in RESUMING else 4 * [(rule, 60 * 50)])


@pytest.mark.parametrize(
    ("rule", "gpu", "shared", "warned"),
    [
        ("evaluate_linear", False, True, True),
        ("evaluate_linear", True, True, False),  # whose time there was not measured
        ("evaluate_finetune", False, True, False),
        ("evaluate_finetune", False, False, True),  # the state is lost with the node
    ],
)
def test_a_job_that_cannot_end_in_time_is_known_before_its_input_exists(rule, gpu, shared, warned):
    class Missing:
        """Size of an input that does not exist."""

        def __rmul__(self, factor):
            raise FileNotFoundError

    warnings = []
    asked = request(rule, "runtime", hours=50, gpu=gpu, shared=shared, warn=lambda *words: warnings.append(words))
    with contextlib.suppress(FileNotFoundError):
        asked(None, Missing(), 1)
    assert warnings == ([(rule, 3000)] if warned else [])


def test_trainings_ask_for_more_time_where_their_states_are_lost():
    asked = request("evaluate_finetune", "runtime", hours=1, shared=False)
    assert [asked(None, 0.01, attempt) for attempt in (1, 2, 3)] == [180, 360, 540]


def test_a_job_that_cannot_end_in_time_is_named_once():
    said = []
    names = {
        "workflow": SimpleNamespace(
            non_local_exec=False, is_main_process=True, dryrun=True, resource_settings=SimpleNamespace(nodes=100)
        ),
        "WARNED": set(),
        "logger": SimpleNamespace(warning=said.append),
        "SUITE": SimpleNamespace(config={"max_runtime": ONE_DAY}),
    }
    warn = function_of("common.smk", "warn_of_limit", **names)
    for _ in range(2):
        warn("evaluate_linear", 60 * 54)
    assert len(said) == 1
    assert "evaluate_linear: a job is estimated to take 3240 minutes on a core, more than max_runtime (1440)" in said[0]
    names["workflow"].resource_settings.nodes = None  # a dry run of a run on this machine
    warn("extract_features", 60 * 54)
    assert len(said) == 1
    names["workflow"].non_local_exec = True
    warn("extract_features", 60 * 54)
    assert len(said) == 2


def test_no_job_asks_for_more_memory_than_a_node_has():
    asked = request("evaluate_finetune", "mem_mb", memory=64_000)
    assert [asked(None, 0.01, attempt) for attempt in (1, 2, 3, 15)] == [24_000, 48_000, 64_000, 64_000]


def test_every_job_that_computes_with_a_network_has_an_estimate_of_its_time():
    networks = {name for name in JOBS if "gpu=GPU_HERE" in RULES[name]}
    fixed = {"verify_checkpoint", "evaluate_inversion", "compare_representations"}
    assert networks - fixed == {name for name in JOBS if "hours=" in RULES[name]}


def test_times_of_the_paper_suite_are_those_of_its_networks():
    """Hours of one job with a ResNet-50: on a GPU as counted in benchmarks/operations.md, on a core as extrapolated."""
    suite = read_suite(["config/paper-v2.yaml"]).suite
    model = next(model for model, row in suite.models.items() if row["arch"] == "resnet50")
    cells = {cell.protocol: cell for cell in suite.cells() if cell.model == model}
    found = {
        (name, part): [job_hours(suite, cells[name], part, gpu) for gpu in (True, False)]
        for name, part in (("finetune", "score"), ("segmentation", "training"), ("segmentation", "test"))
    }
    assert found["finetune", "score"] == pytest.approx([8.9, 1280], rel=0.05)
    assert found["segmentation", "training"] == pytest.approx([13.5, 1400], rel=0.05)
    assert found["segmentation", "test"][0] == pytest.approx(0.15, rel=0.1)


def test_both_profiles_rerun_for_the_same_reasons():
    assert {tuple(profile["rerun-triggers"]) for profile in PROFILES.values()} == {("mtime", "params", "input")}


def test_every_output_has_a_name():
    for name, body in RULES.items():
        for block in re.findall(r"^    output:\n((?:        .*\n)+)", body, re.M):
            lines = re.findall(r"^        (\S.*)$", block, re.M)
            assert all(re.match(r"\w+=|#|\),|\*\*OUTCOMES,", line) for line in lines), (name, lines)


def test_rules_ask_named_functions():
    """A question that several rules ask has a name; at most a few are asked once and where they stand."""
    assert sum(body.count("lambda") for body in RULES.values()) <= 24
