"""Scores travel: a suite is published into a folder, and another one adopts what was measured as it says."""

import contextlib
import html
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ssltransfer.commands.plan import plan_suite
from ssltransfer.commands.publish import publish
from ssltransfer.commands.suite import read_suite
from ssltransfer.config.suite import Cell
from ssltransfer.datasets.index import Index, write_index
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash, read_json, write_json
from ssltransfer.report import bundle as bundle_module
from ssltransfer.report.adoption import Adoption, adopt_scores, adopted_models
from ssltransfer.report.bundle import CHECKSUMS, MANIFEST, read_bundle, write_checksums
from ssltransfer.report.public_names import public_name, renamed
from ssltransfer.report.table_folder import make_tables
from ssltransfer.results.score_schema import SCHEMA_VERSION
from ssltransfer.versions import version
from workflow import numbers, planned, succeed, workspace

MODELS = ("toy-random", "toy-simclr", "toy-supervised")
LINEAR = Cell("toy-linear", "toy-simclr", "digits")
SUMMARY = {(rule, ""): 1 for rule in ("make_tables", "plot_figures", "write_provenance", "write_report", "all")}


def write_indexes():
    for dataset, classes in (("digits", 10), ("textures", 16)):
        rows = range(3 * classes)
        parts = ["train", "val", "test"]
        index = Index(
            [f"images.npy#{i}" for i in rows],
            [parts[i // classes] for i in rows],
            [i % classes for i in rows],
            [f"class {k}" for k in range(classes)],
        )
        write_index(f"results/datasets/{dataset}/index.parquet", index)


def write_score(suite, cell):
    """A score file as the suite expects it."""
    metric = {"digits": "top1", "textures": "mean-per-class"}[cell.dataset]
    path = Path("results/scores", cell.protocol, cell.model, f"{cell.dataset}.json")
    model = suite.models[cell.model]
    value = 50.0 + list(suite.models).index(cell.model)
    score = {
        **vars(cell),
        "kind": "linear",
        "values": [{"metric": metric, "setting": "", "value": value, "unit": "percent"}],
        "settings": suite.settings(cell.protocol),
        "preprocessing": {"norm": model["norm"]},
        "checkpoint": {"source": model["source"], "recipe": suite.recipe(cell.model)},
        "versions": {"protocol": version("linear")},
    }
    write_json(path, score)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A clone that published the linear scores of its suite, the working directory is another clone."""
    first = workspace(tmp_path / "first")
    monkeypatch.chdir(first)
    suite = yaml.safe_load(Path("config/config.yaml").read_text())
    suite["tasks"], suite["models_of"] = {"toy-linear": ["digits", "textures"]}, {}
    Path("config/config.yaml").write_text(yaml.safe_dump(suite))
    write_indexes()
    chosen = read_suite(["config/config.yaml"])
    for cell in chosen.suite.cells():
        write_score(chosen.suite, cell)
    folder = tmp_path / "bundle"
    assert publish(chosen, folder, ["A. Author"]).scores == 6
    second = tmp_path / "second"
    shutil.copytree("config", second / "config")
    monkeypatch.chdir(second)
    write_indexes()
    Path("config/config.yaml").write_text(yaml.safe_dump(suite | {"adopt": [str(folder)]}))
    return folder


def suite():
    return read_suite(["config/config.yaml"]).suite


def adopt(**changes):
    return adopt_scores(suite(), lambda cell: False)


def edit(folder, name, change):
    """Change a file of a bundle and its checksum, as a publisher with other results would have written it."""
    content = read_json(folder / name)
    change(content)
    write_json(folder / name, content)
    write_checksums(folder)


def test_a_bundle_has_what_others_need(published):
    names = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert {MANIFEST, CHECKSUMS, "README.md", ".zenodo.json", "scores/toy-linear/toy-simclr/digits.json"} <= names
    listed = dict(reversed(line.split("  ")) for line in (published / CHECKSUMS).read_text().splitlines())
    assert listed == {name: file_hash(published / name) for name in names - {CHECKSUMS}}
    card = (published / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    assert "| SimCLR | MIT | pretrain:toy-simclr |" in card
    assert json.loads((published / ".zenodo.json").read_text())["creators"] == [{"name": "A. Author"}]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file:/home/me/net.pth", "file:net.pth"),
        ("file:~/nets/net.pth", "file:net.pth"),
        ("file:/home/me/a.pth file:b.pth", "file:a.pth file:b.pth"),
        ("features:/home/me/arrays", "features:arrays"),
        ("folder:my/birds", "folder:birds"),
        ("python:/home/me/net.py:build", "python:net.py:build"),
        ("https://example.org/a/b.pth", "https://example.org/a/b.pth"),
        ("hf:owner/name@main/net.pth", "hf:owner/name@main/net.pth"),
        ("timm:vit_small_patch16_224.dino", "timm:vit_small_patch16_224.dino"),
    ],
)
def test_local_files_are_called_by_their_names(text, name):
    assert public_name(text) == name and public_name(name) == name


def test_parts_of_other_words_are_no_paths():
    names = {"features:/data": "features:data", "/data/": "", "/data": "data"}
    assert renamed("<data>/data</data>", names) == "<data>data</data>"
    text = (
        "features:/data, /data/birds/1.jpg, /data: /database https://x.org/data/a <img src='data:png;base64,+/data='>"
    )
    assert renamed({"a": [text, 3]}, names) == {
        "a": [
            "features:data, birds/1.jpg, data: /database https://x.org/data/a <img src='data:png;base64,+/data='>",
            3,
        ]
    }


def test_nothing_in_a_bundle_tells_where_local_files_are(published, tmp_path):
    """And a score of one's own copy of the file is adopted by its checksum, wherever that lies."""
    first, digest = tmp_path / "first", "ab" * 32
    chosen = read_suite(["config/config.yaml"])
    rows = chosen.suite.models["toy-simclr"]
    rows |= {"source": f"file:{first}/weights&more/net.pth", "sha256": digest}
    for cell in chosen.suite.cells():
        write_score(chosen.suite, cell)
    path = Path("results/scores/toy-linear/toy-simclr/digits.json")
    score = read_json(path)
    score["checkpoint"] |= {"source": rows["source"], "files": str({"net.pth": digest})}
    score["warnings"] = [f"{first}/weights&more/net.pth was read", f"{Path.cwd()}/config/models.tsv says so"]
    write_json(path, score)
    tables = Path("results/toy/tables/model-details.csv")
    tables.parent.mkdir(parents=True)
    tables.write_text(f"model,source\ntoy-simclr,{rows['source']}\n")
    tables.parents[1].joinpath("report.html").write_text(f"<p>{html.escape(rows['source'])}</p>")
    chosen.suite.config.update(
        data_root=f"{first}/sets",
        imagenet_val=f"{first}/val/",
        lpips_trunks={"vgg": f"file:{first}/nets/vgg.pth"},
        adopt=[f"{first}/theirs"],
    )
    chosen.suite.datasets["digits"] |= {"source": f"csv:{first}/lists/own.csv?label=x"}
    configuration = {key: chosen.suite.config[key] for key in ("data_root", "imagenet_val", "lpips_trunks", "adopt")}
    provenance = {"configuration": configuration, "read": [f"{first}/lists/own.csv", f"{first}/lists/birds/1.jpg"]}
    Path("results/toy/provenance.json").write_text(json.dumps(provenance))
    publish(chosen, tmp_path / "told")
    assert json.loads((tmp_path / "told/provenance.json").read_text()) == {
        "configuration": {
            "data_root": "sets",
            "imagenet_val": "val",
            "lpips_trunks": {"vgg": "file:vgg.pth"},
            "adopt": ["theirs"],
        },
        "read": ["own.csv", "birds/1.jpg"],
    }
    bundle = read_bundle(str(tmp_path / "told"))
    text = "".join(path.read_text() for path in (tmp_path / "told").rglob("*") if path.is_file())
    assert str(tmp_path) not in text and text.count("file:net.pth") >= 4
    read = bundle.read_score(LINEAR)
    assert read["checkpoint"]["source"] == "file:net.pth" and read["values"] == score["values"]
    assert read["warnings"] == ["net.pth was read", "config/models.tsv says so"]
    own = suite()
    own.config["adopt"] = [str(tmp_path / "told")]
    own.models["toy-simclr"].update(source="file:/elsewhere/net.pth", sha256=digest)
    assert LINEAR in adopt_scores(own, lambda cell: False).scores
    own.models["toy-simclr"].update(sha256="cd" * 32)
    assert LINEAR not in adopt_scores(own, lambda cell: False).scores


def test_a_bundle_is_not_written_over(published):
    with pytest.raises(InputError, match="is there already"):
        publish(read_suite(["config/config.yaml"]), published)


def test_scores_that_differ_from_the_suite_are_not_published(published, tmp_path):
    chosen = read_suite(["config/config.yaml"])
    for cell in chosen.suite.cells():
        write_score(chosen.suite, cell)
    path = Path("results/scores/toy-linear/toy-simclr/digits.json")
    write_json(path, read_json(path) | {"settings": chosen.suite.settings("toy-linear") | {"seed": 7}})
    Path("results/datasets/textures/index.parquet").unlink()
    done = publish(chosen, tmp_path / "again")
    assert done.scores == 2 and not (tmp_path / "again/scores/toy-linear/toy-simclr").exists()
    assert sum("settings.seed: found 7, expected 0" in text for text in done.left_out) == 1
    assert sum("index.parquet is missing" in text for text in done.left_out) == 3


def test_all_scores_of_the_same_suite_are_adopted_and_nothing_is_missing(published):
    adoption = adopt()
    assert set(adoption.scores) == set(suite().cells()) and not adoption.refused and not adoption.models
    plan = plan_suite(read_suite(["config/config.yaml"]))
    assert len(plan.there) == 6 and not plan.missing


def test_a_score_that_was_measured_here_takes_its_place(published):
    assert LINEAR not in adopt_scores(suite(), lambda cell: cell == LINEAR).scores


def test_a_model_that_only_the_bundle_has_is_added(published):
    table = Path("config/models.tsv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "toy-simclr" not in line))
    recipes = yaml.safe_load(Path("config/pretraining.yaml").read_text())
    del recipes["toy-simclr"]
    Path("config/pretraining.yaml").write_text(yaml.safe_dump(recipes))
    adoption = adopt()
    assert list(adoption.models) == ["toy-simclr"] and len(adoption.scores) == 6
    make_tables("tables", [], rows(), {}, {}, "v2", {}, "", suite())
    scores = pd.read_csv("tables/scores.csv")
    assert set(scores["source"]) == {f"elsewhere:{published}"}
    models = pd.read_csv("tables/models.csv").set_index("model")
    assert models.loc["toy-simclr", "label"] == "SimCLR" and models.loc["toy-simclr", "source_accuracy"] == 51.0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"arch": "resnet-1-1"}, "arch: found 'resnet-1-1'"),
        ({"arch": "timm:unheard", "pool": "all"}, "pool: found 'all'"),
        ({"arch": "timm:resnet18", "pool": "cls"}, "cls"),
        ({"size": "unheard"}, "unheard"),
        ({"source": "unheard"}, "source 'unheard'"),
        ({"alternatives": "unheard"}, "alternatives: found 'unheard'"),
    ],
)
def test_a_model_that_tables_cannot_describe_is_refused_and_stops_nothing(published, change, found):
    edit(published, MANIFEST, lambda content: content["models"]["toy-simclr"].update(change))
    table = Path("config/models.tsv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "toy-simclr" not in line))
    adoption = adopt()
    assert len(adoption.scores) == 4 and len(adoption.refused) == 2 and not adoption.models
    assert all(r.key == "model toy-simclr" and found in r.found for r in adoption.refused)
    make_tables("tables", [], rows(), {}, {}, "v2", {}, "", suite())
    assert "model toy-simclr" in pd.read_csv("tables/adopted.csv")["adopted or differs in"].tolist()


@pytest.mark.parametrize(
    ("arch", "source"),
    [("timm:unheard", "timm:unheard.in1k"), ("timm:resnet18", "timm:resnet18.unheard")],
)
def test_a_network_of_a_later_timm_is_shown_by_its_name(published, arch, source):
    changed = {"arch": arch, "source": source}
    edit(published, MANIFEST, lambda content: content["models"]["toy-simclr"].update(changed))
    for dataset in ("digits", "textures"):
        name = f"scores/toy-linear/toy-simclr/{dataset}.json"
        edit(published, name, lambda content: content.update(checkpoint={"source": source, "arch": arch}))
    table = Path("config/models.tsv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "toy-simclr" not in line))
    adoption = adopt()
    assert LINEAR in adoption.scores and not adoption.refused
    make_tables("tables", [], rows(), {}, {}, "v2", {}, "", suite())
    models = pd.read_csv("tables/model-details.csv").set_index("model")
    assert models.loc["toy-simclr", "architecture"] == arch and models.loc["toy-simclr", "source"] == source


def test_planning_without_pyarrow_says_so_in_one_line(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "ssltransfer.datasets.index_hash", None)
    with pytest.raises(InputError, match="adopt: the images of digits cannot be compared .* install pyarrow") as error:
        adopt()
    assert "\n" not in str(error.value)


def test_a_source_accuracy_that_names_its_protocol_comes_with_the_model(published):
    edit(published, MANIFEST, lambda c: c["models"]["toy-simclr"].update(source_accuracy="measured:toy-linear/digits"))
    table = Path("config/models.tsv")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "toy-simclr" not in line))
    adoption = adopt()
    assert adopted_models(adoption, {"digits"})[0]["source_accuracy"] == "measured:toy-linear/digits"
    assert adopted_models(adoption, {"textures"})[0]["source_accuracy"] == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [("measured:linear/digits", "measured:linear/digits"), ("measured:digits", "measured:digits"), ("75.3", "75.3")]
    + [("measured:pets", ""), ("measured:linear/pets", "")],
)
def test_a_source_accuracy_that_is_measured_where_the_suite_has_no_score_is_left_out(text, found):
    row = {"model": "a", "label": "A", "family": "none", "source_accuracy": text}
    assert adopted_models(Adoption(models={"a": row}), {"digits"}) == [row | {"source_accuracy": found}]


