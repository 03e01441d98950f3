"""Which addresses answer, asked of a server on this machine."""

import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ssltransfer.commands.links import Link, ask, ask_all, suite_links, unreachable
from ssltransfer.commands.suite import read_suite
from workflow import REPOSITORY


@pytest.fixture
def server():
    """A server with a file, and a file that may not be asked for its head; yields address and requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer({"/there": 200, "/no-head": 405}.get(self.path, 404))

        def do_GET(self):
            self.answer(200 if self.path == "/no-head" else 404)

        def answer(self, status):
            requests.append((self.command, self.path))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def test_an_address_is_asked_for_its_head_alone(server):
    address, requests = server
    assert ask(f"{address}/there") == "ok" and requests == [("HEAD", "/there")]
    assert ask(f"{address}/no-head") == "ok" and requests[1:] == [("HEAD", "/no-head"), ("GET", "/no-head")]
    assert ask(f"{address}/gone") == "HTTP 404"
    assert ask("http://127.0.0.1:9/x", timeout=1) not in ("ok", "")


def test_one_alternative_is_enough_and_a_host_is_not_hurried(server):
    address, requests = server
    links = [
        Link("model a", "0", f"{address}/gone"),
        Link("model a", "0", f"{address}/there"),
        Link("model b", "0", f"{address}/there"),
        Link("model b", "1", f"{address}/gone"),
        Link("model c", "0", f"{address}/there"),
        Link("model c", "1", f"{address}/gone"),
        Link("model c", "0", f"{address}/there", 1),
    ]
    start = time.monotonic()
    answers = list(ask_all(links, pause=0.3))
    assert time.monotonic() - start >= 0.3 and len(requests) == 2, "an address is asked once"
    assert [answer for _, answer in answers] == ["HTTP 404", "ok", "ok", "HTTP 404", "ok", "HTTP 404", "ok"]
    assert unreachable(answers) == ["model b"]


def test_the_links_of_a_suite_are_those_of_its_weights_and_datasets(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    links = list(suite_links(read_suite(["config/paper-v2.yaml"]).suite))
    assert {link.address.partition(":")[0] for link in links} <= {"http", "https"}
    owners = {link.owner for link in links}
    assert {"model byol", "model swav", "dataset cifar10", "dataset voc2007"} <= owners
    assert {"https://huggingface.co/lightly-ai/simclrv1-imagenet1k-resnet50-1x/resolve/main/resnet50-1x.pth"} == {
        link.address for link in links if link.owner == "model simclr-v1" and link.alternative
    }
    assert "dataset cars" not in owners, "it has to be placed by hand"
    demo = read_suite(["config/config.yaml"]).suite
    assert not list(suite_links(demo))
    protocol = next(name for name in demo.config["tasks"] if demo.kind(name) == "linear")
    copies = replace(demo, config=demo.config | {"tasks": {protocol: ["cars-hub"]}})
    page = "https://huggingface.co/datasets/isaacchung/StanfordCars/tree/09ffe9bc7864d3f1e851529e5c4b7e05601a04fb"
    assert list(suite_links(copies)) == [Link("dataset cars-hub", "", page)]
