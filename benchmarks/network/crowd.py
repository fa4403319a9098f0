"""How many UEs are served within a second: 90 % want a model (select, download, verify), 10 % a view.

After warm-up: every UE has joined and has its connection open, the service has answered each kind of question once. N
UEs then want to be served, spread evenly over one second, or all at the same moment ("burst"); N doubles while 95 % of
them, models and views together, are served within a second of wanting it and nobody is refused; what lies between is
searched until it is known to an eighth. The UEs have the capability of one of a few classes of devices; views are of
POPULAR places (the service caches those) or of places nobody stood at before. The driver and the service share the
machine's processors and its loopback; the driver is one process with a connection for each UE.
"""

import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.serving import RunningService, serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ues.crowd_of_ues import Arrivals, CrowdReport, Serve, Visit, crowd_of_ues, visits
from crowdnerf_lab.network.ues.lean_ue import LeanUE

EVENT = "concert"
ARTEFACTS = Path(__file__).resolve().parents[2] / "runs" / "bench_artefacts"
NAMES = (
    "concert.plane_features.XS-cell4.onnx_int8_qdq.200x150.progressive-38dB",
    "concert.ray_mlp.S.onnx_int8_qdq.320x240.progressive-38dB",
    "concert.ray_mlp.S.onnx_int8_weights.320x240.progressive-38dB",
    "concert.baked_field.1MB.baked.320x240.progressive",
)
"""A watch's model, two of phones', and the field from which the service renders views."""
CROWDS: tuple[tuple[str, Arrivals, bool], ...] = (
    ("ues_within_1s", "even", False),
    ("ues_within_1s_burst", "burst", False),
    ("ues_within_1s_fresh_views", "even", True),
)
"""Figures: how the UEs arrive, and whether their views are of places nobody stood at before."""
WITHIN_S, SHARE = 1.0, 0.95
POPULAR = 32
"""Places whose views most UEs ask for."""
VIEW = (256, 192)
MOST = 4096
WORKERS = 1
"""API processes of the service: with the render process and the driver that is more than two processors have."""
WARM_VIEWS_S = 60.0


def measure(*, quick: bool) -> dict[str, Any]:
    """ues_within_1s (evenly over a second), and the same for a burst and for views that no cache holds; a row for each
    crowd that came."""
    _allow_connections()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="crowd.") as folder, serving(Path(folder), workers=WORKERS) as service:
        figures = asyncio.run(_measured(service, rows, quick=quick))
    shared = f"{WORKERS} API and 1 render process of the service, 1 driver, on {os.cpu_count()} processors, loopback"
    return figures | {"crowd_conditions": shared, "crowds": rows}


async def _measured(service: RunningService, rows: list[dict[str, Any]], *, quick: bool) -> dict[str, Any]:
    async with a_crowd(service, most=256 if quick else MOST) as crowd:
        figures = {}
        for key, arrivals, fresh in CROWDS:
            come = partial(crowd.come, arrivals=arrivals, fresh=fresh)
            figures[key] = await _largest(come, rows, start=16 if quick else 64, most=256 if quick else MOST)
        return figures


