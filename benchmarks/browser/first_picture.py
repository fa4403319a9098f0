"""How soon the browser UE shows something: in JupyterLab from running its cell, at /ue from opening the page.

The event offers models of the concert (runs/bench_artefacts); an earlier cell has imported the package and opened them.
First of all comes the network's picture of a model's probe view, made with the model; then the network's own view of
the same camera, or the one that this browser draws with the model that it has downloaded by then. /ue is opened on a
phone-sized screen, by a UE that is the second to ask (the first has the service unpack the model). Medians.

`ue_first_picture_s`: the first of these in JupyterLab, `ue_first_device_picture_s`: the browser's own.
`ue_page_first_picture_s`, `ue_page_first_device_picture_s`: at /ue.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.network.crowd import ARTEFACTS
from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.serving import serve
from crowdnerf_lab.network.settings import ServiceSettings
from tests.browser.chromium import PHONE, Pages, running_chromium
from tests.browser.jupyter_lab import Lab, running_lab

OFFERED = (
    "concert.baked_field.1MB.baked.320x240.progressive",
    "concert.ray_mlp.S.onnx_float32.320x240.none",
    "concert.plane_features.XS-cell4.onnx_float32.200x150.none",
)
CASES = {"a baked field": OFFERED[:1], "a student": (OFFERED[1], OFFERED[0]), "all three": OFFERED}
"""What there is to choose from; the network renders its views from the baked field."""
BEFORE = """
import crowdnerf_lab as cn
from pathlib import Path
artefacts = [cn.open_artefact(Path({folder!r}) / name) for name in {names!r}]
from crowdnerf_lab import widgets
print("opened")
"""
CELL = "widgets.ue(artefacts)"
REACHED = """async (run) => {
  const begun = run ? performance.now() : 0;
  if (run) window.jupyterapp.commands.execute("notebook:run-cell");
  const reached = {};
  while (!("device" in reached) && performance.now() - begun < 45000) {
    const state = document.querySelector(".cn-ue")?.dataset.state;
    if (state && !(state in reached)) reached[state] = (performance.now() - begun) / 1000;
    await new Promise(requestAnimationFrame);
  }
  return reached;
}"""
"""Seconds until the UE says that it shows something of the network, and something of its own."""


def measure(*, quick: bool) -> dict[str, Any]:
    """The four keys, and a row of each run."""
    runs = 1 if quick else 3
    with running_chromium() as browser, tempfile.TemporaryDirectory() as home:
        pages = Pages(browser)
        with running_lab(Path(home), pages) as lab:
            cells = [_in_lab(lab, names) | {"offered": what} for what, names in CASES.items() for _ in range(runs)]
        opened = _at_the_service(Path(home) / "service", pages, runs=runs)
    both = [row for row in cells if row["offered"] == "all three"]
    return {
        "ue_first_picture_s": _median(both, "first"),
        "ue_first_device_picture_s": _median(both, "device"),
        "ue_page_first_picture_s": _median(opened, "first"),
        "ue_page_first_device_picture_s": _median(opened, "device"),
        "ue_first_pictures": cells,
        "ue_page_first_pictures": opened,
    }


def _in_lab(lab: Lab, names: tuple[str, ...]) -> dict[str, Any]:
    page = lab.open(BEFORE.format(folder=str(ARTEFACTS), names=names), CELL)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
    page.locator(".jp-OutputArea-output", has_text="opened").wait_for(timeout=60_000)
    row = _row(page.evaluate(REACHED, True))
    lab.pages.close_all_but(0)
    return row


def _at_the_service(home: Path, pages: Pages, *, runs: int) -> list[dict[str, Any]]:
    Catalogue(home / "catalogue").publish([open_artefact(ARTEFACTS / name) for name in OFFERED], event="concert")
    settings = ServiceSettings(home, train=False, view_processes=1)
    rows = []
    with serve(home, events=("concert",), settings=settings) as service:
        for _ in range(1 + runs):
            page = pages.open(f"{service.url}/ue?event=concert", size=PHONE, touch=True)
            rows.append(_row(page.evaluate(REACHED, False)))
            pages.close_all_but(0)
    return rows[1:]


def _row(reached: dict[str, float]) -> dict[str, Any]:
    if "device" not in reached:
        raise RuntimeError(f"the browser drew nothing within 45 s; it reached {reached}")
    shown = {name: round(seconds, 2) for name, seconds in reached.items() if name != "starting"}
    return {"first": min(shown.values()), "device": shown["device"]}


def _median(rows: list[dict[str, Any]], name: str) -> float:
    return round(median(row[name] for row in rows), 2)


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.browser", ("first_picture",), about=__doc__ or "")
