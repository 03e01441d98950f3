"""Small files that were made to exhaust their reader, and the cost of reading each; used by test_hostile.py.

`python tests/hostile.py` makes and reads all of them (or those that are named) and prints the table of
benchmarks/faults.md, and to the standard error one list of JSON per row.
"""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

GIB = 2**30
MEMORY, SECONDS, SIZE = GIB, 30.0, 2_100_000
"""Most that a file of `SIZE` bytes may cost."""


class Attack(NamedTuple):
    """A file, how it is made, and the function of the project that reads it."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]


ATTACKS: dict[str, Attack] = {}


def attack(name: str, read: Callable[[Path], object]) -> Callable:
    """Register the maker of a file; the suffix of the name is that of the file."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        ATTACKS[name] = Attack(name, make, read)
        return make

    return register


# --- Readers: those that a user's file meets ---


def torch_file(path: Path) -> object:
    from ssltransfer.checkpoints.inspection import inspect_checkpoint

    found = inspect_checkpoint(path)
    if found.problem:
        raise _input_error()(found.problem)
    return found


def byol(path: Path) -> object:
    from ssltransfer.checkpoints.convert import read_published

    return read_published([path], "byol", "resnet50")


def pickled(path: Path) -> object:
    from ssltransfer.datasets.containers import read_pickle

    return read_pickle(path, "a pickle")


def image(path: Path) -> object:
    from ssltransfer.datasets.images import DecodedImages

    return DecodedImages(path.parent, [path.name], "resize224")[0:1]


def mask(path: Path) -> object:
    from ssltransfer.datasets.masks import read_mask

    return read_mask(path.parent, path.name, 20, 255)


def colours(path: Path) -> object:
    from ssltransfer.datasets.nyuv2 import decode_colours

    return decode_colours(path)


def state(path: Path) -> object:
    import torch

    from ssltransfer.training_state import Member, Run, State

    module = torch.nn.Linear(2, 2)
    found = State([Member(module, None, torch.optim.SGD(module.parameters(), 0.1))], 1, Run(path.parent, "k", "c"))
    found.path = path
    found.resume()


def _input_error() -> type[Exception]:
    from ssltransfer.errors import InputError

    return InputError


# --- Archives of torch ---


def stored(path: Path | io.BytesIO, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    mode: Literal["a", "w"] = "w" if isinstance(path, Path) else "a"
    with zipfile.ZipFile(path, mode, compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _bomb() -> bytes:
    """A pickle of 20 MB of empty sets, 216 bytes each."""
    return b"\x80\x04(" + b"\x8f" * 20_000_000 + b"l."


HARMLESS = pickle.dumps({"epoch": 3}, protocol=2)


def two_directories(path: Path) -> None:
    """The zip64 locator points to a directory with the bomb; the one in front of the locator is harmless.

    torch follows the locator, Python's zipfile takes what is in front of it.
    """
    content, record = b"", b""
    begin = 0
    for number, data in enumerate((_bomb()[:1_900_000] + b"l.", HARMLESS)):
        members = {"archive/data.pkl": data, "archive/version": b"3"}
        single = io.BytesIO(content)
        single.seek(0, 2)
        stored(single, members)
        archive = single.getvalue()
        end = archive.rindex(b"PK\x05\x06")
        size, offset = struct.unpack("<LL", archive[end + 12 : end + 20])
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, size, offset)
        begin = begin if number else end
        content = archive[:end] + record
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(content + locator + last)


def record_twice(path: Path) -> None:
    """A directory with two records of one name: the bomb, and a harmless one."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _bomb())
        archive.writestr("archive/version", "3")
    outer.write(inner.getvalue())
    with zipfile.ZipFile(outer, "a") as archive:
        archive.writestr("archive/data.pkl", HARMLESS)
    path.write_bytes(outer.getvalue())


for _read, _kind in ((torch_file, "pth"), (state, "pt")):
    attack(f"archive with a second record of one name.{_kind}", _read)(record_twice)
    attack(f"archive with a second directory behind its locator.{_kind}", _read)(two_directories)

    @attack(f"archive with the record DATA.PKL alone.{_kind}", _read)
    def _(path: Path) -> None:
        stored(path, {"archive/DATA.PKL": _bomb()[:2_000_000] + b"l.", "archive/version": b"3"})

    @attack(f"archive with data.pkl and DATA.PKL.{_kind}", _read)
    def _(path: Path) -> None:
        stored(
            path,
            {"archive/DATA.PKL": _bomb()[:1_900_000] + b"l.", "archive/data.pkl": HARMLESS, "archive/version": b"3"},
        )

    @attack(f"archive with a directory in front of the last one.{_kind}", _read)
    def _(path: Path) -> None:
        """Two whole archives, one behind the other."""
        one, two = io.BytesIO(), io.BytesIO()
        stored(one, {"archive/data.pkl": _bomb()[:1_900_000] + b"l.", "archive/version": b"3"})
        stored(two, {"archive/data.pkl": HARMLESS, "archive/version": b"3"})
        path.write_bytes(one.getvalue() + two.getvalue())

    @attack(f"deflated pickle of 20 MB of sets.{_kind}", _read)
    def _(path: Path) -> None:
        content = b"".join(os.urandom(1_000_000) for _ in range(2))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", _bomb()[:-2] + b"l.", zipfile.ZIP_DEFLATED)
            archive.writestr("archive/data/0", content)
            archive.writestr("archive/version", "3")


def in_torch(name: str) -> Callable:
    """Register a pickle as the record of a torch archive, and as a pickle of a dataset."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        attack(f"{name}.pth", torch_file)(
            lambda path: stored(path, {"archive/data.pkl": make(), "archive/version": b"3"})
        )
        attack(f"{name}.pkl", pickled)(lambda path: path.write_bytes(make()))
        attack(f"{name}.pkl, BYOL", byol)(lambda path: path.write_bytes(make()))
        return make

    return register


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# --- Pickles ---