def rows():
    keys = ("model", "label", "family", "source_accuracy")
    return [{key: row[key] for key in keys} for row in suite().models.values()]


def test_tables_mark_what_was_measured_elsewhere(published):
    chosen = suite()
    write_score(chosen, LINEAR)
    file = "results/scores/toy-linear/toy-simclr/digits.json"
    make_tables("tables", [file], rows(), {}, {}, "v2", {}, "", chosen)
    scores = pd.read_csv("tables/scores.csv").set_index(["model", "dataset"])["source"]
    assert scores.pop(("toy-simclr", "digits")) == "measured"
    assert set(scores) == {f"elsewhere:{published}"}
    page = Path("tables/toy-linear.html").read_text()
    assert page.count("◇") == 5
    caption = {t["name"]: t["caption"] for t in read_json("tables/suite.json")["tables"]}["toy-linear"]
    assert f"◇ measured elsewhere ({published})." in caption
    adopted = pd.read_csv("tables/adopted.csv")
    assert adopted["adopted or differs in"].tolist() == ["5 scores of 3 models"]


SCORE = "scores/toy-linear/toy-simclr/digits.json"


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        (SCORE, lambda score: score["settings"].update(seed=1), "settings.seed: found 1, expected 0"),
        (
            MANIFEST,
            lambda content: content["datasets"]["digits"].update(index="0" * 64),
            "index: found 000000000000, expected ",
        ),
        (SCORE, lambda score: score["preprocessing"].update(norm="imagenet"), "preprocessing.norm: found"),
        (MANIFEST, lambda content: content["norms"].update(none="none=0/0/0:2/2/2"), "preprocessing.norm none: found"),
        (SCORE, lambda score: score["values"][0].update(metric="mean-per-class"), "values.metric: found"),
        (SCORE, lambda score: score["versions"].update(protocol=1), "versions.protocol: found 1, expected 2"),
        (MANIFEST, lambda content: content["components"].update(digits=9), "version of digits: found 9, expected 1"),
        (SCORE, lambda score: score["checkpoint"].update(source="file:other"), "checkpoint.source: found file:other"),
        (SCORE, lambda score: score.pop("preprocessing"), "preprocessing: found nothing"),
        (MANIFEST, lambda content: content["datasets"].pop("digits"), "dataset: found no hash of the index"),
    ],
)
def test_a_mismatch_is_refused_with_one_line(published, name, change, key):
    edit(published, name, change)
    adoption = adopt()
    lines = [str(refusal) for refusal in adoption.refused if refusal.file == str(published / SCORE)]
    assert len(lines) == 1 and key in lines[0] and lines[0].endswith("; not adopted") and "\n" not in lines[0]
    assert LINEAR not in adoption.scores
    assert Cell("toy-linear", "toy-random", "textures") in adoption.scores
    plan = plan_suite(read_suite(["config/config.yaml"]))
    assert LINEAR in [Cell(s.protocol, s.model, s.dataset) for s in plan.missing]
    make_tables("tables", [], rows(), {}, {}, "v2", {}, "", suite())
    assert key.partition(":")[0] in pd.read_csv("tables/adopted.csv")["adopted or differs in"].tolist()


