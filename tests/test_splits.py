import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.datasets.splits import make_split, random_validation
from ssltransfer.errors import InputError


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.integers(0, 5))
def test_random_validation_is_a_partition(count, fraction, seed):
    train, val = random_validation(count, fraction, seed)
    assert len(val) == int(np.floor(fraction * count))
    assert sorted([*train, *val]) == list(range(count))


def test_random_validation_is_the_official_codes():
    # NumPy's global generator, seeded, one in-place shuffle, first fifth: spelled out as that code does it.
    state = np.random.get_state()
    np.random.seed(0)
    order = list(range(50))
    np.random.shuffle(order)
    np.random.set_state(state)
    train, val = random_validation(50, 0.2, seed=0)
    assert set(val) == set(order[:10])
    assert set(train) == set(order[10:])


def test_official_validation_is_used():
    column = np.array(["test", "train", "val", "train", "val"])
    split = make_split(column, 0.2, 0)
    assert split.train.tolist() == [1, 3]
    assert split.val.tolist() == [2, 4]
    assert split.test.tolist() == [0]
    assert split.trainval.tolist() == [1, 2, 3, 4]


def test_validation_is_drawn_from_training_only():
    column = np.array(["test"] * 10 + ["train"] * 10)
    split = make_split(column, 0.2, 0)
    assert len(split.val) == 2
    assert sorted([*split.train, *split.val]) == list(range(10, 20))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train"] * 4 + ["test"], "cars: 4 training images are too few to draw a validation part of 0.2 from"),
        (["val", "test"], "cars has no training image"),
        (["train"] * 9, "cars has no test image"),
    ],
)
def test_an_empty_part_is_one_line(parts, message):
    with pytest.raises(InputError, match=message):
        make_split(np.array(parts), 0.2, 0, "cars")