async def _largest(
    come: Callable[[int], Awaitable[tuple[CrowdReport, dict[str, Any]]]],
    rows: list[dict[str, Any]],
    *,
    start: int,
    most: int,
) -> int:
    """The largest crowd that is served in time, to an eighth: doubled until one is not, then halved between the two."""
    served, missed, count = 0, most + 1, start
    while missed - served > max(served // 8, 1):
        if await _in_time(come, rows, count):
            served = count
        else:
            missed = count
        count = min(2 * served, most) if missed > most else (served + missed) // 2
    return served


async def _in_time(
    come: Callable[[int], Awaitable[tuple[CrowdReport, dict[str, Any]]]], rows: list[dict[str, Any]], count: int
) -> bool:
    """Whether so many are served in time, at the second attempt at last: a machine does other things, too."""
    for _attempt in range(2):
        report, row = await come(count)
        rows.append(row)
        await asyncio.sleep(0.5)
        if report.quantile_s(SHARE) <= WITHIN_S and not report.refused:
            return True
    return False


@asynccontextmanager
async def a_crowd(service: RunningService, *, most: int) -> AsyncIterator["Crowd"]:
    """UEs that have joined, come as they are needed, and leave together."""
    crowd = Crowd(service, most=most)
    await crowd.warm_up()
    try:
        yield crowd
    finally:
        crowd.leave()


class Crowd:
    """UEs of one service, with what they ask for."""

    def __init__(self, service: RunningService, *, most: int) -> None:
        self._service, self._most = service, most
        self._ues: list[LeanUE] = []
        self._luck = np.random.default_rng(7)
        self._questions = [json.dumps(question).encode() for question in QUESTIONS]
        catalogue = Catalogue(service.home / "catalogue")
        (field,) = [each for each in catalogue.artefacts(EVENT) if each.card.kind == "baked_field"]
        self._pose = np.array(field.card.probes[0].camera_to_world)
        scale = np.array(VIEW) / (field.card.width, field.card.height)
        self._focal = (np.array(field.card.probes[0].focal) * scale).tolist()
        self._centre = (np.array(field.card.probes[0].centre) * scale).tolist()

    async def warm_up(self) -> None:
        """Ask each question, and for each popular view, until the service has answered it."""
        await self._gather(1)
        (ue,) = self._ues
        for question in self._questions:
            await ue.fetch_model(question)
        until = time.monotonic() + WARM_VIEWS_S
        for place in range(POPULAR):
            while True:
                try:
                    await ue.fetch_view(self._view(place))
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    await asyncio.sleep(0.1)

    async def come(self, count: int, *, arrivals: Arrivals, fresh: bool) -> tuple[CrowdReport, dict[str, Any]]:
        """Let so many come; what they met, and that as a row."""
        await self._gather(count)
        coming = visits(count, arrivals=arrivals, seed=count)
        what = [self._served(ue, visit, fresh) for ue, visit in zip(self._ues, coming, strict=False)]
        before = os.times()
        report = await crowd_of_ues(coming, what)
        after = os.times()
        return report, {
            "UEs": count,
            "arrivals": "all at once" if arrivals == "burst" else "over 1 s",
            "views": "of new places" if fresh else f"of {POPULAR} places",
            "p50 ms": _ms(report.quantile_s(0.5)),
            "p95 ms": _ms(report.quantile_s(0.95)),
            "models p95 ms": _ms(report.quantile_s(0.95, kind="model")),
            "views p95 ms": _ms(report.quantile_s(0.95, kind="view")),
            "refused": report.refused,
            "MB": round(report.bytes / 1e6, 1),
            "driver CPU s": round(after.user + after.system - before.user - before.system, 2),
            "why": report.errors[0][:60] if report.errors else "",
        }

    def leave(self) -> None:
        """Close all connections."""
        for ue in self._ues:
            ue.close()

    async def _gather(self, count: int) -> None:
        """Have at least so many UEs joined and connected."""
        async with httpx.AsyncClient(base_url=self._service.url, trust_env=False) as client:
            while len(self._ues) < count:
                some = [self._join(client) for _ in range(min(16, count - len(self._ues)))]
                self._ues += await asyncio.gather(*some)
        for ue in self._ues[:count]:
            await ue.ready()

    async def _join(self, client: httpx.AsyncClient) -> LeanUE:
        document = {"device": "benchmark", "consent": {"train": False, "publish": False}}
        answer = await client.post(f"/events/{EVENT}/ues", json=document)
        return LeanUE(self._service.url, event=EVENT, token=answer.raise_for_status().json()["token"])

    def _served(self, ue: LeanUE, visit: Visit, fresh: bool) -> Serve:
        if visit.kind == "model":
            question = self._questions[int(self._luck.integers(len(self._questions)))]
            return partial(ue.fetch_model, question)
        place = self._luck.uniform(0, POPULAR) if fresh else int(self._luck.integers(POPULAR))
        return partial(ue.fetch_view, self._view(place))

    def _view(self, place: float) -> bytes:
        """The view from a place along a row of seats."""
        pose = self._pose.copy()
        pose[:, 3] += (place - POPULAR / 2) * 0.1 * pose[:, 0]
        document = {
            "camera_to_world": pose.tolist(),
            "focal": self._focal,
            "centre": self._centre,
            "width": VIEW[0],
            "height": VIEW[1],
        }
        return json.dumps(document).encode()


def _question(**target: float) -> dict[str, Any]:
    capability = {"runtimes": ["onnxruntime"], "precisions": ["float32", "int8"], "rtt_ms": 50}
    return {"capability": capability | {"memory_mb": 500, "link_mbit_s": 20}, "target": target}


QUESTIONS: Sequence[dict[str, Any]] = (
    _question(max_bytes=60_000),
    _question(max_bytes=300_000, max_ms=8.0),
    _question(max_bytes=300_000, max_ms=30.0),
)
"""Of a watch and of two phones: for the smallest model, for the fastest one, for the best."""


def serving(home: Path, *, workers: int) -> RunningService:
    """The real service with the benchmark's models, in processes of its own."""
    artefacts = [open_artefact(ARTEFACTS / name) for name in NAMES]
    Catalogue(home / "catalogue").publish(artefacts, event=EVENT)
    settings = ServiceSettings(home, events=(EVENT,), train=False, view_processes=1, joins_per_minute=1_000_000)
    return serve(home, settings=settings, workers=workers)


def _allow_connections() -> None:
    """A connection for each UE, on both sides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * MOST)), hard))


def _ms(seconds: float) -> float:
    return round(1e3 * min(seconds, 99.0), 1)


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.network", ("crowd",), about=__doc__ or "")
