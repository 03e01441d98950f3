"""Links: which addresses of the weights and datasets of a suite answer; nothing is downloaded."""

import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from ssltransfer.checkpoints.sources import FEATURES, OWN_WEIGHTS, all_sources, parse_checkpoint_source
from ssltransfer.config.suite import Suite
from ssltransfer.datasets import parse_dataset_source
from ssltransfer.datasets.downloads import DOWNLOADS
from ssltransfer.errors import first_line
from ssltransfer.hub import parse_hub_source

PAUSE = 1.0
"""Seconds between two requests to one host."""
TIMEOUT = 20.0
"""Seconds to wait for an answer."""


class Link(NamedTuple):
    """An address: what it belongs to, which of its files it leads to, and of which alternative of all the files."""

    owner: str
    file: str
    address: str
    alternative: int = 0


def suite_links(suite: Suite) -> Iterator[Link]:
    """Yield the addresses of all files of a suite's models and datasets; local files are left out."""
    for model, row in suite.models.items():
        if row["source"].startswith(("pretrain:", FEATURES, OWN_WEIGHTS)):
            continue
        for alternative, files in enumerate(parse_checkpoint_source(all_sources(row))):
            for number, (address, _) in enumerate(files):
                if not address.startswith("file:"):
                    yield Link(f"model {model}", str(number), address, alternative)
    for dataset in dict.fromkeys(cell.dataset for cell in suite.cells()):
        source = parse_dataset_source(suite.datasets[suite.image_dataset(dataset)]["source"])
        if source.kind == "original":
            for file in DOWNLOADS[source.name].files:
                for url in file.urls:
                    yield Link(f"dataset {dataset}", file.name, url)
        elif source.kind == "hf":
            repository, revision = parse_hub_source(source.name)[0]
            yield Link(f"dataset {dataset}", "", f"https://huggingface.co/datasets/{repository}/tree/{revision}")


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
    """Return the owners of which no alternative has all its files at an address that answers."""
    reached: dict[str, dict[int, dict[str, bool]]] = {}
    for link, answer in answers:
        files = reached.setdefault(link.owner, {}).setdefault(link.alternative, {})
        files[link.file] = files.get(link.file, False) or answer == "ok"
    return [owner for owner, options in reached.items() if not any(all(files.values()) for files in options.values())]
