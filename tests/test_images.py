import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssltransfer.datasets import images
from ssltransfer.datasets.images import (
    DecodedImages,
    find_unreadable,
    image_size,
    parse_transform,
    prepare_images,
    read_image,
)
from ssltransfer.datasets.index import Index, read_index, write_index
from ssltransfer.datasets.masks import read_labels
from ssltransfer.errors import InputError


def photo(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 90), st.integers(20, 90))
def test_resize_is_torchvisions_to_the_byte(width, height):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = photo(width, height)
    size, apply = parse_transform("resize32")
    assert size == 32
    expected = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])(image)
    assert np.array_equal(np.asarray(apply(image)), np.asarray(expected))


def test_stretch_loses_the_aspect_ratio_and_nothing_else():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    size, apply = parse_transform("stretch33")
    expected = image.resize((33, 33), Image.Resampling.BICUBIC)
    assert size == 33
    np.testing.assert_array_equal(np.asarray(apply(image)), np.asarray(expected))


def test_square257_is_torchvisions_to_the_byte():
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = photo(300, 211)
    _, apply = parse_transform("square257")
    expected = Compose([Resize((257, 257), InterpolationMode.BILINEAR), CenterCrop(224)])(image)
    assert np.array_equal(np.asarray(apply(image)), np.asarray(expected))


def test_chestx_is_a_square_of_256_first():
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = photo(300, 211)
    bicubic = Resize((256, 256), InterpolationMode.BICUBIC)
    official = Compose([bicubic, Resize((257, 257), InterpolationMode.BILINEAR), CenterCrop(224)])
    _, apply = parse_transform("square257", "chestx")
    assert np.array_equal(np.asarray(apply(image)), np.asarray(official(image)))
    # Whether it is converted to RGB before, as here, or after, as there, is the same for grey and opaque images.
    _, apply = parse_transform("resize224", "chestx")
    assert apply(image).size == (224, 224)
    for mode in ("L", "RGBA"):
        read, square = image.convert(mode), (256, 256)
        assert read.convert("RGB").resize(square, Image.Resampling.BICUBIC) == read.resize(
            square, Image.Resampling.BICUBIC
        ).convert("RGB")


def test_unknown_transform():
    with pytest.raises(InputError, match="'crop32' is unknown"):
        parse_transform("crop32")


COLOUR = (200, 100, 50)


def save(tmp_path, name, image, **options):
    image.save(tmp_path / name, **options)
    return read_image(tmp_path, name)


def test_modes(tmp_path):
    rgb = Image.new("RGB", (8, 8), COLOUR)
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    assert save(tmp_path, "p.png", palette).getpixel((0, 0)) == COLOUR
    assert save(tmp_path, "grey.png", Image.new("L", (8, 8), 77)).getpixel((3, 3)) == (77, 77, 77)
    assert save(tmp_path, "alpha.png", Image.new("RGBA", (8, 8), (*COLOUR, 10))).getpixel((0, 0)) == COLOUR
    assert save(tmp_path, "bilevel.png", Image.new("1", (8, 8), 1)).getpixel((0, 0)) == (255, 255, 255)
    transparent = save(tmp_path, "la.png", Image.new("LA", (8, 8), (90, 0)))
    assert transparent.getpixel((0, 0)) == (90, 90, 90)
    cmyk = save(tmp_path, "cmyk.jpg", rgb.convert("CMYK"), quality=100)
    assert np.abs(np.subtract(cmyk.getpixel((4, 4)), COLOUR)).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit(tmp_path, suffix):
    values = np.array([[0, 255, 256, 32768], [65535, 1000, 513, 40000]], dtype=np.uint16)
    image = save(tmp_path, f"deep.{suffix}", Image.fromarray(values))
    assert np.array_equal(np.asarray(image)[..., 0], (values >> 8).astype(np.uint8))


