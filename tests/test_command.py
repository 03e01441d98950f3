"""The command `ssltransfer`: what it prints, the rows it adds, and its exit codes."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import entry_points

import pytest
import torch
from layouts import picture

from ssltransfer.commands.main import main
from ssltransfer.commands.plan import plan_suite
from ssltransfer.commands.rows import model_row
from ssltransfer.commands.suite import read_suite
from ssltransfer.config import costs
from ssltransfer.config.costs import estimate_costs, job_hours, read_unit_costs
from ssltransfer.config.suite import Cell
from ssltransfer.config.table_file import read_table
from ssltransfer.config.validation import read_yaml
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import forward_operations
from ssltransfer.models.resnet import build_resnet
from workflow import REPOSITORY, environment, workspace

ARCH = "resnet-1x1x1x1-w4"


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command: exit code, lines of stdout and of stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ssltransfer", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        code = done.value.code
        if isinstance(code, str):
            code, err = 1, f"{err}{code}\n"
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the repository's configuration."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A working directory with the toy suite, in which nothing has run."""
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "my-net.pth"
    torch.save({"model": build_resnet(ARCH, seed=0).state_dict(), "epoch": 3}, path)
    return path


def test_the_command_is_installed():
    (found,) = entry_points(group="console_scripts", name="ssltransfer")
    assert found.load() is main


def test_help_needs_no_library():
    code = "import sys; from ssltransfer.commands.main import main; sys.argv[1:] = []; main()"
    words = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0 and "check" in done.stdout and "plan" in done.stdout
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert not imported & {"torch", "numpy", "pandas", "yaml", "jsonschema", "snakemake"}


def test_wrong_usage_has_exit_code_2(call):
    assert call("bogus")[0] == 2
    assert call("check")[0] == 2
    assert call()[0] == 0


def test_check_tells_what_loads(call, weights):
    code, out, err = call("check", weights)
    assert code == 0 and not err
    assert any(ARCH in line for line in out) and str(weights) in out[0]


