"""The latency account of a UE that was never here before, measured against a real service.

Put `network.links.link.shaped_tcp` between the two to measure it over a link.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.limits import Target
from crowdnerf_lab.network.links.latency_account import Account, account_of_model, account_of_view
from crowdnerf_lab.network.links.link_profiles import LinkProfile
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.ue_client import UE
from crowdnerf_lab.network.ues.answers import NetworkError
from crowdnerf_lab.network.ues.download import fetch
from crowdnerf_lab.network.ues.local_models import LocalModels
from crowdnerf_lab.network.views.view_request import ViewRequest

THIN = Capability(memory_mb=16, link_mbit_s=20, rtt_ms=50)
"""A UE that can run nothing itself."""


async def measured_view(url: str, link: LinkProfile, request: ViewRequest, *, event: str = "concert") -> Account:
    """A new UE's first view from the network, over a new connection to `url`, behind which the link lies."""
    async with _new_ue(url, THIN, event=event) as ue:
        shown = await ue.view(request.pose, request.focal, request.centre, width=request.width, height=request.height)
    return account_of_view(shown.milliseconds, link, bytes=shown.bytes, connected=False, name="network")


async def measured_model(
    url: str,
    link: LinkProfile,
    request: ViewRequest,
    *,
    capability: Capability,
    target: Target | None = None,
    first_layer: bool = False,
    event: str = "concert",
) -> Account:
    """A new UE's first picture from a model of its own, over a new connection to `url`, behind which the link lies.

    first_layer: drawn as soon as the first layer of a progressive file is here; else once all of it is. Raises
    NetworkError when the service offers this UE no model.
    """
    async with _new_ue(url, capability, event=event, target=target) as ue:
        model, times = await (_from_first_layer(ue) if first_layer else _from_whole_file(ue))
        started = time.perf_counter()
        size = {"width": request.width, "height": request.height}
        await asyncio.to_thread(model.render, request.pose, request.focal, request.centre, **size)
        times |= {"frame": 1e3 * (time.perf_counter() - started)}
        return account_of_model(times, link, bytes=ue.bytes_received, name="device")


async def _from_first_layer(ue: UE) -> tuple[LocalModel, dict[str, float]]:
    """What the first layer shows, and milliseconds by stage."""
    arriving = ue.models_as_they_arrive()
    async for model in arriving:
        await arriving.aclose()
        reached = ue.arrival
        here, loaded = ("first layer", "first model") if "first model" in reached else ("whole", "model")
        here_ms = min(reached.get(here, reached[loaded]), reached[loaded])
        return model, {
            "select": reached["select"],
            "file": here_ms - reached["select"],
            "load": reached[loaded] - here_ms,
        }
    raise NetworkError(f"no model for this UE: {ue.reason}")


async def _from_whole_file(ue: UE) -> tuple[LocalModel, dict[str, float]]:
    """The whole model, and milliseconds by stage."""
    started = time.perf_counter()
    answer = await ue.select()
    if not answer.artefacts or answer.version is None:
        raise NetworkError(f"no model for this UE: {answer.reason}")
    selected, offer = time.perf_counter(), answer.artefacts[0]
    with tempfile.TemporaryDirectory(prefix="models.") as folder:
        local, file = LocalModels(Path(folder)), offer.model
        expected = local.expect(offer, version=answer.version)
        path = await fetch(ue.connection, file.href, size=file.bytes, sha256=file.sha256, store=local.store)
        arrived = time.perf_counter()
        model = await local.load(local.keep(expected, path), memory=ue.capability.memory_mb)
        loaded = time.perf_counter()
    return model, {
        "select": 1e3 * (selected - started),
        "file": 1e3 * (arrived - selected),
        "load": 1e3 * (loaded - arrived),
    }


@asynccontextmanager
async def _new_ue(url: str, capability: Capability, *, event: str, target: Target | None = None) -> AsyncIterator[UE]:
    """A UE that has joined, and has no connection: that of its joining is closed."""
    with tempfile.TemporaryDirectory(prefix="ue.") as home:
        async with UE(url, event=event, capability=capability, home=Path(home), keep_fresh=False) as joining:
            await joining.join()
        async with UE(url, event=event, capability=capability, home=Path(home), target=target, keep_fresh=False) as ue:
            yield ue
