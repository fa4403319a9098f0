"""The capture map in JupyterLab: drags turn it, a UE's photos are found by click and by keyboard alone."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.jupyter_lab import Lab

MAP = """
import tempfile
from pathlib import Path
from crowdnerf_lab import widgets
from tests.toy_crowd import screening_of, toy_captures
captures = toy_captures(Path(tempfile.mkdtemp()), seconds_apart=1.0)
report = screening_of(captures, {"ue1_2.jpg": "half as sharp as its others"})
shown = widgets.capture_map(captures, screening=report, frustum_m=2.0)
shown
"""


@pytest.fixture(scope="module")
def page(lab: Lab) -> Page:
    page = lab.run(MAP)
    page.locator(".js-plotly-plot canvas").first.wait_for(timeout=60_000)
    return page


def eye(page: Page) -> dict[str, float]:
    return page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.scene._scene.getCamera().eye")


def test_a_drag_turns_the_map(page: Page) -> None:
    page.wait_for_function("document.querySelector('.js-plotly-plot')?._fullLayout?.scene?._scene?.glplot")
    before = eye(page)
    box = page.locator(".js-plotly-plot").bounding_box()
    x, y = box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y, steps=4)
    page.mouse.up()
    page.wait_for_function(
        "before => Math.abs(document.querySelector('.js-plotly-plot')._fullLayout.scene._scene.getCamera().eye.x"
        " - before.x) > 0.05",
        arg=before,
    )


def test_a_ue_is_chosen_by_keyboard_and_its_photos_appear(page: Page) -> None:
    page.get_by_label("UE", exact=True).focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Next UE")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator(".jp-OutputArea img.widget-image")).to_have_count(3)
    expect(page.locator(".jp-OutputArea").get_by_text("half as sharp as its others")).to_be_visible()


def test_a_click_on_a_camera_reaches_the_kernel(page: Page) -> None:
    """The event is the one that plotly emits when a point in space is clicked."""
    trace = page.evaluate(
        "document.querySelector('.js-plotly-plot').data.findIndex(({name}) => name.startsWith('kept ('))"
    )
    page.evaluate(
        """trace => {
          const plot = document.querySelector('.js-plotly-plot');
          const point = {curveNumber: trace, pointNumber: 0, data: plot.data[trace], fullData: plot._fullData[trace],
            x: plot.data[trace].x[0], y: plot.data[trace].y[0], z: plot.data[trace].z[0]};
          plot.emit('plotly_click', {points: [point]});
        }""",
        trace,
    )
    expect(page.get_by_label("UE", exact=True)).to_have_value("ue0")


def test_the_time_slider_moves_by_keyboard(page: Page) -> None:
    page.locator(".noUi-handle-upper").focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("status").filter(has_text="photos:")).not_to_contain_text("12 photos", timeout=15_000)
