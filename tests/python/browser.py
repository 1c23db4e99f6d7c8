"""Drives a headless Chromium through the DevTools protocol, over a pipe: no driver program, no port, no package."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# As root Chromium refuses its sandbox, and a container has little shared memory. The pages are our own and load nothing.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


def chromium() -> str:
    """The browser; without one the tests fail, and say what to install."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium: on Debian and Ubuntu, 'apt-get install chromium' puts it there; CHROMIUM names one that is elsewhere"
    return found


class Browser:
    """One browser process. `page(path)` opens a file in a tab of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="per-inject-browser-", ignore_cleanup_errors=True)
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()
        command = [chromium(), *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec 5<&{to_read} 6>&{to_write} && exec 3<&5 4>&6 && exec "$@"'
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+b")
        self.process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command], pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        os.close(to_read)
        os.close(to_write)
        self.last = 0
        self.buffer = b""
        self.events = collections.defaultdict(list)

    def close(self):
        with contextlib.suppress(Exception):
            self.call("Browser.close", timeout=5)
        self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        self.log.close()
        self.folder.cleanup()

    def call(self, method, session=None, timeout=60.0, **params):
        """Sends one command and waits for its answer; events that come meanwhile are kept by session."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write_end, data) :]
        end = time.monotonic() + timeout
        while True:
            answer = self.receive(end - time.monotonic(), method)
            if answer.get("id") == self.last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def receive(self, timeout, what):
        while b"\0" not in self.buffer:
            ready = select.select([self.read_end], [], [], max(0.0, timeout))[0]
            part = os.read(self.read_end, 1 << 20) if ready else b""
            if not part:
                self.log.seek(0)
                raise AssertionError(f"no answer to {what} from the browser\n{self.log.read()[-2000:].decode(errors='replace')}")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events[message.get("sessionId")].append(message)
        return message

    @contextlib.contextmanager
    def page(self, path, width=1280, height=800, dark=False, hash=""):
        """A file in a tab of its own, with everything noted that it logs, throws or asks the network for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.call("Emulation.setEmulatedMedia", features=[scheme])
            page.go(pathlib.Path(path).resolve().as_uri() + hash)
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, **params):
        return self.browser.call(method, session=self.session, **params)

    def go(self, address):
        self.call("Page.navigate", url=address)
        self.wait("document.documentElement?.hasAttribute('data-ready')")

    def js(self, expression):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def wait(self, expression, timeout=20.0):
        """Waits until an expression is true."""
        end = time.monotonic() + timeout
        while not self.js(expression):
            assert time.monotonic() < end, f"{expression} is still not true after {timeout} s; {self.trouble()}"
            time.sleep(0.02)

    def text(self, selector):
        """The text of the first element that matches, "" where none does or it is hidden."""
        return self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); return e && !e.closest('[hidden]') ? e.textContent : ''; }})()")

    def texts(self, selector):
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")

    def click(self, selector):
        """A real click on the middle of the first element that matches."""
        x, y = self.js(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        )
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def mouse(self, kind, x, y, **more):
        pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **(pressed | more))

    def key(self, *names):
        """Presses keys one after the other, by their names in JavaScript."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
        for name in names:
            typed = {"Enter": "\r"}.get(name, name if len(name) == 1 else None)
            code = {"windowsVirtualKeyCode": codes.get(name, ord(name[0].upper()))}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=name, **({"text": typed} if typed else {}), **code)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=name, **code)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def screenshot(self):
        """A PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def trouble(self):
        """Errors and warnings in the console, exceptions, and requests beside that for the page itself."""
        found = []
        for event in self.browser.events[self.session]:
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Runtime.consoleAPICalled":
                found.append(f"console.{params['type']}: {params['args']}")
            elif method == "Log.entryAdded":
                found.append(f"{params['entry']['level']}: {params['entry']['text']}")
            elif method == "Network.requestWillBeSent" and params["type"] != "Document":
                found.append(f"request: {params['request']['url'][:200]}")
            elif method == "Page.javascriptDialogOpening":
                found.append(f"dialog: {params['message']}")
        return found
