"""Chromium without a window, driven over its DevTools protocol through two pipes: no driver and no socket is needed."""

import base64
import fcntl
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

from bed import PATIENT_S

MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
CODES = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
}
CODES |= {"ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8, "Delete": 46}
CODES |= {f"F{number}": 111 + number for number in range(1, 13)}
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
           "--disable-dev-shm-usage", "--remote-debugging-pipe")  # fmt: skip


def find() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. `requests`: every address that was asked for; `errors`: what scripts threw, what the console said."""

    def __init__(self, profile: Path):
        program = find()
        if program is None:
            raise RuntimeError("Chromium is missing: bash tests/browser.sh installs it (Debian, as root)")
        ours, theirs = os.pipe(), os.pipe()
        # the browser reads from descriptor 3 and writes to 4
        inside = [fcntl.fcntl(number, fcntl.F_DUPFD, 20) for number in (ours[0], theirs[1])]
        shell = f'exec "$@" 3<&{inside[0]} 4>&{inside[1]}'
        command = ["bash", "-c", shell, "bash", program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=inside, **quiet)
        for number in (ours[0], theirs[1], *inside):
            os.close(number)
        self.out, self.back = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb", 0)
        self.numbers, self.answers = itertools.count(1), queue.Queue()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.loaded = threading.Event()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        self.session = None
        [target] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self.session = None
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.listener.join(PATIENT_S)  # it reads to the end of its pipe, which the browser's own children hold too
        self.back.close()

    def listen(self) -> None:
        left = b""
        while content := self.back.read(1 << 16):
            *messages, left = (left + content).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.answers.put(message)
                else:
                    self.note(message["method"], message["params"])
        self.answers.put({"id": None, "error": {"message": "Chromium has ended"}})

    def note(self, event: str, params: dict) -> None:
        if event == "Network.requestWillBeSent":
            if not params["request"]["url"].startswith("data:"):  # it is in the page
                self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif event == "Page.loadEventFired":
            self.loaded.set()

    def call(self, method: str, **params) -> dict:
        """Raises RuntimeError where the browser refuses, or says nothing for PATIENT_S seconds."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        try:
            answer = self.answers.get(timeout=PATIENT_S)
        except queue.Empty:
            raise RuntimeError(f"{method}: no answer from Chromium") from None
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, page: Path | str) -> None:
        """A file, or an address."""
        self.loaded.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        if not self.loaded.wait(PATIENT_S):
            raise RuntimeError("the page is not loaded yet")

    def run(self, script: str):
        """The value of a JavaScript expression. Raises RuntimeError with what it threw."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def press(self, key: str, *held: str) -> None:
        """A key as a keyboard sends it, by its name or its character; `held`: of MODIFIERS."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        bits = sum(MODIFIERS[name] for name in held)
        typed = {} if {"Control", "Alt", "Meta"} & set(held) else {"text": text}
        number = CODES.get(key, ord(key.upper()) if len(key) == 1 and key.isascii() and key.isalnum() else 0)
        for kind in ("keyDown", "keyUp"):
            more = {"commands": ["selectAll"]} if key == "a" and "Control" in held and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number, modifiers=bits,
                      **(typed if kind == "keyDown" else {}), **more)  # fmt: skip

    def type(self, text: str) -> None:
        for character in text:
            self.press(character)

    def offline(self, away: bool) -> None:
        """Take the network away, or give it back."""
        self.call(
            "Network.emulateNetworkConditions", offline=away, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def show(self, width: int, dark: bool = False, height: int = 900) -> None:
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """PNG of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def printed(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