@pytest.mark.parametrize(("top", "warned"), [(4095, True), (4096, False), (None, False)])
@pytest.mark.parametrize("keep", [True, False])
def test_twelve_bits_in_sixteen_are_a_warning(tmp_path, caplog, top, warned, keep):
    """Their upper eight bits hold four of theirs; one for the dataset, not for each image."""
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        values = np.full((8, 8), 100 * number, np.uint16)
        values[0, 0] = top if top and number == 3 else 100
        Image.fromarray(values if top else values.astype(np.uint8)).save(tmp_path / name)
    if keep:
        prepare_images(tmp_path, names, "resize8", tmp_path / "all.npy", workers=2)
    else:
        images = DecodedImages(tmp_path, names, "resize8", workers=2)
        assert len(images[0:3]) + len(images[3:5]) == 5
        images.warn_of_dark_images()
    found = [line for line in caplog.messages if "16-bit" in line]
    assert len(found) == warned and all("5 16-bit images" in line and "4095" in line for line in found)


def test_a_png_with_a_large_colour_profile_is_read(tmp_path):
    image = photo(20, 16)
    image.save(tmp_path / "a.png", icc_profile=np.random.default_rng(0).bytes(3_000_000))
    assert np.array_equal(read_image(tmp_path, "a.png"), image)


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert save(tmp_path, "turned.jpg", photo(20, 10), exif=exif).size == (20, 10)


def test_names_with_blanks_hashes_and_other_letters(tmp_path):
    assert save(tmp_path, "ein Bild (größer)#3.png", photo(5, 4)).size == (5, 4)


def test_array_rows(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "many.npy", images)
    assert np.array_equal(np.asarray(read_image(tmp_path, "many.npy#2")), images[2])


def jpeg(path, size=(40, 30)):
    photo(*size).save(path)
    return path


