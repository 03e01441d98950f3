"""Messages about a configuration name the file that holds the key, or the option that gives it."""

from pathlib import Path

import pytest
import yaml

from ssltransfer.commands.suite import read_suite
from ssltransfer.config.config_files import name_config_file
from ssltransfer.errors import InputError
from workflow import REPOSITORY

MINE = {
    "suite": "extra",
    "models": str(REPOSITORY / "config/models.tsv"),
    "datasets": str(REPOSITORY / "config/datasets.tsv"),
    "tasks": {"linear": ["dtd"]},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two files of a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    write("config/mine.yaml", MINE)
    write("more.yaml", {"title": "More", "tasks": {"own": ["dtd"]}, "protocols": {"own": {"kind": "linear"}}})
    return tmp_path


def write(path, content):
    with Path(path).open("w") as file:
        yaml.safe_dump(content, file)


def problem(files, settings=(), **options):
    with pytest.raises(InputError) as raised:
        read_suite(files, settings, **options)
    return str(raised.value)


def test_the_file_of_the_key_is_named(folder):
    both = ["config/mine.yaml", "more.yaml"]
    assert read_suite(both).suite.name == "extra"
    write("config/mine.yaml", MINE | {"tasks": {"linear": ["dtt"]}})
    assert problem(both).startswith("config/mine.yaml: tasks.linear names dataset 'dtt'; is it 'dtd'?")
    write("config/mine.yaml", MINE | {"batch_sise": 3})
    assert problem(both).startswith("config/mine.yaml: top level: unknown key 'batch_sise'")
    write("config/mine.yaml", MINE)
    write("more.yaml", {"protocols": {"own": {"kind": "linear", "seed": "x"}}})
    assert problem(both).startswith("more.yaml: protocols.own.seed: found 'x'")
    write("more.yaml", {"allow_subset": "perhaps"})
    assert problem([folder / "config/mine.yaml", folder / "more.yaml"]).startswith("more.yaml: allow_subset: found")


def test_the_last_file_that_gives_a_value_is_named(folder):
    write("config/mine.yaml", MINE | {"on_error": "fail"})
    write("more.yaml", {"on_error": "never"})
    assert problem(["config/mine.yaml", "more.yaml"]).startswith("more.yaml: on_error: found 'never'")


def test_all_files_are_named_where_none_has_the_key(folder):
    write("config/mine.yaml", {key: value for key, value in MINE.items() if key != "suite"})
    found = problem(["config/mine.yaml", "more.yaml"])
    assert found == "config/mine.yaml, more.yaml: top level: key 'suite' is missing"


def test_an_option_is_named_as_such(folder):
    found = problem(["config/mine.yaml"], ["on_error=never"])
    assert found.startswith("--config on_error: found 'never'")
    assert problem(["config/mine.yaml"], ["only=lin"]).startswith("--config only: found 'lin'; is it")
    assert problem(["config/mine.yaml"], ["data_root=/none", "tasks={linear: [dtd]}"], check_data_root=True).startswith(
        "--config data_root: /none is not a folder"
    )


def test_a_shared_block_is_in_the_file_of_shared_blocks(folder):
    """Whose blocks are not below `protocols`; the suite's own may have the name of none of them."""
    write("blocks.yaml", {"near": {"kind": "knn", "selection": "validation"}})
    write("config/mine.yaml", MINE | {"blocks": "blocks.yaml", "tasks": {"near": ["eurosat"]}})
    assert problem(["config/mine.yaml"]).startswith("blocks.yaml: near.selection: 'eurosat' has no test part")
    write("config/mine.yaml", MINE | {"tasks": {"far": ["dtd"]}})
    assert problem(["config/mine.yaml"]).startswith("config/mine.yaml: tasks.far has no settings block in protocols")


def test_other_messages_and_configurations_without_a_file_stay_as_they_are():
    assert name_config_file("config/models.tsv, row 'a': x", ["config/mine.yaml"]) == "config/models.tsv, row 'a': x"
    assert name_config_file("config: tasks.a: x", []) == "config: tasks.a: x"
