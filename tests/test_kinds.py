"""One shape for all kinds of protocols: names of rules, files and components, and settings of one name and type."""

import re

import pytest

from ssltransfer.config.costs import FREE, read_unit_costs
from ssltransfer.config.task_checks import REQUIREMENTS
from ssltransfer.protocols.stored_outcomes import READERS
from ssltransfer.report.score_check import COMPONENTS as COMPONENTS_OF_KIND
from ssltransfer.results.metric_info import KINDS as SCORE_KINDS
from ssltransfer.settings import config_schema
from ssltransfer.versions import COMPONENTS
from workflow import REPOSITORY

KINDS = config_schema()["properties"]["protocols"]["additionalProperties"]["properties"]["kind"]["enum"]
LIBRARY = REPOSITORY / "scripts/ssltransfer/protocols"
DIFFERENT = {
    # One number of neighbours for one estimator, several for several scores.
    "neighbours": {"array", "integer"},
    # Segmentation averages over several sizes of a test image.
    "test": {"array", "integer"},
    # A deep image prior has several scales.
    "channels": {"array", "integer"},
}
"""Last part of a key of settings blocks -> its types, where these differ between kinds for a reason."""
TRAINED = ("finetune", "normals", "segmentation", "detection")
"""Kinds that train the network itself or layers on its maps."""


def module_name(kind):
    return kind.replace("-", "_")


def keys(schema, prefix=""):
    """Key of a settings block, with the keys it is below, and what the schema says of it."""
    for name, spec in schema["properties"].items():
        if "properties" in spec:
            yield from keys(spec, f"{prefix}{name}.")
        else:
            yield prefix + name, spec


def type_of(spec):
    if "$ref" in spec:
        return type_of(config_schema()["$defs"][spec["$ref"].rpartition("/")[2]])
    return spec.get("type", "text of a list")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_name_everywhere(kind):
    name = module_name(kind)
    assert f"rule evaluate_{name}:" in (REPOSITORY / f"workflow/rules/{name}.smk").read_text()
    assert (REPOSITORY / f"scripts/evaluate_{name}.py").exists()
    assert any((folder / f"{name}.py").exists() or (folder / name).is_dir() for folder in (LIBRARY, LIBRARY / "dense"))
    assert (REPOSITORY / f"tests/test_{name}.py").exists()
    assert COMPONENTS[kind].entry == f"evaluate_{name}.py" and COMPONENTS_OF_KIND[kind][-1] == kind
    assert kind in REQUIREMENTS
    for registry in (SCORE_KINDS, READERS, {*read_unit_costs(), *FREE}):
        assert any(entry == kind or entry.startswith(f"{kind}-") for entry in registry)


def test_no_component_has_the_name_of_another_thing_than_it_computes():
    """A component of a kind that trains or searches first is called as what that job leaves."""
    for kind, components in COMPONENTS_OF_KIND.items():
        for first in components[:-1]:
            assert not COMPONENTS[first].entry.startswith("evaluate_"), (kind, first)
            assert first not in KINDS


def test_a_key_has_one_type_in_all_kinds():
    types = {}
    for kind in KINDS:
        for key, spec in keys(config_schema()["$defs"][kind]):
            types.setdefault(key.rpartition(".")[2], set()).add(type_of(spec))
    assert {key: found for key, found in types.items() if len(found) > 1} == DIFFERENT


def test_what_a_training_has_in_common_is_below_schedule():
    """Inversion, whose keys are those of 0.1.0, optimises images; `batch_size` of detection scales its schedule."""
    for kind in TRAINED:
        found = dict(keys(config_schema()["$defs"][kind]))
        for key in ("optimiser", "batch_size", "steps", "epochs", "momentum", "warmup", "learning_rate"):
            places = {place for place in found if place.rpartition(".")[2] == key}
            assert places <= {f"schedule.{key}"} | ({"batch_size"} if kind == "detection" else set())
        assert "schedule.batch_size" in found


def test_equal_choices_have_equal_names():
    """A key of two kinds lists choices of one meaning: sets that share a choice, and a default among them."""
    choices = {}
    for kind in KINDS:
        for key, spec in keys(config_schema()["$defs"][kind]):
            spec = config_schema()["$defs"][spec["$ref"].rpartition("/")[2]] | spec if "$ref" in spec else spec
            if "enum" in spec:
                choices.setdefault(key.rpartition(".")[2], []).append((kind, set(spec["enum"])))
    for key, lists in choices.items():
        first = lists[0][1]
        assert all(first & more for _, more in lists[1:]), (key, lists)


def test_every_kind_with_features_can_be_computed_in_another_precision():
    for kind in KINDS:
        found = dict(keys(config_schema()["$defs"][kind]))
        reads_features = "features=" in re.sub(
            r"many_shot_features|provenance=.*",
            "",
            (REPOSITORY / f"workflow/rules/{module_name(kind)}.smk").read_text(),
        )
        if reads_features and "of" not in found:
            assert found["precision"] == {"$ref": "#/$defs/precision", "default": "float32", "since": "0.2.0"}
