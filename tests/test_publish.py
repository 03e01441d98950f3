"""What a published folder tells of its publisher, and how its README shows names."""

from pathlib import Path

import pytest
import yaml
from test_adoption import write_indexes, write_score

from ssltransfer.commands.publish import publish
from ssltransfer.commands.suite import read_suite
from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.report.bundle import read_bundle
from workflow import workspace

LOGIN = "https://user:s3cr3t@host.org/w.pth"
SIGNED = "https://host.org/w.pth?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef"


def measured(folder, monkeypatch, title="Toy", **row):
    """A clone with scores of a suite of one task, and one more row of the table of models."""
    monkeypatch.chdir(workspace(folder))
    config = Path("config/config.yaml")
    suite = yaml.safe_load(config.read_text()) | {"tasks": {"toy-linear": ["digits"]}, "models_of": {}, "title": title}
    config.write_text(yaml.safe_dump(suite))
    table = Path("config/models.tsv")
    columns = table.read_text().partition("\n")[0].split("\t")
    cells = {"model": "mine", "arch": "resnet50", "norm": "imagenet", "suites": "toy"} | row
    table.write_text(table.read_text() + "\t".join(cells.get(column, "") for column in columns) + "\n")
    write_indexes()
    chosen = read_suite(["config/config.yaml"])
    for cell in chosen.suite.cells():
        write_score(chosen.suite, cell)
    return chosen


@pytest.mark.parametrize("source", [LOGIN, SIGNED, f"https://host.org/hf_{'a' * 34}/w.pth"])
def test_passwords_and_tokens_are_not_published(tmp_path, monkeypatch, source):
    chosen = measured(tmp_path / "clone", monkeypatch, source=source)
    with pytest.raises(InputError, match="found a password or token") as error:
        publish(chosen, tmp_path / "bundle")
    assert not any(word in str(error.value) for word in ("s3cr3t", "0123", "aaaa"))
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]


def test_ordinary_addresses_are_published(tmp_path, monkeypatch):
    source = "https://host.org:8080/w.pth?dl=1&id=sig https://user@host.org/token=1/w.pth"
    chosen = measured(tmp_path / "clone", monkeypatch, source=source)
    assert publish(chosen, tmp_path / "bundle").scores == 4


def test_a_link_to_a_file_elsewhere_is_not_published(tmp_path, monkeypatch):
    chosen = measured(tmp_path / "clone", monkeypatch, source="https://host.org/w.pth")
    (tmp_path / "private.csv").write_text("private")
    tables = Path("results/toy/tables")
    tables.mkdir(parents=True)
    (tables / "a.csv").write_text("row\n")
    (tables / "b.csv").symlink_to("a.csv")
    (tables / "c.csv").symlink_to(tmp_path / "private.csv")
    with pytest.raises(InputError, match="results/toy/tables/c.csv is a link to .*/private.csv"):
        publish(chosen, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    (tables / "c.csv").unlink()
    publish(chosen, tmp_path / "bundle")
    assert (tmp_path / "bundle/tables/b.csv").read_text() == "row\n"


def test_names_make_no_cells_links_and_elements(tmp_path, monkeypatch):
    label = "a|b\\|c <img src=x onerror=alert(1)> [d](javascript:alert(1)) `e"
    chosen = measured(
        tmp_path / "clone", monkeypatch, title="<b>One</b>\ntwo", label=label, source="https://x.org/w_1.pth"
    )
    publish(chosen, tmp_path / "bundle")
    card = (tmp_path / "bundle/README.md").read_text()
    assert "# \\<b>One\\</b> two\n" in card
    shown = "a\\|b\\\\\\|c \\<img src=x onerror=alert(1)> \\[d](javascript:alert(1)) \\`e"
    assert f"| {shown} |  | https://x.org/w_1.pth |" in card
    manifest = read_bundle(str(tmp_path / "bundle")).manifest
    assert manifest["models"]["mine"]["label"] == label and manifest["title"] == "<b>One</b> two"
    assert read_json(tmp_path / "bundle/.zenodo.json")["title"] == "<b>One</b> two"
