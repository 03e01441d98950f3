"""Where numbers come from is written down, shown, and never a reason to compute them again; runs can be restored."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import torch
from test_profiles import RULES

from ssltransfer import device
from ssltransfer.datasets.index import Index, write_index
from ssltransfer.files import write_json
from ssltransfer.report.provenance import SUBJECTS, collect, report_lines, revision
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


def test_every_log_is_of_a_cell_or_of_a_known_subject():
    for rule, body in RULES.items():
        for path in re.findall(r'"logs/(.+?)\.log"', body):
            name, first, *others = path.split("/")
            features = name in ("extract_features", "import_features", "find_neighbours")
            if others and "{protocol}" not in path and not features:
                assert name == "prepare_images" or len(others) != 2
            if "{protocol}" in path or features:
                continue
            known = {"{model}": "model", "{dataset}": "dataset", "{original}": "dataset", "{suite}": "suite"}
            assert SUBJECTS.get(name) == known.get(first), rule


def test_models_that_left_the_suite_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path / "toy"))
    cost = json.dumps({"seconds": 1.0, "peak_memory_mib": 1, "machine": "m", "device": "cpu"})
    logs = {
        "here": ("pretrain_model/toy-random", "extract_features/toy-random/digits/resize16.imagenet"),
        "left": ("pretrain_model/gone", "extract_features/gone/digits/resize16.imagenet"),
        "other": ("evaluate_linear/toy-linear/gone/digits", "index_dataset/gone", "make_tables/gone"),
    }
    shared = ("prepare_images/digits/resize16", "fetch_lpips_network/alexnet", "evaluate_linear/p/toy-random/digits")
    for name in (*logs["here"], *logs["left"], *logs["other"], *shared):
        path = Path("logs", f"{name}.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01 00:00:00,000 cost {cost}\n")
    config = {key: f"config/{key}.tsv" for key in ("models", "datasets")}
    found = collect("toy", [("p", "toy-random", "digits")], config, {})["rules"]
    jobs = {rule: entry["jobs"] for rule, entry in found.items()}
    expected = ("pretrain_model", "extract_features", "prepare_images", "fetch_lpips_network", "evaluate_linear")
    assert jobs == dict.fromkeys(expected, 1)


def test_scores_and_indexes_may_lie_below_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(workspace(tmp_path / "toy"))
    score = {"model": "a", "protocol": "p", "checkpoint": {"source": "s"}, "settings": {"kind": "linear"}}
    write_json(tmp_path / "brought/results/scores/p/a/digits.json", score)
    write_index(tmp_path / "brought/results/datasets/digits/index.parquet", Index(["a"], ["test"], [0], ["x"]))
    config = {key: f"config/{key}.tsv" for key in ("models", "datasets")}
    found = collect("toy", [("p", "a", "digits")], config, {}, tmp_path / "brought")
    assert set(found["inputs"]["indexes"]) == {"digits"} and found["settings"] == {"p": {"kind": "linear"}}
    assert found["inputs"]["checkpoints"] == {"a": {"source": "s"}}


def test_a_gpu_that_was_not_used_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(workspace(tmp_path / "toy"))
    monkeypatch.setattr(device, "driver_problem", lambda: "nvidia-smi says: version mismatch")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(device, "granted_gpu", lambda: "")
    device.choose_device(torch.get_num_threads())
    said = [f"2026-01-01 00:00:00,000 {record.getMessage()}\n" for record in caplog.records]
    cost = json.dumps({"seconds": 1.0, "peak_memory_mib": 1, "machine": "m", "device": "cpu"})
    for name, lines in (("a", said), ("b", said), ("c", [])):
        path = Path(f"logs/evaluate_linear/p/{name}/digits.log")
        path.parent.mkdir(parents=True)
        path.write_text("".join([*lines, f"2026-01-01 00:00:00,000 cost {cost}\n"]))
    config = {key: f"config/{key}.tsv" for key in ("models", "datasets")}

    def shown(*models):
        return report_lines(collect("toy", [("p", model, "digits") for model in models], config, {}))

    reason = "nvidia-smi says: version mismatch (2 jobs computed on the CPU)"
    assert shown("a", "b", "c")["GPU not used"] == reason
    assert "GPU not used" not in shown("c")
    assert "version mismatch (1 job computed" in shown("a")["GPU not used"]
    older = collect("toy", [("p", "a", "digits")], config, {})
    del older["gpu_unused"]  # as 0.1.0 wrote it
    assert "GPU not used" not in report_lines(older)


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
    # The option that the page prints leaves out what needs more than features.
    of_features = re.search(r"`--config (only=\S+)`", page).group(1)
    for name, options, expected in (
        (
            "features",
            ("--config", of_features),
            {
                "evaluate_linear",
                "find_neighbours",
                "evaluate_knn",
                "evaluate_label_efficiency",
                "evaluate_estimators",
                "compare_representations",
                "evaluate_fewshot",
                "evaluate_calibration",
            },
        ),
        ("run", (), set()),
    ):
        folder = workspace(tmp_path / name)
        subprocess.run(["tar", "-xzf", f"{tmp_path}/{name}.tar.gz"], cwd=folder, check=True)
        summary = {"make_tables", "plot_figures", "write_provenance", "write_report", "all"} if expected else set()
        assert {rule for rule, _ in planned(folder, *options)} == expected | summary
    models = folder / "config/models.tsv"
    row = "new\tNew\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\tmeasured:digits\ttoy\tMIT\t\n"
    models.write_text(models.read_text() + row)
    assert {model for _, model in planned(folder)} == {"new", ""}
