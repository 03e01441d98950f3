"""A headless Chromium, spoken to over its debugging pipe; needs nothing but the browser itself."""

import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page: commands go out, replies and events come in, as JSON messages that end with a zero byte."""

    def __init__(self, write_to, read_from):
        self.write_to, self.read_from = write_to, read_from
        self.number, self.rest, self.events, self.session = 0, b"", [], None

    def command(self, method, timeout=30.0, **params):
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            for reply in self._read(limit - time.monotonic()):
                if reply.get("id") == message["id"]:
                    assert "error" not in reply, reply
                    return reply["result"]
                self.events.append(reply)
        raise TimeoutError(method)

    def _read(self, seconds):
        if select.select([self.read_from], [], [], max(0.0, seconds))[0]:
            self.rest += os.read(self.read_from, 1 << 20)
        *whole, self.rest = self.rest.split(b"\0")
        return [json.loads(part) for part in whole]

    def evaluate(self, expression):
        """Value of a JavaScript expression in the page."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url):
        """Load a page and wait until it is complete."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        self.command("Page.navigate", url=url)
        for _ in range(100):
            if self.evaluate("document.readyState + location.href").startswith("completefile"):
                return
            time.sleep(0.1)
        raise TimeoutError(url)

    def hover(self, x, y):
        """Move the mouse."""
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def named(self, *methods):
        """Events so far with one of these names."""
        return [event for event in self.events if event.get("method") in methods]


@contextmanager
def browser(profile):
    """Start Chromium with its profile in the folder `profile`; yield a page; end it."""
    to_browser, write_to = os.pipe()
    read_from, from_browser = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    # The browser reads commands on descriptor 3 and writes on 4.
    wiring = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", wiring, CHROMIUM, *options, f"--user-data-dir={profile}", "--window-size=1300,1000"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(write_to, read_from)
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(write_to)
        os.close(read_from)
