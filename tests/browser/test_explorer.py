"""The explorer in JupyterLab: drags and keys change the picture, photos blend, explorers share a camera."""

import io
import json
import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.jupyter_lab import Lab

CELLS = (
    """
from crowdnerf_lab import widgets
from tests.toy_field import ToyField, toy_scene
scene = toy_scene(width=160, height=120)
first = widgets.explorer({"field": ToyField(), "truth": scene}, scene=scene)
first
""",
    """
second = widgets.explorer(ToyField(), scene=scene, linked_to=first)
second
""",
)
SHARP = ".cn-pane[data-full=true]"


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Page:
    """Two linked explorers, both drawn at full resolution."""
    page = lab.run(*CELLS, size=(1280, 2000))
    expect(page.locator(SHARP)).to_have_count(3, timeout=60_000)
    return page


@pytest.fixture
def first(notebook: Page) -> Locator:
    """The first explorer, at its first view, of colours."""
    first = explorer_in(notebook, 0)
    first.get_by_label("Show").select_option("colour")
    first.get_by_role("button", name="First view").click()
    sharp_again(first)
    return first


def explorer_in(page: Page, number: int) -> Locator:
    return page.locator(".cn-explorer").nth(number)


def sharp_again(explorer: Locator) -> None:
    """Wait until it has come to rest: the numbers of its frames rise no more."""
    pane = explorer.locator(".cn-pane").first
    number = None
    while number != (number := pane.get_attribute("data-number")) or pane.get_attribute("data-full") != "true":
        explorer.page.wait_for_timeout(400)


def picture(explorer: Locator, pane: int = 0) -> np.ndarray:
    content = explorer.locator("canvas").nth(pane).screenshot()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float32)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before - after).mean())


def test_a_drag_changes_the_picture_and_the_linked_one(notebook: Page, first: Locator):
    second = explorer_in(notebook, 1)
    before, before_linked = picture(first), picture(second)
    box = first.locator("canvas").first.bounding_box()
    assert box is not None
    notebook.mouse.move(box["x"] + 100, box["y"] + 60)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] + 160, box["y"] + 80, steps=6)
    notebook.mouse.up()
    sharp_again(first)
    sharp_again(second)
    after = picture(first)
    assert changed(before, after) > 3
    assert changed(before_linked, picture(second)) > 3
    linked = Image.fromarray(picture(second).astype(np.uint8)).resize((after.shape[1], after.shape[0]))
    assert changed(after, np.asarray(linked, dtype=np.float32)) < 8


def test_keys_alone_change_the_picture(notebook: Page, first: Locator):
    before = picture(first)
    first.get_by_role("application").focus()
    for key in ("ArrowLeft", "ArrowLeft", "KeyW"):
        notebook.keyboard.press(key)
    sharp_again(first)
    assert changed(before, picture(first)) > 1


def test_depth_has_a_legend_and_photos_have_none(first: Locator):
    before = picture(first)
    first.get_by_label("Show").select_option("depth")
    expect(first.locator(".cn-legend").first).to_contain_text("distance")
    sharp_again(first)
    assert changed(before, picture(first)) > 10
    expect(first.locator("figcaption").nth(1)).to_contain_text("has no depth")


def test_a_photo_is_gone_to_blended_and_left(notebook: Page, first: Locator):
    first.get_by_label("Go to the photo").select_option(index=5)
    photo = first.locator(".cn-photo").first
    expect(photo).to_be_visible()
    sharp_again(first)
    slider = first.get_by_label("Blend with the photo")
    slider.fill("1")
    seen = picture(first)
    slider.fill("0")
    # The toy field took the photo: beneath it lies the same picture.
    assert changed(seen, picture(first)) < 8
    first.get_by_role("application").focus()
    notebook.keyboard.press("ArrowLeft")
    expect(photo).to_be_hidden()
    expect(first.get_by_label("Go to the photo")).to_have_value("")


def test_a_view_is_saved_and_its_camera_copied(notebook: Page, first: Locator):
    with notebook.expect_download() as saved:
        explorer_in(notebook, 1).get_by_role("button", name="Save view").click()
    with Image.open(saved.value.path()) as image:
        assert (image.format, image.size) == ("PNG", (160, 120))
    notebook.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first.get_by_role("button", name="Copy camera").click()
    expect(first.get_by_text("camera copied")).to_be_visible()
    camera = json.loads(notebook.evaluate("navigator.clipboard.readText()"))
    assert np.asarray(camera["camera_to_world"]).shape == (3, 4)
    assert (camera["width"], camera["height"]) == (160, 120)


def test_a_flight_is_recorded_and_handed_over(notebook: Page, first: Locator):
    first.get_by_text("Record a flight").click()
    add = first.get_by_role("button", name="Add this view")
    add.click()
    first.get_by_role("application").focus()
    notebook.keyboard.press("ArrowLeft")
    sharp_again(first)
    add.click()
    first.get_by_label("Seconds").fill("1")
    first.get_by_label("File").select_option("gif")
    first.get_by_role("button", name="Record", exact=True).click()
    expect(first.get_by_role("link", name=re.compile(r"flight.*\.gif"))).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_looks_as_approved(
    lab: Lab, notebook: Page, theme: Literal["light", "dark"], looks_as_approved: Callable[..., None]
):
    second = explorer_in(notebook, 1)
    second.get_by_role("button", name="First view").click()
    sharp_again(second)
    lab.wear(notebook, theme)
    notebook.mouse.move(2, 2)
    looks_as_approved(second, f"explorer_{theme}", mask=[second.locator(".cn-numbers")])
