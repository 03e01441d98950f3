"""Data sets of a few images: one of each of several data sets, and the bundled photographs."""

import numpy as np
import pytest

from ssltransfer.datasets import Member, parse_dataset_source, parse_members, photographs
from ssltransfer.datasets.index import Index, check_index, image_names
from ssltransfer.datasets.sample import choose
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
    with pytest.raises(InputError, match=r"write one-of:NAME,NAME=IMAGE,\.\.\. with every data set once"):
        parse_members(text)


def test_a_draw_depends_on_seed_and_name_alone_and_prefers_test_images():
    rows = {name: choose(Member(name, ""), index(test=20), 0) for name in ("a", "b", "c", "d", "e")}
    assert len(set(rows.values())) > 1
    assert min(rows.values()) >= 30
    assert rows["c"] == choose(Member("c", ""), index(test=20), 0)
    assert {choose(Member("c", ""), index(), seed) for seed in range(20)} - set(range(30, 50))


def test_a_named_image_is_taken_and_a_wrong_name_is_one_line():
    assert choose(Member("a", "7.png"), index(), 0) == 7
    with pytest.raises(
        InputError, match=r"one-of: a has no image 'x\.png'; write one as in its index, such as '0\.png'"
    ):
        choose(Member("a", "x.png"), index(), 0)


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