@in_torch("integers of one hash as keys")
def _() -> bytes:
    keys = (pickle.dumps(number * (2**61 - 1), 2)[2:-1] for number in range(1, 150_000))
    return b"\x80\x02}(" + b"".join(key + b"N" for key in keys) + b"u."


@in_torch("integers of one hash in a set")
def _() -> bytes:
    keys = (pickle.dumps(number * (2**61 - 1), 2)[2:-1] for number in range(1, 150_000))
    return b"\x80\x04\x8f(" + b"".join(keys) + b"\x90."


@in_torch("tuples within tuples as a key")
def _() -> bytes:
    return b"\x80\x02})" + b"2\x86" * 60 + b"Ns."


@in_torch("tuples of one hash as keys")
def _() -> bytes:
    return b"\x80\x02}(" + b"".join(_colliding_tuples(45_000)) + b"u."


def _colliding_tuples(count: int) -> list[bytes]:
    """Pairs of integers whose hash is that of the first pair: xxHash without a secret, solved for the second."""
    one, two, five, mask = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64 - 1
    inverse = pow(two, -1, 2**64)

    def round_(acc: int, lane: int) -> int:
        acc = (acc + lane * two) & mask
        return ((acc << 31 | acc >> 33) & mask) * one & mask

    before_last = None
    found: list[bytes] = []
    number = 1
    while len(found) < count:
        acc = round_(five, number)
        if before_last is None:
            before_last = (acc + 5 * two) & mask
        second = (before_last - acc) * inverse & mask
        if second < 2**61 - 1:
            found.append(b"".join(pickle.dumps(part, 2)[2:-1] for part in (number, second)) + b"\x86N")
        number += 1
    return found


@in_torch("empty sets")
def _() -> bytes:
    return b"\x80\x04(" + b"\x8f" * 2_000_000 + b"l."


@in_torch("one text encoded again and again")
def _() -> bytes:
    call = (
        b"c_codecs\nencode\nq\x00X"
        + struct.pack("<I", 1_000_000)
        + b"a" * 1_000_000
        + b"q\x01X\x06\0\0\0latin1\x86q\x02"
    )
    return b"\x80\x02]" + call + b"00" + b"(" + b"h\x00h\x02R" * 150_000 + b"e."


