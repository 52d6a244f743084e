"""Drives Debian's chromium by its own protocol over two pipes: no driver program, no network."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

CHROMIUM = os.environ.get("RLM_TEST_CHROMIUM") or shutil.which("chromium")
HOW_TO_GET_IT = "no chromium: apt-get install chromium, or name it in RLM_TEST_CHROMIUM"
_FLAGS = [
    "--headless=new",
    "--no-sandbox",  # tests run as root, too
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-extensions",
    # A page replaces the one before in its process: that takes half the time of a new one
    "--disable-features=BackForwardCache,ProactivelySwapBrowsingInstance,RenderDocument",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
]
_KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "Home": 36, "End": 35, "PageDown": 34, "PageUp": 33}
_KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Browser:
    """One process with one page."""

    def __init__(self, size: tuple[int, int] = (1200, 900)) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.mkdtemp(prefix="rlm-chromium-")
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # The browser reads descriptor 3 and writes descriptor 4
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{read} 4>&{write}',
                "-",
                CHROMIUM,
                *_FLAGS,
                f"--user-data-dir={self._profile}",
                "about:blank",
            ],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer = b""
        self._sent = 0
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(*size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **params: Any) -> Any:
        """The result of a command; events before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while (got := self._receive()).get("id") != self._sent:
            self.events.append(got)
        assert "error" not in got, f"{method}: {got['error']}"
        return got["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            piece = os.read(self._read, 1 << 20)
            assert piece, "chromium has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def scheme(self, name: str) -> None:
        """Show pages as a user of "light" or "dark" colours sees them."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def open(self, page: Path | str, fragment: str = "") -> None:
        """Open a file or an address, and wait until the page is ready."""
        self._go("about:blank")
        self.events.clear()
        self._go(f"{page if isinstance(page, str) else page.as_uri()}{fragment}")
        is_ready = self.run("document.documentElement.dataset.ready === 'true'")
        assert is_ready, self.messages()
        self.frame()

    def _go(self, url: str) -> None:
        loaded = {"method": "Page.loadEventFired"}
        before = sum(loaded.items() <= each.items() for each in self.events)
        self.send("Page.navigate", url=url)
        while sum(loaded.items() <= each.items() for each in self.events) == before:
            self.events.append(self._receive())

    def run(self, code: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def frame(self) -> None:
        """Wait until the page was drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, *keys: str, is_drawn: bool = True) -> None:
        """Press keys one after another, as a keyboard does, "Shift+Tab" with its modifier; then wait
        until the page was drawn.
        """
        for key in keys:
            *modifiers, name = key.split("+") if len(key) > 1 else [key]
            event: dict[str, Any] = {"key": name, "modifiers": 8 if "Shift" in modifiers else 0}
            if name in _KEYS:
                event |= {"windowsVirtualKeyCode": _KEYS[name], "code": name}
            text = "\r" if name == "Enter" else name if len(name) == 1 else ""
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)
        if is_drawn:
            self.frame()

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)
        self.frame()

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        at = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send(
                "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1
            )
        self.frame()

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def messages(self) -> list[str]:
        """What the page wrote to the console since it was opened, errors included."""
        self.run("0")
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(each["params"]) for each in self.events if each["method"] in kinds]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened, itself included."""
        self.run("0")
        sent = [each for each in self.events if each["method"] == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in sent]

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def violations(self, axe: str, rules: Sequence[str] = ()) -> list[str]:
        """The rules of axe-core that the page breaks, with the places."""
        if self.run("typeof axe === 'undefined'"):
            self.run(f"{axe}; 0")
        options = {"resultTypes": ["violations"]}
        found = self.run(f"axe.run(document, {json.dumps(options)}).then((r) => r.violations)")
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for each in found
            if each["id"] not in rules
            for node in each["nodes"]
        ]
