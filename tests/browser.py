"""A headless Chromium that tests drive through its DevTools pipe, without any other package."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest


class Browser:
    """A page of a browser, and what its console has complained of."""

    def __init__(self, folder):
        """Start the browser with a profile in a folder; skip the test where there is none."""
        if shutil.which("chromium") is None:
            pytest.skip("needs chromium")
        (its_end, self._out), (self._in, its_other_end) = os.pipe(), os.pipe()
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        command += [f"--user-data-dir={folder / 'profile'}", "--no-first-run", "about:blank"]
        script = f'exec "$@" 3<&{its_end} 4>&{its_other_end}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(its_end, its_other_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_end)
        os.close(its_other_end)
        self._number, self._received, self._session = 0, b"", None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next_message()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def _next_message(self):
        while b"\0" not in self._received:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(given["exceptionDetails"].get("exception", {}).get("description"))
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(given["args"]))
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.complaints.append(given["entry"]["text"])

    def open(self, address, *, width=900, height=900, dark=False):
        """Open a page in a window of some size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self.wait_for(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def evaluate(self, script):
        """Return what a script gives, once it is there."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition, seconds=30):
        """Wait until a condition is true."""
        waiting = f"""new Promise(done => {{
          const end = Date.now() + {1000 * seconds};
          const look = () => ({condition}) || Date.now() > end ? done(!!({condition})) : setTimeout(look, 30);
          look();
        }})"""
        assert self.evaluate(waiting), condition

    def choose_files(self, selector, paths):
        """Choose files as a person does in the dialogue of an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def screenshot(self, path: Path):
        """Write what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