def test_check_refuses_in_one_line(call, weights, tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")
    for words in (["page.pth"], ["missing.pth"], [weights, "--arch", "resnet50"], [tmp_path]):
        code, out, err = call("check", tmp_path / words[0], *words[1:])
        assert code == 1 and len(err) == 1, err
        assert err[0].startswith("Error: ") and str(words[0]) in err[0]
        assert not any("does not load" in line for line in out)


def test_add_a_model_from_its_file(call, folder, weights):
    table = folder / "config/models.tsv"
    before = table.read_bytes()
    code, out, err = call("add", "model", "my-net", weights, "--label", "My net", "--source-accuracy", "74.3")
    assert code == 0, err
    assert table.read_bytes() == before + f"{out[0]}\n".encode()
    assert any("ssltransfer plan" in line for line in err)
    row = read_table(table, short_rows=True)[-1]
    expected = {
        "model": "my-net",
        "label": "My net",
        "arch": ARCH,
        "source": f"file:{weights}",
        "source_accuracy": "74.3",
    }
    assert row == dict.fromkeys(row, "") | expected
    assert "my-net" in read_suite().suite.models


def test_add_a_model_that_is_elsewhere(call, folder):
    code, _, err = call("add", "model", "far", "https://host/net.pth", "--arch", "resnet50", "--suites", "paper-v2")
    assert code == 0 and "config/paper-v2.yaml" in err[-1]
    assert read_suite(["config/paper-v2.yaml"]).suite.models["far"]["format"] == "auto"
    assert call("add", "model", "own", "pretrain:simclr-shapes", "--arch", ARCH)[0] == 0
    code, _, err = call("add", "model", "typo", "pretrain:simclr-shapes", "--arch", ARCH, "--suites", "paper-v3")
    assert code == 0 and err[0] == "No file in config/ has suite: paper-v3 yet; is it 'paper-v2'?"


def test_add_weights_of_timm(call, folder):
    words = ["timm:vit_small_patch16_224.dino", "--pool", "cls-mean", "--size", "448", "--suites", "mine"]
    code, _, err = call("add", "model", "dino-s", *words)
    assert code == 0, err
    row = read_suite(["config/mine.yaml"]).suite.models["dino-s"]
    assert row["arch"] == "timm:vit_small_patch16_224" and row["norm"] == "imagenet"
    assert (row["pool"], row["size"], row["format"]) == ("cls-mean", "448", "auto")


@pytest.mark.parametrize(
    ("source", "arch"),
    [
        ("hf:timm/vit_small_patch16_224.dino/model.safetensors", "timm:vit_small_patch16_224"),
        ("hf:timm/resnet18.a1_in1k@0123456/model.safetensors", "timm:resnet18"),
        ("hf:somebody/net/model.safetensors", None),
        ("torchvision:ResNet50_Weights.IMAGENET1K_V2", "resnet50"),
        ("torchvision:ResNeXt50_32X4D_Weights.IMAGENET1K_V1", "torchvision:resnext50_32x4d"),
        ("torchvision:ViT_B_16_Weights.IMAGENET1K_V1", None),
    ],
)
def test_the_architecture_of_published_weights_is_known(source, arch):
    assert model_row("a", source, {}).get("arch") == arch
    assert model_row("a", source, {"arch": "resnet50"})["arch"] == "resnet50"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "timm:vit_small_patch16_224"], "tag is missing"),
        (["a", "timm:vit_base_patch32_clip_224.openai"], "QuickGELU"),
        (["a", "timm:vit_small_patch16_224.dino", "--pool", "token-1"], "token-1"),
        (["a", "timm:vit_small_patch16_224.dino", "--size", "220"], "224"),
        (["swav", "https://host/a.pth", "--arch", "resnet50"], "'swav'"),
        (["a", "https://host/a.pth"], "'arch'"),
        (["A_b", "https://host/a.pth", "--arch", "resnet50"], "'A_b'"),
        (["a", "https://host/a.pth", "--arch", "resnet51"], "'resnet51'"),
        (["a", "https://host/a.pth", "--arch", "resnet50", "--label", "x\ty"], "label"),
        (["a", "https://host/a.pth", "--arch", "resnet50", "--epoch", "3"], "epoch"),
        (["a", "https://host/a.pth", "--arch", "resnet50", "--source-accuracy", "0.5"], "source_accuracy"),
        (["a", "pretrain:nothing", "--arch", "resnet50"], "'nothing'"),
        (["a", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_a_wrong_model_leaves_the_table_as_it_is(call, folder, words, expected):
    table = folder / "config/models.tsv"
    before = table.read_bytes()
    code, out, err = call("add", "model", *words)
    assert code == 1 and not out and len(err) == 1 and expected in err[0], err
    assert ".tmp" not in err[0]
    assert table.read_bytes() == before and sorted(p.name for p in table.parent.glob(".*")) == []


def test_rows_fit_the_table_that_is_there(call, folder, weights):
    table = folder / "config/models.tsv"
    table.write_bytes(b"source\tmodel\tarch\r\nhttps://host/a.pth\told\tresnet50")
    code, out, _ = call("add", "model", "my-net", weights)
    assert code == 0 and out == [f"file:{weights}\tmy-net\t{ARCH}"]
    assert table.read_bytes().endswith(f"resnet50\r\n{out[0]}\r\n".encode())
    code, _, err = call("add", "model", "other", weights, "--label", "Other")
    assert code == 1 and "'label'" in err[0]
    code, _, err = call("add", "model", "my-net", weights)
    assert code == 1 and "model 'my-net' exists already; choose another id" in err[0]
    table.write_bytes("model\tarch\tsource\n".encode("utf-16"))
    code, _, err = call("add", "model", "other", weights)
    assert code == 1 and "UTF-8" in err[0]


def birds(root):
    for split, count in (("train", 3), ("test", 2)):
        for number, name in enumerate(("robin", "wren")):
            for i in range(count):
                picture(root / split / name / f"{i}.jpg", seed=1000 * number + 100 * (split == "test") + i)
    return root


def test_add_a_dataset_from_its_folder(call, folder, tmp_path):
    table, images = folder / "config/datasets.tsv", birds(tmp_path / "birds")
    before = table.read_bytes()
    code, out, err = call("add", "dataset", "birds", images, "--licence", "my own")
    assert code == 0, err
    assert table.read_bytes() == before + f"{out[0]}\n".encode()
    row = read_suite().suite.datasets["birds"]
    assert (row["classes"], row["train"], row["val"], row["test"]) == (2, 6, 0, 4)
    assert (row["source"], row["metric"], row["licence"]) == (f"folder:{images}", "top1", "my own")
    code, out, err = call("add", "dataset", "birds", images)
    assert code == 1 and "'birds'" in err[0]


def test_add_a_dataset_from_a_table(call, folder, tmp_path):
    images = birds(tmp_path / "birds")
    lines = [
        "image,label,split",
        "train/robin/0.jpg,red|small,train",
        "test/wren/0.jpg,small,test",
        "train/wren/1.jpg,,train",
    ]
    (images / "list.csv").write_text("\n".join(lines))
    code, _, err = call("add", "dataset", "many", images / "list.csv", "--task", "multi-label")
    assert code == 0, err
    row = read_suite().suite.datasets["many"]
    assert (row["classes"], row["train"], row["test"], row["metric"]) == (2, 2, 1, "map11")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["new", "nowhere"], "nowhere"),
        (["new", "generated:nothing"], "generated:nothing"),
        (["new", "one-of:shapes,textures"], "one-of"),
        (["new", "generated:digits", "--task", "words"], "'words'"),
        (["new", "generated:digits", "--metric", "map11"], "'map11'"),
    ],
)
def test_a_wrong_dataset_leaves_the_table_as_it_is(call, folder, words, expected):
    before = (folder / "config/datasets.tsv").read_bytes()
    code, out, err = call("add", "dataset", *words)
    assert code == 1 and not out and len(err) == 1 and expected in err[0], err
    assert (folder / "config/datasets.tsv").read_bytes() == before


