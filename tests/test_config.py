"""Suites and tables as they are read: their meaning, and one line for what is wrong."""

import copy
import re

import pytest
import yaml

from ssltransfer.config.load import load_suite
from ssltransfer.config.norms import evaluated_norms, read_norms
from ssltransfer.config.suite import Cell
from ssltransfer.config.table_file import read_table
from ssltransfer.errors import InputError
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.settings import read_schema
from workflow import REPOSITORY

SCHEMAS = REPOSITORY / "workflow" / "schemas"


CONFIG = {
    "suite": "s",
    "models": "models.tsv",
    "datasets": "datasets.tsv",
    "pretraining": "pretraining.yaml",
    "blocks": "blocks.yaml",
    "tasks": {"lin": ["digits"], "few": ["digits"]},
    "protocols": {
        "lin": {
            "kind": "linear",
            "transform": "resize32",
            "normalisation": "per-model",
            "lambdas": {"first": 1e-2, "last": 1, "count": 3},
            "validation_fraction": 0.2,
            "seed": 0,
        },
        "few": {
            "kind": "fewshot",
            "transform": "resize32",
            "normalisation": "per-model",
            "ways": 5,
            "shots": [5],
            "queries": 15,
            "episodes": 10,
            "seed": 0,
        },
    },
}
MODELS = {
    "a": dict(
        model="a", label="A", family="none", arch="resnet50", source="file:a.pth", format="torchvision", sha256="",
        norm="imagenet", source_accuracy="measured:digits", suites="s, t", licence="", reference="",
    ),
    "b": dict(
        model="b", label="B", family="none", arch="resnet-1x1x1x1-w16", source="pretrain:r", format="", sha256="",
        norm="none", source_accuracy="71.5", suites="s", licence="", reference="",
    ),
}  # fmt: skip
DATASETS = {
    "digits": dict(
        dataset="digits", label="Digits", task="single-label", metric="top1", source="generated:digits", classes="10",
        train="1000", val="0", test="797", licence="", reference="",
    ),
    "pool": dict(
        dataset="pool", label="Pool", task="single-label", metric="top1", source="original:eurosat", classes="10",
        train="100", val="0", test="0", licence="", reference="",
    ),
    "multi": dict(
        dataset="multi", label="Multi", task="multi-label", metric="map11", source="column:digits/objects",
        classes="10", train="1000", val="0", test="797", licence="", reference="",
    ),
    "boxes": dict(
        dataset="boxes", label="Boxes", task="detection", metric="", source="original:voc_detection", classes="20",
        train="10", val="0", test="10", licence="", reference="",
    ),
}  # fmt: skip
RECIPES = {"r": {"method": "none", "seed": 0}}
SIMCLR = {
    "method": "simclr", "dataset": "shapes", "transform": "resize32", "epochs": 1, "batch_size": 8,
    "learning_rate": 0.1, "warmup": 0, "weight_decay": 0, "head": {"hidden": 4, "output": 4, "temperature": 0.1},
}  # fmt: skip


def columns(**cells):
    """Add columns to the table of models, with these cells in the row of model a."""

    def change(parts):
        for name, row in parts["models"].items():
            row.update({column: cell if name == "a" else "" for column, cell in cells.items()})

    return change


def load(tmp_path, change=lambda parts: None):
    parts = copy.deepcopy({"config": CONFIG, "models": MODELS, "datasets": DATASETS, "recipes": RECIPES})
    change(parts)
    for name in ("models", "datasets"):
        if parts[name] is not None:
            rows = list(parts[name].values())
            lines = ["\t".join(rows[0])] + ["\t".join(row.values()) for row in rows]
            (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "pretraining.yaml").write_text(yaml.safe_dump(parts["recipes"]))
    (tmp_path / "blocks.yaml").write_text(yaml.safe_dump({"shared": CONFIG["protocols"]["lin"]}))
    return load_suite(parts["config"], SCHEMAS, tmp_path)


def test_of_several_linear_tasks_the_first_is_the_source_accuracy_where_all_models_have_it(tmp_path):
    assert list(load(tmp_path, second_linear).models) == ["a", "b"]


def test_a_valid_suite(tmp_path):
    suite = load(tmp_path)
    assert suite.name == "s"
    assert Cell("lin", "a", "digits") in set(suite.cells())
    assert suite.image_dataset("multi") == "digits"
    assert suite.recipe("b") == RECIPES["r"]
    assert suite.recipe("a") is None
    assert suite.norms("lin", "b") == ["none"]
    assert suite.config["allow_subset"] is False


def transformer(**cells):
    """Make model a a DINOv2, whose patches of 14 pixels do not fit the suite's 32."""
    cells = {"arch": "timm:vit_small_patch14_dinov2", "size": "", "pool": ""} | cells
    return lambda parts: columns(**cells)(parts) or parts["models"]["b"].update(arch=MODELS["b"]["arch"])


def transformer_recipe(parts):
    """Train model b, a DINOv2 whose patches of 14 pixels do not fit its recipe's images of 32."""
    columns(pool="", size="")(parts)
    parts["recipes"]["r"].update(SIMCLR, dataset="digits")
    parts["models"]["b"].update(size="28", arch="timm:vit_small_patch14_dinov2")


