"""Features that a user gives instead of a network: joined by image name, or refused in one line."""

import numpy as np
import pytest
import yaml

from ssltransfer.checkpoints.sources import given_file
from ssltransfer.config.load import load_suite
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.models.given_features import read_given_features
from workflow import workspace

NAMES = ["a/1.png", "a/2.png", "b/1.png"]
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def save(folder, **arrays):
    path = folder / "birds.npz"
    np.savez(path, **{"names": np.array(NAMES), "features": VALUES} | arrays)
    return path


def test_rows_are_joined_by_name(tmp_path):
    path = save(tmp_path)
    images = ["b/1.png", "a/1.png", "b/1.png"]  # an index may list an image twice, and lack others
    found = read_given_features(path, images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES[[2, 0, 2]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_rounded(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    np.testing.assert_array_equal(
        read_given_features(save(tmp_path, features=values), NAMES), values.astype(np.float32)
    )


def test_the_folder_is_a_path_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_file("features:~/net", "birds") == tmp_path / "net/birds.npz"
    assert str(given_file("features:net", "birds")) == "net/birds.npz"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"names": np.array(["a/1.png", "a/2.png", "c.png"])},
            "1 of 3 images of the index have no row, first 'b/1.png'",
        ),
        ({"names": np.array(["a/1.png", "b/1.png", "b/1.png"])}, "names has 'b/1.png' twice"),
        ({"names": np.array(NAMES[:2])}, "found 2 names and 3 rows of features"),
        ({"names": np.arange(3)}, r"names is int64 \(3,\), expected text"),
        ({"names": np.array(NAMES, dtype=object)}, "not an npz file of plain arrays .* names as text"),
        (
            {"features": VALUES[:, 0]},
            r"features is float32 \(3,\), expected floating-point numbers \(images, features\)",
        ),
        ({"features": VALUES.astype(int)}, "features is int64"),
        ({"features": VALUES[:, :0]}, r"features is float32 \(3, 0\)"),
        ({"features": np.where(VALUES == 2, np.nan, VALUES)}, "features of 1 images are not finite .* 'a/2.png'"),
        ({"features": np.full((3, 2), 1e300)}, "features of 3 images are not finite in float32"),
        ({"names": np.frombuffer(b"\xff" * 12, "<U1")}, "names holds numbers that no character has"),
        ({"names": np.array(["a" * 5000] * 3)}, "names is <U5000 .* of at most 4096 characters"),
    ],
)
def test_unfit_features_are_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=rf"birds\.npz.*{message}") as error:
        read_given_features(save(tmp_path, **arrays), NAMES)
    assert "\n" not in str(error.value)


def test_unfit_files_are_refused(tmp_path):
    path = tmp_path / "birds.npz"
    with pytest.raises(InputError, match=r"birds\.npz is not a file; save the arrays"):
        read_given_features(path, NAMES)
    np.savez(path, features=VALUES)
    with pytest.raises(InputError, match="found the arrays features; expected names and features"):
        read_given_features(path, NAMES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not an npz file of plain arrays"):
        read_given_features(path, NAMES)


def load(folder, monkeypatch, row, **changes):
    """Read the toy suite with one more row of the table of models: id, arch, source and further columns."""
    monkeypatch.chdir(workspace(folder))
    (folder / "net.py").touch()
    (folder / "features/mine").mkdir(parents=True)
    columns = {"model": "mine", "suites": "toy"} | row
    header, *lines = (line.split("\t") for line in (folder / "config/models.tsv").read_text().splitlines())
    rows = [dict(zip(header, line, strict=False)) for line in lines]
    header += [name for name in columns if name not in header]
    table = [header, *([r.get(name, "") for name in header] for r in [*rows, columns])]
    (folder / "config/models.tsv").write_text("".join("\t".join(cells) + "\n" for cells in table))
    config = yaml.safe_load((folder / "config/config.yaml").read_text())
    config |= {key: config.get(key, {}) | value for key, value in changes.items()}
    return load_suite(config, package_data("workflow/schemas"), package_data("."))


GIVEN = {"arch": "none", "source": "features:features/mine"}
MODULE = {"arch": "python:net.py:make", "source": "module:own"}


def test_rows_of_features_and_modules_are_read(tmp_path, monkeypatch):
    given = load(tmp_path / "given", monkeypatch, GIVEN).models["mine"]
    assert (given["format"], given["norm"]) == ("", "none")
    module = load(tmp_path / "module", monkeypatch, MODULE | {"pool": "cls", "size": "16"}).models["mine"]
    assert (module["format"], module["norm"], module["pool"]) == ("", "imagenet", "cls")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GIVEN | {"arch": "resnet50"}, "given features have arch none and source features:FOLDER"),
        (GIVEN | {"source": "file:a.pth"}, "given features have arch none and source features:FOLDER"),
        (GIVEN | {"pool": "cls"}, "pool is 'cls', but source features:features/mine has no file"),
        (GIVEN | {"size": "96"}, "size is '96'"),
        (GIVEN | {"format": "auto"}, "format is 'auto'"),
        (MODULE | {"sha256": "0123abcd"}, "sha256 is '0123abcd', but source module:own has no file"),
        (MODULE | {"source": "module:theirs"}, "source is 'module:theirs', expected module:own"),
        (MODULE | {"arch": "resnet50"}, "expected module:own, with an arch python:FILE.py:FUNCTION"),
        (MODULE | {"source": "file:a.pth", "format": "moco"}, "format is 'moco', which is one of ResNets"),
        (MODULE | {"arch": "python:net.py"}, "arch: found 'python:net.py', expected"),
        (
            MODULE | {"arch": "python:nets/net.py:make"},
            "arch is 'python:nets/net.py:make', but .*/nets/net.py is not a",
        ),
        (GIVEN | {"source": "features:yours"}, "source is 'features:yours', but .*/yours is not a folder"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path, monkeypatch, row, message):
    with pytest.raises(InputError, match=rf"models\.tsv, row 'mine': .*{message}"):
        load(tmp_path / "toy", monkeypatch, row)


def test_protocols_that_need_more_than_features_are_refused(tmp_path, monkeypatch):
    block = {"kind": "normals", "targets": "kmeans"}
    tasks = {"tasks": {"toy-normals": ["shapes"]}, "protocols": {"toy-normals": block}}
    with pytest.raises(
        InputError, match=r"tasks.toy-normals: of model 'mine' only features .* normals needs a network"
    ):
        load(tmp_path / "one", monkeypatch, GIVEN, **tasks)
    others = load(tmp_path / "two", monkeypatch, GIVEN, models_of={"toy-normals": ["toy-random"]}, **tasks)
    assert {cell.model for cell in others.cells() if cell.protocol == "toy-normals"} == {"toy-random"}
    both = {
        "tasks": {"toy-both": ["textures"]},
        "protocols": {"toy-both": {"kind": "linear", "normalisation": "test-max"}},
    }
    with pytest.raises(InputError, match="normalisation test-max needs those of two inputs; list the other models"):
        load(tmp_path / "three", monkeypatch, GIVEN, **both)
    half = {
        "tasks": {"toy-half": ["textures"]},
        "protocols": {"toy-half": {"kind": "linear", "precision": "bfloat16"}},
    }
    with pytest.raises(InputError, match="precision bfloat16 needs a network; list the other models"):
        load(tmp_path / "four", monkeypatch, GIVEN, **half)
