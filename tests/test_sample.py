"""Datasets of a few images: one of each of several datasets, and the bundled photographs."""

import numpy as np
import pytest
from PIL import Image

from ssltransfer.datasets import Member, Source, parse_dataset_source, parse_members, photographs
from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.index import Index, image_names, write_index
from ssltransfer.datasets.index_checks import check_index
from ssltransfer.datasets.sample import sample_images, sample_row
from ssltransfer.errors import InputError


def index(test=0):
    images = [f"{number}.png" for number in range(50)]
    return Index(images, ["train"] * (50 - test) + ["test"] * test, [0] * 50, ["all"])


def test_members_and_seed():
    members, seed = parse_members("pets,cars=train/1.jpg,digits@3")
    assert members == [Member("pets", ""), Member("cars", "train/1.jpg"), Member("digits", "")]
    assert (seed, parse_members("pets")[1]) == (3, 0)
    assert parse_dataset_source("one-of:pets,cars@3").indexer == "sample"


@pytest.mark.parametrize("text", ["pets,,cars", "pets,pets", "@3", "pets@x", "=a.jpg"])
def test_other_forms_are_one_line(text):
    with pytest.raises(InputError, match=r"write one-of:NAME,NAME=IMAGE,\.\.\. with every dataset once"):
        parse_members(text)


def test_a_draw_depends_on_seed_and_name_alone_and_prefers_test_images():
    rows = {name: sample_row(Member(name, ""), index(test=20), 0) for name in ("a", "b", "c", "d", "e")}
    assert len(set(rows.values())) > 1
    assert min(rows.values()) >= 30
    assert rows["c"] == sample_row(Member("c", ""), index(test=20), 0)
    assert {sample_row(Member("c", ""), index(), seed) for seed in range(20)} - set(range(30, 50))


def test_a_named_image_is_taken_and_a_wrong_name_is_one_line():
    assert sample_row(Member("a", "7.png"), index(), 0) == 7
    with pytest.raises(
        InputError, match=r"one-of: a has no image 'x\.png'; write one as in its index, such as '0\.png'"
    ):
        sample_row(Member("a", "x.png"), index(), 0)


def test_samples_are_copied_and_indexed_with_their_origin(tmp_path):
    datasets = []
    for value, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "originals.npy", np.full((3, 4, 5, 3), value, np.uint8))
        references = [f"originals.npy#{row}" for row in range(3)]
        write_index(tmp_path / name / "index.parquet", Index(references, ["test"] * 3, [0] * 3, ["all"]))
        datasets.append(Dataset(Source("generated", name), "data", tmp_path / name / "index.parquet"))
    counts = {"classes": 2, "train": 0, "val": 0, "test": 2}
    params = {"dataset": "few", "source": ["one-of", "a=originals.npy#2,b", ""], "counts": counts}
    found = sample_images(params, datasets, tmp_path / "few/originals")
    assert found.image == ["originals/a.png", "originals/b.png"] and found.classes == ["a", "b"]
    assert found.extra["origin"][0] == "originals.npy#2" and set(found.split) == {"test"}
    with Image.open(tmp_path / "few/originals/b.png") as copy:
        assert copy.size == (5, 4) and copy.getpixel((0, 0)) == (1, 1, 1)
    with pytest.raises(InputError, match=r"few: .*test 3, found 2"):
        sample_images(params | {"counts": counts | {"test": 3}}, datasets, tmp_path / "few/originals")


def test_names_of_images_tell_them_apart():
    assert image_names(Index(["a.jpg", "b.jpg"], ["test"] * 2, [1, 0], ["cat", "dog"])) == ["dog", "cat"]
    assert image_names(Index(["x/a.jpg", "x/b.jpg"], ["test"] * 2, [0, 0], ["x"])) == ["a", "b"]
    assert image_names(Index(["x/a.jpg", "y/a.jpg"], ["test"] * 2, [0, 0], ["x"])) == ["a 0", "a 1"]


def test_photographs_are_whole_and_in_colour():
    made = photographs.generate()
    check_index(made.index, "photographs")
    assert made.images.shape == (6, 256, 256, 3)
    spread = made.images.std(axis=(1, 2))
    assert (spread > 5).all()
    assert np.abs(made.images[..., 0].astype(int) - made.images[..., 2]).mean(axis=(1, 2)).min() > 5
