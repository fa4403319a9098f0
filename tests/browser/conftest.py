"""What browser tests share: one Chromium, one JupyterLab, and pages in which no fault stays unseen.

    def test_mine(lab):                           def test_mine(pages):
        page = lab.run("print('hello')")              page = pages.open(url, size=PHONE, touch=True)

Every test here is marked `browser`: without Chromium it is skipped with the reason. A test fails if any page that it
opened had an error on its console, an exception nobody caught, or asked for anything outside its own origin;
`pages.expect(pattern)` excuses what a test is about. Pages close with the test, or with the module if a fixture of the
module opened them: a notebook that several tests look at is run once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import Pages, running_chromium
from tests.browser.jupyter_lab import Lab, running_lab
from tests.browser.screenshots import assert_looks_as_approved

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def pages(chromium: Browser) -> Iterator[Pages]:
    """Opens pages: pages.open(url, size=PHONE, scheme="dark", touch=True) -> Page."""
    pages = Pages(chromium)
    yield pages
    pages.close_all_but(0)


@pytest.fixture(scope="package")
def lab(pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab: lab.run(source, ..., theme="dark") -> Page, a notebook of these cells that are being run."""
    with running_lab(tmp_path_factory.mktemp("lab"), pages) as lab:
        yield lab


@pytest.fixture
def page(pages: Pages) -> Page:
    """An empty page the size of a laptop's window."""
    return pages.open()


@pytest.fixture
def looks_as_approved(tmp_path: Path) -> Callable[..., None]:
    """looks_as_approved(page or locator, "explorer_dark", mask=[...]): see screenshots.py, and how to approve."""
    return partial(assert_looks_as_approved, folder=tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _pages_of_the_module(pages: Pages) -> Iterator[None]:
    count = len(pages.opened)
    yield
    pages.close_all_but(count)


@pytest.fixture(autouse=True)
def _no_fault(pages: Pages) -> Iterator[None]:
    count = len(pages.opened)
    yield
    faults = pages.faults_until_now()
    pages.close_all_but(count)
    assert not faults, "\n".join(faults)
