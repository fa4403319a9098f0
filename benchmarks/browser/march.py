"""Baked fields in the browser: frames a second of the WebGL2 fragment shader, tier by tier.

Headless Chromium marches each tier of runs/standard at 320x240, the concert's held-out views in turn. `ms`: from a
camera to a finished picture, waited for by reading a pixel of it back; `fps` is of the median. `first_ms`: from a
gzip'd file in memory to the first picture (unpacking, textures, shader and all); `fill_ms` of it: to fill the textures
from the rows, in a worker. `raw_bytes`: of both textures; `gzip_bytes`: what the browser downloads, beside
`coded_bytes`, what another UE does. `peak_mb`: most memory that the page's process ever took, without the graphics
processor's. `difference`: mean, and
`difference_most` of the views' means, of a colour of the picture in 1/255 from the numba renderer's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.browser.site import site_of
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.fields.baking import TIERS
from crowdnerf_lab.network.models.browser_models import browser_model_of
from crowdnerf_lab.network.ue import decoded_field
from tests.browser.chromium import running_chromium

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "runs" / "standard" / "artefacts"
SCENE = ROOT / "data" / "concert"
WIDTH, HEIGHT = 320, 240
VIEWS, FRAMES = 6, 5
"""Views of a tier, and frames of each."""

OPEN = """async (name) => {
  const { texturesOfRows, FieldRenderer } = await import("/renderers.js");
  const content = new Uint8Array(await (await fetch("/" + name)).arrayBuffer());
  self.begun = performance.now();
  const textures = await texturesOfRows(content);
  const canvas = document.body.appendChild(document.createElement("canvas"));
  self.renderer = new FieldRenderer(canvas, textures);
  return textures.fillMs;
}"""
FIRST = """async (camera) => {
  renderer.draw(camera);
  renderer.pick(0, 0);
  return performance.now() - begun;
}"""
FRAMES_OF = """async ([camera, frames]) => {
  const times = [];
  for (let frame = 0; frame < frames; frame++) {
    const began = performance.now();
    const drawn = renderer.draw(camera);
    renderer.pick(0, 0);
    times.push(performance.now() - began);
    await drawn;
  }
  return { times, rgba: [...renderer.pixels().rgba] };
}"""


def measure(*, quick: bool) -> dict[str, Any]:
    """ue_fps_baked: of the slowest tier; march_difference: mean of the worst tier, in 1/255. A row a tier."""
    cameras = _cameras()[: 1 if quick else VIEWS]
    rows = [_tier(tier.name, cameras, frames=2 if quick else FRAMES) for tier in TIERS]
    return {
        "ue_fps_baked": min(row["fps"] for row in rows),
        "march_difference": max(row["difference"] for row in rows),
        "tiers": rows,
    }


def _cameras() -> list[dict[str, Any]]:
    """Held-out views of the concert that lie across, as the page's renderers take cameras."""
    scene = read_scene(SCENE)
    cameras = scene.cameras
    held_out = cameras[scene.held_out[(cameras.width > cameras.height)[scene.held_out]]].resized(WIDTH, HEIGHT)
    size = {"width": WIDTH, "height": HEIGHT}
    return [
        {"cameraToWorld": pose.flatten().tolist(), "focal": focal.tolist(), "centre": centre.tolist()} | size
        for pose, focal, centre in zip(held_out.camera_to_world, held_out.focal, held_out.centre, strict=True)
    ]


def _tier(tier: str, cameras: Sequence[dict[str, Any]], *, frames: int) -> dict[str, Any]:
    artefact = open_artefact(ARTEFACTS / f"concert.baked_field.{tier}.baked.{WIDTH}x{HEIGHT}.progressive")
    model = browser_model_of(artefact)
    with site_of({tier: model.content}) as url, running_chromium() as browser:
        page = browser.new_page()
        page.goto(url)
        fill_ms = page.evaluate(OPEN, tier)
        first_ms = page.evaluate(FIRST, cameras[0])
        times, pictures = _drawn(page, cameras, frames)
        raw = page.evaluate("renderer.bytes")
        peak_mb = _peak_mb(browser)
    differences = _differences(artefact, cameras, pictures)
    ms = float(np.median(times))
    return {
        "tier": tier,
        "fps": round(1000 / ms, 2),
        "ms": round(ms, 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "first_ms": round(first_ms),
        "fill_ms": round(fill_ms),
        "raw_bytes": raw,
        "gzip_bytes": model.bytes,
        "coded_bytes": artefact.model.stat().st_size,
        "peak_mb": round(peak_mb),
        "difference": round(float(np.mean(differences)), 3),
        "difference_most": round(float(np.max(differences)), 3),
    }


def _peak_mb(browser: Browser) -> float:
    """Resident memory at its highest of the pages' processes, MB, as Linux counts it."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    peaks = []
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
    return max(peaks)


def _drawn(page: Page, cameras: Sequence[dict[str, Any]], frames: int) -> tuple[list[float], list[np.ndarray]]:
    """Milliseconds of all frames, and a picture [h w 3] of each view."""
    times, pictures = [], []
    for camera in cameras:
        drawn = page.evaluate(FRAMES_OF, [camera, frames])
        times += drawn["times"]
        pictures.append(np.array(drawn["rgba"], np.float32).reshape(HEIGHT, WIDTH, 4)[..., :3])
    return times, pictures


def _differences(
    artefact: Artefact, cameras: Sequence[dict[str, Any]], pictures: Sequence[np.ndarray]
) -> list[np.floating]:
    """Mean difference of each picture from the numba renderer's, in 1/255."""
    field, _ = decoded_field(artefact.model.read_bytes(), name=artefact.model, coded=True)
    found = []
    for camera, picture in zip(cameras, pictures, strict=True):
        pose = np.array(camera["cameraToWorld"], np.float32).reshape(3, 4)
        ours = field.render_image(pose, camera["focal"], centre=camera["centre"], width=WIDTH, height=HEIGHT)
        found.append(np.abs(255 * ours.colour - picture).mean())
    return found
