"""NYU-Depth v2: frames, known normals and code words in both forms in which the dataset is published."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import layouts
import numpy as np
import pytest
from layouts import text
from PIL import Image
from scipy.io import savemat
from test_indexers import META, NORMAL, build

from ssltransfer.datasets import nyuv2
from ssltransfer.datasets.images import read_image
from ssltransfer.errors import InputError


def test_normals_with_frames_of_the_labelled_file(tmp_path):
    """What can be had: the labelled file and the metadata. The frames are the same as written out as images."""
    layouts.nyuv2(tmp_path)
    expected = build("nyuv2", tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (433, 4, 6, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = frames.transpose(0, 3, 2, 1)
    shutil.rmtree(tmp_path / "all_images")
    index = build("nyuv2", tmp_path)
    assert index.image == [f"nyu_depth_v2_labeled.mat#{row}" for row in (2, 6, 432)]
    assert (index.split, index.extra) == (expected.split, expected.extra)
    for image, row in zip(index.image, (2, 6, 432), strict=True):
        assert np.array_equal(read_image(tmp_path, image), frames[row])


def test_frames_may_be_counted_from_zero(tmp_path):
    layouts.nyuv2(tmp_path)
    shutil.rmtree(tmp_path / "all_images")
    names = {"train": ["000002", "000001"], "test": ["000000"]}
    for split, numbers in names.items():
        text(tmp_path / META / f"{split}_SN40.json", json.dumps([{"img": f"{n}_rgb.jpg"} for n in numbers]))
    assert build("nyuv2", tmp_path).image == [f"nyu_depth_v2_labeled.mat#{row}" for row in (2, 1, 0)]
    for number, message in (("000003", "'000003_rgb.jpg' is listed; .* has 3 frames"), ("x", "'x_rgb.jpg' has no num")):
        text(tmp_path / META / "test_SN40.json", json.dumps([{"img": f"{number}_rgb.jpg"}, {"img": "000000_rgb.jpg"}]))
        with pytest.raises(InputError, match=message):
            build("nyuv2", tmp_path)


def test_real_frames_from_a_labelled_file(samples, tmp_path):
    """Written in the published form, real frames are read back as they are."""
    images = [np.asarray(Image.open(path)) for path in sorted((samples / "nyuv2/all_images").glob("0000*_rgb.jpg"))]
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack(images * 3)[:3].transpose(0, 3, 2, 1)
    shutil.copytree(samples / "nyuv2" / META, tmp_path / META)
    for split, numbers in {"train": ["000003"], "test": ["000001"]}.items():
        text(tmp_path / META / f"{split}_SN40.json", json.dumps([{"img": f"{n}_rgb.jpg"} for n in numbers]))
    index = build("nyuv2", tmp_path)
    assert index.image == ["nyu_depth_v2_labeled.mat#2", "nyu_depth_v2_labeled.mat#0"]
    assert np.array_equal(read_image(tmp_path, index.image[0]), np.stack(images * 3)[2])
    normals, valid = nyuv2.read_normals(tmp_path, index.extra["normals"][0])
    assert normals.shape == (480, 640, 3) and valid.any()


def test_normals(tmp_path):
    layouts.nyuv2(tmp_path)
    index = build("nyuv2", tmp_path)
    assert index.extra["normals"] == [
        "surfacenormal_metadata/all_normals.pklz#000003",
        "surfacenormal_metadata/000007.mat",
        "surfacenormal_metadata/all_normals.pklz#000433",
    ]
    for reference in index.extra["normals"]:
        normals, valid = nyuv2.read_normals(tmp_path, reference)
        assert normals.shape == (4, 6, 3) and valid.shape == (4, 6)
        assert np.array_equal(valid, np.arange(6)[None].repeat(4, 0) > 0)
        assert np.array_equal(normals[valid], np.tile([0.0, 0.0, 1.0], (20, 1)))
    with pytest.raises(InputError, match="frame 000009 is missing"):
        nyuv2.read_normals(tmp_path, "surfacenormal_metadata/all_normals.pklz#000009")


def test_normals_of_the_labelled_file(tmp_path):
    layouts.nyuv2(tmp_path)
    index = build("nyuv2", tmp_path, "labelled")
    assert index.image == [f"nyu_depth_v2_labeled.mat#{row}" for row in (1, 2, 0)]
    assert index.split == ["train", "train", "test"]
    assert index.extra["scene"] == ["study_0001", "bedroom_0002", "study_0001"]
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(read_image(tmp_path, index.image[2]), frames[0])
    normals, valid = nyuv2.read_normals(tmp_path, index.extra["normals"][2])
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 2]], "no depth and NaN"
    np.testing.assert_allclose(normals, np.tile([1.0, 0.0, 0.0], (4, 6, 1)), atol=0.005)


def test_the_crop_of_full_frames_is_the_toolboxs(tmp_path):
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["rawDepths"] = np.ones((1, 640, 480), np.float32)
    Image.new("RGB", (640, 480), (0, 127, 127)).save(tmp_path / "00001.png")
    normals, valid = nyuv2.read_normals(tmp_path, "00001.png")
    rows, columns = np.nonzero(valid)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (44, 470, 40, 600)
    assert valid.sum() == 427 * 561 and (normals[..., 2] > 0.99).all()


def test_colours_that_are_no_normals_decode_to_zero(tmp_path):
    picture = Image.new("RGB", (3, 1), (128, 127, 255))
    picture.putpixel((1, 0), (0, 0, 0))
    picture.putpixel((2, 0), (127, 127, 127))
    picture.save(tmp_path / "colours.png")
    np.testing.assert_allclose(
        nyuv2.decode_colours(tmp_path / "colours.png")[0], [[1, 0, 0], [0] * 3, [0] * 3], atol=0.01
    )


def test_colours_of_real_normals_decode_to_the_official_ones(samples):
    """In the sample both are of one frame; this fixes the meaning and the sign of all three channels."""
    root = samples / "nyuv2"
    decoded = nyuv2.decode_colours(root / "normal_png_original/000003_normal_nyu_normals_gt.png")
    normals, valid = nyuv2.read_normals(root, "surfacenormal_metadata/000003.mat")
    cosine = (decoded[valid] * normals[valid]).sum(axis=-1) / np.linalg.norm(normals[valid], axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: savemat(root / "splits.mat", {"trainNdxs": [[4]]}), "trainNdxs holds 4; .* has 3 frames"),
        (lambda root: (root / "nyu_normals_gt/test/00001.png").unlink(), "test/00001.png is missing"),
        (lambda root: (root / "nyu_depth_v2_labeled.mat").write_bytes(b"no"), "is not a MATLAB 7.3 file"),
        (
            lambda root: h5py.File(root / "nyu_depth_v2_labeled.mat", "w").close(),
            "variable 'images' is missing; found none",
        ),
    ],
)
def test_wrong_labelled_files_are_one_line(tmp_path, change, message):
    layouts.nyuv2(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=message):
        build("nyuv2", tmp_path, "labelled")


def test_normals_of_real_samples(samples):
    """Both forms of the ground truth agree, and the code words are the nearest to it."""
    root = samples / "nyuv2"
    words = nyuv2.read_code_words(root)
    index = build("nyuv2", root)
    reference, codes = index.extra["normals"][0], index.extra["codes"][0]
    normals, valid = nyuv2.read_normals(root, reference)
    again = nyuv2.read_normals(root, f"{nyuv2.ALL_NORMALS}#{Path(reference).stem}")
    assert np.array_equal(normals, again[0]) and np.array_equal(valid, again[1])
    image = np.asarray(Image.open(root / codes))
    nearest = ((normals[valid][:, None] - words) ** 2).sum(-1).argmin(1)
    assert np.array_equal(image[valid], nearest)
    assert (image[~valid] == 255).all()


def test_shapes_of_normals_are_checked(tmp_path):
    layouts.nyuv2(tmp_path)
    flat = np.zeros((4, 6), np.float32)
    savemat(tmp_path / NORMAL, {"nx": flat, "ny": flat, "nz": flat, "depthValid": np.ones((4, 5))})
    with pytest.raises(InputError, match=r"nx \(4, 6\) and depthValid \(4, 5\) must be images of one size"):
        nyuv2.read_normals(tmp_path, NORMAL)
    for content, message in [
        ({"all_normals": flat}, "all_normals, all_valid_depth_masks and all_filenames are needed"),
        ({"all_normals": flat, "all_valid_depth_masks": flat, "all_filenames": ["1"]}, r"expected \(n, h, w, 3\)"),
    ]:
        path = tmp_path / f"{len(content)}/all_normals.pklz"
        path.parent.mkdir()
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=message):
            nyuv2.read_normals(path.parent, "all_normals.pklz#1")
    savemat(tmp_path / META / "vocab40.mat", {"vocabs": np.zeros((1, 1))})
    with pytest.raises(InputError, match="vocab40.mat: vocabs"):
        nyuv2.read_code_words(tmp_path)
