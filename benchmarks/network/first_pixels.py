"""First pixels at the UE: from asking for a model to a picture of it, over 20 Mbit/s with a round trip of 50 ms.

The UE's process is warm (its libraries are loaded, it has rendered before) and it has joined, over the connection that
it then goes on to use; it holds no model. It asks what fits, downloads the S model, loads it and renders 320 x 240:
from the first layer of a progressive file, or from the whole. TCP's slow start begins where joining left it. Medians of
several UEs, each new.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.network.crowd import ARTEFACTS
from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.links.link import LinkProfile, shaped_tcp
from crowdnerf_lab.network.serving import serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue_client import UE
from crowdnerf_lab.network.ues.event_connection import http_client

LINK = LinkProfile("issue", "20 Mbit/s, 50 ms", down_mbit_s=20, up_mbit_s=20, rtt_ms=50)
PHONE = Capability(runtimes=("onnxruntime",), precisions=("float32", "int8"), memory_mb=500, link_mbit_s=20, rtt_ms=50)
S = "concert.ray_mlp.S.onnx_"
CASES: Sequence[tuple[str, str, bool, bool]] = (
    ("int8, first layer", f"{S}int8_qdq.320x240.progressive-38dB", True, True),
    ("int8, whole file", f"{S}int8_qdq.320x240.progressive-38dB", False, True),
    ("float32 in layers, first layer", f"{S}float32.320x240.progressive-38dB", True, True),
    ("float32 as it runs", f"{S}float32.320x240.none", False, True),
    ("int8, first layer, new connection", f"{S}int8_qdq.320x240.progressive-38dB", True, False),
)
"""What is shown, of which artefact, whether as soon as something can be, and over a connection that is there."""


def measure(*, quick: bool) -> dict[str, Any]:
    """first_pixels_ms of the int8 model's first layer, and for each case its stages, milliseconds since the request."""
    with tempfile.TemporaryDirectory(prefix="first_pixels.") as folder:
        home, events = Path(folder), {name: f"case{i}" for i, name in enumerate({name for _, name, *_ in CASES})}
        artefacts = {name: open_artefact(ARTEFACTS / name) for name in events}
        for name, event in events.items():
            Catalogue(home / "catalogue").publish([artefacts[name]], event=event)
        settings = ServiceSettings(home, events=tuple(events.values()), train=False)
        with serve(home, settings=settings) as service:
            rows = [
                asyncio.run(
                    _first_pixels(
                        service.url, events[name], artefacts[name], case, soon=soon, warm=warm, ues=3 if quick else 9
                    )
                )
                for case, name, soon, warm in CASES
            ]
    return {
        "first_pixels_ms": rows[0]["pixels"],
        "first_pixels_conditions": f"{LINK.title}, medians; service, proxy and UE on one machine",
        "first_pixels": rows,
    }


async def _first_pixels(
    target: str, event: str, artefact: Artefact, case: str, *, soon: bool, warm: bool, ues: int
) -> dict[str, Any]:
    """Medians over so many UEs, after one that warms the process up. soon: show what the first layer shows."""
    stages: list[dict[str, float]] = []
    for i in range(1 + ues):
        with tempfile.TemporaryDirectory(prefix="ue.") as home:
            found = await _one(target, event, artefact, Path(home), soon=soon, warm=warm, seed=i)
        stages += [found] if i else []
    middle = {name: round(median(one[name] for one in stages), 1) for name in stages[0]}
    return {"what": case, "kB by then": middle.pop("kB"), **middle}


async def _one(
    target: str, event: str, artefact: Artefact, home: Path, *, soon: bool, warm: bool, seed: int
) -> dict[str, float]:
    """One UE's stages, milliseconds since it asked."""
    probe = artefact.card.probes[0]
    async with shaped_tcp(target, LINK, seed=seed) as url, http_client() as client, http_client() as another:
        async with UE(url, event=event, capability=PHONE, home=home, client=client, keep_fresh=False) as joining:
            await joining.join()
        async with UE(
            url, event=event, capability=PHONE, home=home, client=client if warm else another, keep_fresh=False
        ) as ue:
            asked, before = time.perf_counter(), ue.bytes_received
            arriving = ue.models_as_they_arrive()
            async for model in arriving:
                if soon or model.complete:
                    break
            else:
                raise RuntimeError(f"no model: {ue.reason}")
            loaded_ms = 1e3 * (time.perf_counter() - asked)
            model.render(np.array(probe.camera_to_world), probe.focal, probe.centre)
            pixels_ms = 1e3 * (time.perf_counter() - asked)
            size = ue.bytes_received - before
            await arriving.aclose()
            here = ue.arrival["first layer" if soon else "whole"]
            return {
                "select": ue.arrival["select"],
                "here": here,
                "loaded": loaded_ms,
                "pixels": pixels_ms,
                "kB": size / 1e3,
            }


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.network", ("first_pixels",), about=__doc__ or "")
