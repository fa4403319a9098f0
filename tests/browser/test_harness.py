"""The browser tests' own ground: faults are seen, notebooks run, pages end with their tests, pictures are compared."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from tests.browser.chromium import PHONE, Pages
from tests.browser.jupyter_lab import Lab
from tests.browser.screenshots import similarity_of

PAGE = """<!doctype html><title>A page</title><link rel=icon href=data:,>
<meta name=viewport content="width=device-width"><p>Hello"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_without_faults_has_none(pages: Pages, page: Page, origin: str):
    page.goto(origin)
    expect(page).to_have_title("A page")
    assert pages.faults_until_now() == []


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("console.error('it broke')", "console: it broke"),
        ("setTimeout(() => { throw new Error('lost') })", "nobody caught: .*lost"),
        ("void Promise.reject(new Error('lost'))", "nobody caught: .*lost"),
        ("new Worker(URL.createObjectURL(new Blob(['console.error(7)'])))", "console: 7"),
        ("fetch('http://127.0.0.1:9/').catch(() => 0)", "another origin: http://127.0.0.1:9/"),
        ("fetch('https://example.org/').catch(() => 0)", "another origin: https://example.org"),
        ("new WebSocket('wss://example.org/live').onerror = () => 0", "another origin: wss://example.org"),
        (
            "new Worker(URL.createObjectURL(new Blob([`fetch('https://example.org/w').catch(() => 0)`])))",
            "another origin: https://example.org/w",
        ),
        ("document.body.innerHTML = '<img src=https://example.org/a.png>'", "another origin: https://example.org/a"),
    ],
)
def test_every_fault_is_seen(pages: Pages, page: Page, origin: str, script: str, fault: str):
    page.goto(origin)
    page.evaluate(f"() => {{ {script} }}")
    for _ in range(100):
        if pages.faults:
            break
        page.wait_for_timeout(20)
    with pytest.raises(AssertionError, match=fault):
        assert pages.faults_until_now() == []
    page.close()  # a request that failed is told of twice, the second time later
    pages.faults_until_now()


def test_an_expected_fault_is_none_and_only_once(pages: Pages, page: Page, origin: str):
    page.goto(origin)
    for expected in (True, False):
        if expected:
            pages.expect("it broke")
        page.evaluate("console.error('it broke')")
        assert bool(pages.faults_until_now()) is not expected


def test_nothing_leaves_this_machine(pages: Pages, page: Page, origin: str):
    page.goto(origin)
    reached = page.evaluate("fetch('https://example.org/', {mode: 'no-cors'}).then(() => 'reached', () => 'not')")
    assert reached == "not"
    assert pages.faults_until_now()


def test_pages_can_be_a_phone_in_the_dark(pages: Pages, origin: str):
    page = pages.open(origin, size=PHONE, scheme="dark", touch=True)
    seen = page.evaluate(
        "[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches, matchMedia('(pointer: coarse)').matches]"
    )
    assert seen == [PHONE[0], True, True]


def test_webgl2_is_there_whatever_the_machine(page: Page, origin: str):
    page.goto(origin)
    assert page.evaluate("!!document.createElement('canvas').getContext('webgl2')")


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Page:
    return lab.run("print('six times seven:', 6 * 7)")


def test_a_notebook_runs(notebook: Page):
    expect(notebook.locator(".jp-OutputArea-output")).to_have_text("six times seven: 42\n")


def test_the_module_s_notebook_is_still_there_and_wears_either_theme(lab: Lab, notebook: Page):
    expect(notebook.locator(".jp-OutputArea-output")).to_contain_text("42")
    lab.wear(notebook, "dark")
    dark = notebook.evaluate("getComputedStyle(document.body).getPropertyValue('--jp-layout-color0')")
    lab.wear(notebook, "light")
    light = notebook.evaluate("getComputedStyle(document.body).getPropertyValue('--jp-layout-color0')")
    assert dark != light


def test_a_page_is_compared_with_the_approved_one(page: Page, origin: str, looks_as_approved, tmp_path: Path):
    page.goto(origin)
    with pytest.raises(AssertionError, match=r"similarity nan.*APPROVE_SCREENSHOTS"):
        looks_as_approved(page, "nobody has approved this")
    with Image.open(tmp_path / "nobody has approved this.png") as left:
        assert left.width == 640


def test_similarity_forgives_a_shade_and_not_a_missing_panel():
    one = Image.new("RGB", (320, 200), "white")
    ImageDraw.Draw(one).rectangle((20, 20, 200, 180), fill="#3366aa")
    shade = Image.new("RGB", (320, 200), "#fdfdfd")
    ImageDraw.Draw(shade).rectangle((20, 20, 200, 180), fill="#3467a9")
    assert similarity_of(one, one) == 1
    assert similarity_of(one, shade) > 0.98
    assert similarity_of(one, Image.new("RGB", (320, 200), "white")) < 0.9
    assert not similarity_of(one, Image.new("RGB", (320, 100), "white")) > 0