def test_the_plan_of_forty_tasks_takes_seconds(call, folder):
    start = time.process_time()
    code, out, _ = call("plan", "--configfile", "config/paper-v2.yaml")
    assert code == 0 and time.process_time() - start < 5
    assert out[0].startswith("Suite paper-v2: 0 of 868 ")
    by_hand = "\n".join(out).partition("To be done by hand:")[2].partition("Cost")[0]
    assert all(f"dataset {name}: " in by_hand for name in ("cars", "sun397", "chestx", "cropdiseases", "nyuv2"))
    assert "dataset dtd" not in by_hand
    cars = by_hand.partition("  dataset cars: ")[2].partition("\n  dataset")[0].splitlines()
    assert cars[0].endswith("(its host is gone); place it there, or set data_root")
    download = DOWNLOADS["cars"]
    fields = {"page": download.page, "size": "2.0 GB", "tree": download.tree, "login": "Kaggle (images, test labels)"}
    fields |= {"licence": "research only"}
    fields |= {"copies": "dataset cars-hub, which is downloaded, is a dataset of its own"}
    assert cars[1:] == [f"    {name}: {value}" for name, value in fields.items()]
    assert out[-1] == "  uv run snakemake --logger rich --configfile config/paper-v2.yaml"


def score(folder, protocol, model, dataset):
    path = folder / f"results/scores/{protocol}/{model}/{dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({}))


def test_the_plan_counts_scores_and_names_failures(call, toy):
    score(toy, "toy-linear", "toy-simclr", "digits")
    log = toy / "logs/index_dataset/textures.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 00:00:00,000 the disk is gone\n")
    plan = plan_suite(read_suite())
    assert [(c.protocol, c.model, c.dataset) for c in plan.there] == [("toy-linear", "toy-simclr", "digits")]
    assert len(plan.missing) == len(list(read_suite().suite.cells())) - 1
    assert {(s.model, s.dataset) for s in plan.failed} == {(m, "textures") for m in read_suite().suite.models}
    _, out, _ = call("plan")
    assert any(
        "index_dataset" in line and "the disk is gone" in line and str(log.relative_to(toy)) in line for line in out
    )
    _, out, _ = call("plan", "--cells")
    assert any(line.startswith("  toy-random, digits, toy-fewshot: ") for line in out)
    assert call("plan")[1][0].endswith("behind a job that failed")
    lock = toy / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert call("plan")[1][0].endswith("behind a job that failed or is at work")


def test_a_misspelt_suite_is_one_line_with_the_nearest_one(call, toy):
    code, _, error = call("plan", "--configfile", "config/confi.yaml")
    assert code == 1 and error == ["Error: config/confi.yaml is missing; is it config/config.yaml?"]
    code, _, error = call("plan", "--configfile", "elsewhere.yaml")
    assert code == 1 and error == ["Error: elsewhere.yaml is missing; correct the path"]


