"""Light-field students in the browser: frames a second in WebAssembly on one thread, by family, size and form.

Headless Chromium opens each student of runs/bench_artefacts in a worker of its own and asks it for the views of the
artefact's probes in turn, each after the last was put on a canvas. `fps` is of the median of that whole turn; `ms` the
worker's own part. `open_ms`: from two gzip'd files to a student that can be asked, the runtime compiled anew. `bytes`:
what the browser downloads. `difference`: largest of a colour in [0, 1] from ONNX Runtime's picture of the first view.
"""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from playwright.sync_api import Page

from benchmarks.browser.site import site_of
from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.network.models.browser_models import packed, unpacked_model
from crowdnerf_lab.network.ue import INPUTS
from crowdnerf_lab.widgets.built import RUNTIME, STATIC
from tests.browser.chromium import running_chromium

ARTEFACTS = Path(__file__).resolve().parents[2] / "runs" / "bench_artefacts"
SIZES = {"XS": (200, 150), "S": (320, 240)}
FRAMES, WARM = 20, 3
"""Timed frames, and those before them."""

TURNS = """async ([model, cameras, frames, warm]) => {
  const { StudentRenderer } = await import("/renderers.js");
  const got = async (name) => new Uint8Array(await (await fetch("/" + name)).arrayBuffer());
  const [runtime, content] = await Promise.all([got("RUNTIME"), got(model)]);
  const asked = performance.now();
  const student = await StudentRenderer.open({ runtime, model: content });
  const openMs = performance.now() - asked;
  const { width, height } = student.opened;
  const canvas = document.body.appendChild(Object.assign(document.createElement("canvas"), { width, height }));
  const context = canvas.getContext("2d");
  const turns = [], drawn = [], image = [...(await student.render(cameras[0])).image];
  const firstMs = performance.now() - asked;
  for (let frame = 0; frame < warm + frames; frame++) {
    const begin = performance.now();
    const { pixels, ms } = await student.render(cameras[frame % cameras.length]);
    context.putImageData(new ImageData(pixels, width, height), 0, 0);
    if (frame >= warm) { turns.push(performance.now() - begin); drawn.push(ms); }
  }
  student.close();
  canvas.remove();
  return { openMs, firstMs, turns, drawn, image };
}""".replace("RUNTIME", RUNTIME)


def measure(*, quick: bool) -> dict[str, Any]:
    """ue_fps_xs, ue_fps_s: of the slowest family's float32 student; ..._best: of the fastest form there is, and which.
    package_bytes: all built files of the package, gzip'd. A row for every student."""
    rows = list(_students(quick))
    figures: dict[str, Any] = {}
    for size in SIZES:
        ours = [row for row in rows if row["size"] == size]
        exact = [row for row in ours if row["form"] == "onnx_float32" and row["coding"] == "none"]
        best = max(ours, key=lambda row: row["fps"])
        figures |= {
            f"ue_fps_{size.lower()}": min(row["fps"] for row in exact),
            f"ue_fps_{size.lower()}_best": best["fps"],
            f"ue_fps_{size.lower()}_best_is": f"{best['family']} {best['form']} {best['coding']}",
        }
    sizes = {path.name: _compressed(path) for path in sorted(STATIC.iterdir()) if path.name != "built.json"}
    package = [{"file": name, "gzip_bytes": size} for name, size in sizes.items()]
    return figures | {"package_bytes": sum(sizes.values()), "students": rows, "package": package}


def _compressed(path: Path) -> int:
    content = path.read_bytes()
    return len(content) if path.suffix == ".gz" else len(gzip.compress(content))


def _students(quick: bool) -> Iterator[dict[str, Any]]:
    artefacts = [open_artefact(card.parent) for card in sorted(ARTEFACTS.glob("*/card.json"))]
    chosen = [artefact for artefact in artefacts if _size(artefact) is not None]
    if quick:
        chosen = [each for each in chosen if each.card.stored_as == "onnx_float32" and each.card.coding == "none"]
    graphs = {artefact.card.name: unpacked_model(artefact) for artefact in chosen}
    files = {name: packed(graph) for name, graph in graphs.items()}
    with _page(files) as page:
        for artefact in chosen:
            name, frames = artefact.card.name, FRAMES // 3 if quick else FRAMES
            yield _student(page, artefact, graphs[name], frames=frames) | {"bytes": len(files[name])}


def _size(artefact: Artefact) -> str | None:
    """The size of a student at the resolution that it is measured at; None for every other artefact."""
    card = artefact.card
    if card.kind != "light_field":
        return None
    words = card.name.replace("-", ".").split(".")
    return next((size for size, pixels in SIZES.items() if size in words and (card.width, card.height) == pixels), None)


@contextmanager
def _page(files: dict[str, bytes]) -> Iterator[Page]:
    with site_of(files) as url, running_chromium() as browser:
        page = browser.new_page()
        page.goto(url)
        yield page


def _student(page: Page, artefact: Artefact, graph: bytes, *, frames: int) -> dict[str, Any]:
    card, cameras = artefact.card, _cameras(artefact)
    turns = page.evaluate(TURNS, [card.name, cameras, frames, WARM])
    turn_ms = float(np.median(turns["turns"]))
    return {
        "family": card.family,
        "size": _size(artefact),
        "form": card.stored_as,
        "coding": card.coding,
        "fps": round(1000 / turn_ms, 1),
        "ms": round(float(np.median(turns["drawn"])), 2),
        "p95_ms": round(float(np.percentile(turns["turns"], 95)), 2),
        "native_ms": round(card.latency.median_ms, 2),
        "open_ms": round(turns["openMs"]),
        "first_picture_ms": round(turns["firstMs"]),
        "psnr": None if card.quality.psnr is None else round(card.quality.psnr, 2),
        "difference": _difference(graph, cameras[0], np.array(turns["image"], np.float32)),
    }


def _cameras(artefact: Artefact) -> list[dict[str, Any]]:
    """The artefact's probe views as the page's renderers take cameras."""
    cameras = []
    for probe in artefact.card.probes:
        with Image.open(artefact.folder / probe.path) as picture:
            width, height = picture.size
        pose = [number for row in probe.camera_to_world for number in row]
        size = {"width": width, "height": height}
        cameras.append({"cameraToWorld": pose, "focal": list(probe.focal), "centre": list(probe.centre)} | size)
    return cameras


def _difference(graph: bytes, camera: dict[str, Any], image: np.ndarray) -> float:
    """Largest difference of a colour between the browser's picture of a camera and ONNX Runtime's."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_outputs()[0].shape
    scale = np.array([width / camera["width"], height / camera["height"]])
    values = (camera["cameraToWorld"], camera["focal"] * scale, camera["centre"] * scale)
    feeds = {
        name: np.asarray(value, np.float32).reshape(shape)
        for (name, shape), value in zip(INPUTS.items(), values, strict=True)
    }
    (expected,) = session.run(["image"], feeds)
    difference = np.abs(np.asarray(expected).ravel() - image).max()
    return float(f"{difference:.2g}") if math.isfinite(difference) else math.inf
