"""Where numbers come from is written down, shown, and never a reason to compute them again; runs can be restored."""

import json
import re
import subprocess

import pandas as pd
from test_profiles import RULES

from ssltransfer.report.provenance import report_lines, revision
from workflow import REPOSITORY, planned, workspace


def test_what_is_written_down(finished):
    provenance = json.loads((finished / "results/toy/provenance.json").read_text())
    assert set(provenance["inputs"]["indexes"]) == {"digits", "textures"}
    assert provenance["inputs"]["checkpoints"]["toy-simclr"]["recipe"]["method"] == "simclr"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in provenance["inputs"]["indexes"].values())
    assert set(provenance["inputs"]["tables"]) == {
        f"config/{n}" for n in ("models.tsv", "datasets.tsv", "pretraining.yaml", "protocols.yaml")
    }
    assert provenance["configuration"]["suite"] == "toy"
    assert provenance["settings"]["toy-linear"]["solver"] == "converged"  # a default
    jobs = {rule: cost["jobs"] for rule, cost in provenance["rules"].items()}
    assert jobs["extract_features"] == 6 and jobs["pretrain_model"] == 3 and jobs["make_tables"] == 1
    scores = pd.read_csv(finished / "results/toy/tables/scores.csv")
    assert jobs["evaluate_linear"] == len(scores.query("kind == 'linear'").drop_duplicates(["model", "dataset"]))
    assert sum(provenance["machines"].values()) == sum(jobs.values())
    assert {"python", "torch", "numpy", "snakemake"} <= set(provenance["versions"])


def test_the_report_shows_it(finished):
    provenance = json.loads((finished / "results/toy/provenance.json").read_text())
    report = (finished / "results/toy/report.html").read_text()
    for key, text in report_lines(provenance).items():
        assert f"<dt>{key}</dt><dd>{text}</dd>" in report


def test_it_has_no_parameters():
    assert "params:" not in RULES["write_provenance"]


def test_revision(tmp_path):
    assert revision(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert revision(tmp_path) is None
    (tmp_path / "file").touch()
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert revision(tmp_path)["changed"] is False
    (tmp_path / "file").write_text("changed")
    assert revision(tmp_path)["changed"] is True


def test_published_features_are_restored(finished, tmp_path):
    """The commands of docs/publishing.md."""
    page = (REPOSITORY / "docs/publishing.md").read_text()
    publish = [line for line in page.splitlines() if line.startswith("tar --format")]
    assert len(publish) == 2
    for command in publish:
        elsewhere = command.replace("czf ", f"czf {tmp_path}/")
        subprocess.run(["bash", "-c", elsewhere], cwd=finished, check=True)
    for name, expected in (
        ("features", {"evaluate_linear", "evaluate_fewshot", "evaluate_calibration"}),
        ("run", set()),
    ):
        folder = workspace(tmp_path / name)
        subprocess.run(["tar", "-xzf", f"{tmp_path}/{name}.tar.gz"], cwd=folder, check=True)
        summary = {"make_tables", "plot_figures", "write_provenance", "write_report", "all"} if expected else set()
        assert {rule for rule, _ in planned(folder)} == expected | summary
    models = folder / "config/models.tsv"
    row = "new\tNew\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\tmeasured:digits\ttoy\tMIT\t\n"
    models.write_text(models.read_text() + row)
    assert {model for _, model in planned(folder)} == {"new", ""}