def test_size_and_pool_of_a_model_are_part_of_its_features(tmp_path):
    suite = load(tmp_path, transformer(size="28", pool="cls-mean"))
    assert suite.feature_files(Cell("lin", "a", "multi")) == [
        "results/features/a/digits/resize28.imagenet.cls-mean.npy"
    ]
    assert suite.feature_files(Cell("lin", "b", "multi")) == ["results/features/b/digits/resize32.none.npy"]
    assert suite.settings("lin", "a") == suite.settings("lin") | {"transform": "resize28"}
    assert suite.job_settings("lin", "b") == suite.job_settings("lin")


def test_precision_is_part_of_the_names_of_features_unless_it_is_float32(tmp_path):
    def half(parts):
        transformer(size="28", pool="cls-mean")(parts)
        parts["config"]["protocols"]["lin"].update(precision="bfloat16")

    suite = load(tmp_path, half)
    assert suite.feature_files(Cell("lin", "a", "multi")) == [
        "results/features/a/digits/resize28.imagenet.cls-mean.bfloat16.npy"
    ]
    assert suite.feature_files(Cell("lin", "b", "multi")) == ["results/features/b/digits/resize32.none.bfloat16.npy"]
    assert suite.job_settings("lin")["precision"] == "bfloat16"
    full = load(tmp_path, lambda p: p["config"]["protocols"]["lin"].update(precision="float32"))
    assert "precision" not in full.job_settings("lin")


def test_the_official_few_shot_geometry_has_one_size(tmp_path):
    suite = load(
        tmp_path, lambda p: (columns(size="64")(p), p["config"]["protocols"]["few"].update(transform="square257"))
    )
    assert suite.settings("few", "a")["transform"] == "square257"


@pytest.mark.parametrize(
    ("cells", "norm"),
    [
        ({}, "imagenet"),
        (
            {
                "arch": "timm:vit_base_patch16_clip_quickgelu_224",
                "size": "32",
                "source": "timm:vit_base_patch16_clip_quickgelu_224.openai",
            },
            "clip",
        ),
        ({"arch": "timm:vit_small_patch16_224", "size": "32", "source": "timm:vit_small_patch16_224.dino"}, "imagenet"),
        (
            {"arch": "timm:vit_small_patch16_224", "size": "32", "source": "timm:vit_small_patch16_224.augreg_in1k"},
            "half",
        ),
    ],
)
def test_an_empty_norm_is_that_of_the_published_weights(tmp_path, cells, norm):
    suite = load(tmp_path, lambda p: (columns(**{"norm": "", **cells})(p), p["models"]["b"].update(MODELS["b"])))
    assert suite.models["a"]["norm"] == norm


def test_values_of_a_normalisation_travel_with_its_name(tmp_path):
    table = tmp_path / "norms.tsv"
    table.write_text("norm\tmean\tstd\nimagenet\t0.485/0.456/0.406\t0.229/0.224/0.225\nmine\t.5/0.4/0.3\t1/1/1\n")
    with pytest.raises(InputError, match=r"row 'mine': found the values '\.5/0\.4/0\.3:1/1/1', expected three numbers"):
        read_norms(table)
    table.write_text("norm\tmean\tstd\nmine\t0.5/0.4/0.3\t1/1/1\n")
    assert read_norms(table) == {"imagenet": "imagenet", "none": "none", "mine": "mine=0.5/0.4/0.3:1/1/1"}
    assert mean_and_std("mine=0.5/0.4/0.3:1/1/1") == ((0.5, 0.4, 0.3), (1.0, 1.0, 1.0))
    for row_, message in (
        ("imagenet\t0.5/0.5/0.5\t1/1/1", "the paper's normalisations do not change"),
        ("mine\t0.5/0.4/0.3\t0/1/1", "a standard deviation of 0"),
    ):
        table.write_text(f"norm\tmean\tstd\n{row_}\n")
        with pytest.raises(InputError, match=message):
            read_norms(table)


def test_both_of_the_papers_inputs_for_a_network_with_another(tmp_path):
    assert evaluated_norms("test-max", "clip") == ["clip", "none"]
    assert evaluated_norms("test-max", "none") == ["imagenet", "none"]


OWN = dict(
    dataset="own", label="Own", task="single-label", metric="top1", source="folder:birds", classes="", train="",
    val="0", test="", licence="", reference="",
)  # fmt: skip


def own(protocol="lin", **values):
    """A change that adds a dataset of one's own, whose counts are left to the index."""

    def change(parts):
        parts["datasets"]["own"] = OWN | values
        parts["config"]["tasks"][protocol].append("own")

    return change


def make_parts(folder, *parts):
    for part in parts:
        (folder / part / "robin").mkdir(parents=True)


def test_counts_of_own_images_may_be_left_to_the_index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("folder:birds", "csv:birds.csv"):
        row = load(tmp_path, own(source=source)).datasets["own"]
        assert [row[count] for count in ("classes", "train", "val", "test")] == [None, None, 0, None]


