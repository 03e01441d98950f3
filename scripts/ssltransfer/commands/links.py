"""Links: which addresses of the weights and datasets of a suite answer; nothing is downloaded."""

import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from ssltransfer.checkpoints.sources import FEATURES, OWN_WEIGHTS, parse_checkpoint_source
from ssltransfer.config.suite import Suite
from ssltransfer.datasets import parse_dataset_source
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.errors import first_line

PAUSE = 1.0
"""Seconds between two requests to one host."""
TIMEOUT = 20.0
"""Seconds to wait for an answer."""


class Link(NamedTuple):
    """An address of one alternative of a file: what it belongs to, and which of its files it is of."""

    owner: str
    file: str
    address: str


def suite_links(suite: Suite) -> Iterator[Link]:
    """Yield the addresses of all files of a suite's models and original datasets; local files are left out."""
    for model, row in suite.models.items():
        if row["source"].startswith(("pretrain:", FEATURES, OWN_WEIGHTS)):
            continue
        for files in parse_checkpoint_source(row["source"]):
            for number, (address, _) in enumerate(files):
                if not address.startswith("file:"):
                    yield Link(f"model {model}", str(number), address)
    for dataset in dict.fromkeys(cell.dataset for cell in suite.cells()):
        source = parse_dataset_source(suite.datasets[suite.image_dataset(dataset)]["source"])
        if source.kind == "original":
            for file in DOWNLOADS[source.name].files:
                for url in file.urls:
                    yield Link(f"dataset {dataset}", file.name, url)


def ask(address: str, timeout: float = TIMEOUT) -> str:
    """Return ``ok``, or the reason why an address gives no file."""
    try:
        answer = requests.head(address, allow_redirects=True, timeout=timeout)
        if answer.status_code in (403, 405, 501):  # hosts that refuse HEAD
            answer = requests.get(address, stream=True, timeout=timeout)
            answer.close()
    except requests.RequestException as error:
        return first_line(error)[:80]
    return "ok" if answer.ok else f"HTTP {answer.status_code}"


def ask_all(links: list[Link], pause: float = PAUSE) -> Iterator[tuple[Link, str]]:
    """Yield each link with what its address answers; requests to one host are `pause` seconds apart."""
    asked: dict[str, float] = {}
    answers: dict[str, str] = {}
    for link in links:
        if link.address not in answers:
            host = urlsplit(link.address).netloc
            time.sleep(max(0.0, asked.get(host, -pause) + pause - time.monotonic()))
            answers[link.address] = ask(link.address)
            asked[host] = time.monotonic()
        yield link, answers[link.address]


def unreachable(answers: list[tuple[Link, str]]) -> list[str]:
    """Return the owners of files of which no address answers."""
    reached: dict[tuple[str, str], bool] = {}
    for link, answer in answers:
        key = (link.owner, link.file)
        reached[key] = reached.get(key, False) or answer == "ok"
    return list(dict.fromkeys(owner for (owner, _), found in reached.items() if not found))
