"""How fast the network shows views: one client after its answer, then more and more requests whether answered or not.

A real service, its render processes and the client share the machine's processors and its loopback. The field is the
best one of the standard run; views are 256 x 192, WebP at quality 80, of places nobody stood at before (uncached) or of
POPULAR ones. Rising load is an open loop: requests leave at a rate, evenly, with the service's usual deadline of a
second; frames/s are those that arrived. What is refused was answered 429 with Retry-After.
"""

import asyncio
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.serving import RunningService, serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.views.served_fields import best_field

EVENT = "concert"
RUNS = Path(__file__).resolve().parents[2] / "runs"
WIDTH, HEIGHT = 256, 192
POPULAR = 32
SETUPS = ((2, "two processes of a thread"), (1, "one process of two threads"))
"""Render processes; the first is the service's default, and the one that the figures are of."""
RATES = (5, 10, 20, 40, 80, 160, 320)
"""Requests a second."""
APART_M, TURN = 1.5, 0.3
"""How far, in metres and radians, uncached views are from the field's probe views."""


@dataclass(frozen=True)
class Asked:
    """One request: from when it should have left to its last byte."""

    status: int
    ms: float
    degraded: bool
    stages: str = ""


def measure(*, quick: bool) -> dict[str, Any]:
    """view_p95_ms (one client, uncached), its median and stages; rows for each rate and setup."""
    figures: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for processes, setup in SETUPS[:1] if quick else SETUPS:
        with tempfile.TemporaryDirectory(prefix="views.") as folder, serving(Path(folder), processes) as service:
            lone = asyncio.run(_one_client(service, views=30 if quick else 150))
            popular = asyncio.run(_one_client(service, views=30 if quick else 150, popular=True))
            rates = RATES[1:3] if quick else RATES if not rows else RATES[2:5]
            for popular_places, rate in itertools.product((False, True), rates):
                row = asyncio.run(_at_rate(service, rate, seconds=2.0 if quick else 5.0, popular=popular_places))
                rows.append({"setup": setup} | row)
        if not figures:
            figures = _lone_figures(lone, popular)
        else:
            figures["view_p95_ms_one_process"] = _percentile(lone, 95)
    figures["view_conditions"] = f"service, client and render processes on {os.cpu_count()} processors, loopback"
    return figures | {"views_at_load": rows}


def the_field() -> Artefact:
    """The field of the standard run that a service would render from."""
    folders = [path.parent for path in RUNS.glob("bench_artefacts/*baked_field*/card.json")]
    folders += [path.parent for path in RUNS.glob("standard/artefacts/*baked_field*/card.json")]
    found = best_field(open_artefact(folder) for folder in folders)
    if not found:
        raise FileNotFoundError(f"{RUNS} holds no baked field; run the standard series first")
    return found[0]


@contextmanager
def serving(folder: Path, processes: int) -> Iterator[RunningService]:
    """A service with the field published, once its render processes hold it."""
    home = folder / "home"
    Catalogue(home / "catalogue").publish([the_field()], event=EVENT)
    chosen = ServiceSettings(
        home=home, train=False, view_processes=processes, requests_per_second=1e5, burst=10**6, events=(EVENT,)
    )
    with serve(home, settings=chosen) as service:
        until = time.monotonic() + 60
        while httpx.get(f"{service.url}/health", trust_env=False).json().get("views") != "ready":
            if time.monotonic() > until:
                raise TimeoutError(f"the render processes are not ready after a minute; see {service.log}")
            time.sleep(0.1)
        time.sleep(3.0)  # the second process still loads
        yield service


