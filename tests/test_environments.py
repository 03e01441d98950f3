"""The conda environments carry the versions of uv.lock and everything that their rules' scripts import."""

import tomllib

import pytest
import yaml

from workflow import REPOSITORY

ENVIRONMENTS = sorted((REPOSITORY / "envs").glob("*.yaml"))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_pins_are_those_of_the_lock_file(path):
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    locked = {(package["name"], package.get("version")) for package in lock["package"]}
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    pins = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    for pin in pins:
        name, _, version = pin.partition("==")
        assert (name, version) in locked
    assert any(str(entry).startswith("python=") for entry in dependencies)