@in_torch("one mapping copied again and again")
def _() -> bytes:
    items = b"".join(b"K" + bytes([n % 256]) + b"M" + struct.pack("<H", n % 65536) + b"\x86" for n in range(45_000))
    mapping = b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(200_000)) + b"u"
    del items
    call = b"ccollections\nOrderedDict\nq\x00" + mapping + b"\x85q\x01"
    return b"\x80\x02]" + call + b"00(" + b"h\x00h\x01R" * 100_000 + b"e."


@in_torch("one frozen mapping copied again and again")
def _() -> bytes:
    mapping = b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(200_000)) + b"u"
    call = b"chaiku._src.data_structures\nFlatMapping\nq\x00" + mapping + b"\x85q\x01"
    return b"\x80\x02]" + call + b"00(" + b"h\x00h\x01R" * 100_000 + b"e."


@in_torch("a call with many arguments, again and again")
def _() -> bytes:
    call = b"cargparse\nNamespace\nq\x00(" + b"N" * 900_000 + b"tq\x01"
    byol_record = call.replace(b"cargparse\nNamespace\n", b"c__main__\nBYOLState\n")
    return b"\x80\x02]" + byol_record + b"00(" + b"h\x00h\x01R" * 200_000 + b"e."


@in_torch("a list of texts made an array again and again")
def _() -> bytes:
    make = b"cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\ndtype\nX\x02\0\0\0O8\x85Rq\x02"
    texts = b"](X" + struct.pack("<I", 1000) + b"a" * 1000 + b"q\x03" + b"h\x03" * 200_000 + b"eq\x01"
    call = b"(K\x01J@\x0d\x03\x00\x85h\x02\x89h\x01tq\x04"
    return b"\x80\x02]" + make + texts + call + b"0000(" + b"h\x00)Rh\x04b" * 100_000 + b"e."


@in_torch("classes of storages without end")
def _() -> bytes:
    return b"\x80\x04](\x8c\x05torchq\x00\x8c\x0bByteStorageq\x01" + b"h\x00h\x01\x93" * 390_000 + b"e."


@in_torch("named tuples without end")
def _() -> bytes:
    call = b"cdill._dill\n_create_namedtuple\nq\x00X\x01\0\0\0a)X\x01\0\0\0a\x87q\x01"
    return b"\x80\x02](" + call + b"h\x00h\x01R" * 390_000 + b"e."


@in_torch("a long name for many values")
def _() -> bytes:
    return b"\x80\x02}" + text("a" * 500_000) + b"](" + b"N" * 1_400_000 + b"es."


