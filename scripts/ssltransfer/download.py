"""Verified downloads: several mirrors, retries, checksums, atomic.

The transfer itself is pooch's (a temporary file, renamed when complete; a broken transfer starts anew). This module
adds what it leaves to the caller: the next source when one fails, waiting between attempts, and messages that say
what to do.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pooch
import requests

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import file_hash

log = logging.getLogger(__name__)

ATTEMPTS = 3
TIMEOUT = 60.0
HUB = "https://huggingface.co"
TOKEN = "HF_TOKEN"
"""Environment variable with an access token of the hub, which is sent there alone."""


def check_file(path: Path, *, size: int | None = None, sha256: str = "", sha1: str = "", md5: str = "") -> None:
    """Check the size and digests of a file; empty and None mean unknown.

    Parameters
    ----------
    path : Path
    size : int, optional
        Bytes.
    sha256, sha1, md5 : str
        Hexadecimal digests, or their first digits where no more was published.

    Raises
    ------
    InputError
        If the file is a web page, or of another size or digest (both are named).
    """
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: found a web page (a login form or an error?), expected the file itself")
    if size is not None and (found := path.stat().st_size) != size:
        raise InputError(f"{path}: found {found} bytes, expected {size}")
    for algorithm, expected in (("sha256", sha256), ("sha1", sha1), ("md5", md5)):
        if expected and not (digest := file_hash(path, algorithm)).startswith(expected.lower()):
            raise InputError(f"{path}: {algorithm} is {digest}, expected {expected}")


def download(
    sources: Iterable[str],
    target: Path,
    *,
    size: int | None = None,
    sha256: str = "",
    sha1: str = "",
    md5: str = "",
    progress: bool = True,
    pause: float = 2.0,
) -> str:
    """Download one file to `target` from the first source that delivers it complete and with the expected checksum.

    A file that is already there is checked and kept.

    Parameters
    ----------
    sources : iterable of str
        URLs, tried in order. A source that answers "not found" or "forbidden" is left at once, other failures are
        retried with growing pauses.
    target : Path
    size, sha256, sha1, md5
        See `check_file`.
    progress : bool
        Whether to show a bar on a terminal.
    pause : float
        Seconds before the second attempt; doubled for each further one.

    Returns
    -------
    str
        The URL it came from, empty if the file was already there.

    Raises
    ------
    InputError
        If a file already there is wrong (it is kept), or no source delivers it; the message names the failures and
        where to place the file by hand.
    """
    check = partial(check_file, size=size, sha256=sha256, sha1=sha1, md5=md5)
    if target.is_file():
        check(target)
        return ""
    failures = []
    for url in sources:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                _transfer(url, target, check, progress)
            except (requests.RequestException, OSError, InputError) as error:
                reason = f"{url}: {_explain(url, error)}"
                log.warning("attempt %d, %s", attempt + 1, reason)
                if _is_final(error):
                    break
            else:
                return url
        failures.append(reason)
    raise InputError(f"{target} cannot be fetched ({'; '.join(failures)}); place the file there by hand")


def _transfer(url: str, target: Path, check: Callable[[Path], None], progress: bool) -> None:
    """Fetch and check under a temporary name, then rename."""
    incoming = target.with_name(f".{target.name}.incoming")
    incoming.unlink(missing_ok=True)
    try:
        pooch.retrieve(
            url,
            known_hash=None,
            fname=incoming.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(
                progressbar=progress and sys.stderr.isatty(), timeout=TIMEOUT, headers=_headers(url)
            ),
        )
        check(incoming)
        incoming.replace(target)
    finally:
        incoming.unlink(missing_ok=True)


def _headers(url: str) -> dict[str, str]:
    """Headers of a request; requests takes the token off where the hub sends it on to another host."""
    token = os.environ.get(TOKEN, "")
    return {"Authorization": f"Bearer {token}"} if token and url.startswith(f"{HUB}/") else {}


def _explain(url: str, error: Exception) -> str:
    """Say in one line why a transfer failed; of repositories that the hub does not give to everybody, what to do."""
    refused = isinstance(error, requests.HTTPError) and error.response is not None and error.response.status_code
    if refused not in (401, 403) or not url.startswith(f"{HUB}/"):
        return first_line(error)
    page = url.partition("/resolve/")[0]
    token = f"the token in {TOKEN} may not read it" if os.environ.get(TOKEN) else f"{TOKEN} is not set"
    return (
        f"the hub answers {refused}: the repository is not there or is gated, and {token}; accept its terms at {page}, "
        f"and set the environment variable {TOKEN} to a token from {HUB}/settings/tokens"
    )


def _is_final(error: Exception) -> bool:
    """Whether trying the same source again is pointless."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return 400 <= error.response.status_code < 500 and error.response.status_code != 429
    # A wrong file (InputError) would be wrong again; a full disk stays full.
    return isinstance(error, InputError) or (isinstance(error, OSError) and error.errno is not None)
