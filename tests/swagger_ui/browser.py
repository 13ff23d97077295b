"""Headless Chromium, driven over W3C WebDriver."""

import base64
import contextlib
import json
import os
import tempfile
import urllib.error

from .check import LIMIT, Failed, ask, expect

# Swagger UI's validator badge spares local addresses, so the page is also opened under a name that is not local.
REMOTE_NAME = "shop.test"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that W3C WebDriver gives to an element
SELECT_ALL = "\ue009a\ue000"  # Control-A in WebDriver's keys

# Functions for every script in the page. They find only what is visible.
PRELUDE = r"""
const seen = e => e.checkVisibility({visibilityProperty: true, opacityProperty: true});
const text = e => e && seen(e) ? e.innerText.replace(/\u200b/g, "").trim() : "";
const all = (selector, root = document) => [...root.querySelectorAll(selector)].filter(seen);
const name = b => text(b.querySelector(".opblock-summary-method")).toUpperCase() + " "
    + text(b.querySelector(".opblock-summary-path"));
const block = operation => all(".opblock").find(b => name(b) === operation);
const within = (operation, selector) => all(selector, block(operation) || document.createElement("p"))[0];
"""

# Calls `probe` now and whenever the page changes, until it returns something.
WAIT = r"""
const [limit, args] = arguments, done = arguments[arguments.length - 1];
const probe = (...args) => { %s };
const observer = new MutationObserver(check);
const timer = setTimeout(() => finish(null), limit * 1000);
function finish(found) { clearTimeout(timer); observer.disconnect(); done(found); }
function check() { const found = probe(...args); if (found) finish(found); }
observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
check();
"""


class Browser:
    """One session."""

    def __init__(self, base, chromium, folder):
        self.base, self.session = base, None
        try:
            self.session = self._open(chromium, folder, "--headless=new")
        except Failed:
            self.session = self._open(chromium, folder, "--headless")
        self.call("POST", "/timeouts", {"script": (LIMIT + 5) * 1000, "pageLoad": LIMIT * 1000})
        self.call("POST", "/url", {"url": "about:blank"})
        self.log("performance")  # drops what the first page of Chromium loaded

    def _open(self, chromium, folder, headless):
        arguments = [
            headless, "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
            "--window-size=1400,1600", f"--user-data-dir={tempfile.mkdtemp(prefix='profile', dir=folder)}",
            # No name is resolved, as without internet.
            f"--host-resolver-rules=MAP {REMOTE_NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium refuses to run as root with it
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": chromium, "args": arguments},
                  "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        return self.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, method, path, body=None):
        url = f"{self.base}/session" + (f"/{self.session}" if self.session else "") + path
        try:
            return ask(url, body, method)["value"]
        except urllib.error.HTTPError as error:
            problem = json.load(error)["value"]
            raise Failed(f"{problem['error']}: {problem['message'].splitlines()[0]}") from None

    def close(self):
        with contextlib.suppress(Failed, OSError):
            self.call("DELETE", "")

    def run(self, script, *args):
        return self.call("POST", "/execute/sync", {"script": PRELUDE + script, "args": args})

    def wait(self, what, probe, *args):
        """Returns what the script `probe` returns as soon as that is something; `what` is for the error."""
        script = PRELUDE + WAIT % probe
        found = self.call("POST", "/execute/async", {"script": script, "args": [LIMIT, args]})
        expect(found, f"timed out after {LIMIT} s waiting for {what}")
        return found

    def click(self, element):
        self.call("POST", f"/element/{element[ELEMENT]}/click", {})

    def type_over(self, element, value):
        self.call("POST", f"/element/{element[ELEMENT]}/value", {"text": SELECT_ALL + value})

    def log(self, kind):
        """Returns what was logged since the last call."""
        return self.call("POST", "/se/log", {"type": kind})

    def save_screenshot(self, file):
        self.run("all('.live-responses-table').at(-1)?.scrollIntoView({block: 'end'})")
        with open(file, "wb") as png:
            png.write(base64.b64decode(self.call("GET", "/screenshot")))
