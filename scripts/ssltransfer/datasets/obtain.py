"""Download and unpack original datasets."""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

from ssltransfer.datasets.downloads import DOWNLOADS, where_to_place
from ssltransfer.datasets.sources import DOWNLOAD_FOLDER, Source, location
from ssltransfer.datasets.tar_member import TarMember
from ssltransfer.download import download
from ssltransfer.errors import InputError

# RuntimeError: of an encrypted member, or a compression that is not supported.
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)

MAX_BYTES, MAX_UNPACKING = 2**30, 100
"""Bytes that an archive may unpack to, and the ratio that counts where it allows more; images hardly compress."""
MIN_MEMBER = 2**12
"""Bytes that a member takes at least, as a file on the disk."""


def find_or_obtain(name: str, data_root: str | Path) -> dict:
    """Find an original dataset below the data root or among the downloads, or download it.

    Returns
    -------
    dict
        ``dataset``, ``date``, and ``files``: the address of each downloaded file (empty if nothing was downloaded). The
        path is not recorded, because `data_root` may change.

    Raises
    ------
    InputError
        If `data_root` is not there, unless it is the default one; see `obtain`.
    """
    path = location(Source("original", name), data_root)
    if not path.exists() and not Path(data_root).is_dir() and Path(data_root) != DOWNLOAD_FOLDER:
        raise InputError(f"{name}: data_root {data_root} is not a folder; correct the path (nothing was downloaded)")
    files = {} if path.exists() else obtain(name, DOWNLOAD_FOLDER / name, path)
    return {"dataset": name, "date": datetime.now(UTC).date().isoformat(), "files": files}


def obtain(name: str, folder: Path, expected: Path, fetch: Callable[..., str] = download) -> dict[str, str]:
    """Download and unpack a dataset.

    Parameters
    ----------
    name : str
        Original dataset.
    folder : Path
        Exists only once everything is unpacked. Archives are kept beside it until then, so that a second attempt
        continues with them.
    expected : Path
        Its path below the data root, named in the message where it has to be placed by hand.
    fetch : callable
        `ssltransfer.download.download`, or a stand-in.

    Returns
    -------
    dict of str to str
        The address of each downloaded file, by its name.

    Raises
    ------
    InputError
        If the dataset cannot be downloaded (with what to place where), a download fails, or an archive is unsafe.
    """
    published = DOWNLOADS[name]
    if not published.files:
        raise InputError(
            f"{name}: {expected} is missing and cannot be downloaded ({published.reason}); "
            + where_to_place(Source("original", name))
        )
    archives = folder.with_name(f"{name}.archives")
    unpacked = folder.with_name(f".{name}.unpacking")
    archives.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    sources = {}
    for file in published.files:
        target = archives / file.name
        sources[file.name] = fetch(file.urls, target, size=file.size, sha256=file.sha256, sha1=file.sha1, md5=file.md5)
    try:
        for file in published.files:
            unpack(archives / file.name, unpacked)
            if file.inner:
                unpack(unpacked / file.inner, (unpacked / file.inner).parent)
                (unpacked / file.inner).unlink()
        unpacked.replace(folder)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(archives)
    return sources


def open_tar(archive: Path) -> tarfile.TarFile | None:
    """Open a tar file, packed or not; None if it is something else."""
    try:
        return tarfile.open(archive, tarinfo=TarMember)
    except tarfile.ReadError:
        return None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into a folder; any other file is copied there.

    Raises
    ------
    InputError
        If a member would be written outside the folder, the archive is damaged, or its members have over `MAX_BYTES`
        bytes and `MAX_UNPACKING` times its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    most = max(MAX_BYTES, MAX_UNPACKING * archive.stat().st_size)
    try:
        if tar := open_tar(archive):
            with tar:
                left = most
                for member in tar:
                    if member.issym() or member.islnk():
                        _check_inside(member.linkname, archive)
                    left -= max(member.size, MIN_MEMBER)
                    _check_room(left, most, archive)
                tar.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    _check_inside(name, archive)
                _check_room(most - sum(info.file_size for info in zipped.infolist()), most, archive)
                zipped.extractall(folder)
        elif archive.suffix in (".tar", ".gz", ".tgz", ".zip"):
            raise InputError(f"{archive} is not an archive; delete it to download it again")
        else:
            shutil.copy(archive, folder / archive.name)
    except DAMAGED as error:
        raise InputError(f"{archive} cannot be unpacked: {error}") from None


def _check_room(left: int, most: int, archive: Path) -> None:
    """Refuse an archive that would fill the disk; a sparse member of a few bytes can have any size."""
    if left < 0:
        raise InputError(
            f"{archive} cannot be unpacked: its members have over {most} bytes; if they are meant to, unpack it by hand"
        )


def _check_inside(name: str, archive: Path) -> None:
    # zipfile would quietly write such members elsewhere; tarfile refuses them, but older releases lose their way among
    # links that lead up and down again.
    if (
        PureWindowsPath(name).drive
        or name.startswith(("/", "\\"))
        or ".." in PurePosixPath(name.replace("\\", "/")).parts
    ):
        raise InputError(f"{archive} cannot be unpacked: member {name!r} would leave the folder")
