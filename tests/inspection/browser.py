"""A real headless Chromium, driven through its DevTools pipe."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio")


class Page:
    """A tab. It remembers what went wrong and what was asked of the network."""

    def __init__(self, folder: Path):
        to_browser, from_browser = os.pipe(), os.pipe()
        ends = to_browser[0], from_browser[1]
        flags = (*_FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe")
        command = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *flags],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self._out, self._in = os.fdopen(to_browser[1], "wb"), os.fdopen(from_browser[0], "rb")
        self._count, self._session, self._buffer = 0, None, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict:
        """Calls a DevTools method and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is there."""
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < end
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Returns the value of a piece of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Presses keys, one after another."""
        for key in keys:
            options = {"key": key, "code": key}
            if len(key) == 1:
                options["text"] = key
            codes = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}
            if key in codes:
                options["windowsVirtualKeyCode"] = codes[key]
            self.call("Input.dispatchKeyEvent", type="keyDown", **options)
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def move(self, x: float, y: float, *, click: bool = False) -> None:
        """Moves the mouse within the window, and clicks."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int = 900) -> None:
        """Sets the window's size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def colours(self, scheme: str) -> None:
        """Sets the preferred colour scheme, "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(BrokenPipeError):
            self._session = None
            self.call("Browser.close")
        self._process.wait(timeout=30)
        with contextlib.suppress(BrokenPipeError):
            self._out.close()
        self._in.close()

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            data = os.read(self._in.fileno(), 1 << 16)
            assert data, "Chromium has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning")
        ):
            self.errors.append(text.decode())
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message
