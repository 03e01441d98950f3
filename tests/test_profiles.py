"""What rules ask for is a number for inputs of any size, and the profiles add what belongs to a cluster."""

import re
from types import SimpleNamespace

import pytest
import yaml

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


def attempt_times():
    """The function of common.smk that makes a resource of a job."""
    text = (REPOSITORY / "workflow/rules/common.smk").read_text()
    names = {}
    exec(re.search(r"^def attempt_times\b.*?^(?=\S)", text[text.index("def attempt_times") :], re.M | re.S)[0], names)
    return names["attempt_times"]


def request(rule, key):
    """The function that gives a resource of a rule; a derived rule may have its own."""
    names = {"attempt_times": attempt_times(), "validation_draws": lambda wildcards: 1}
    return eval(re.search(rf"\b{key}=(attempt_times\(.*?\)),", RULES[rule])[1], names)


def test_requests_are_read():
    assert {"extract_features", "generate_shapes"} <= JOBS and "fetch_head" not in JOBS
    assert request("evaluate_linear", "mem_mb")(None, SimpleNamespace(size_mb=10), 2) == 2 * (4000 + 60)
    assert request("pretrain_model", "runtime")(None, SimpleNamespace(size_mb=10_000), 1) == 1440


def test_rules_that_use_a_gpu_ask_for_one_on_a_cluster():
    users = {name for name in JOBS if "gpu=GPU_HERE" in RULES[name]}
    assert PROFILES["slurm"]["set-resources"] == {rule: {"gpu": 1} for rule in users}
    assert "set-threads" not in PROFILES["slurm"]


@pytest.mark.parametrize("rule", sorted(JOBS))
def test_requests_grow_with_data_and_attempt(rule):
    """From a toy run to 100,000 images of 224 x 224 pixels, or their features under two normalisations."""
    for key, lowest, highest in (("mem_mb", 1000, 100_000), ("runtime", 10, 3 * 24 * 60)):
        amount = request(rule, key)
        values = [
            [amount(None, SimpleNamespace(size_mb=s), a) for a in (1, 2, 3)] for s in (0.01, LARGEST.get(rule, 1600))
        ]
        assert all(isinstance(value, int) and lowest <= value <= highest for row in values for value in row), values
        assert all(row[0] < row[1] <= row[2] for row in values), values
        assert values[0] <= values[1]


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


def test_cheap_jobs_go_before_trainings():
    first = {name for name in JOBS if "priority: FIRST" in RULES[name]}
    assert {
        "extract_features",
        "evaluate_linear",
        "find_neighbours",
        "evaluate_knn",
    } <= first
    assert not first & {"evaluate_finetune", "train_detector", "train_normals", "invert_features", "evaluate_attention"}
