"""Obtaining datasets, without a network: a stand-in for the downloader hands out archives made here."""

import io
import tarfile
import zipfile
from pathlib import Path

import layouts
import pytest

from ssltransfer.datasets import caltech101, flowers
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.datasets.obtain import MIN_MEMBER, find_or_obtain, obtain, unpack
from ssltransfer.errors import InputError


def tar(path: Path, members: dict[str, bytes], kind=tarfile.REGTYPE, link="") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, link
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def hand_out(folder: Path):
    """Make a downloader that copies files of a folder."""

    def fetch(urls, target, **known):
        target.write_bytes((folder / urls[0].rpartition("/")[2]).read_bytes())
        return urls[0]

    return fetch


def test_archives_and_plain_files(tmp_path):
    layouts.flowers(tmp_path / "made")
    images = files_below(tmp_path / "made" / "jpg")
    tar(tmp_path / "made/102flowers.tgz", {f"jpg/{name}": content for name, content in images.items()})
    sources = obtain("flowers", tmp_path / "root/flowers", tmp_path, hand_out(tmp_path / "made"))
    assert set(sources) == {"102flowers.tgz", "imagelabels.mat", "setid.mat"}
    assert flowers.index(tmp_path / "root/flowers") == flowers.index(tmp_path / "made")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["flowers"]


def test_an_archive_within_an_archive(tmp_path):
    layouts.caltech101(tmp_path / "made")
    inner = tar(tmp_path / "inner.tar.gz", files_below(tmp_path / "made"))
    zipped(
        tmp_path / "caltech-101.zip", {"caltech-101/101_ObjectCategories.tar.gz": inner.read_bytes(), "__MACOSX/x": b""}
    )
    obtain("caltech101", tmp_path / "caltech101", tmp_path, hand_out(tmp_path))
    assert caltech101.index(tmp_path / "caltech101").classes == ["BACKGROUND_Google", "Faces_easy", "ant"]


def test_a_failed_download_leaves_no_folder(tmp_path):
    def fetch(urls, target, **known):
        if target.name == "setid.mat":
            raise InputError("no network")
        target.write_bytes(b"x")
        return urls[0]

    with pytest.raises(InputError, match="no network"):
        obtain("flowers", tmp_path / "flowers", tmp_path, fetch)
    assert not (tmp_path / "flowers").exists()
    assert (tmp_path / "flowers.archives/102flowers.tgz").exists(), "what has arrived is kept"


def test_a_failed_unpacking_leaves_no_folder(tmp_path):
    def fetch(urls, target, **known):
        target.write_bytes(b"x" if target.suffix == ".mat" else tar(tmp_path / "evil.tgz", {"../a": b""}).read_bytes())
        return urls[0]

    with pytest.raises(InputError, match="cannot be unpacked"):
        obtain("flowers", tmp_path / "root/flowers", tmp_path, fetch)
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["flowers.archives"]


@pytest.mark.parametrize(("name", "make"), [("a.tar.gz", "tar"), ("a.zip", "zipped")])
def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch, name, make):
    monkeypatch.setattr("ssltransfer.datasets.obtain.MAX_BYTES", 50_000)
    monkeypatch.setattr("ssltransfer.datasets.obtain.MAX_UNPACKING", 0)
    monkeypatch.setattr("ssltransfer.datasets.obtain.MIN_MEMBER", 0)
    write = {"tar": tar, "zipped": zipped}[make]
    unpack(write(tmp_path / name, {f"{number}": bytes(1000) for number in range(50)}), tmp_path / "whole")
    assert len(list((tmp_path / "whole").iterdir())) == 50
    with pytest.raises(InputError, match=r"its members have over 50000 bytes; .* unpack it by hand"):
        unpack(write(tmp_path / name, {f"{number}": bytes(1000) for number in range(51)}), tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())


def test_members_without_content_take_room(tmp_path, monkeypatch):
    monkeypatch.setattr("ssltransfer.datasets.obtain.MAX_BYTES", 12 * MIN_MEMBER)
    monkeypatch.setattr("ssltransfer.datasets.obtain.MAX_UNPACKING", 0)
    unpack(tar(tmp_path / "a.tar.gz", {f"{number}": b"" for number in range(12)}), tmp_path / "whole")
    with pytest.raises(InputError, match="its members have over 49152 bytes"):
        unpack(tar(tmp_path / "a.tar.gz", {f"{number}": b"" for number in range(13)}), tmp_path / "folder")


@pytest.mark.parametrize("name", [name for name, download in DOWNLOADS.items() if not download.files])
def test_what_cannot_be_downloaded_is_placed_by_hand(tmp_path, name):
    with pytest.raises(
        InputError, match="cannot be downloaded .*; the folder .* must hold .*; official page: https://"
    ) as error:
        obtain(name, tmp_path / name, Path("/data") / name)
    assert str(error.value).startswith(f"{name}: /data/{name} is missing and")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded_for_a_data_root_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="dtd: data_root nowhere/data is not a folder"):
        find_or_obtain("dtd", "nowhere/data")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "\\evil"])
def test_zip_members_stay_inside(tmp_path, name):
    archive = zipped(tmp_path / "bad.zip", {"good": b"", name: b"evil"})
    with pytest.raises(InputError, match="bad.zip cannot be unpacked: member .* would leave the folder"):
        unpack(archive, tmp_path / "deep/folder")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("evil", tarfile.SYMTYPE, "../../../etc/passwd"),
        ("evil", tarfile.LNKTYPE, "../outside"),
        ("deep/evil", tarfile.SYMTYPE, "../inside"),
        ("evil", tarfile.FIFOTYPE, ""),
    ],
)
def test_tar_members_stay_inside(tmp_path, name, kind, link):
    with pytest.raises(InputError, match=r"bad.tar.gz cannot be unpacked"):
        unpack(tar(tmp_path / "bad.tar.gz", {name: b""}, kind, link), tmp_path / "deep/folder")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
def test_damaged_archives(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"{name} is not an archive; delete it"):
        unpack(tmp_path / name, tmp_path / "folder")
    whole = tar(tmp_path / "whole.tgz", {"x": b"x" * 100_000}).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be unpacked|is not an archive"):
        unpack(tmp_path / name, tmp_path / "folder")


@pytest.mark.parametrize("change", [(60, b"\xff" * 20), (6, b"\x01"), (8, b"\x63")])
def test_damaged_and_encrypted_members(tmp_path, change):
    """Wrong bytes within a member, the flag of an encrypted one, an unknown compression."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"".join(i.to_bytes(2) for i in range(5000)))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    place, wrong = change
    directory = content.rfind(b"PK\x01\x02") + 2
    for start in (place, directory + place) if place < 10 else (place,):
        content[start : start + len(wrong)] = wrong
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip cannot be unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "folder")
