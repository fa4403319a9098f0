"""A JupyterLab with folders of its own, and notebooks opened and run in it as a reader would."""

import contextlib
import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nbformat
from playwright.sync_api import BrowserContext, Page

from tests.browser.chromium import DESK, Pages

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 60

_CONNECTED = """() => {
  const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
  return context?.isReady && context.session?.kernel?.connectionStatus === "connected"
    && context.session.kernel.status === "idle";
}"""


SETTLED_MS = 1000
"""After a change of theme: JupyterLab faults when it is changed again while the last one's style sheet loads."""


@dataclass
class Lab:
    """JupyterLab at a URL, and a browser's pages to see it in. folder: of its notebooks."""

    url: str
    token: str
    folder: Path
    pages: Pages
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, *cells: str, theme: Literal["light", "dark"] = "light", size: tuple[int, int] = DESK) -> Page:
        """Open a notebook of these code cells and run them. Returns at once: wait for what they are to show.

        The page is closed, and its kernel ended, with the test or the module's fixture that called. Cells import
        crowdnerf_lab and tests.toy_scene and the like; write into the kernel's working folder, which is of this Lab.
        """
        page = self.open(*cells, theme=theme, size=size)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        return page

    def open(self, *cells: str, theme: Literal["light", "dark"] = "light", size: tuple[int, int] = DESK) -> Page:
        """As run, but nothing is run yet."""
        name = f"{next(self._numbers)}.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.folder / name)
        page = self.pages.open(size=size, scheme=theme)
        page.context.on("close", self._end_kernels_of(name))
        page.goto(f"{self.url}/doc/tree/{name}?token={self.token}")
        page.wait_for_function(_CONNECTED)
        self.wear(page, theme)
        return page

    def wear(self, page: Page, theme: Literal["light", "dark"]) -> None:
        """Change the theme of an open JupyterLab."""
        name = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[theme]
        page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = "true" if theme == "light" else "false"
        page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(SETTLED_MS)

    def _end_kernels_of(self, name: str):
        def end(_: BrowserContext) -> None:
            for session in json.loads(self._ask("GET", "/api/sessions")):
                if session["path"] == name:
                    self._ask("DELETE", f"/api/sessions/{session['id']}")

        return end

    def _ask(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()


@contextlib.contextmanager
def running_lab(home: Path, pages: Pages) -> Iterator[Lab]:
    """JupyterLab as a process of its own, ready to answer; home: an empty folder for all that it writes."""
    folder, token = home / "notebooks", secrets.token_hex(16)
    folder.mkdir()
    with (home / "log").open("w") as log:
        server = subprocess.Popen(_command(folder), env=_environment(home, token), stdout=log, stderr=log)
    try:
        yield Lab(_url_of(server, home), token, folder, pages)
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _command(folder: Path) -> list[str]:
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": _free_port(),  # taken meanwhile? Jupyter tries the next ones and writes down which it has
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": folder,
        "LabApp.expose_app_in_browser": True,  # window.jupyterapp: tests wait for the kernel's connection
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
    }
    return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def _environment(home: Path, token: str) -> dict[str, str]:
    folders = {
        name: str(home / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    return os.environ | folders | {"JUPYTER_TOKEN": token, "PYTHONPATH": str(ROOT)}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _url_of(server: subprocess.Popen[bytes], home: Path) -> str:
    """Where it listens, once it does."""
    information = home / "jupyter_runtime_dir" / f"jpserver-{server.pid}.json"
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(information.read_text())["url"].rstrip("/")
        time.sleep(0.05)
    raise AssertionError(f"JupyterLab did not start within {SECONDS_TO_START} s: {(home / 'log').read_text()[-2000:]}")