def test_images_of_another_order_are_another_index(published):
    index = Path("results/datasets/digits/index.parquet")
    index.unlink()
    assert len(adopt().scores) == 6, "an index that is not there yet is compared later"
    rows = [1, 0, *range(2, 30)]
    parts = ["train"] * 10 + ["val"] * 10 + ["test"] * 10
    images, classes = [f"images.npy#{i}" for i in range(30)], [f"class {k}" for k in range(10)]
    write_index(index, Index(images, parts, [i % 10 for i in rows], classes))
    assert {r.key for r in adopt().refused} == {"index"}


def test_weights_that_were_a_local_file_need_their_checksum(published):
    digest = "a" * 64
    checkpoint = {"source": "file:w.pth", "files": json.dumps({"w.pth": digest})}
    edit(published, SCORE, lambda score: score.update(checkpoint=checkpoint))
    table = Path("config/models.tsv")
    frame = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False).set_index("model")
    frame.loc["toy-simclr", ["source", "format"]] = ["file:w.pth", "torchvision"]
    frame.to_csv(table, sep="\t")
    assert "weights that were a local file" in str(adopt().refused[0])
    frame.loc["toy-simclr", "sha256"] = digest
    frame.to_csv(table, sep="\t")
    assert LINEAR in adopt().scores