def test_parts_that_a_folder_lacks_are_found_when_the_suite_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    make_parts(tmp_path / "resources/datasets/birds", "train", "valid")
    for source in ("folder:birds", "folder:~/resources/datasets/birds"):
        with pytest.raises(InputError, match=r"tasks\.lin: 'own' has no test part"):
            load(tmp_path, own(source=source))
        load(tmp_path, own("few", source=source))
    make_parts(tmp_path / "resources/datasets/birds", "Test")
    load(tmp_path, own())


def test_paths_of_the_configuration_are_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TABLES", str(tmp_path))
    (tmp_path / "$x").mkdir()
    (tmp_path / "images").mkdir()

    def change(parts):
        parts["config"].update(models="~/models.tsv", datasets="$TABLES/datasets.tsv", imagenet_val="~/images")
        parts["config"]["data_root"] = "$x"

    config = load(tmp_path, change).config
    assert config["models"] == str(tmp_path / "models.tsv") and config["datasets"] == str(tmp_path / "datasets.tsv")
    assert config["imagenet_val"] == str(tmp_path / "images")
    assert config["data_root"] == "$x", "there is a folder of this name"


def test_a_data_root_that_is_not_there_is_an_error_unless_all_is_indexed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def suite(data_root, source="folder:birds"):
        def change(parts):
            own(source=source)(parts)
            parts["config"].update(data_root=data_root)

        return load(tmp_path, change)

    suite("resources/datasets").check_data_root()  # the default folder appears with the first download
    suite("none", source="csv:/absolute/birds.csv").check_data_root()
    with pytest.raises(InputError, match=r"config: data_root: /.*/none is not a folder, and dataset 'own'"):
        suite("~/none").check_data_root()
    (tmp_path / "results/datasets/own").mkdir(parents=True)
    (tmp_path / "results/datasets/own/index.parquet").touch()
    suite("~/none").check_data_root()


def test_a_model_needs_an_id_an_architecture_and_a_source(tmp_path):
    def shorten(parts):
        parts["models"] = {"a": {"model": "a", "arch": "resnet50", "source": "file:a.pth"}}

    assert load(tmp_path, shorten).models["a"] == {
        "model": "a", "label": "a", "family": "other", "arch": "resnet50", "source": "file:a.pth", "format": "auto",
        "sha256": "", "norm": "imagenet", "source_accuracy": "", "suites": ["s"], "licence": "", "reference": "",
        "pool": "", "size": "", "run": "", "epoch": "", "alternatives": "",
    }  # fmt: skip


def test_rows_may_end_early(tmp_path):
    load(tmp_path)
    table = tmp_path / "models.tsv"
    table.write_text(table.read_text() + "c\t\t\tresnet50\tfile:c.pth\n" + "d\tD\tx\tresnet50\tpretrain:r\t\t\tnone\n")
    models = load(tmp_path, lambda parts: parts.update(models=None)).models
    assert (models["c"]["format"], models["c"]["suites"], models["c"]["norm"]) == ("auto", ["s"], "imagenet")
    assert (models["d"]["format"], models["d"]["norm"], models["d"]["label"]) == ("", "none", "D")
    with pytest.raises(InputError, match="1 cells, the header has 2 columns"):
        (tmp_path / "other.tsv").write_text("x\ty\n1\n")
        read_table(tmp_path / "other.tsv")
    table.write_text(table.read_text() + "e   E   x   resnet50   file:c.pth\n")
    with pytest.raises(InputError, match=r"line 6: found one cell, 'e   E   x .*'; separate cells by one tab each$"):
        load(tmp_path, lambda parts: parts.update(models=None))


def test_a_row_in_no_known_suite_is_named(tmp_path):
    """A tab too many moves the suite into the next column, and the model would be missing without a word."""
    load(tmp_path)
    table = tmp_path / "models.tsv"
    rows = ["p\tP\tx\tresnet50\tfile:p.pth\t\t\t\t\t74\ts", "q\tQ\tx\tresnet50\tfile:p.pth\t\t\t\t\t\tpaper-v2"]
    table.write_text("\n".join([table.read_text().rstrip("\n"), *rows]) + "\n")
    found = load(tmp_path, lambda parts: parts.update(models=None))
    assert "p" not in found.models and list(found.invalid) == ["p"]
    assert re.search(r"row 'p': no file in config/ has suite: 74; known are .*paper-v2", found.invalid["p"])


def test_a_run_and_its_epochs(tmp_path):
    models = load(tmp_path, columns(run="first", epoch="100")).models
    assert (models["a"]["run"], models["a"]["epoch"], models["b"]["run"]) == ("first", "100", "")