def test_the_plan_of_a_finished_suite_costs_nothing(call, toy):
    for cell in read_suite().suite.cells():
        score(toy, cell.protocol, cell.model, cell.dataset)
    _, out, _ = call("plan")
    assert "Cost" not in "\n".join(out) and any("results/toy/report.html is missing" in line for line in out)
    report = toy / "results/toy/report.html"
    report.parent.mkdir(parents=True)
    report.touch()
    assert call("plan")[1][-1] == "Report: results/toy/report.html"
    assert call("report", "--no-open")[1] == ["results/toy/report.html"]


def test_a_local_file_that_is_missing_is_work_by_hand(toy):
    table = toy / "config/models.tsv"
    line = "\t".join(["mine", "Mine", "other", ARCH, "file:mine.pth", "auto", "", "imagenet", "", "toy", "", ""])
    table.write_text(table.read_text() + line + "\n")
    assert "mine.pth" in plan_suite(read_suite()).by_hand["model mine"].text
    (toy / "mine.pth").touch()
    assert not plan_suite(read_suite()).by_hand


def test_a_missing_report_names_the_command(call, toy):
    code, out, err = call("report", "--config", "keep_images=false")
    assert code == 1 and not out and len(err) == 1
    assert "snakemake --config keep_images=false" in err[0] and "keep_images=false available=true" in err[0]


def test_settings_are_read_as_yaml_and_files_are_merged(toy):
    (toy / "more.yaml").write_text("title: Other\nprotocols: {own: {kind: fewshot}}\n")
    chosen = read_suite(["config/config.yaml", "more.yaml"], ["keep_images=false", "data_root=/data dir"])
    assert chosen.suite.config["title"] == "Other" and chosen.suite.config["keep_images"] is False
    assert {"own", "toy-linear"} <= set(chosen.suite.config["protocols"])
    assert chosen.options == (
        "--configfile config/config.yaml more.yaml --config keep_images=false 'data_root=/data dir'"
    )
    with pytest.raises(InputError, match="--config keep_images: "):
        read_suite([], ["keep_images"])
    with pytest.raises(InputError, match=r"empty\.yaml"):
        (toy / "empty.yaml").touch()
        read_suite(["empty.yaml"])


# The table of costs


def totals(name):
    suite = read_suite([f"config/{name}.yaml"]).suite
    return suite, {cost.stage: cost for cost in estimate_costs(suite, suite.cells())}


def test_disk_use_is_that_of_the_page(folder):
    _, costs = totals("paper-v2")
    page = (REPOSITORY / "docs/disk-use.md").read_text()
    *_, images, features = re.search(r"all, 14 models.*", page)[0].replace("*", "").strip("| ").split("|")
    assert costs["images"].size / 1e9 == pytest.approx(float(images), abs=0.01)
    assert costs["features"].size / 1e9 == pytest.approx(float(features), abs=0.01)


def test_models_are_compared_once_a_dataset_and_a_new_model_costs_its_own_pairs(toy):
    suite = read_suite().suite
    cells = [cell for cell in suite.cells() if suite.kind(cell.protocol) == "estimators"]
    assert len(cells) == 3

    def hours(missing):
        (cost,) = [cost for cost in estimate_costs(suite, missing) if cost.stage == "similarity"]
        assert cost.jobs == 1
        return cost.core_hours

    every = hours(cells)
    assert every > 0
    for cell in cells[:2]:
        score(toy, cell.protocol, cell.model, cell.dataset)
    assert hours(cells[2:]) == pytest.approx(every * 2 / 3)


def test_hours_are_those_of_the_page(folder):
    """Hours of one model in docs/performance.md: features 6, inversion 4.8, attention 3.9, normals 300, ..."""
    suite, costs = totals("paper-v2")
    models = len(suite.models)
    assert 5.5 < costs["features"].core_hours / models < 6.5
    assert costs["inversion"].core_hours / models == pytest.approx(4.8, rel=0.02)
    assert costs["attention"].core_hours / models == pytest.approx(3.9, rel=0.02)
    assert costs["normals-training"].core_hours / models == pytest.approx(300, rel=0.02)
    # 41 runs on eleven datasets, at 10 TFLOP/s as in README.md.
    assert costs["finetune"].jobs == 11 * models and costs["finetune"].gpu_hours / models == pytest.approx(97, rel=0.01)
    hours = {row[1].strip(" `"): float(row[4]) for row in operations()}
    assert costs["features"].gpu_hours / models == pytest.approx(hours["features, 433,489 images"], rel=0.05)
    assert costs["normals-training"].gpu_hours / models == pytest.approx(hours["normals"], rel=0.02)
    assert costs["segmentation-training"].gpu_hours / models == pytest.approx(hours["segmentation"], rel=0.02)
    assert costs["segmentation-training"].core_hours / models == pytest.approx(1400, rel=0.02)
    assert costs["detection-frozen"].gpu_hours / models == pytest.approx(hours["detection-frozen"], rel=0.05)
    assert costs["detection-finetune"].gpu_hours / models == pytest.approx(hours["detection-finetune"], rel=0.05)


