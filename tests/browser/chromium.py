"""Debian's Chromium without a window, and pages of it that are watched for whatever a reader should never meet."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, WebError, sync_playwright

DESK, PHONE = (1280, 800), (390, 844)
"""Width and height in CSS pixels of a laptop's window and of a phone held upright."""

FLAGS = (
    "--no-sandbox",  # there are containers where nobody but root exists
    "--use-gl=angle",  # WebGL2 on the processor: the same picture wherever the tests run
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",  # nothing leaves this machine
)


@contextlib.contextmanager
def running_chromium(flags: Sequence[str] = FLAGS) -> Iterator[Browser]:
    """The browser that BROWSER_PATH names, or else the one on the PATH."""
    path = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(flags))
        yield browser
        browser.close()


@dataclass
class Pages:
    """Pages of one browser, and every fault seen in any of them, in their workers and in their frames.

    A fault is an error on the console, an exception nobody caught, or a request to anywhere but where the page came
    from. origins: "http://127.0.0.1:8888" and the like, of what tests navigated to.
    """

    browser: Browser
    opened: list[BrowserContext] = field(default_factory=list)
    origins: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    expected: list[re.Pattern[str]] = field(default_factory=list)

    def open(
        self,
        url: str | None = None,
        *,
        size: tuple[int, int] = DESK,
        scheme: Literal["light", "dark"] = "light",
        touch: bool = False,
    ) -> Page:
        """A page with cookies, cache and storage of its own. touch: it has a finger for a mouse."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            has_touch=touch,
            is_mobile=touch,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        self.watch(context)
        page = context.new_page()
        if url is not None:
            page.goto(url)
        return page

    def watch(self, context: BrowserContext) -> None:
        self.opened.append(context)
        context.set_default_timeout(30_000)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("request", lambda request: self._request(request.url, opens=request.is_navigation_request()))
        context.on("page", lambda page: page.on("websocket", lambda socket: self._request(socket.url, opens=False)))

    def expect(self, pattern: str) -> None:
        """Faults that match this regular expression are what the test is about."""
        self.expected.append(re.compile(pattern))

    def faults_until_now(self) -> list[str]:
        """The unexpected ones since the last call; what was expected until now is expected no longer."""
        for context in self.opened:
            for page in context.pages:
                with contextlib.suppress(Error):
                    page.evaluate("0")  # events that wait are delivered before the answer is
        found = [fault for fault in self.faults if not any(pattern.search(fault) for pattern in self.expected)]
        self.faults.clear()
        self.expected.clear()
        return found

    def close_all_but(self, count: int) -> None:
        """Close what was opened last until so many contexts are left. What a page says while it closes is no fault."""
        closing = len(self.opened) > count
        while len(self.opened) > count:
            self.opened.pop().close()
        if closing:
            self.faults.clear()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} ({message.location['url']})")

    def _error(self, error: WebError) -> None:
        self.faults.append(f"nobody caught: {error.error}")

    def _request(self, url: str, *, opens: bool) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"data", "blob", "about"}:
            return
        origin = f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"
        if opens and parts.hostname in {"127.0.0.1", "localhost"}:
            self.origins.add(origin)
        elif origin not in self.origins:
            self.faults.append(f"request to another origin: {url[:200]}")