def test_every_format_is_a_value_of_its_column():
    from ssltransfer.checkpoints.convert import FORMATS

    pattern = read_schema("models")["properties"]["format"]["pattern"]
    assert all(re.search(pattern, format) for format in (*FORMATS, "auto:teacher.backbone.", "auto:."))
    assert not any(re.search(pattern, format) for format in ("moco:x", "auto:", "auto:a b", "autos"))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("cp1252", r"models\.tsv, line 2.*UTF-8")],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_of_spreadsheets(tmp_path, encoding, message, newline):
    load(tmp_path, lambda parts: parts["models"]["a"].update(label="Größe, neu"))
    table = tmp_path / "models.tsv"
    text = table.read_text().replace("Größe, neu", '"Größe, ""neu"""').replace("s, t", '"s, t"')
    table.write_bytes(newline.join(text.splitlines()).encode(encoding))
    if message:
        with pytest.raises(InputError, match=message) as error:
            load(tmp_path, lambda parts: parts.update(models=None))
        assert "\n" not in str(error.value)
    else:
        row = load(tmp_path, lambda parts: parts.update(models=None)).models["a"]
        assert (row["label"], row["suites"]) == ('Größe, "neu"', ["s", "t"])


def test_input_of_normals_is_per_model_or_the_same_for_all(tmp_path):
    for normalisation, expected in (("per-model", ["none"]), ("imagenet", ["imagenet"])):
        change = normals(dataset="scenes", targets="kmeans", normalisation=normalisation)
        assert load(tmp_path, change).norms("nor", "b") == expected


def test_booleans_may_come_from_the_command_line(tmp_path):
    suite = load(tmp_path, lambda p: p["config"].update(allow_subset="true", keep_images="false"))
    assert suite.config["allow_subset"] is True and suite.config["keep_images"] is False


def test_max_suites_need_both_inputs(tmp_path):
    suite = load(tmp_path, lambda p: p["config"]["protocols"]["lin"].update(normalisation="test-max"))
    assert suite.norms("lin", "b") == ["imagenet", "none"]


def test_a_protocol_may_run_on_some_of_the_models(tmp_path):
    cells = set(load(tmp_path, lambda p: p["config"].update(models_of={"few": ["b"]})).cells())
    assert cells == {Cell("lin", "a", "digits"), Cell("lin", "b", "digits"), Cell("few", "b", "digits")}


def detection(datasets, **changes):
    block = {"kind": "detection", "backend": "torchvision", "frozen": "none", "seed": 0} | changes
    return lambda p: (p["config"]["protocols"].update(det=block), p["config"]["tasks"].update(det=datasets))


def finetune(**values):
    block = {"kind": "finetune"} | values
    return lambda p: (p["config"]["protocols"].update(tune=block), p["config"]["tasks"].update(tune=["digits"]))


def setting(protocol, **values):
    return lambda p: p["config"]["protocols"][protocol].update(values)


LOOKS = {
    "attention": {"kind": "attention", "size": 64, "mask": 10, "stride": 2},
    "inversion": {
        "kind": "inversion", "transform": "resize64", "canvas": 64, "steps": 5, "learning_rate": 0.01,
        "network": {"channels": [4, 4], "kernels": [3, 3]}, "lpips": [], "seed": 0,
    },
}  # fmt: skip


def look(kind, dataset, **values):
    """Add a protocol that uses the images of a dataset, which may be `pool`."""

    def change(p):
        p["datasets"]["pool"].update(task="images", metric="")
        p["config"]["protocols"]["see"] = LOOKS[kind] | values
        p["config"]["tasks"]["see"] = [dataset]

    return change


def kernels(*sizes):
    return {"channels": [4, 4], "kernels": list(sizes)}


def second_linear(parts):
    parts["config"]["protocols"]["other"] = parts["config"]["protocols"]["lin"]
    parts["config"]["tasks"]["other"] = ["digits"]


def second_linear_alone(parts):
    second_linear(parts)
    parts["config"]["models_of"] = {"lin": ["b"]}


def row(table, name, **values):
    return lambda p: p[table][name].update(values)


