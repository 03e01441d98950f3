"""Suites, settings blocks and tables that ship: consistent, with the papers' numbers, and described as they are."""

from collections import Counter

import pytest
import yaml

from ssltransfer.config.load import load_suite
from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import ORIGINAL, parse_dataset_source
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.datasets.images import parse_transform
from ssltransfer.errors import InputError
from ssltransfer.settings import job_settings
from ssltransfer.versions import COMPONENTS
from workflow import REPOSITORY

SCHEMAS = REPOSITORY / "workflow" / "schemas"
SUITES = sorted((REPOSITORY / "config").glob("*.yaml"))
SUITES = [path for path in SUITES if path.name not in ("pretraining.yaml", "protocols.yaml", "mine.yaml")]


def shipped(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_shipped_suites_are_valid(path):
    suite = load_suite(shipped(path), SCHEMAS, REPOSITORY)
    cells = list(suite.cells())
    assert (
        len(cells)
        == len(set(cells))
        == sum(
            len(datasets) * len(suite.config["models_of"].get(protocol, suite.models))
            for protocol, datasets in suite.config["tasks"].items()
        )
    )
    for protocol in suite.config["protocols"]:
        parse_transform(suite.settings(protocol).get("transform", "resize224"))


def test_paper_v2_measures_the_40_tasks_that_the_paper_counts():
    suite = load_suite(shipped(REPOSITORY / "config/paper-v2.yaml"), SCHEMAS, REPOSITORY)
    tasks = suite.config["tasks"].items()
    counts = Counter({suite.kind(name): 0 for name, _ in tasks})
    for name, datasets in tasks:
        counts[suite.kind(name)] += len(datasets)
    counted = {kind: counts[kind] for kind in ("linear", "finetune", "fewshot", "detection", "normals", "segmentation")}
    assert list(counted.values()) == [11, 11, 14, 2, 1, 1] and sum(counted.values()) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"augmentation": {"largest_share": 0.75}},
            r"largest_share: found 0.75, expected 1 without crops \(sides.crop",
        ),
        ({"sides": {"window": 64, "window_step": 65}}, "window_step: found 65, expected at most the window of 64"),
        ({"sides": {"jitter": [2, 1]}}, r"jitter: found \[2, 1\], expected the lower factor first"),
    ],
)
def test_settings_of_segmentation_that_contradict_each_other_are_one_line(changes, message):
    config = shipped(REPOSITORY / "config/paper-v2.yaml") | {"tasks": {"mine": ["ade20k"]}, "models_of": {}}
    config["protocols"] = {"mine": {"kind": "segmentation"} | changes}
    with pytest.raises(InputError, match=rf"^config: protocols\.mine\.\w+\.?{message}"):
        load_suite(config, SCHEMAS, REPOSITORY)
    cropped = {"augmentation": {"largest_share": 0.75}, "sides": {"crop": 64}}
    config["protocols"] = {"mine": {"kind": "segmentation"} | cropped}
    load_suite(config, SCHEMAS, REPOSITORY)


def test_a_settings_block_means_the_same_everywhere():
    """Shared blocks stand in one file; a suite's own block of the same name must be equal to it."""
    assert not any("protocols" in shipped(path) for path in SUITES)
    config = shipped(REPOSITORY / "config/paper-v2.yaml")
    equal = config | {"protocols": {"calibration": {"kind": "calibration", "of": "linear", "seed": 0}}}
    assert load_suite(equal, SCHEMAS, REPOSITORY).settings("calibration") == equal["protocols"]["calibration"]
    other = config | {"protocols": {"calibration": {"kind": "calibration", "of": "linear", "seed": 1}}}
    with pytest.raises(InputError, match=r"protocols\.calibration\.seed: found 1.*protocols\.yaml has 0"):
        load_suite(other, SCHEMAS, REPOSITORY)


def test_images_that_are_listed_several_times_serve_linear_and_not_fewshot_classification():
    config = shipped(REPOSITORY / "config/paper-v2.yaml")
    tasks = config["tasks"]
    linear = config | {"tasks": tasks | {"linear": [*tasks["linear"], "caltech101-official"]}}
    assert load_suite(linear, SCHEMAS, REPOSITORY).config["tasks"]["linear"][-1] == "caltech101-official"
    few = config | {"tasks": tasks | {"fewshot": ["caltech101-official"]}}
    with pytest.raises(InputError, match=r"tasks\.fewshot: 'caltech101-official'.*original:caltech101$"):
        load_suite(few, SCHEMAS, REPOSITORY)


