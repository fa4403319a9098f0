"""Camera controls in a page of their own: poses, motions, and what mouse, touch and keys do to a view."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from benchmarks.browser.site import site_of
from crowdnerf_lab.cameras import look_at
from tests.browser.chromium import Pages

SOURCES = Path(__file__).resolve().parents[2] / "web" / "src" / "camera"
VIEW = {"position": [1, 2, 3], "yaw": 0.7, "pitch": -0.3, "roll": 0.2, "distance": 5, "fieldOfView": 0.9}
SCENE = """async (view) => {
  const stage = document.body.appendChild(document.createElement("div"));
  Object.assign(stage.style, { width: "400px", height: "300px", background: "#ccc" });
  stage.tabIndex = 0;
  stage.id = "stage";
  const { createCameraControls } = await import("/camera/controls.js");
  window.seen = { rests: 0, view };
  window.controls = createCameraControls(stage, {
    view,
    onChange: (view, steered) => Object.assign(window.seen, { view, steered }),
    onRest: () => window.seen.rests++,
  });
}"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with site_of({f"camera/{path.name}": path.read_bytes() for path in SOURCES.glob("*.js")}) as address:
        yield address


@pytest.fixture
def stage(page: Page, address: str) -> Page:
    page.goto(address)
    page.evaluate(SCENE, VIEW)
    return page


def seen(page: Page) -> dict[str, Any]:
    return page.evaluate("window.seen.view")


def pivot(page: Page, view: dict[str, Any]) -> list[float]:
    return page.evaluate("async (view) => (await import('/camera/pose.js')).pivotOf(view)", view)


def dragged(page: Page, right: float, down: float, *, button: Any = "left") -> dict[str, Any]:
    page.mouse.move(200, 150)
    page.mouse.down(button=button)
    page.mouse.move(200 + right, 150 + down, steps=4)
    page.mouse.up(button=button)
    return seen(page)


def test_a_pose_is_that_of_the_package_and_comes_back(page: Page, address: str):
    eye, target = torch.tensor([[3.0, -4.0, 1.5]]), torch.tensor([[0.5, 1.0, 2.0]])
    pose = look_at(eye, target)[0].flatten().tolist()
    page.goto(address)
    back = page.evaluate(
        """async (pose) => { const { cameraToWorld, viewOf } = await import("/camera/pose.js");
        const view = viewOf(pose, { distance: 1, fieldOfView: 1 }); return [view.roll, ...cameraToWorld(view)]; }""",
        pose,
    )
    assert back == pytest.approx([0.0, *pose], abs=1e-6)


def test_a_rolled_view_survives_the_way_there_and_back(stage: Page):
    back = stage.evaluate(
        "async (view) => { const { cameraToWorld, viewOf } = await import('/camera/pose.js');"
        "return viewOf(cameraToWorld(view), view); }",
        VIEW,
    )
    assert back == {key: pytest.approx(value, abs=1e-9) for key, value in VIEW.items()}


def test_a_drag_goes_round_the_pivot(stage: Page):
    moved = dragged(stage, 60, 20)
    assert moved["yaw"] == pytest.approx(0.7 - math.pi * 60 / 300)
    assert pivot(stage, moved) == pytest.approx(pivot(stage, VIEW), abs=1e-9)
    assert abs(moved["roll"]) < 0.2


def test_another_button_pans_so_that_the_pivot_follows_the_pointer(stage: Page):
    moved = dragged(stage, 30, 0, button="right")
    pixel = 2 * math.tan(0.45) / 300 * 5
    assert math.dist(moved["position"], VIEW["position"]) == pytest.approx(30 * pixel, rel=1e-6)
    assert moved["yaw"] == VIEW["yaw"]


def test_the_wheel_comes_nearer_only_with_the_focus(stage: Page):
    stage.mouse.move(200, 150)
    stage.mouse.wheel(0, -100)
    stage.wait_for_timeout(50)
    assert seen(stage)["distance"] == 5
    stage.focus("#stage")
    stage.mouse.wheel(0, -100)
    stage.wait_for_function("window.seen.view.distance < 5")
    assert pivot(stage, seen(stage)) == pytest.approx(pivot(stage, VIEW), abs=1e-9)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("ArrowLeft", {"yaw"}),
        ("ArrowUp", {"pitch"}),
        ("Shift+ArrowRight", {"position"}),
        ("KeyW", {"position"}),
        ("KeyE", {"position"}),
        ("Equal", {"distance", "position"}),
        ("BracketLeft", {"fieldOfView"}),
        ("KeyL", {"roll"}),
    ],
)
def test_every_motion_has_a_key_and_comes_to_rest(stage: Page, key: str, changes: set[str]):
    stage.focus("#stage")
    stage.keyboard.press(key)
    after = seen(stage)
    changed = {name for name, value in VIEW.items() if after[name] != pytest.approx(value, abs=1e-12)}
    assert changes <= changed
    assert changed - changes <= {"position", "roll"}
    stage.wait_for_function("window.seen.rests > 0")


def test_home_leads_back(stage: Page):
    dragged(stage, 60, 20)
    stage.keyboard.press("Home")
    stage.wait_for_function("window.seen.view.yaw === 0.7 && !window.seen.steered")
    assert seen(stage) == VIEW


def test_who_looks_around_stays_in_place(stage: Page):
    stage.focus("#stage")
    stage.keyboard.press("KeyO")
    moved = dragged(stage, 30, 0)
    assert moved["position"] == VIEW["position"]
    assert moved["yaw"] > VIEW["yaw"]


def test_two_fingers_pinch(pages: Pages, address: str):
    page = pages.open(address, touch=True)
    page.evaluate(SCENE, VIEW)
    fingers = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        points = [{"x": 200 - apart, "y": 150, "id": 0}, {"x": 200 + apart, "y": 150, "id": 1}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function("window.seen.view.distance < 5")
    assert seen(page)["distance"] == pytest.approx(5 / 2, rel=0.02)