def normals(dataset, **values):
    """A protocol of kind normals, as in the paper's suite but for `values`; `scenes` and `frames` have normals."""
    block = yaml.safe_load((REPOSITORY / "config/protocols.yaml").read_text())["normals"] | values

    def change(parts):
        for row in (
            {"dataset": "scenes", "source": "generated:shapes"},
            {"dataset": "frames", "task": "normals", "metric": "", "source": "original:nyuv2/labelled"},
            {"dataset": "pictures", "task": "normals", "metric": "", "source": "folder:pictures"},
        ):
            parts["datasets"][row["dataset"]] = DATASETS["digits"] | row
        parts["config"]["protocols"]["nor"] = block
        parts["config"]["tasks"]["nor"] = [dataset]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["config"].update(batch_sise=3), "config: top level: unknown key 'batch_sise'; known are suite"),
        (lambda p: p["config"].pop("suite"), "config: top level: key 'suite' is missing"),
        (setting("lin", lamdas=3), "protocols.lin: unknown key 'lamdas'; is it 'lambdas'"),
        (setting("lin", kind="svm"), "protocols.lin.kind: found 'svm', expected one of 'linear', 'knn', 'fewshot', "),
        (
            lambda p: (
                p["config"]["protocols"].update(cal={"kind": "calibration", "of": "few", "seed": 0}),
                p["config"]["tasks"].update(cal=["digits"]),
            ),
            "protocols.cal.of: 'few' .* linear",
        ),
        (
            lambda p: (
                p["config"]["protocols"].update(near={"kind": "knn", "selection": "validation"}),
                p["config"]["tasks"].update(near=["pool"]),
            ),
            "protocols.near.selection: 'pool' has no test part, .*; write none",
        ),
        (
            lambda p: (
                p["config"]["protocols"].update(labels={"kind": "label-efficiency", "of": "few"}),
                p["config"]["tasks"].update(labels=["digits"]),
            ),
            "protocols.labels.of: 'few' is not a linear protocol .* normalisation: per-model",
        ),
        (
            lambda p: (
                p["config"]["protocols"].update(
                    labels={"kind": "label-efficiency", "of": "lin", "lists": ["simclr-1-percent"]}
                ),
                p["config"]["tasks"].update(labels=["digits"]),
            ),
            "protocols.labels.lists: the lists are of images of ImageNet, found dataset 'digits' .generated:digits.",
        ),
        (setting("lin", validation_fraction=1.0), "lin.validation_fraction: found 1.0, expected less than 1"),
        (setting("lin", validation_fraction=0), "lin.validation_fraction: found 0, expected more than 0"),
        (setting("lin", seed="x"), "lin.seed: found 'x', expected a whole number"),
        (setting("lin", transform="crop7"), "lin.transform: found 'crop7', expected resize and a number of pixels"),
        (setting("few", shots=[]), r"few.shots: found \[\], expected at least 1 item"),
        (setting("few", normalisation="validation-max"), "few.normalisation: found 'validation-max', expected one of"),
        (lambda p: p["config"]["tasks"].update(lin=["cars"]), "tasks.lin .*'cars'.* digits"),
        (lambda p: p["config"]["tasks"].update(knn=["digits"]), "tasks.knn has no settings block in protocols"),
        (lambda p: p["config"]["tasks"].update(few=["multi"]), "tasks.few: 'multi' is multi-label; fewshot needs"),
        (lambda p: p["config"]["tasks"].update(lin=["digits", "pool"]), "tasks.lin: 'pool' has no test part"),
        (
            lambda p: p["config"]["tasks"].update(lin=["boxes"]),
            "tasks.lin: 'boxes' is detection; linear needs",
        ),
        (lambda p: p["config"]["tasks"].update(few=["boxes"]), "tasks.few: 'boxes' is detection; fewshot needs"),
        (detection(["digits"]), "tasks.det: 'digits' is single-label; detection needs .* detection"),
        (detection(["boxes"], frozen="all"), "det.frozen: found 'all', expected one of 'none', 'first-two'"),
        (detection(["boxes"], backend="mmdet"), "det.backend: found 'mmdet', expected one of 'torchvision'"),
        (detection(["boxes"], length=0), "det.length: found 0, expected more than 0"),
        (detection(["boxes"], network={"anchors": [8]}), "det.network.anchors: found"),
        (
            detection(["boxes"], schedule={"steps": 10_000}),
            r"det.schedule.milestones .* found \[96000, 128000\], expected rising steps below 10000",
        ),
        (
            detection(["boxes"], schedule={"steps": 60, "milestones": [50, 40]}),
            r"milestones .* found \[50, 40\], expected rising",
        ),
        (
            detection(["boxes"], schedule={"steps": 60, "milestones": [40]}),
            "det.schedule.warmup .* found 100, expected less than the 60 steps",
        ),
        (
            finetune(schedule={"steps": 20, "warmup": 20}),
            "tune.schedule.warmup .* found 20, expected less than the 20 steps",
        ),
        (finetune(schedule={"warmup": 0.05}), "tune.schedule.warmup: found 0.05, expected a whole number"),
        (finetune(steps=20), r"tune: unknown key 'steps' \('steps' belongs below 'schedule'\)"),
        (
            detection(["boxes"], steps=3),
            "det: unknown key 'steps' \\('steps' belongs below 'schedule'\\); known are kind",
        ),
        (
            detection(["boxes"], schedule={"learning_rate": "1e-1"}),
            r"found '1e-1', expected a number \(YAML reads it as text; write 0.1\)",
        ),
        (detection(["boxes"], schedule={"epochs": 3}), "det.schedule: unknown key 'epochs'; known are batch_size"),
        (lambda p: p["config"].update(models_of={"knn": ["a"]}), "models_of.knn .* lin, few"),
        (lambda p: p["config"].update(models_of={"few": ["c"]}), "models_of.few names model 'c'; models of suite 's'"),
        (
            lambda p: p["config"]["tasks"].update(lyn=["digits"]),
            "tasks.lyn has no settings block in protocols; is it 'l",
        ),
        (lambda p: p["config"]["tasks"].update(lin=["digit"]), "tasks.lin names dataset 'digit'; is it 'digits'"),
        (lambda p: p["config"].update(allow_subset="yes"), "allow_subset: found 'yes', expected true or false"),
        (lambda p: p["config"].update(on_error="ignore"), "on_error: found 'ignore', expected one of 'fail', 'skip'"),
        (
            setting("lin", transform="square257"),
            "lin.transform: found 'square257', expected resize and a number of pixels",
        ),
        (normals(dataset="digits"), "tasks.nor: 'digits' is single-label; normals needs .* normals"),
        (
            normals(dataset="pictures"),
            "tasks.nor: 'pictures' .* original:nyuv2, original:nyuv2/labelled or generated:shapes",
        ),
        (normals(dataset="scenes"), "protocols.nor.targets: 'scenes' has no code words; write kmeans"),
        (normals(dataset="frames"), "protocols.nor.targets: 'frames' has no code words; write kmeans"),
        (normals(dataset="scenes", targets="nearest"), "nor.targets: found 'nearest', expected one of 'kmeans', 'voc"),
        (
            normals(dataset="scenes", schedule={"batch_size": 1}),
            "nor.schedule.batch_size: found 1, expected at least 2",
        ),
        (normals(dataset="scenes", frozen="none"), "nor.frozen: found 'none', expected one of 'all', 'first-four'"),
        (look("attention", "pool", stride=11), "protocols.see.stride: found 11, expected at most the mask 10"),
        (look("attention", "digits"), "tasks.see: 'digits' is single-label; attention needs .* images"),
        (
            look("inversion", "pool", network=kernels(3, 4)),
            r"see.network.kernels: found \[3, 4\], expected an odd size for each of",
        ),
        (
            look("inversion", "pool", network=kernels(3)),
            r"see.network.kernels: found \[3\], expected an odd size for each of",
        ),
        (
            look("inversion", "pool", canvas=66),
            "see.canvas: found 66, expected a multiple of 4 .* no less than the .* 64",
        ),
        (
            look("inversion", "pool", canvas=32),
            "see.canvas: found 32, expected a multiple of 4 .* no less than the .* 64",
        ),
        (look("inversion", "pool", lpips=["resnet"]), r"see.lpips.0: found 'resnet', expected one of 'alexnet'"),
        (lambda p: p["config"].update(suite="nobody"), "no model lists suite 'nobody'; suites there are s, t"),
        (row("datasets", "digits", metric="map11"), "row 'digits': metric 'map11' does not fit task 'single-label'"),
        (
            row("datasets", "digits", classes="ten"),
            "row 'digits': classes: found 'ten', expected a whole number, or nothing",
        ),
        (row("datasets", "digits", source="original:mnist"), "row 'digits': source 'original:mnist' is unknown"),
        (row("datasets", "pool", dataset="digits"), "dataset 'digits' has two rows; ids must be unique"),
        (row("models", "a", model="b"), "model 'b' has two rows; ids must be unique"),
        (row("models", "a", model="A"), "row 'A': model: found 'A', expected lower-case letters, .* such as a"),
        (row("models", "a", norm="vgg"), "row 'a': norm 'vgg' is not one of imagenet, none, half, clip"),
        (row("models", "b", format="auto"), "row 'b': format is 'auto', but source pretrain: has no file"),
        (row("models", "a", format="mocco"), "row 'a': format: found 'mocco', expected auto, .* byol, or nothing"),
        (row("models", "a", arch=""), "row 'a': top level: key 'arch' is missing"),
        (columns(pool="cls"), "row 'a': pool: found 'cls', but resnet50 has one readout only; leave the cell empty"),
        (columns(pool="avg"), "row 'a': pool: found 'avg', expected cls, mean, "),
        (columns(alternatives="https://x.org/w.pth"), "expected FORMAT=SOURCE, such as torchvision=https://"),
        (columns(alternatives="resnet=https://x.org/w.pth"), "alternatives: found format 'resnet', expected one that"),
        (
            columns(alternatives="moco=file:w.pth"),
            "row 'a': alternatives: found 'moco=file:w.pth', expected an address",
        ),
        (columns(size="big"), "row 'a': size: found 'big', expected a number of pixels"),
        (
            row("models", "a", arch="timm:vit_small"),
            "row 'a': arch: timm has no network 'vit_small'; the nearest names",
        ),
        (
            row("models", "a", arch="timm:vit_tiny_patch16_24", norm=""),
            "row 'a': arch: timm has no network 'vit_tiny_patch16_24'; the nearest names are vit_tiny_patch16_224",
        ),
        (
            row("models", "a", arch="timm:resnet18", source="timm:resnet50.a1_in1k"),
            "row 'a': source timm:resnet50.a1_in1k: found arch timm:resnet18, .* write arch timm:resnet50",
        ),
        (
            transformer(arch="timm:vit_base_patch16_clip_quickgelu_224", norm=""),
            "row 'a': norm: the cell is empty and published weights of .* use clip; write the one",
        ),
        (transformer(arch="timm:xcit_nano_12_p16_224", size="32", pool="layers-2"), "has no blocks whose class tokens"),
        (row("models", "a", arch="resnet18"), r"row 'a': arch: found 'resnet18'.*; did you mean timm:resnet18\?"),
        (row("models", "a", arch="torchvision:swin_t"), "row 'a': arch: found torchvision:swin_t, whose tensors have"),
        (row("models", "a", arch="vit_small_patch16_224"), "row 'a': arch: found 'vit_small_patch16_224', expected"),
        (transformer(), "row 'a', protocol 'lin': size: timm:.* would see images of 32 pixels, expected a multiple of"),
        (transformer(size="50"), "row 'a': size: .* would see images of 50 pixels, .*its patch of 14; write 56"),
        (transformer(size="28", pool="token-1"), "row 'a': pool: found 'token-1', .* has 1 tokens beside its patches"),
        (
            transformer(arch="timm:vit_small_patch16_224", norm=""),
            "row 'a': norm: the cell is empty and published weights of timm:vit_small_patch16_224 use half or imagenet",
        ),
        (columns(run="", epoch="10"), "row 'a': epoch is 10, but run is empty"),
        (columns(run="first", epoch="ten"), "row 'a': epoch: found 'ten', expected a number, such as"),
        (columns(colour="red"), "unknown key 'colour'; known are model, label"),
        (row("models", "b", source="pretrain:x"), "row 'b': recipe 'x' is not in pretraining.yaml; known are r"),
        (row("models", "b", arch="none"), "row 'b': arch is 'none' and source 'pretrain:r'; given features"),
        (
            transformer_recipe,
            "row 'b': size: timm:vit_small_patch14_dinov2 would see images of 32 pixels, .* 14; write 28 into the "
            "transform of a new recipe",
        ),
        (row("models", "b", source_accuracy="0.74"), "row 'b': source_accuracy is 0.74; write a percentage from 1"),
        (row("models", "b", source_accuracy="100"), "row 'b': source_accuracy is 100; write a percentage from 1"),
        (row("models", "a", source_accuracy="measured:pool"), "row 'a': source_accuracy is measured:pool, but suite"),
        (
            second_linear_alone,
            "row 'a': source_accuracy is measured:digits, but suite 's' has the tasks lin and other on it, and this "
            "model lacks the first, which others have; write measured:other/digits for all of them",
        ),
        (
            row("models", "a", source_accuracy="measured:few/digits"),
            "row 'a': source_accuracy is measured:few/digits, but suite 's' has no linear or knn task of 'few' on 'dig",
        ),
        (lambda p: p["recipes"]["r"].update(dataset="cars"), "recipe 'r': .*'cars'"),
        (lambda p: p["recipes"]["r"].update(epoch=3), "r: unknown key 'epoch'; is it 'epochs'"),
        (lambda p: p["recipes"]["r"].update(method="simclr"), "r: key 'dataset' is missing"),
        (
            lambda p: p["recipes"]["r"].update(SIMCLR, method="simclrr"),
            "r.method: found 'simclrr', expected one of 'none'",
        ),
        (
            lambda p: p["recipes"]["r"].update(SIMCLR, head={"hidden": 4, "output": 4}),
            "r.head: key 'temperature' is missing",
        ),
        (
            lambda p: p["recipes"]["r"].update(SIMCLR, augmentation={"blur": 1}),
            "r.augmentation: unknown key 'blur'; known are crop",
        ),
        (lambda p: p["config"].update(models="none.tsv"), "none.tsv is missing"),
        (lambda p: p["config"].update(data_root=None), "config: data_root: found None, .*~"),
        (lambda p: p["datasets"]["digits"].update(test=""), "datasets.tsv, row 'digits': test is empty; write the num"),
        (lambda p: p["datasets"]["digits"].update(test="many"), "row 'digits': test: found 'many'"),
        (lambda p: p["config"].update(suite="published-v1"), "config: suite: 'published-v1'"),
        (lambda p: p["models"]["a"].update(label="A\x1b[2J"), r"line 2: control character '\\x1b' found"),
        (lambda p: p["models"]["a"].pop("norm"), r"models.tsv, line 3 \(b\): 12 cells, the header has 11 columns"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, change)
    assert "\n" not in str(error.value)


