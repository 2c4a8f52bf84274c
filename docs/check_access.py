"""Run axe over every built page: `python docs/check_access.py _site --axe node_modules/axe-core/axe.min.js [--pictures FOLDER]`.

Wants Chromium or Chrome, and axe-core (`npm install axe-core`). Every page is read at the width of a desk, light, and of
a phone, dark, from the files alone: nothing is fetched. `--pictures` keeps what was seen.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from websocket import create_connection  # of JupyterLab's server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desk": 1280, "phone": 390}  # CSS pixels
VIEWS = (("desk", "light"), ("phone", "dark"))  # each width and each theme once
STILL = "document.head.insertAdjacentHTML('beforeend', '<style>*{transition:none!important;animation:none!important}</style>')"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


class Browser:
    """One page of a headless Chromium, told what to do over its debugging socket."""

    def __init__(self, program):
        self.home, self.sent = tempfile.mkdtemp(), 0
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--remote-allow-origins=*"]
        self.process = subprocess.Popen(
            [program, *flags, f"--user-data-dir={self.home}", "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        for line in self.process.stderr:  # DevTools listening on ws://127.0.0.1:PORT/devtools/browser/ID
            if "DevTools listening on" in line:
                port = line.rpartition("ws://")[2].partition("/")[0]
                break
        else:
            raise RuntimeError(f"{program} ended before it listened")
        tabs = json.load(urllib.request.urlopen(f"http://{port}/json"))
        self.socket = create_connection(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), timeout=120)
        self.call("Page.enable")

    def call(self, method, **params):
        """What the browser answers; RuntimeError with its words where it refuses."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.sent:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def run(self, script):
        """The value of a script, awaited; RuntimeError with what it threw."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"]["text"])))
        return answer["result"].get("value")

    def open(self, url, width, theme):
        """Show a page, loaded whole, at a width and in a theme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url=url)
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        self.run(STILL)

    def picture(self, path, height=2400):
        """Write what is seen from the top of the page, at most height pixels of it."""
        size = self.run("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], height), "scale": 1}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.home, ignore_errors=True)


def browser():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def problems(site, axe, pictures=None, program=None):
    """A line for each of axe's violations, and for each page that is wider than its window, over all pages of a folder.

    axe : the file axe.min.js. ValueError where the folder holds no page, RuntimeError where the browser fails.
    """
    site = Path(site).resolve()
    pages = sorted(site.rglob("*.html"))
    if not pages:
        raise ValueError(f"{site} holds no page")
    rules = Path(axe).read_text(encoding="utf-8")
    ask = f"axe.run(document, {{runOnly: {json.dumps(RULES)}}}).then(r => r.violations.map(v => [v.id, v.help, v.nodes.length, v.nodes[0].html.slice(0, 160)]))"
    shown, found = Browser(program or browser()), {}
    try:
        for path in pages:
            for kind, theme in VIEWS:
                shown.open(path.as_uri(), WIDTHS[kind], theme)
                shown.run(rules)
                wrong = [tuple(one) for one in shown.run(ask)]
                if (wide := shown.run("document.documentElement.scrollWidth")) > WIDTHS[kind]:
                    wrong.append(("width", f"the page is {wide} pixels wide", 1, ""))
                for rule, words, n, example in wrong:
                    found.setdefault((path.relative_to(site).as_posix(), rule, words, n, example), []).append(f"{kind} {theme}")
                if pictures:
                    name = path.relative_to(site).with_suffix("").as_posix().replace("/", "-")
                    shown.picture(Path(pictures) / f"{name}-{kind}-{theme}.png")
    finally:
        shown.close()
    return [f"{page}: {rule}, {words}; {n} x {example} ({', '.join(seen)})" for (page, rule, words, n, example), seen in found.items()]


def main(argv=None):
    """Status 0 where nothing is wrong, 1 with a line for each thing that is, 2 where the tools are not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="folder of built pages")
    parser.add_argument("--axe", type=Path, default=Path(os.environ.get("AXE", "node_modules/axe-core/axe.min.js")), help="axe.min.js of axe-core")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each page, width and theme")
    given = parser.parse_args(argv)
    if not browser() or not given.axe.is_file():
        missing = "no Chromium or Chrome on PATH" if not browser() else f"no {given.axe}: npm install axe-core, or say --axe FILE"
        print(missing, file=sys.stderr)
        return 2
    wrong = problems(given.site, given.axe, given.pictures)
    print("\n".join(wrong) or f"{given.site}: axe finds nothing", file=sys.stderr if wrong else sys.stdout)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