@in_torch("tensors without values, without end")
def _() -> bytes:
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00N(K\x01t\x86q\x01"
    return b"\x80\x02](" + call + b"h\x00h\x01R" * 390_000 + b"e."


@in_torch("tensors of 100,000 axes")
def _() -> bytes:
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00N(" + b"K\x01" * 100_000 + b"t\x86q\x01"
    return b"\x80\x02](" + call + b"h\x00h\x01R" * 300_000 + b"e."


@in_torch("huge integers as a shape")
def _() -> bytes:
    huge = b"\x8b" + struct.pack("<i", 1_500_000) + b"\x7f" * 1_500_000 + b"q\x03"
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00" + huge + b"N(" + b"h\x03" * 1000 + b"t\x86q\x01"
    return b"\x80\x02](" + call + b"h\x00h\x01R" * 1000 + b"e."


def _gzipped(pattern: bytes, size: int, end: bytes = b"", start: bytes = b"") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with gzip.open(path, "wb", 9) as file:
            file.write(start)
            block = pattern * (2**20 // len(pattern))
            for _ in range(size // len(block)):
                file.write(block)
            file.write(end)

    return make


def _one_array(path: Path) -> None:
    """An array of zeros of 1.9 GiB: 2 MB."""
    size = 19 * 10**8
    _gzipped(b"\0", size - size % 2**20, start=b"\x80\x04]\x8e" + struct.pack("<Q", size - size % 2**20), end=b"a.")(
        path
    )


for _read in (pickled, byol):
    attack(f"gzip of one text of 1.9 GB.pklz, {_read.__name__}", _read)(_one_array)
    attack(f"gzip of lists.pklz, {_read.__name__}", _read)(_gzipped(b"]", 70 * 2**20, start=b"\x80\x04(", end=b"l."))


def _many_places(path: Path) -> None:
    names = [f"{n}.{rest}.weight" for n in range(8000) for rest in ("conv1", "layer1.0.conv1")]
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00N(K\x01K\x01K\x01K\x01t\x86q\x01"
    entries = b"".join(text(name) + b"h\x00h\x01R" for name in names)
    stored(path, {"a/data.pkl": b"\x80\x02" + call + b"00}(" + entries + b"u.", "a/version": b"3"})


attack("8,000 networks in one file.pth", torch_file)(_many_places)


def shaped(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Save tensors without values."""
    start = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00"
    entries = (
        text(name) + b"h\x00N(" + b"".join(pickle.dumps(size, 2)[2:-1] for size in shape) + b"t\x86R"
        for name, shape in shapes
    )
    stored(path, {"a/data.pkl": b"\x80\x02" + start + b"0}(" + b"".join(entries) + b"u.", "a/version": b"3"})


@attack("vision transformers of 10,000 sizes.pth", torch_file)
def _(path: Path) -> None:
    names = ((n, name) for n in range(10_000) for name in ("cls_token", "patch_embed.proj.weight", "blocks.0.a"))
    shaped(path, ((f"{n}.{name}", (192, 3, n, n)) for n, name in names))


@attack("ResNets of 5,000 widths.pth", torch_file)
def _(path: Path) -> None:
    layers = [f"layer{layer}.0.{name}" for layer in (1, 2, 3, 4) for name in ("conv1", "conv3")]
    shaped(
        path,
        (
            (f"{n}.{name}.weight", (4 * n if "conv3" in name else n, n, 7, 7))
            for n in range(1, 4900)
            for name in ("conv1", *layers)
        ),
    )


@attack("vision transformers behind many beginnings.pth", torch_file)
def _(path: Path) -> None:
    """Each of the beginnings has as many names as half a network has."""
    names = (f"{n}.{'a.' * 45}{k}" for n in range(200) for k in range(80))
    first = (("cls_token", (1, 1, 192)), ("pos_embed", (1, 197, 192)), ("patch_embed.proj.weight", (192, 3, 16, 16)))
    shaped(path, (*first, *((f"blocks.{n}.a", (1,)) for n in range(12)), *((name, (1,)) for name in names)))


@attack("names of 400 parts.pth", torch_file)
def _(path: Path) -> None:
    call = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00N(K\x01t\x86q\x01"
    entries = b"".join(text(f"{n}" + ".a" * 400) + b"h\x00h\x01R" for n in range(2400))
    stored(path, {"a/data.pkl": b"\x80\x02" + call + b"00}(" + entries + b"u.", "a/version": b"3"})


def classifier(path: Path) -> object:
    import torch

    from ssltransfer.checkpoints.imagenet_head import imagenet_top1, read_head
    from ssltransfer.models.resnet import build_resnet

    head = read_head([path], True, "auto", "resnet-1x1x1x1-w4", "m")
    return imagenet_top1(build_resnet("resnet-1x1x1x1-w4"), head, path.parent, "imagenet", torch.device("cpu"))


@attack("classifier of 10^11 rows.pth", classifier)
def _(path: Path) -> None:
    import torch

    from ssltransfer.models.resnet import build_resnet

    network = build_resnet("resnet-1x1x1x1-w4")
    width = network.layer4[0].bn3.bias.numel()
    big = torch.zeros(1).expand(10**11, width), torch.zeros(1).expand(10**11)
    torch.save(network.state_dict() | {"fc.weight": big[0], "fc.bias": big[1]}, path)


# --- Images ---


def png(width: int, height: int, depth: int, colour: int, channels: int) -> bytes:
    """A PNG of zeros, row by row, so that making it takes no memory."""
    packer, row = zlib.compressobj(9), b"\0" * (1 + width * channels * depth // 8)
    content = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def _png(*arguments: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(png(*arguments))


attack("16-bit grey of 13,300 x 13,300.png", image)(_png(13_300, 13_300, 16, 0, 1))
attack("RGBA of 13,300 x 13,300.png", image)(_png(13_300, 13_300, 8, 6, 4))
attack("16-bit grey of 7,000 x 7,000.png", image)(_png(7000, 7000, 16, 0, 1))
attack("RGBA of 7,000 x 7,000.png", image)(_png(7000, 7000, 8, 6, 4))
attack("mask of 13,300 x 13,300.png", mask)(_png(13_300, 13_300, 8, 0, 1))
attack("mask of 7,000 x 7,000.png", mask)(_png(7000, 7000, 8, 0, 1))
attack("normals of 13,300 x 13,300.png", colours)(_png(13_300, 13_300, 8, 2, 3))
attack("normals of 7,000 x 7,000.png", colours)(_png(7000, 7000, 8, 2, 3))


def _saved(size: int, mode: str, format: str, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (size, size)).save(path, format, **options)


attack("WebP of 13,300 x 13,300.webp", image)(_saved(13_300, "RGB", "WEBP", quality=0, method=0))
attack("WebP of 7,000 x 7,000.webp", image)(_saved(7000, "RGB", "WEBP", quality=0, method=0))
attack("GIF of 13,300 x 13,300.gif", image)(_saved(13_300, "L", "GIF"))
attack("TIFF of 13,300 x 13,300.tif", image)(_saved(13_300, "RGBA", "TIFF", compression="tiff_deflate"))
attack("16-bit TIFF of 13,300 x 13,300.tif", image)(_saved(13_300, "I;16", "TIFF", compression="tiff_deflate"))


def _scans(size: int, count: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        file = io.BytesIO()
        Image.new("L", (size, size)).save(file, "JPEG", progressive=True, quality=5)
        content = file.getvalue()
        # The last scan, with its table, again and again.
        begin = content.rfind(b"\xff\xc4")
        scan = content[begin:-2]
        count_here = min(count, (SIZE - len(content)) // len(scan))
        path.write_bytes(content[:-2] + scan * count_here + b"\xff\xd9")

    return make


attack("JPEG of 13,300 x 13,300 with 400 further scans.jpg", image)(_scans(13_300, 400))
attack("JPEG of 7,000 x 7,000 with 400 further scans.jpg", image)(_scans(7000, 400))
attack("JPEG of 1,000 x 1,000 with all scans that fit.jpg", image)(_scans(1000, 100_000))


# --- Archives of datasets ---


def archive(path: Path) -> object:
    from ssltransfer.datasets.obtain import unpack

    unpack(path, path.parent / "unpacked")
    return None


def shards(path: Path) -> object:
    from ssltransfer.datasets.hub_shards import unpack_shards

    folder = path.parent / "shards"
    folder.mkdir()
    path.rename(folder / f"train{path.suffix}")
    try:
        return unpack_shards(folder, path.parent / "dataset")
    finally:
        path.touch()


@attack("zip bomb.zip", archive)
def _(path: Path) -> None:
    stored(path, {"a": bytes(2**31 - 2**20)}, zipfile.ZIP_DEFLATED)


@attack("zip whose members share their bytes.zip", archive)
def _(path: Path) -> None:
    """The directory names one member of 2 MiB a thousand times."""
    stored(path, {"a": bytes(2**21)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[begin:end]
    many = b"".join(entry[:-1] + bytes([n % 26 + 97]) for n in range(1000))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(many), begin, 0)
    path.write_bytes(content[:begin] + many + tail)


def tarred(path: Path, *members: tuple, mode: str = "w") -> None:
    """Write a tar file of (name, type, size in the header, content, link, pax headers)."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, kind, size, content, link, pax in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.pax_headers = kind, size, link, pax
            tar.fileobj.write(member.tobuf(tarfile.PAX_FORMAT))  # type: ignore[union-attr]
            tar.fileobj.write(content + b"\0" * (-len(content) % 512))  # type: ignore[union-attr]


@attack("tar.gz bomb.tgz", archive)
def _(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("a")
        member.size = 3 * 2**29
        tar.addfile(member, open("/dev/zero", "rb"))  # noqa: PTH123, SIM115


@attack("tar with a sparse member of 1 TiB.tar", archive)
def _(path: Path) -> None:
    sparse = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(2**40)}
    sparse |= {"GNU.sparse.name": "a", "GNU.sparse.map": f"{2**40 - 512},512", "GNU.sparse.numblocks": "1"}
    tarred(path, ("a", tarfile.REGTYPE, 512, bytes(512), "", sparse))


@attack("tar whose pax header gives another size.tar", archive)
def _(path: Path) -> None:
    tarred(path, ("a", tarfile.REGTYPE, 512, bytes(512), "", {"size": str(2**50)}))


@attack("tar whose header is its size.tar", archive)
def _(path: Path) -> None:
    """A pax header that says it has 8 GiB."""
    member = tarfile.TarInfo("././@PaxHeader")
    member.type, member.size = tarfile.XHDTYPE, 2**33 - 1
    path.write_bytes(member.tobuf(tarfile.USTAR_FORMAT) + bytes(10_240))


@attack("tar with a device.tar", archive)
def _(path: Path) -> None:
    tarred(path, ("a", tarfile.CHRTYPE, 0, b"", "", {}))


@attack("tar with a hard link to a link.tar", archive)
def _(path: Path) -> None:
    tarred(
        path,
        ("a", tarfile.SYMTYPE, 0, b"", "/etc/passwd", {}),
        ("b", tarfile.LNKTYPE, 0, b"", "a", {}),
    )


@attack("tar with a hard link to a file outside.tar", archive)
def _(path: Path) -> None:
    tarred(path, ("b", tarfile.LNKTYPE, 0, b"", "/etc/hostname", {}))


@attack("zip with a symbolic link.zip", archive)
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc")
        file.writestr("link2/passwd", "x")


@attack("parquet whose images are gigabytes.parquet", shards)
def _(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = b"\x89PNG" + bytes(200 * 2**20)
    table = pa.table({"image": pa.array([cell] * 8, pa.large_binary()), "label": list(range(8))})
    pq.write_table(table, path, compression="zstd", use_dictionary=["image"], dictionary_pagesize_limit=2**30)


@attack("parquet of one page of 1.9 GB.parquet", shards)
def _(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": pa.array([b"\x89PNG" + bytes(19 * 10**8)], pa.large_binary()), "label": [0]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def _dictionary(path: Path, rows: int, label: object, name: str = "label", info: dict | None = None) -> None:
    """A parquet file of one image and one label, again and again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = io.BytesIO()
    Image.new("L", (1, 1)).save(image, "PNG")
    table = pa.table({"image": pa.array([image.getvalue()] * rows), name: pa.array([label] * rows)})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": info or {}}})})
    pq.write_table(table, path, compression="zstd", use_dictionary=info is None)


@attack("parquet of one image in two million rows.parquet", shards)
def _(path: Path) -> None:
    _dictionary(path, 2_000_000, 0)


@attack("parquet of one long label in a million rows.parquet", shards)
def _(path: Path) -> None:
    _dictionary(path, 1_000_000, "a" * 1000)


@attack("parquet with a dot in the name of its labels.parquet", shards)
def _(path: Path) -> None:
    _dictionary(path, 1500, "a" * 2**20, "x.y", {"x.y": {"_type": "ClassLabel", "names": ["a"]}})


@attack("parquet with a class of the number 2^40.parquet", shards)
def _(path: Path) -> None:
    _dictionary(path, 1, 2**40)


@attack("tar.gz with labels of 200 MB.tar", shards)
def _(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for number in range(6):
            for suffix, content in (("png", b"\x89PNG"), ("cls", b"a" * (200 * 2**20))):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _empty_members(path: Path) -> None:
    block = tarfile.TarInfo("a.json").tobuf(tarfile.USTAR_FORMAT) * 1000
    with gzip.open(path, "wb", 9) as file:
        for _ in range(900):
            file.write(block)


attack("tar.gz of 900,000 empty members.tar", shards)(_empty_members)
attack("tar.gz of 900,000 empty members.tgz", archive)(_empty_members)


# --- Other files of datasets and of the configuration ---


def annotation(path: Path) -> object:
    from ssltransfer.datasets.voc import read_objects

    return read_objects(path)


def matlab(path: Path) -> object:
    from ssltransfer.datasets.layout import read_mat

    return read_mat(path, "a")


def matlab_rows(path: Path) -> object:
    from ssltransfer.datasets.containers import MatlabRows

    return MatlabRows(path, "images")[0]


def yaml_file(path: Path) -> object:
    from ssltransfer.config.validation import check_schema, read_yaml
    from ssltransfer.settings import config_schema

    content = read_yaml(path)
    check_schema(content, config_schema(), str(path))
    return json.dumps(content)[:10]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@attack("XML of a billion laughs.xml", annotation)
def _(path: Path) -> None:
    path.write_text(f'<!DOCTYPE a [<!ENTITY l0 "lol">{LAUGHS}]><annotation><name>&l9;</name></annotation>')


@attack("XML with a file as entity.xml", annotation)
def _(path: Path) -> None:
    path.write_text('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>')


@attack("XML of 180,000 levels.xml", annotation)
def _(path: Path) -> None:
    path.write_text("<a>" * 280_000 + "</a>" * 280_000)


@attack("XML of one tag with 100,000 attributes.xml", annotation)
def _(path: Path) -> None:
    path.write_text("<a " + " ".join(f'a{n}="{n}"' for n in range(110_000)) + "/>")


def mat_element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def mat_header() -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)


def mat_matrix(name: bytes, kind: int, shape: tuple[int, ...], *parts: bytes) -> bytes:
    flags = mat_element(6, struct.pack("<II", kind, 0))
    return flags + mat_element(5, struct.pack(f"<{len(shape)}i", *shape)) + mat_element(1, name) + b"".join(parts)


def compressed_zeros(start: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return packer.compress(start) + b"".join(packer.compress(block) for _ in range(count // 2**20)) + packer.flush()


@attack(".mat bomb of 1.9 GB.mat", matlab)
def _(path: Path) -> None:
    count = 1800 * 2**20
    inner = mat_matrix(b"a", 9, (1, count), struct.pack("<II", 2, count))
    packed = compressed_zeros(struct.pack("<II", 14, len(inner) + count) + inner, count)
    path.write_bytes(mat_header() + struct.pack("<II", 15, len(packed)) + packed)


@attack(".mat with a bomb beside the variable.mat", matlab)
def _(path: Path) -> None:
    count = 1800 * 2**20
    inner = mat_matrix(b"b", 9, (1, count), struct.pack("<II", 2, count))
    packed = compressed_zeros(struct.pack("<II", 14, len(inner) + count) + inner, count)
    one = mat_matrix(b"a", 9, (1, 1), mat_element(2, b"\1"))
    path.write_bytes(mat_header() + struct.pack("<II", 15, len(packed)) + packed + mat_element(14, one))


@attack(".mat whose sizes are not there.mat", matlab)
def _(path: Path) -> None:
    inner = mat_matrix(b"a", 6, (2**20, 2**10), struct.pack("<II", 9, 2**31 - 8) + bytes(64))
    path.write_bytes(mat_header() + mat_element(14, inner))


@attack(".mat of 2^31 cells that are not there.mat", matlab)
def _(path: Path) -> None:
    path.write_bytes(mat_header() + mat_element(14, mat_matrix(b"a", 1, (2**15, 2**15))))


@attack(".mat of 2^30 structures without fields.mat", matlab)
def _(path: Path) -> None:
    inner = mat_matrix(b"a", 2, (2**15, 2**15), mat_element(5, struct.pack("<i", 32)), mat_element(1, b""))
    path.write_bytes(mat_header() + mat_element(14, inner))


@attack(".mat of many empty cells.mat", matlab)
def _(path: Path) -> None:
    cell = mat_element(14, mat_matrix(b"", 9, (0, 0), mat_element(2, b"")))
    count = 2_500_000
    start = mat_matrix(b"a", 1, (1, count))
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack("<II", 14, len(start) + count * len(cell)) + start)
    packed += b"".join(packer.compress(cell * 1000) for _ in range(count // 1000)) + packer.flush()
    path.write_bytes(mat_header() + struct.pack("<II", 15, len(packed)) + packed)


@attack("HDF5 with a row of 2 GB.mat", matlab_rows)
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1, 3, 2**14, 2**15), "u1", chunks=(1, 3, 2**12, 2**12), compression="gzip")


@attack("HDF5 with a chunk of 2 GB.mat", matlab_rows)
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        array = file.create_dataset("images", (2**21, 2**10), "u1", chunks=(2**21, 2**10), compression="gzip")
        array.id.write_direct_chunk((0, 0), compressed_zeros(b"", 2**31))


@attack("YAML of a billion laughs.yaml", yaml_file)
def _(path: Path) -> None:
    lines = ['l0: &l0 ["lol"]'] + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    path.write_text("\n".join(lines))


@attack("YAML of merged mappings.yaml", yaml_file)
def _(path: Path) -> None:
    lines = ["l0: &l0 {a: 1}"]
    lines += [f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    path.write_text("\n".join(lines))


@attack("YAML that contains itself.yaml", yaml_file)
def _(path: Path) -> None:
    path.write_text("suite: &a [*a]")


@attack("YAML of 100,000 brackets.yaml", yaml_file)
def _(path: Path) -> None:
    path.write_text("suite: " + "[" * 100_000)


# --- Adopted scores ---


def outcomes(path: Path) -> object:
    from ssltransfer.results.outcome_file import load_outcomes

    return load_outcomes(path)


def intervals(path: Path) -> object:
    from ssltransfer.results.outcome_header import read_intervals

    return read_intervals(path)


def score(path: Path) -> object:
    from ssltransfer.results.score_reader import read_score

    return read_score(path)


def _npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (19 * 10**8,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("header.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(1900):
            member.write(bytes(10**6))


attack("outcomes of 1.9 GB.npz", outcomes)(_npz)
attack("outcomes of 1.9 GB.npz, header", intervals)(_npz)


@attack("outcomes whose array claims 3 GB.npz", outcomes)
def _(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (3 * 10**9,)})
    stored(path, {"header.npy": header.getvalue() + bytes(1000)})


@attack("score of 100,000 levels.json", score)
def _(path: Path) -> None:
    path.write_text("[" * 100_000)


@attack("score with 100,000 unknown keys.json", score)
def _(path: Path) -> None:
    path.write_text("{" + ",".join(f'"k{n}": {n}' for n in range(110_000)) + "}")


# --- Measuring ---


class Cost(NamedTuple):
    """What reading a file cost.

    Attributes
    ----------
    size : int
        Bytes of the file.
    outcome : str
        ``read``, the line of an InputError, or how else it ended.
    mib : float
        Peak memory, above that of a process that reads nothing.
    seconds : float
        Processor time.
    """

    size: int
    outcome: str
    mib: float
    seconds: float


def measure(name: str, folder: Path, memory: int = 5 * GIB, seconds: int = 40) -> Cost:
    """Make a file, and read it in a process of its own that is ended at `memory` bytes or `seconds`."""
    case = ATTACKS[name]
    path = folder / ("f." + name.rpartition(".")[2].partition(",")[0])
    # In a process of its own: the next one would begin with the memory that this one still has.
    maker = os.fork()
    if maker == 0:
        case.make(path)
        os._exit(0)
    os.waitpid(maker, 0)
    size = path.stat().st_size
    idle = os.fork()
    if idle == 0:
        os._exit(0)
    before = os.wait4(idle, 0)[2].ru_maxrss
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (memory + _virtual(), memory + _virtual()))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        try:
            case.read(path)
            outcome = "read"
        except BaseException as error:
            if type(error).__name__ == "InputError":
                outcome = str(error).replace(str(folder), "")
            else:
                outcome = f"ended by {type(error).__name__}: {error}"[:300]
        os.write(send, outcome.encode()[:3000])
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        outcome = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    if not outcome:
        outcome = f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended without a word"
    return Cost(size, outcome, (usage.ru_maxrss - before) / 1024, usage.ru_utime + usage.ru_stime)


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(names: list[str]) -> None:
    import torch

    import ssltransfer.checkpoints.convert  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)], 0.1)  # imports for seconds
    for name in [name for name in names if name in ATTACKS] or ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            cost = measure(name, Path(folder))
        over = cost.mib * 2**20 > MEMORY or cost.seconds > SECONDS
        numbers = f"{cost.size / 1e3:,.0f} kB | {cost.mib:,.0f} MiB, {cost.seconds:.1f} s"
        print(f"| {name} | {numbers} | {'OVER: ' if over else ''}{cost.outcome[:150]} |", flush=True)
        print(json.dumps([name, *cost]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