def test_the_papers_blocks_have_the_papers_numbers():
    """Literally, because they are the defaults of the schema."""
    v1, v2 = (load_suite(shipped(REPOSITORY / f"config/paper-{v}.yaml"), SCHEMAS, REPOSITORY) for v in ("v1", "v2"))
    penalties = {"first": 1e-6, "last": 1e5, "count": 45}
    for suite, linear, fewshot in ((v1, "linear-v1", "fewshot-v1"), (v2, "linear", "fewshot")):
        assert suite.settings(linear)["lambdas"] == penalties and suite.settings(linear)["solver"] == "converged"
        assert {key: suite.settings(fewshot)[key] for key in ("ways", "shots", "queries", "episodes")} == {
            "ways": 5, "shots": [5, 20, 50], "queries": 15, "episodes": 600
        }  # fmt: skip
        inversion = suite.settings("inversion")
        assert (inversion["canvas"], inversion["steps"], inversion["learning_rate"]) == (256, 3000, 1e-3)
        assert inversion["network"] == {
            "channels": [16, 32, 64, 128, 128, 128], "kernels": [7, 7, 5, 5, 3, 3], "skip": 4, "inputs": 32,
            "noise": 0.1, "output": "sigmoid",
        }  # fmt: skip
        assert suite.settings("attention") == {
            "kind": "attention", "size": 224, "mask": 10, "stride": 1, "fill": "mean", "view": "crop",
            "feature": "pooled",
        }  # fmt: skip
    text = {
        "batch_size": 4, "epochs": 150, "epoch_steps": 0, "learning_rate": 0.02, "momentum": 0.9,
        "weight_decay": 1e-4, "power": 0.9, "decay": "epoch",
    }  # fmt: skip
    variants = ("-v1", "", "-kmeans", "-official", "-official-bn")
    found = [v2.settings(f"normals{variant}") for variant in variants]
    # Both versions print the same numbers.
    assert v1.config["tasks"]["normals"] == v2.config["tasks"]["normals"] and v1.settings("normals") == found[1]
    assert "normals-v1" not in v1.config["tasks"]
    official = {"epoch_steps": 90, "batch_size": 2, "decay": "step"}
    assert [block["schedule"] for block in found] == [text, text, text, text | official, text | official]
    assert [block["frozen"] for block in found] == ["first-four", *["all"] * 4]
    assert [block["targets"] for block in found] == [*["vocabulary"] * 2, "kmeans", *["vocabulary"] * 2]
    for variant, block in zip(variants, found, strict=True):
        assert block["sides"] == {"train": [300, 375, 450, 525, 600], "test": 450, "longest": 1000}
        momentum = 0.001 if variant == "-official-bn" else 0.1
        assert block["network"] == {"channels": 512, "dropout": 0.1, "norm_momentum": momentum}
        assert block["codes"] == 40
        # At its default the key is no parameter of a job, so that older results stay.
        assert ("norm_momentum" in job_settings(block)["network"]) == (momentum == 0.001)


def test_no_demo_setting_leaks_into_another_suite():
    demo = load_suite(shipped(REPOSITORY / "config/config.yaml"), SCHEMAS, REPOSITORY)
    for path in SUITES:
        other = load_suite(shipped(path), SCHEMAS, REPOSITORY)
        if other.name == "demo":
            continue
        assert not set(other.config["tasks"]) & set(demo.config["tasks"])
        assert not set(other.models) & set(demo.models)
        architectures = [{row["arch"] for row in suite.models.values()} for suite in (other, demo)]
        assert not set.intersection(*architectures)
        transforms = {other.settings(task).get("transform", "resize224") for task in other.config["tasks"]}
        assert transforms <= {"resize224", "square257"}


def test_every_source_has_a_version():
    for row in read_table(REPOSITORY / "config/datasets.tsv"):
        source = parse_dataset_source(row["source"])
        assert source.kind == "column" or source.indexer in COMPONENTS
    for source in ("folder:x", "csv:x"):
        assert parse_dataset_source(source).indexer in COMPONENTS


def test_every_original_has_a_row_and_a_download():
    sources = [parse_dataset_source(row["source"]) for row in read_table(REPOSITORY / "config/datasets.tsv")]
    rows = {(source.name, source.variant) for source in sources if source.kind == "original"}
    assert rows == {(name, variant) for name, variants in ORIGINAL.items() for variant in ("", *variants)}
    assert set(DOWNLOADS) == set(ORIGINAL)


DETECTRON2 = {
    "v1": {
        "detection-frozen": "detection-frozen-torchvision",
        "detection-finetune-v1": "detection-finetune-v1-torchvision",
    },
    "v2": {"detection-frozen": "detection-frozen-torchvision", "detection-finetune": "detection-finetune-torchvision"},
}
"""Version -> detection tasks of the paper's suite with detectron2 -> those with torchvision."""


@pytest.mark.parametrize("name", DETECTRON2)
def test_one_key_chooses_the_detection_backend(name):
    written = shipped(REPOSITORY / f"config/paper-{name}.yaml")
    suite = load_suite(written, SCHEMAS, REPOSITORY)
    other = load_suite(written | {"detection": "detectron2"}, SCHEMAS, REPOSITORY)
    tasks, others = suite.config["tasks"], other.config["tasks"]
    assert {p for p in tasks if suite.kind(p) == "detection"} == set(DETECTRON2[name].values())
    assert others == {next((k for k, v in DETECTRON2[name].items() if v == p), p): d for p, d in tasks.items()}
    assert all(other.settings(p)["backend"] == "detectron2" for p in DETECTRON2[name])
    back = load_suite(other.config | {"protocols": {}, "detection": "torchvision"}, SCHEMAS, REPOSITORY)
    assert back.config["tasks"] == tasks
    shown = {suite.shown_instead(cell) for cell in suite.cells()} - {None}
    assert shown == {cell for cell in other.cells() if cell.protocol in DETECTRON2[name]}
    assert not any(map(other.shown_instead, other.cells()))


