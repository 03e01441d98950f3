"""Settings blocks: defaults stand in the schema alone, and a later key at its default changes nothing."""

import copy
from dataclasses import dataclass

import pytest

from ssltransfer import settings
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.settings import complete, defaults, job_settings, parse_yaml, read_settings


@dataclass(frozen=True)
class Parts:
    channels: int
    kernels: tuple[int, ...]


@dataclass(frozen=True)
class Form:
    network: Parts
    steps: int
    seed: int


BLOCK = {"kind": "inversion", "transform": "resize64", "seed": 3, "network": {"channels": [8]}}


def test_a_block_is_read_into_nested_dataclasses_with_defaults():
    form = read_settings(Form, BLOCK)
    assert form == Form(Parts((8,), (7, 7, 5, 5, 3, 3)), 3000, 3)


def test_the_order_of_keys_does_not_matter():
    assert list(complete(BLOCK)) == list(complete(dict(reversed(BLOCK.items()))))


def test_defaults_are_those_of_the_schema():
    assert defaults("inversion")["network"]["noise"] == 0.1
    assert "backend" not in defaults("detection")


def test_blocks_that_leave_keys_out_have_the_papers_values():
    """Appendices of the paper's second version: 45 penalties from 1e-6 to 1e5; 600 episodes of 5 ways, 15 queries."""
    assert complete({"kind": "linear"}) == {
        "kind": "linear",
        "transform": "resize224",
        "precision": "float32",
        "normalisation": "per-model",
        "lambdas": {"first": 1e-6, "last": 1e5, "count": 45},
        "validation_fraction": 0.2,
        "seed": 0,
        "solver": "converged",
        "difficult": "negative",
        "validation_draws": 1,
    }
    fewshot = complete({"kind": "fewshot"})
    assert [fewshot[key] for key in ("ways", "shots", "queries", "episodes")] == [5, [5, 20, 50], 15, 600]
    shared = parse_yaml(package_data("config/protocols.yaml").read_text())
    assert complete(shared["linear"]) == complete({"kind": "linear"}) and complete(shared["fewshot"]) == fewshot


@pytest.mark.parametrize("change, key", [({"kind": "magic"}, "magic"), ({"stepz": 1}, "stepz")])
def test_unknown_kinds_and_keys_are_named(change, key):
    with pytest.raises(InputError, match=key):
        complete(BLOCK | change)


@pytest.fixture
def later(monkeypatch):
    """A schema that gained a key, a nested one and a nested block after results had been computed."""
    schema = copy.deepcopy(settings.config_schema())
    inversion = schema["$defs"]["inversion"]["properties"]
    inversion["momentum"] = {"type": "number", "default": 0.5, "since": "9.9"}
    inversion["network"]["properties"]["depth"] = {"type": "integer", "default": 2, "since": "9.9"}
    inversion["extra"] = {"since": "9.9", "properties": {"a": {"default": 1, "since": "9.9"}}}
    monkeypatch.setattr(settings, "config_schema", lambda: schema)


def test_a_later_key_at_its_default_is_part_of_a_block(later):
    block = complete(BLOCK)
    assert block["momentum"] == 0.5 and block["network"]["depth"] == 2 and block["extra"] == {"a": 1}


def test_params_are_the_same_before_and_after_a_key_was_added(request):
    before = job_settings(complete(BLOCK))
    request.getfixturevalue("later")
    assert job_settings(complete(BLOCK)) == before
    assert complete(before) == complete(BLOCK)
    changed = job_settings(complete(BLOCK | {"momentum": 0.9}))
    assert changed == before | {"momentum": 0.9}
    deep = job_settings(complete(BLOCK | {"network": {"channels": [8], "depth": 3}}))
    assert deep["network"] == before["network"] | {"depth": 3}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(number):
    """A schema's bounds let NaN pass: no comparison with it is true."""
    with pytest.raises(InputError, match="linear.*not finite"):
        complete({"kind": "linear", "lambdas": {"first": number, "last": 1, "count": 2}})
