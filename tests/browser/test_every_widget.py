"""All widgets in one notebook: keyboard, themes, contrast, and JupyterLab's own keys left alone."""

import textwrap
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.jupyter_lab import Lab
from tests.browser.reading_pages import faint_words, tab_stops

CELLS = {
    "explorer": """
        from pathlib import Path
        import crowdnerf_lab as cn
        from tests.toy_artefacts import random_grid, small_scene
        from tests.toy_browser_artefacts import browser_artefacts
        cn.widgets.explorer({"a field": random_grid(), "photos": small_scene()}, scene=small_scene())
        """,
    "ue": """
        Path("toy").mkdir()
        cn.widgets.ue(list(browser_artefacts(Path("toy"))))
        """,
    "capture_map": """
        from tests.toy_crowd import screening_of, toy_captures
        captures = toy_captures(Path("toy"), seconds_apart=1.0)
        cn.widgets.capture_map(captures, screening=screening_of(captures, {}), frustum_m=2.0)
        """,
    "training_board": "cn.widgets.training_board(small_scene(), steps=3, threads=1)",
}
DRAWN = {
    "explorer": ".cn-explorer canvas",
    "ue": ".cn-ue[data-state=device] canvas",
    "capture_map": ".js-plotly-plot canvas",
    "training_board": ".js-plotly-plot .main-svg",
}
COMMANDS_OF_JUPYTERLAB = "abxyzv"
"""Insert above and below, cut, code, undo, paste: single keys that would change the notebook round a widget."""


PARTS_OF_OTHERS = ("noUi-handle", "plotlyjsicon")
"""What ipywidgets' sliders are moved by, and plotly's logo: without names, whatever one does."""


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Page:
    """A notebook in which every widget has drawn; as tall as all of them, for JupyterLab draws no cell out of sight."""
    page = lab.run(*map(textwrap.dedent, CELLS.values()), size=(1280, 3000))
    for name in CELLS:
        drawn = widget_in(page, name).locator(DRAWN[name]).first
        drawn.wait_for(timeout=60_000)
    return page


def widget_in(page: Page, name: str) -> Locator:
    return page.locator(".jp-CodeCell").nth(list(CELLS).index(name)).locator(".jp-OutputArea-output").last


@pytest.mark.parametrize("name", CELLS)
def test_tab_reaches_all_that_can_be_operated_and_shows_where_it_is(notebook: Page, name: str):
    stops = tab_stops(widget_in(notebook, name))
    assert len(stops.all) >= 2
    assert stops.missed == []
    ours = [one for one in stops.nameless + stops.unmarked if not any(name in one for name in PARTS_OF_OTHERS)]
    assert ours == []


@pytest.mark.parametrize("name", ["explorer", "ue"])
def test_keys_that_steer_are_no_commands_of_jupyterlab(notebook: Page, name: str):
    for control in ("[role=application]", "select", "button"):
        focused = widget_in(notebook, name).locator(control).first
        focused.focus()
        notebook.keyboard.type(COMMANDS_OF_JUPYTERLAB)
        assert notebook.locator(".jp-CodeCell").count() == len(CELLS)
        expect(focused).to_be_focused()


def test_enter_presses_a_button_and_edits_no_cell(notebook: Page):
    look_around = widget_in(notebook, "explorer").get_by_role("button", name="Look around")
    before = look_around.get_attribute("aria-pressed")
    look_around.press("Enter")
    expect(look_around).not_to_have_attribute("aria-pressed", str(before))
    assert notebook.locator(".jp-Notebook.jp-mod-editMode").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_in_either_theme(lab: Lab, notebook: Page, theme: Literal["light", "dark"]):
    lab.wear(notebook, theme)
    faint = {name: found for name in CELLS if (found := faint_words(widget_in(notebook, name)))}
    assert faint == {}
