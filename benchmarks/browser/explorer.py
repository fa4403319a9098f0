"""The explorer in JupyterLab: frames a second while the camera is dragged, and how soon it is sharp once it rests.

Headless Chromium opens a notebook that explores the concert's field of runs/standard at 320 x 240, waits for the baked
field that stands in while moving, and drags the picture: one step of the pointer before each of the page's frames.
Frames count when they are drawn on the canvas. Kernel, JupyterLab and Chromium share the machine; pages are composed on
the processor (--disable-gpu), for the explorer needs no WebGL.

`explorer_fps`: frames drawn a second over a whole drag; `explorer_pixels`: of its median frame.
`explorer_rest_ms`: from letting go until every picture has its full resolution, which the baked field draws first;
`explorer_sharpest_ms`: until each is the model's own. Medians of the drags.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page

from tests.browser.chromium import FLAGS, Pages, running_chromium
from tests.browser.jupyter_lab import running_lab

WITHOUT_GPU = [*(flag for flag in FLAGS if "angle" not in flag and "swiftshader" not in flag), "--disable-gpu"]
CELLS = (
    """
import crowdnerf_lab as cn
from crowdnerf_lab import widgets
bench = cn.open_workbench("standard")
widget = widgets.explorer(bench.field(), scene=bench.scene())
widget.wait_for_stand_ins()
widget
""",
    """
import crowdnerf_lab as cn
from crowdnerf_lab import widgets
bench = cn.open_workbench("standard")
models = {"teacher": bench.field(), "student": bench.student("plane_features S"), "truth": bench.scene()}
widget = widgets.explorer(models, scene=bench.scene())
widget.wait_for_stand_ins()
widget
""",
)
"""One picture, and three side by side."""
FULL_WIDTH = 320
"""Pixels across a picture at full resolution: of the concert's photos."""

DRAG = """async ([seconds, fullWidth]) => {
  const stage = document.querySelector(".cn-stage");
  const panes = [...stage.querySelectorAll(".cn-pane")];
  const box = stage.getBoundingClientRect();
  const frames = [];
  const watch = new MutationObserver((changes) => changes.forEach(({ target }) =>
    frames.push({ at: performance.now(), pane: panes.indexOf(target), ...target.dataset })));
  panes.forEach((pane) => watch.observe(pane, { attributeFilter: ["data-number"] }));
  const point = (kind, x) => stage.dispatchEvent(new PointerEvent(kind, {
    pointerId: 1, clientX: box.x + box.width / 2 + x, clientY: box.y + 50, buttons: kind === "pointerup" ? 0 : 1 }));
  const frame = () => new Promise(requestAnimationFrame);
  const begun = performance.now();
  for (let now = begun; now - begun < 1000 * seconds; now = await frame())
    point("pointermove", 60 * Math.sin((now - begun) / 700));
  const let_go = performance.now();
  const moving = frames.filter(({ pane }) => pane === 0);
  point("pointerup", 0);
  const after = (wanted) => Math.max(...panes.map((_, pane) =>
    (frames.find((frame) => frame.pane === pane && frame.at > let_go && wanted(frame))?.at ?? Infinity) - let_go));
  const sharpest = ({ full }) => full === "true";
  const large = (frame) => sharpest(frame) || Number(frame.width) === fullWidth;
  while (after(sharpest) === Infinity && performance.now() - let_go < 15000) await frame();
  watch.disconnect();
  return {
    fps: moving.length / (let_go - begun) * 1000,
    pixels: moving.map(({ width, height }) => width * height),
    rest_ms: after(large),
    sharpest_ms: after(sharpest),
  };
}"""
"""Drags the pointer that is down for so many seconds, lets go, and waits for the sharpest pictures."""


def measure(*, quick: bool) -> dict[str, Any]:
    """explorer_fps, _pixels, _rest_ms, _sharpest_ms of one picture, and of three side by side; a row a drag."""
    rows = []
    with running_chromium(WITHOUT_GPU) as browser, tempfile.TemporaryDirectory() as home:
        pages = Pages(browser)
        with running_lab(Path(home), pages) as lab:
            for cell in CELLS[:1] if quick else CELLS:
                page = lab.run(cell)
                page.wait_for_selector(".cn-pane[data-full=true]", timeout=90_000)
                panes = page.locator(".cn-pane").count()
                rows += [{"pictures": panes} | _dragged(page, 2 if quick else 4) for _ in range(1 if quick else 3)]
                pages.close_all_but(0)
    figures: dict[str, Any] = {}
    for panes, suffix in ((1, ""), (3, "_three")):
        drags = [row for row in rows if row["pictures"] == panes]
        if drags:
            figures |= {
                f"explorer_{name}{suffix}": median(row[name] for row in drags)
                for name in drags[0]
                if name != "pictures"
            }
    return figures | {"explorer_drags": rows}


def _dragged(page: Page, seconds: float) -> dict[str, Any]:
    stage = page.locator(".cn-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    seen = page.evaluate(DRAG, [seconds, FULL_WIDTH])
    page.mouse.up()
    return {
        "fps": round(seen["fps"], 1),
        "pixels": median(seen["pixels"] or [0]),
        "rest_ms": round(seen["rest_ms"]),
        "sharpest_ms": round(seen["sharpest_ms"]),
    }