UNUSED = [
    (row("datasets", "boxes", metric="top1"), "row 'boxes': metric 'top1' does not fit task 'detection'"),
    (row("datasets", "pool", source="original:eurosat/ms"), "row 'pool': source 'original:eurosat/ms' is unknown"),
    (row("datasets", "boxes", source="one-of:cars"), "row 'boxes': source .*'cars'"),
    (row("datasets", "boxes", source="one-of:multi"), "row 'boxes': source names 'multi', which has no images of"),
    (row("datasets", "boxes", source="one-of:pool,pool"), "row 'boxes': source 'one-of:pool,pool': write one-of:"),
    (row("datasets", "multi", metric="top1"), "row 'multi': metric 'top1' does not fit task 'multi-label'"),
    (row("datasets", "multi", source="column:x/objects"), "row 'multi': source .*'x'"),
    (row("models", "a", suites="t", arch="vgg"), "row 'a': arch: found 'vgg'"),
    (row("models", "a", suites="t", source="pretrain:x", format=""), "row 'a': recipe 'x' is not in"),
    (lambda p: p["datasets"]["boxes"].update(more=""), r"line 5 \(boxes\): 12 cells, the header has 11"),
]


@pytest.mark.parametrize(("change", "message"), UNUSED)
def test_rows_that_a_suite_does_not_use_do_not_stop_it(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    suite = load(tmp_path, change)
    [(name, problem)] = suite.invalid.items()
    assert re.search(message, problem) and "\n" not in problem
    assert name not in suite.models and name not in suite.datasets
    assert not suite.left_out and suite.config["tasks"] == CONFIG["tasks"]


@pytest.mark.parametrize("name", ["", "B"])
def test_the_id_of_a_row_is_checked_whether_it_is_used_or_not(tmp_path, name):
    with pytest.raises(InputError, match=rf"row '{name}': model: found '{name}'"):
        load(tmp_path, row("models", "b", model=name, suites="t"))


def test_a_row_of_a_wrong_length_may_be_any_suites(tmp_path):
    """Its cells may be shifted; a model that the suite waits for must not vanish without a word."""
    with pytest.raises(InputError, match=r"line 3 \(b\): 13 cells"):
        load(tmp_path, lambda p: p["models"].update(b={"model": "b", "x": "y", **MODELS["b"]}))
    assert load(tmp_path, lambda p: p["models"].update(b={**MODELS["b"], "suites": "t", "x": "y"})).invalid


def available(parts):
    parts["config"] |= {"available": True, "tasks": {"lin": ["digits", "pool"], "few": ["digits"]}}
    parts["datasets"]["pool"] |= {"test": "10"}


def two(*changes):
    return lambda parts: [change(parts) for change in changes]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (row("models", "a", arch="vgg"), {("lin", "a", "digits"), ("lin", "a", "pool"), ("few", "a", "digits")}),
        (
            row("models", "a", source_accuracy="0.1"),
            {("lin", "a", d) for d in ("digits", "pool")} | {("few", "a", "digits")},
        ),
        (row("datasets", "pool", metric="map11"), {("lin", "a", "pool"), ("lin", "b", "pool")}),
    ],
)
def test_a_row_that_is_wrong_costs_its_own_scores(tmp_path, change, lost):
    """Where the report is made of the scores that exist; otherwise it is one line, as above."""
    suite, whole = load(tmp_path, two(available, change)), load(tmp_path, available)
    cells = {Cell(*names) for names in lost}
    assert set(suite.left_out) == cells and set(suite.cells()) == set(whole.cells()) - cells
    assert set(suite.left_out.values()) == set(suite.invalid.values()) and len(suite.invalid) == 1
    with pytest.raises(InputError) as error:
        load(tmp_path, two(available, change, lambda p: p["config"].update(available=False)))
    assert str(error.value) in suite.invalid.values()


