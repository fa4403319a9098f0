"""The latency account over four links: from a request to pixels by both paths, predicted and measured.

Measured: a UE that has joined and holds nothing asks the real service through a link's proxy (`links.link`), over a
new connection each time; medians over several UEs. It fetches the student S, loads it and draws (whole, or as soon as
its first layer is here), or has the network draw a view that no cache holds. Predicted: from the link, the model's card
and what the service itself took without a link. All of it shares one machine, whose processors are the only thing that
the prediction does not know to be shared.
"""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import Probe
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.links.account_measurement import measured_model, measured_view
from crowdnerf_lab.network.links.latency_account import (
    BUDGET_S,
    STAGES,
    Account,
    InferencePath,
    device_path,
    largest_model,
    views_by_bytes,
    views_by_time,
)
from crowdnerf_lab.network.links.link import LINKS, LinkProfile, shaped_tcp
from crowdnerf_lab.network.serving import serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ues.rehearsed_crowd import until_it_renders
from crowdnerf_lab.network.views.view_request import ViewRequest

ARTEFACTS = Path(__file__).resolve().parents[2] / "runs" / "bench_artefacts"
EVENT = "concert"
STUDENT = "concert.ray_mlp.S.onnx_int8_qdq.320x240.progressive-38dB"
FIELD = "concert.baked_field.1MB.baked.320x240.progressive"
"""What the phone downloads, and what the service draws from."""
PHONE = Capability(runtimes=("onnxruntime",), precisions=("float32", "int8"), memory_mb=500, link_mbit_s=20, rtt_ms=50)
LOOPBACK = LinkProfile("loopback", "loopback", down_mbit_s=100_000, up_mbit_s=100_000, rtt_ms=0)
VIEW, MODEL_SIZE = (256, 192), (320, 240)
WARM_VIEWS_S = 60.0
BUDGETS_S = (0.5, 1.0, 2.0)


def measure(*, quick: bool) -> dict[str, Any]:
    """account_measured_over_predicted: median, and most, over links and paths, of the time to first pixels.
    account_within_1s: share of the measured accounts within the budget. A row an account; the largest model of each
    link; where the paths cross."""
    student, field = (open_artefact(ARTEFACTS / name) for name in (STUDENT, FIELD))
    with tempfile.TemporaryDirectory(prefix="account.") as folder:
        home = Path(folder)
        Catalogue(home / "catalogue").publish([student, field], event=EVENT)
        with serve(home, settings=ServiceSettings(home, events=(EVENT,), train=False, view_processes=1)) as service:
            found = asyncio.run(_accounts(service.url, student, field, ues=2 if quick else 5))
    accounts, paths = found
    measured = {_key(account): account for account in accounts if account.measured}
    predicted = {_key(account): account for account in accounts if not account.measured}
    ratios = [measured[key].total_ms / predicted[key].total_ms for key in measured]
    return {
        "account_measured_over_predicted": median(ratios),
        "account_measured_over_predicted_most": max(ratios),
        "account_within_1s": sum(one.total_ms <= 1e3 * BUDGET_S for one in measured.values()) / len(measured),
        "accounts": [_row(account) for account in accounts],
        "largest_models_kB": [_largest(link, student) for link in LINKS.values()],
        "crossings_views": [_crossings(link, paths) for link in LINKS.values()],
    }


async def _accounts(
    target: str, student: Artefact, field: Artefact, *, ues: int
) -> tuple[list[Account], dict[str, InferencePath]]:
    """All accounts, predicted and measured in turn, and the paths that they were predicted by."""
    probe, drawn = field.card.probes[0], _of(student.card.probes[0])
    await until_it_renders(target, _beside(probe, 0.0))
    views = [await measured_view(target, LOOPBACK, _beside(probe, 1 + i / 10)) for i in range(max(3, ues))]
    models = [await measured_model(target, LOOPBACK, drawn, capability=PHONE) for _ in range(1 + max(3, ues))][1:]
    network = InferencePath(
        "network",
        bytes_per_view=round(median(view.bytes for view in views)),
        queue_ms=median(view.of("queue") for view in views),
        render_ms=median(view.of("render") for view in views),
        decode_ms=median(view.of("decode") for view in views),
        name="network",
    )
    # Without a link, everything before the file has loaded is the service's and this machine's work.
    working = median(model.of("uplink") + model.of("download") for model in models)
    whole = replace(device_path(student.card, queue_ms=working), name="student S")
    layer = replace(device_path(student.card, first_layer=True, queue_ms=working), name="S, first layer")
    accounts = []
    for link in LINKS.values():
        accounts.append(network.first_pixels(link))
        async with shaped_tcp(target, link) as url:
            found = [
                await measured_view(url, link, _beside(probe, 10 + i / 10 + 3 * len(accounts))) for i in range(ues)
            ]
            accounts.append(_middle(found, name="network"))
            for path, soon in ((whole, False), (layer, True)):
                accounts.append(path.first_pixels(link))
                found = [await measured_model(url, link, drawn, capability=PHONE, first_layer=soon) for _ in range(ues)]
                accounts.append(_middle(found, name=path.name))
    return accounts, {path.name: path for path in (network, whole, layer)}


def _beside(probe: Probe, place: float) -> ViewRequest:
    """The view from so many decimetres beside a probe's camera, at the size of the network's views."""
    pose = np.array(probe.camera_to_world, np.float32)
    pose[:, 3] += place * 0.1 * pose[:, 0]
    scale = np.array(VIEW) / np.array(MODEL_SIZE)
    focal, centre = (tuple((np.array(pair) * scale).tolist()) for pair in (probe.focal, probe.centre))
    return ViewRequest(pose, focal, centre, VIEW[0], VIEW[1])


def _of(probe: Probe) -> ViewRequest:
    """A probe's own view."""
    return ViewRequest(np.array(probe.camera_to_world, np.float32), probe.focal, probe.centre, *MODEL_SIZE)


def _middle(accounts: Sequence[Account], *, name: str) -> Account:
    """The account whose total is the median."""
    ordered = sorted(accounts, key=lambda account: account.total_ms)
    return replace(ordered[len(ordered) // 2], name=name)


def _key(account: Account) -> tuple[str, str]:
    return account.link.name, account.name


def _row(account: Account) -> dict[str, Any]:
    stages = {f"{stage} ms": round(account.of(stage), 1) for stage in STAGES}
    row = {"link": account.link.title, "what": account.name, "how": "measured" if account.measured else "predicted"}
    return row | stages | {"total ms": round(account.total_ms, 1), "kB in all": round(account.bytes / 1e3, 1)}


def _largest(link: LinkProfile, student: Artefact) -> dict[str, Any]:
    """By a card whose loading takes its time for each byte; the frame is a student's."""
    path = device_path(student.card)
    by_size = 1e6 * path.load_ms / path.bytes_once
    sizes = {
        f"within {budget:g} s": largest_model(link, budget_s=budget, device_ms=path.frame_ms, load_ms_per_mb=by_size)
        for budget in BUDGETS_S
    }
    return {"link": link.title} | {name: round(size / 1e3) for name, size in sizes.items()}


def _crossings(link: LinkProfile, paths: dict[str, InferencePath]) -> dict[str, Any]:
    network, student = paths["network"], paths["student S"]
    counts = {
        "fewer bytes from": views_by_bytes(student, network),
        "less waiting from": views_by_time(student, network, link=link),
    }
    return {"link": link.title} | {
        what: round(count, 1) if count < math.inf else None for what, count in counts.items()
    }


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.network", ("account",), about=__doc__ or "")