def add_outcomes(folder):
    path = folder / "outcomes/toy-linear/toy-simclr/digits.npz"
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "bundle.json is missing; name a folder that ssltransfer publish"),
        (lambda folder: (folder / SCORE).write_text("{}"), "SHA256SUMS says"),
        (lambda folder: (folder / SCORE).unlink(), "is missing, but SHA256SUMS lists it"),
        (lambda folder: edit(folder, MANIFEST, lambda c: c.update(schema=2)), "schema: 2 found, .* reads 1; update"),
        (lambda folder: edit(folder, MANIFEST, lambda c: c.pop("norms")), "key 'norms' is missing"),
        (lambda folder: edit(folder, SCORE, lambda c: c.update(schema=3)), "schema: 3 found, .* update ssltransfer"),
        (lambda folder: (folder / CHECKSUMS).write_text(f"{'0' * 64}  ../x\n"), "line 1: found"),
        (lambda folder: (folder / CHECKSUMS).write_bytes(b"\xff\xfe"), "line 1: found"),
        (lambda folder: (folder / MANIFEST).write_text("[1]"), "bundle.json: top level: "),
        (lambda folder: (folder / CHECKSUMS).write_text(""), "bundle.json is not listed in SHA256SUMS"),
        (lambda folder: edit(folder, MANIFEST, lambda c: c["models"].pop("toy-simclr")), "toy-simclr is missing"),
        (lambda folder: edit(folder, SCORE, lambda c: c.update(model="other")), "holds the score of toy-linear/other"),
        (add_outcomes, "digits.npz is not listed in SHA256SUMS"),
    ],
)
def test_a_damaged_bundle_is_one_line(published, damage, message):
    damage(published)
    with pytest.raises(InputError, match=message):
        adopt()