def test_rows_that_name_a_wrong_one_are_wrong_with_it(tmp_path):
    chain = {"source": "column:multi/objects"}
    suite = load(
        tmp_path,
        two(
            row("datasets", "multi", metric="top1"),
            row("datasets", "boxes", task="multi-label", metric="map11", **chain),
        ),
    )
    assert set(suite.invalid) == {"multi", "boxes"} and len(set(suite.invalid.values())) == 1
    trained = two(row("datasets", "pool", metric="map11"), lambda p: p["recipes"]["r"].update(SIMCLR, dataset="pool"))
    assert set(load(tmp_path, two(trained, row("models", "b", suites="t"))).invalid) == {"pool", "b"}
    with pytest.raises(InputError, match="row 'pool': metric"):
        load(tmp_path, trained)


def test_a_suite_without_any_valid_row_is_one_line(tmp_path):
    with pytest.raises(InputError, match="row '[ab]': arch"):
        load(tmp_path, two(available, row("models", "a", arch="x"), row("models", "b", arch="x")))
    with pytest.raises(InputError, match="row 'digits': metric"):
        load(tmp_path, two(lambda p: p["config"].update(available=True), row("datasets", "digits", metric="map11")))


def forms(schema, inherited=""):
    """Every part of a schema that has a pattern, by its place."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield inherited, schema
        for key, part in schema.items():
            yield from forms(part, f"{inherited}.{key}")


@pytest.mark.parametrize("name", ["models", "datasets", "config", "pretraining", "bundle"])
def test_what_a_pattern_allows_is_said_in_words(name):
    found = dict(forms(read_schema(name)))
    assert found
    for place, part in found.items():
        assert part.get("form") and not re.search(r"[\^$*\\]", part["form"]), place


@pytest.mark.parametrize(("written", "near"), [("My_Net v2", "my-net-v2"), ("-a", "a"), ("DINO", "dino")])
def test_an_id_in_another_form_is_answered_with_one_that_fits(tmp_path, written, near):
    with pytest.raises(InputError) as raised:
        load(tmp_path, row("models", "a", model=written))
    assert str(raised.value).endswith(
        f"model: found {written!r}, expected lower-case letters, digits and hyphens, not beginning with a hyphen, "
        f"such as {near} (id used in file names)"
    )


def test_a_name_of_a_task_in_another_form_is_said_in_words(tmp_path):
    with pytest.raises(InputError, match="tasks: found 'Lin 1', expected lower-case letters, .* such as lin-1"):
        load(tmp_path, lambda p: p["config"]["tasks"].update({"Lin 1": ["digits"]}))
