"""The training board in JupyterLab: its buttons, reached by keyboard alone, really stop, resume and branch."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.jupyter_lab import Lab

BOARD = """
from tests.test_training import SMALL, striped_ball
from crowdnerf_lab import widgets
board = widgets.training_board(striped_ball(), steps=40_000, settings=SMALL, threads=1)
board
"""


@pytest.fixture(scope="module")
def page(lab: Lab) -> Page:
    page = lab.run(BOARD)
    page.locator(".jp-OutputArea .plot-container").first.wait_for(timeout=60_000)
    return page


def words(page: Page):
    return page.get_by_role("status").filter(has_text=re.compile("trunk|branch"))


def test_it_trains_live_and_stops_resumes_and_branches_by_keyboard(page: Page) -> None:
    expect(words(page)).to_contain_text(re.compile(r"trunk: training, .* step \d+, .* rays/s"), timeout=60_000)
    expect(page.locator(".js-plotly-plot .im")).to_have_count(4)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(words(page)).to_contain_text("trunk: stopped", timeout=30_000)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    expect(words(page)).to_contain_text("trunk: training", timeout=30_000)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(words(page)).to_contain_text("branch 1: training", timeout=30_000)
    expect(page.locator(".js-plotly-plot .legendtext").filter(has_text="branch 1")).to_have_count(1)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(words(page)).to_contain_text("branch 1: stopped", timeout=30_000)
