"""A crowd at a real service, on this machine's sockets: a rush for models and views, a broadcast, pieces from peers."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.network.delivery.losses import GilbertElliott, fates
from crowdnerf_lab.network.delivery.objects import BroadcastSession
from crowdnerf_lab.network.delivery.peer_server import Holdings, PeerServer
from crowdnerf_lab.network.delivery.peers import Fetched, Source, fetch_object
from crowdnerf_lab.network.delivery.receiver import Received, receive
from crowdnerf_lab.network.delivery.tracker import Tracker
from crowdnerf_lab.network.links.account_measurement import THIN
from crowdnerf_lab.network.serving import RunningService
from crowdnerf_lab.network.ue_client import UE, NoViewError
from crowdnerf_lab.network.ues.crowd_of_ues import CrowdReport, crowd_of_ues, visits
from crowdnerf_lab.network.ues.event_connection import http_client
from crowdnerf_lab.network.views.view_request import ViewRequest

EVENT = "concert"
CONNECTIONS = 64


async def until_it_renders(url: str, view: ViewRequest, *, patience_s: float = 60.0) -> None:
    """Wait until the network draws this view: a service that has just started loads its field first. Raises NoViewError
    when it does not in time."""
    until = time.monotonic() + patience_s
    async with _joined(url, [THIN]) as (ue,):
        while True:
            try:
                await _view(ue, view)
                return
            except NoViewError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)


async def rush(
    service: RunningService,
    *,
    ues: int,
    capabilities: Sequence[Capability],
    view: ViewRequest,
    view_share: float = 0.1,
    seconds: float = 1.0,
    seed: int = 0,
) -> CrowdReport:
    """UEs that hold nothing come within so many seconds: each asks for a model, verifies and loads it, or, a share of
    them, asks the network for a view. They take the capabilities in turn, and have joined before; the network is warm.
    """
    await until_it_renders(service.url, view)
    coming = visits(ues, seconds=seconds, view_share=view_share, seed=seed)
    async with _joined(service.url, [capabilities[i % len(capabilities)] for i in range(ues)]) as crowd:
        wishes = [
            partial(_view if visit.kind == "view" else _model, ue, view)
            for visit, ue in zip(coming, crowd, strict=True)
        ]
        return await crowd_of_ues(coming, wishes, patience_s=60.0)


async def listen(
    service: RunningService, session: BroadcastSession, *, receivers: int, loss: GilbertElliott, seed: int = 0
) -> tuple[Received, ...]:
    """Receivers of what a service broadcasts, each losing packets after its own luck, until all are complete; what
    the carousel cannot give them they fetch from the service."""
    async with _joined(service.url, [THIN]) as (ue,):
        headers = await ue.connection.authorization()
        with tempfile.TemporaryDirectory(prefix="receivers.") as folder:
            return tuple(
                await asyncio.gather(
                    *(
                        receive(
                            session,
                            folder=Path(folder) / str(number),
                            repair=service.url,
                            headers=headers,
                            loss_injection=fates(loss, seed=seed + number),
                        )
                        for number in range(receivers)
                    )
                )
            )


async def share(service: RunningService, sha256: str, *, ues: int, apart_s: float = 0.15) -> tuple[Fetched, ...]:
    """UEs that fetch the same file of a service, one beginning apart_s after the other, and serve each other every
    piece that they have verified."""
    async with _joined(service.url, [THIN] * ues) as crowd:
        return tuple(
            await asyncio.gather(
                *(_shared(service, ue, sha256, number=number, apart_s=apart_s) for number, ue in enumerate(crowd))
            )
        )


async def _model(ue: UE, _view: ViewRequest) -> int:
    before = ue.bytes_received
    await ue.model()
    return ue.bytes_received - before


async def _view(ue: UE, view: ViewRequest) -> int:
    seen = await ue.view(view.pose, view.focal, view.centre, width=view.width, height=view.height)
    return seen.bytes


async def _shared(service: RunningService, ue: UE, sha256: str, *, number: int, apart_s: float) -> Fetched:
    """One UE's fetching, during which it serves what it has."""
    await asyncio.sleep(number * apart_s)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(http_client(connections=CONNECTIONS))
        tracker = Tracker(client, service.url, EVENT, await ue.connection.authorization())
        described = await tracker.ask(sha256)
        holdings = Holdings()
        pieces = holdings.of(described.object)
        server = await stack.enter_async_context(PeerServer(holdings))

        async def others() -> Sequence[Source]:
            return tracker.sources(await tracker.announce(sha256, port=server.port, pieces=sorted(pieces.held)))

        return await fetch_object(
            described.object,
            sources=tracker.sources(described),
            client=client,
            pieces=pieces,
            prefer="near",
            seed=number,
            discover=others,
            discover_s=0.1,
            at_once=2,
        )


@asynccontextmanager
async def _joined(url: str, capabilities: Sequence[Capability]) -> AsyncIterator[list[UE]]:
    """UEs of these capabilities that have joined the event and hold nothing."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(http_client(connections=CONNECTIONS))
        crowd = [
            await stack.enter_async_context(
                UE(url, event=EVENT, capability=capability, client=client, keep_fresh=False)
            )
            for capability in capabilities
        ]
        await asyncio.gather(*(ue.join() for ue in crowd))
        yield crowd
