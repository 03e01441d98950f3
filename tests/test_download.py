"""Downloads from a local server that misbehaves in every way one meets."""

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ssltransfer import download as module
from ssltransfer.download import download
from ssltransfer.errors import InputError

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /good and trouble elsewhere; counts the requests of each path."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        count = self.server.counts[self.path] = self.server.counts.get(self.path, 0) + 1
        kind = self.path.strip("/").split("/")[0]
        token = self.headers.get("Authorization")
        self.server.tokens.append((kind, token))
        if kind == "owner" and token != "Bearer good":
            self.send_error(403 if token else 401)
            return
        if kind == "owner":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/store")
            self.end_headers()
            return
        if kind == "missing" or (kind == "flaky" and count < 3):
            self.send_error(404 if kind == "missing" else 500)
            return
        body = b"  <!DOCTYPE html><html>please log in</html>" if kind == "login" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = kind == "cut" or (kind == "cut-once" and count == 1)
        self.wfile.write(body[: len(body) // 2] if cut else body)


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.counts, server.tokens = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(*paths, **known):
        server.counts.clear()
        sources = [f"http://127.0.0.1:{server.server_port}/{path}" for path in paths]
        return download(sources, tmp_path / "file.bin", pause=0.01, **known)

    return fetch


def only_file(tmp_path):
    return [path.name for path in tmp_path.iterdir()]


def test_good_file(fetch, tmp_path):
    assert fetch("good", size=len(CONTENT), sha256=SHA256, md5=hashlib.md5(CONTENT).hexdigest()[:8]).endswith("/good")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert only_file(tmp_path) == ["file.bin"]


def test_a_present_file_is_kept_without_network(tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert download(["http://127.0.0.1:9/x"], tmp_path / "file.bin", sha256=SHA256) == ""


def test_a_present_wrong_file_is_an_error_and_kept(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"other")
    with pytest.raises(InputError, match=f"sha256 is .*, expected {SHA256}"):
        download([], tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == b"other"


def test_trouble_that_passes(fetch, server, tmp_path):
    for path, requests in (("flaky", 3), ("cut-once", 2)):
        fetch(path, sha256=SHA256)
        assert server.counts == {f"/{path}": requests}
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()


def test_the_next_source_is_tried(fetch, server):
    assert fetch("missing", "cut", "login", "good").endswith("/good")
    # A missing file and a wrong one are not asked for twice, a broken transfer is.
    assert server.counts == {"/missing": 1, "/cut": 3, "/login": 1, "/good": 1}


@pytest.mark.parametrize(
    ("path", "known", "message"),
    [
        ("missing", {}, "404"),
        ("cut", {}, "cannot be fetched"),
        ("login", {}, "found a web page"),
        ("good", {"size": 5}, f"found {len(CONTENT)} bytes, expected 5"),
        ("good", {"sha256": "0" * 64}, f"sha256 is {SHA256}, expected 0000"),
        ("good", {"md5": "12345678"}, "md5 is .*, expected 12345678"),
    ],
)
def test_trouble_that_stays(fetch, tmp_path, path, known, message):
    with pytest.raises(InputError, match=message) as error:
        fetch(path, **known)
    assert str(error.value).endswith("place the file there by hand")
    assert "\n" not in str(error.value)
    assert not only_file(tmp_path)


def test_full_disk(fetch, tmp_path, monkeypatch):
    def full(url, **options):
        (tmp_path / options["fname"]).write_bytes(CONTENT[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.pooch, "retrieve", full)
    with pytest.raises(InputError, match="No space left on device"):
        fetch("good")
    assert not only_file(tmp_path)


GATED = "owner/repo/resolve/main/model.safetensors"


@pytest.fixture
def hub(server, monkeypatch):
    """The local server as the hub, without a token."""
    monkeypatch.delenv(module.TOKEN, raising=False)
    monkeypatch.setattr(module, "HUB", f"http://127.0.0.1:{server.server_port}")
    server.tokens.clear()
    return server


def test_a_gated_repository_says_how_to_log_in(hub, fetch, monkeypatch):
    page = f"{module.HUB}/owner/repo,"
    with pytest.raises(InputError, match=f"answers 401: .*HF_TOKEN is not set; accept its terms at {page}") as error:
        fetch(GATED)
    assert "\n" not in str(error.value) and hub.counts == {f"/{GATED}": 1}, "tried once"
    monkeypatch.setenv(module.TOKEN, "bad")
    with pytest.raises(InputError, match="answers 403: .*the token in HF_TOKEN may not read it; accept") as error:
        fetch(GATED)
    assert "bad" not in str(error.value)


def test_the_token_goes_to_the_hub_alone(hub, fetch, monkeypatch, tmp_path):
    monkeypatch.setenv(module.TOKEN, "good")
    fetch(GATED)
    assert only_file(tmp_path) == ["file.bin"]
    assert hub.tokens == [("owner", "Bearer good"), ("store", None)]
    (tmp_path / "file.bin").unlink()
    monkeypatch.setattr(module, "HUB", "https://huggingface.co")
    hub.tokens.clear()
    fetch("good")
    assert hub.tokens == [("good", None)]
