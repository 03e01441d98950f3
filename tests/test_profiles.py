"""The profiles name every rule, and what they ask for is a number for inputs of any size."""

import re
from types import SimpleNamespace

import pytest
import yaml

from workflow import REPOSITORY

PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in REPOSITORY.glob("profiles/*/profile.yaml")}
REQUESTS = PROFILES["slurm"]["set-resources"]


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
    "pretrain_model": 15_000,
    "prepare_images": 5,
    "prepare_normals": 5,
    "index_dataset": 1,
}
JOBS = {name for name, body in RULES.items() if "script:" in body and "localrule: True" not in body}


def test_every_rule_that_is_submitted_has_its_resources():
    assert {"extract_features", "generate_shapes"} <= JOBS and "fetch_head" not in JOBS  # the parser works
    lines = re.findall(r"^  (\w+):", (REPOSITORY / "profiles/slurm/profile.yaml").read_text(), re.MULTILINE)
    assert max(lines.count(name) for name in JOBS - set(PROFILES["slurm"]["set-threads"])) <= 1  # YAML takes the last
    assert set(REQUESTS) == JOBS, "profiles/slurm/profile.yaml: a line for each rule that is not a localrule, no other"
    for rule, request in REQUESTS.items():
        assert {"mem_mb", "runtime"} <= set(request) <= {"mem_mb", "runtime", "gpu"}, rule
        assert "attempt" in request["mem_mb"] and "attempt" in request["runtime"], rule


def test_rules_that_use_a_gpu_ask_for_one():
    users = {name for name in JOBS if "gpu=LOCAL_GPU" in RULES[name]}
    assert users == {rule for rule, request in REQUESTS.items() if "gpu" in request}


@pytest.mark.parametrize("rule", sorted(REQUESTS))
def test_requests_grow_with_data_and_attempt(rule):
    """From a toy run to 100,000 images of 224 x 224 pixels, or their features under two normalisations."""
    for key, lowest, highest in (("mem_mb", 1000, 100_000), ("runtime", 10, 3 * 24 * 60)):
        values = [
            [eval(REQUESTS[rule][key], {"attempt": a, "input": SimpleNamespace(size_mb=s)}) for a in (1, 2, 3)]
            for s in (0.01, LARGEST.get(rule, 1600))
        ]
        assert all(isinstance(value, int) and lowest <= value <= highest for row in values for value in row), values
        assert all(row[0] < row[1] <= row[2] for row in values), values
        assert values[0] <= values[1]


def test_both_profiles_rerun_for_the_same_reasons():
    assert {tuple(profile["rerun-triggers"]) for profile in PROFILES.values()} == {("mtime", "params", "input")}