def test_a_linear_path_costs_what_was_measured_for_other_classes():
    line = re.search(r"^\| classes \| (.*?) \| (.*?) \|", page("linear_scaling"), re.M)
    classes, seconds = ([float(value) for value in part.split(", ")] for part in line.groups())
    linear = {"lambdas": {"count": 45}}
    relative = [costs._relative_path(number, linear) for number in classes]
    ratios = [second / each for second, each in zip(seconds, relative, strict=True)]
    assert ratios == pytest.approx([sum(ratios) / len(ratios)] * len(ratios), rel=0.05)
    assert costs._relative_path(None, linear) == costs._relative_path(100, linear) == 1


def test_the_path_of_imagenet_costs_what_is_extrapolated():
    hours = float(re.search(r"^\| 45 penalties on .* \| (\d+) \|", page("linear_imagenet"), re.M)[1])
    suite = read_suite(["config/paper-v2.yaml"]).suite
    rows = suite.datasets | {"imagenet": suite.datasets["food101"] | {"classes": 1000, "train": 1_281_167, "val": 0}}
    model = next(model for model, row in suite.models.items() if row["arch"] == "resnet50")
    cell = Cell("linear", model, "imagenet")
    one = job_hours(replace(suite, datasets=rows), cell, "score", gpu=False) / len(suite.norms("linear", model))
    assert one == pytest.approx(hours, rel=0.02)


def page(benchmark):
    return (REPOSITORY / f"benchmarks/{benchmark}.md").read_text()


def test_every_kind_of_protocol_has_costs(folder):
    """The demo has one of each; a kind that nobody counted is an error, and not free."""
    schema = read_yaml(REPOSITORY / "workflow/schemas/config.schema.yaml")["$defs"].values()
    kinds = {found["kind"]["const"] for found in (entry.get("properties", {}) for entry in schema) if "kind" in found}
    suite, units = read_suite(["config/config.yaml"]).suite, read_unit_costs()
    cells = {suite.kind(cell.protocol): cell for cell in suite.cells()}
    assert set(cells) == kinds and len(kinds) > 10
    for kind, cell in cells.items():
        arguments = suite, cell, suite.settings(cell.protocol, cell.model)
        found = list(costs._score(*arguments, kind, suite.models[cell.model]["arch"], units))
        assert bool(found) == (kind not in costs.FREE) and all(work.stage in units for work in found)
        with pytest.raises(ValueError, match="kind 'new' has no costs"):
            list(costs._score(*arguments, "new", ARCH, units))


def operations():
    lines = (REPOSITORY / "benchmarks/operations.md").read_text().splitlines()
    return [line.split("|") for line in lines if re.match(r"\| [f`]", line)]


def test_two_normalisations_and_what_exists_are_counted(folder):
    _, costs = totals("paper-v1")
    _, others = totals("paper-v2")
    assert costs["features"].size == pytest.approx(2 * others["features"].size)
    for norm in ("imagenet", "none"):
        path = folder / f"results/features/swav/dtd/resize224.{norm}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert totals("paper-v1")[1]["features"].jobs == costs["features"].jobs - 2


def test_every_row_of_the_table_is_complete():
    for stage, unit in read_unit_costs().items():
        assert unit.unit and (unit.cpu_seconds or unit.size), stage
        assert not unit.side or not unit.arch or forward_operations(unit.arch, unit.side) > 0


@pytest.mark.parametrize("source", ["module:own", "features:feat", "timm:vit_small_patch16_224.dino", "hf:a/b/c.pth"])
def test_sources_of_the_table_are_no_paths(source):
    assert model_row("own", source, {"arch": "none"})["source"] == source