def test_unreadable_images_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg is missing"):
        read_image(tmp_path, "none.jpg")
    truncated = jpeg(tmp_path / "half.jpg", (200, 200))
    truncated.write_bytes(truncated.read_bytes()[:3000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>please log in</html>")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "float.tif")
    for name in ("half.jpg", "empty.png", "page.jpg", "folder.jpg", "float.tif"):
        with pytest.raises(InputError) as error:
            read_image(tmp_path, name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_rows_that_are_no_images_are_one_line(tmp_path):
    np.save(tmp_path / "float.npy", np.zeros((1, 4, 4, 3), np.float32))
    np.save(tmp_path / "two.npy", np.zeros((2, 4, 4, 3), np.uint8))
    for reference in ("float.npy#0", "two.npy#2", "none.npy#0", f"two.npy#{10**30}", "two.npy#²"):
        with pytest.raises(InputError, match=re.escape(reference)) as error:
            read_image(tmp_path, reference)
        assert "\n" not in str(error.value)


def test_extreme_images_are_refused(tmp_path):
    """Some bytes of PNG; resized, they would be gigabytes."""
    Image.new("L", (1, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png cannot be read: 1 x 10000 pixels"):
        read_image(tmp_path, "bomb.png")


def test_a_film_behind_a_photograph_is_not_taken_for_scans(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("L", (60, 50)).save(file)
    file.write_bytes(file.read_bytes() + (b"\xff\xda" + bytes(2**16)) * 200)
    read_image(tmp_path, "a.jpg")


def test_what_the_decoder_cannot_afford_is_refused(tmp_path, monkeypatch):
    Image.new("L", (60, 50)).save(tmp_path / "a.jpg", progressive=True)
    read_image(tmp_path, "a.jpg")
    monkeypatch.setattr("ssltransfer.datasets.images.MAX_SCANS", 5)
    with pytest.raises(InputError, match=r"a\.jpg cannot be read: a JPEG of 6 scans, expected at most 5"):
        read_image(tmp_path, "a.jpg")
    monkeypatch.setattr("ssltransfer.datasets.images.MAX_SCANS", 100)
    monkeypatch.setattr("ssltransfer.datasets.images.MAX_PIXELS", 2999)
    read_image(tmp_path, "a.jpg")  # as many as a file of its size may have
    monkeypatch.setattr("ssltransfer.datasets.images.PIXELS_PER_BYTE", 1)
    for read in (lambda: read_image(tmp_path, "a.jpg"), lambda: read_labels(tmp_path / "a.jpg")):
        with pytest.raises(InputError, match="cannot be read: 60 x 50 pixels, expected at most 2,999"):
            read()


def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("a pipe was opened"))
    for read in (lambda: read_image(tmp_path, "a.png"), lambda: read_labels(tmp_path / "a.png")):
        with pytest.raises(InputError, match="a.png cannot be read: it is not a file"):
            read()
    with pytest.raises(InputError, match="a.png cannot be read: it is not a file"):
        image_size(tmp_path, "a.png")


def test_no_other_program_reads_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_image(tmp_path, "a.jpg")


@pytest.fixture
def names(tmp_path):
    for i in range(5):
        photo(40 + i, 50, seed=i).save(tmp_path / f"{i}.png")
    return [f"{i}.png" for i in (3, 1, 4, 0, 2)]


def test_prepare_images_keeps_the_order(tmp_path, names):
    one, many = tmp_path / "one.npy", tmp_path / "many.npy"
    prepare_images(tmp_path, names, "resize16", one)
    prepare_images(tmp_path, names, "resize16", many, workers=4)
    images = np.load(one)
    assert images.shape == (5, 16, 16, 3)
    assert np.array_equal(images, np.load(many))
    _, apply = parse_transform("resize16")
    assert np.array_equal(images[2], np.asarray(apply(read_image(tmp_path, "4.png"))))
    assert not list(tmp_path.glob("*.part"))


def test_the_images_of_an_index_file_are_prepared(tmp_path, names):
    write_index(tmp_path / "index.parquet", Index(names, ["train"] * 5, [0] * 5, ["a"]))
    prepare_images(tmp_path, read_index(tmp_path / "index.parquet").image, "resize16", tmp_path / "found.npy")
    prepare_images(tmp_path, names, "resize16", tmp_path / "expected.npy")
    assert (tmp_path / "found.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_images_decoded_on_the_fly_are_the_same(tmp_path, names):
    prepare_images(tmp_path, names, "resize16", tmp_path / "all.npy")
    expected = np.load(tmp_path / "all.npy")
    decoded = DecodedImages(tmp_path, names, "resize16", workers=2)
    assert len(decoded) == 5
    for step in (1, 2, 5, 9):
        parts = [decoded[start : start + step] for start in range(0, 5, step)]
        assert np.array_equal(np.concatenate(parts), expected)
    assert decoded[5:9].shape == (0, 16, 16, 3)


def test_unreadable_images_are_reported_together_and_tried_again(tmp_path, names, monkeypatch):
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").unlink()
    output = tmp_path / "images.npy"
    with pytest.raises(
        InputError, match=r"^2 of 5 images cannot be used: image .*1\.png cannot be read.*2\.png is mis"
    ):
        prepare_images(tmp_path, names, "resize16", output)
    assert not output.exists()
    assert list(find_unreadable(tmp_path, names, workers=2)) == [1, 4]
    for i in (1, 2):
        photo(40 + i, 50, seed=i).save(tmp_path / f"{i}.png")
    decoded = []
    monkeypatch.setattr(images, "read_image", lambda root, name: decoded.append(name) or read_image(root, name))
    prepare_images(tmp_path, names, "resize16", output)
    assert decoded == ["1.png", "2.png"]
    prepare_images(tmp_path, names, "resize16", tmp_path / "again.npy")
    assert np.array_equal(np.load(output), np.load(tmp_path / "again.npy"))
    assert not output.with_name("images.npy.part").exists()


def test_a_killed_pass_is_taken_up(tmp_path, names, monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 2)
    prepare_images(tmp_path, names, "resize16", tmp_path / "whole.npy")

    def killed(rows, total):
        for count, row in enumerate(rows):
            if count == 3:
                raise KeyboardInterrupt
            yield row

    output = tmp_path / "images.npy"
    with pytest.raises(KeyboardInterrupt):
        prepare_images(tmp_path, names, "resize16", output, progress=killed)
    decoded = []
    monkeypatch.setattr(images, "read_image", lambda root, name: decoded.append(name) or read_image(root, name))
    prepare_images(tmp_path, names, "resize16", output)
    assert decoded == ["4.png", "0.png", "2.png"], "the first block is kept"
    assert np.array_equal(np.load(output), np.load(tmp_path / "whole.npy"))
    # Remains of a pass over other images are not used.
    output.unlink()
    with pytest.raises(KeyboardInterrupt):
        prepare_images(tmp_path, names, "resize16", output, progress=killed)
    prepare_images(tmp_path, names[::-1], "resize16", output)
    assert np.array_equal(np.load(output), np.load(tmp_path / "whole.npy")[::-1])