def poses(*, popular: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Requests from around the probe views; popular ones come again and again."""
    card = the_field().card
    rng = np.random.default_rng(1 if popular else seed)
    made = []
    while True:
        if popular and len(made) == POPULAR:
            yield made[rng.integers(POPULAR)]
            continue
        probe = card.probes[rng.integers(len(card.probes))]
        pose = np.array(probe.camera_to_world)
        angle = rng.uniform(-TURN, TURN)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pose[:, :3] = pose[:, :3] @ turn
        pose[:2, 3] += rng.uniform(-APART_M, APART_M, 2)
        scale = WIDTH / card.width
        document = {
            "camera_to_world": pose.tolist(),
            "focal": [scale * focal for focal in probe.focal],
            "centre": [WIDTH / 2, HEIGHT / 2],
            "width": WIDTH,
            "height": HEIGHT,
        }
        made.append(document)
        yield document


async def _one_client(service: RunningService, *, views: int, popular: bool = False) -> list[Asked]:
    """One view after another; the first ten warm up what is warm while an event runs."""
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
        headers = await _joined(client)
        warm = 2 * POPULAR if popular else 10
        some = itertools.islice(poses(popular=popular, seed=2), warm + views)
        return [await _asked(client, headers, document) for document in some][warm:]


async def _at_rate(service: RunningService, rate: int, *, seconds: float, popular: bool) -> dict[str, Any]:
    """Requests that leave `rate` times a second, whatever comes of those before."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False, limits=limits) as client:
        headers = await _joined(client)
        requests = list(itertools.islice(poses(popular=popular, seed=100 + rate), int(rate * seconds)))
        started = time.perf_counter()

        async def one(number: int, document: dict[str, Any]) -> Asked:
            due = started + number / rate
            await asyncio.sleep(due - time.perf_counter())
            return await _asked(client, headers, document, due=due)

        answers = await asyncio.gather(*(one(number, document) for number, document in enumerate(requests)))
        lasted = time.perf_counter() - started
    shown = [answer for answer in answers if answer.status == 200]
    return {
        "views": "popular" if popular else "uncached",
        "asked/s": rate,
        "frames/s": round(len(shown) / lasted, 1),
        "p50 ms": _percentile(shown, 50),
        "p95 ms": _percentile(shown, 95),
        "p99 ms": _percentile(shown, 99),
        "degraded": round(sum(answer.degraded for answer in shown) / len(answers), 3),
        "refused": round(sum(answer.status == 429 for answer in answers) / len(answers), 3),
        "failed": sum(answer.status not in (200, 429) for answer in answers),
    }


async def _joined(client: httpx.AsyncClient) -> dict[str, str]:
    answer = await client.post(
        f"/events/{EVENT}/ues", json={"device": "a benchmark", "consent": {"train": False, "publish": False}}
    )
    return {"Authorization": f"Bearer {answer.raise_for_status().json()['token']}"}


async def _asked(
    client: httpx.AsyncClient, headers: dict[str, str], document: dict[str, Any], *, due: float | None = None
) -> Asked:
    started = time.perf_counter() if due is None else due
    answer = await client.post(f"/events/{EVENT}/views", json=document, headers=headers)
    ms = 1e3 * (time.perf_counter() - started)
    degraded = answer.status_code == 200 and int(answer.headers["x-view-width"]) < WIDTH
    return Asked(answer.status_code, ms, degraded, answer.headers.get("server-timing", ""))


def _lone_figures(lone: Sequence[Asked], popular: Sequence[Asked]) -> dict[str, Any]:
    stages = [dict(part.strip().split(";dur=") for part in asked.stages.split(",")) for asked in lone]
    return {
        "view_p95_ms": _percentile(lone, 95),
        "view_p50_ms": _percentile(lone, 50),
        "view_stages_p50_ms": {
            name: round(float(np.median([float(each[name]) for each in stages])), 2) for name in stages[0]
        },
        "view_cached_p95_ms": _percentile(popular, 95),
    }


def _percentile(answers: Sequence[Asked], percent: float) -> float | None:
    return round(float(np.percentile([answer.ms for answer in answers], percent)), 1) if answers else None


if __name__ == "__main__":
    print(json.dumps(measure(quick=False), indent=2))