def test_scores_of_the_first_schema_are_adopted(published):
    assert SCHEMA_VERSION == 2
    assert "schema" not in read_json(published / SCORE) and LINEAR in adopt().scores


def test_a_bundle_of_the_hub_is_fetched_once_and_then_read_without_it(published, tmp_path, monkeypatch):
    calls = []

    def fetch(dataset, patterns=None, cached=False):
        calls.append(cached)
        if cached and len(calls) == 1:
            raise InputError("not in the cache")
        return published

    monkeypatch.setattr(bundle_module, "fetch_hub_dataset", fetch)
    source = f"hf:owner/name@{'a' * 40}"
    assert read_bundle(source).folder == published and calls == [True, False]
    assert read_bundle(source).folder == published and calls == [True, False, True]
    with pytest.raises(InputError, match="found no commit, expected hf:OWNER/NAME@REVISION"):
        read_bundle("hf:owner/name@main")


@pytest.mark.slow
def test_scores_travel_from_one_clone_to_another_which_measures_a_model_of_its_own(tmp_path):
    """Clone A -> bundle -> clone B, which adds a model and measures nothing but it."""
    first = workspace(tmp_path / "first")
    content = yaml.safe_load((first / "config/config.yaml").read_text())
    content |= {"tasks": {"toy-linear": ["digits"]}, "models_of": {}}
    (first / "config/config.yaml").write_text(yaml.safe_dump(content))
    succeed(first)
    with contextlib.chdir(first):
        publish(read_suite(["config/config.yaml"]), tmp_path / "bundle", predictions=True)
    second = workspace(tmp_path / "second")
    (second / "config/config.yaml").write_text(yaml.safe_dump(content | {"adopt": ["../bundle"]}))
    assert planned(second) == SUMMARY
    with (second / "config/models.tsv").open("a") as table:
        table.write("mine\tMine\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\tnone\tmeasured:digits\ttoy\tMIT\t\n")
    jobs = planned(second)
    assert {model for _, model in jobs} == {"", "mine"} and jobs["evaluate_linear", "mine"] == 1
    succeed(second)
    assert {path.parts[-2] for path in (second / "results/scores").rglob("*.json")} == {"mine"}
    scores = pd.read_csv(second / "results/toy/tables/scores.csv", keep_default_na=False)
    assert set(scores.loc[scores["model"] == "mine", "source"]) == {"measured"}
    assert set(scores.loc[scores["model"] != "mine", "source"]) == {"elsewhere:../bundle"}
    own = pd.read_csv(first / "results/toy/tables/scores.csv", keep_default_na=False)
    key = ["model", "protocol", "dataset", "setting", "metric"]
    both = scores[scores["model"] != "mine"].merge(own, on=key)
    assert len(both) == len(own) and np.array_equal(both["value_x"], both["value_y"])
    pairs = pd.read_csv(second / "results/toy/tables/pairs.csv")
    assert {"mine", "toy-simclr"} <= {*pairs["model"], *pairs["other"]}
    assert not planned(second)
    report = (second / "results/toy/report.html").read_text()
    assert "◇ measured elsewhere (../bundle)" in report
    assert numbers(second)