def test_models_of_follows_the_detection_backend():
    written = shipped(REPOSITORY / "config/paper-v2.yaml")
    one = {"detection-frozen-torchvision": ["swav"]}
    suite = load_suite(written | {"detection": "detectron2", "models_of": one}, SCHEMAS, REPOSITORY)
    assert suite.config["models_of"] == {"detection-frozen": ["swav"]}


def test_a_detection_block_without_one_of_the_other_backend_is_one_line():
    demo = shipped(REPOSITORY / "config/config.yaml")
    with pytest.raises(InputError, match="^config: detection: found 'detectron2', .*'detection-frozen-r64'"):
        load_suite(demo | {"detection": "detectron2"}, SCHEMAS, REPOSITORY)


def test_mine_needs_a_model_that_lists_it(tmp_path):
    mine = shipped(REPOSITORY / "config/mine.yaml")
    with pytest.raises(InputError, match="models.tsv: no model lists suite 'mine'"):
        load_suite(mine, SCHEMAS, REPOSITORY)
    table = tmp_path / "models.tsv"
    row = "my-net\tMy net\tcontrastive\tresnet50\tfile:my-net.pth\t\t\t\t74.3\tmine\n"
    table.write_text((REPOSITORY / "config/models.tsv").read_text() + row)
    suite = load_suite(mine | {"models": str(table)}, SCHEMAS, REPOSITORY)
    assert set(suite.models) == {"my-net"} and suite.config["published"] == "v2"
    assert {suite.kind(protocol) for protocol in suite.config["tasks"]} == {"linear", "fewshot"}


def test_paper_suites_hold_the_papers_data_sets():
    """Counts of experiments: v1 has 11 + 4 x 3, v2 11 + 14 x 3 of these two kinds (some shots are impossible)."""
    for name, fewshot in (("v1", 4), ("v2", 14)):
        tasks = shipped(REPOSITORY / f"config/paper-{name}.yaml")["tasks"]
        assert [len(datasets) for datasets in tasks.values()][:2] == [11, fewshot]


def test_kinds_of_protocols_can_be_left_out():
    """As ``--config only=linear,calibration``; a calibration needs the kind of its classifiers, too."""
    paper, demo = (shipped(REPOSITORY / f"config/{name}.yaml") for name in ("paper-v2", "config"))
    kept = {
        "linear,fewshot": ["linear", "fewshot"],
        "linear, calibration": ["linear", "calibration"],
        "finetune,calibration": ["finetune", "calibration-finetune"],
        "": list(paper["tasks"]),
    }
    for only, tasks in kept.items():
        assert list(load_suite(paper | {"only": only}, SCHEMAS, REPOSITORY).config["tasks"]) == tasks
    suite = load_suite(demo | {"only": "linear,normals"}, SCHEMAS, REPOSITORY)
    assert set(suite.config["models_of"]) == {"normals-64"}
    with pytest.raises(InputError, match="^config: only: found 'lin'; is it 'linear'"):
        load_suite(paper | {"only": "linear,lin"}, SCHEMAS, REPOSITORY)
    with pytest.raises(InputError, match="^config: only: no task is left of 'label-efficiency'; kinds of this suite: "):
        load_suite(paper | {"only": "label-efficiency"}, SCHEMAS, REPOSITORY)
    wrong = paper | {"only": "linear", "models_of": {"linea": ["swav"]}}
    with pytest.raises(InputError, match=r"^config: models_of\.linea is not among the tasks"):
        load_suite(wrong, SCHEMAS, REPOSITORY)


def test_finetuning_needs_a_network(tmp_path):
    table, row = tmp_path / "models.tsv", f"given\tGiven\tnone\tnone\tfeatures:{tmp_path}\t\t\t\t\tpaper-v2\n"
    table.write_text((REPOSITORY / "config/models.tsv").read_text().splitlines()[0] + "\n" + row)
    given = shipped(REPOSITORY / "config/paper-v2.yaml") | {"models": str(table)}
    for tasks in ({"finetune": ["dtd"]}, {"calibration-finetune": ["dtd"]}):
        with pytest.raises(InputError, match=r"of model 'given' only features are given .*finetune needs a network"):
            load_suite(given | {"tasks": tasks}, SCHEMAS, REPOSITORY)


def test_the_reference_is_written_from_the_schemas():
    import runpy

    page = runpy.run_path(str(SCHEMAS / "document.py"))["page"]()
    assert (REPOSITORY / "docs/configuration.md").read_text() == page, "run: python workflow/schemas/document.py"


@pytest.mark.slow
def test_disk_use_is_written_from_the_tables():
    import runpy

    page = runpy.run_path(str(REPOSITORY / "benchmarks/disk_use.py"))["page"]()
    assert (REPOSITORY / "docs/disk-use.md").read_text() == page, "run: python benchmarks/disk_use.py"
