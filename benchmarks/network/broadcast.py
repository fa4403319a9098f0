"""One model to thirty receivers on this machine's sockets: RaptorQ, FLUTE, unicast and peers, under losses.

Every receiver is its own multicast socket, which loses packets after its own luck. Two experiments for each code and
loss: a carousel that goes on until the last receiver is complete (how many symbols must be sent), and one that sends
1.15 K symbols and leaves the rest to repair over HTTP (how many bytes that costs). What ten thousand receivers need is
the part `simulation`, which is checked against these sockets.
"""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from crowdnerf_lab.network.delivery.carousel import broadcast
from crowdnerf_lab.network.delivery.losses import GilbertElliott, bursts, fates, independent
from crowdnerf_lab.network.delivery.objects import BroadcastSession, Code, describe
from crowdnerf_lab.network.delivery.peer_server import Holdings, PeerServer
from crowdnerf_lab.network.delivery.peers import Source, fetch_object
from crowdnerf_lab.network.delivery.pieces import object_of
from crowdnerf_lab.network.delivery.receiver import Received, receive

BYTES, RECEIVERS = 1_000_000, 30
LOSSES: tuple[tuple[str, GilbertElliott], ...] = (
    ("5 %", independent(0.05)),
    ("10 %", independent(0.1)),
    ("20 %", independent(0.2)),
    ("10 % in bursts of 8", bursts(0.1, 8.0)),
)
CODES: tuple[Code, ...] = ("raptorq", "flute")
GROUP = "239.255.77.2"
RATE_MBIT_S = 60.0
"""Thirty receivers in one process take it in without a loss of their own."""
ROUNDS = 1.15
PARITY = 0.4
"""Of FLUTE's blocks: enough for 20 % and their spread."""


def measure(*, quick: bool) -> dict[str, Any]:
    """sockets_complete_fraction and sockets_symbols_over_k: of RaptorQ at 10 %, after 1.15 K symbols and until all are
    complete; sockets_received_over_k: symbols that the worst receiver needed, less K; a row for each case."""
    content = np.random.default_rng(6).bytes(BYTES // 10 if quick else BYTES)
    rows = []
    for code in CODES:
        for name, loss in LOSSES:
            rows.append({"code": code, "loss": name} | asyncio.run(_case(content, code, loss)))
    asked = next(row for row in rows if (row["code"], row["loss"]) == ("raptorq", "10 %"))
    peers = asyncio.run(_peers(content))
    return {
        "sockets_complete_fraction": asked["complete_at_1.15_k"],
        "sockets_symbols_over_k": asked["symbols_over_k"],
        "sockets_received_over_k": asked["received_minus_k"],
        "broadcast_rows": rows,
        "broadcast_peers": peers,
        "broadcast_conditions": f"{len(content)} bytes to {RECEIVERS} sockets of one process at {RATE_MBIT_S:.0f} "
        f"Mbit/s by multicast on loopback, {os.cpu_count()} processors",
    }


async def _case(content: bytes, code: Code, loss: GilbertElliott) -> dict[str, Any]:
    endless, links = await _crowd(content, code, loss, rounds=None, repair=False)
    short, _ = await _crowd(content, code, loss, rounds=ROUNDS, repair=True)
    symbols, sent = endless[0].K, max(link.packets for link in links)
    repaired = [one.repaired_bytes for one in short]
    return {
        "K": symbols,
        "symbols_over_k": round(sent / symbols, 4),
        "received_minus_k": max(one.symbols_received for one in endless) - symbols,
        "seconds": round(max(one.seconds for one in endless), 3),
        "complete_at_1.15_k": round(sum(not size for size in repaired) / RECEIVERS, 4),
        "repaired_bytes_per_receiver": round(sum(repaired) / RECEIVERS),
        "unicast_bytes_over_broadcast": round(RECEIVERS * symbols / sent, 2),
    }


class Link:
    """The luck of one receiver. packets: how many the carousel had sent it when it was complete."""

    def __init__(self, loss: GilbertElliott, *, seed: int) -> None:
        self.packets = 0
        self._fates = fates(loss, seed=seed)

    def __iter__(self) -> Iterator[bool]:
        return self

    def __next__(self) -> bool:
        self.packets += 1
        return next(self._fates)


async def _crowd(
    content: bytes, code: Code, loss: GilbertElliott, *, rounds: float | None, repair: bool
) -> tuple[list[Received], list[Link]]:
    """Thirty receivers of one carousel; with rounds None it ends when the last one is complete."""
    session = describe(
        content,
        name="model.bin",
        event="benchmark",
        version=1,
        code=code,
        port=_free_port(),
        group=GROUP,
        rate_mbit_s=RATE_MBIT_S,
        rounds=rounds,
        parity_fraction=PARITY,
        object_number=1,
    )
    session = session.model_copy(update={"href": f"/objects/{session.sha256}"})
    stop, links = asyncio.Event(), [Link(loss, seed=number) for number in range(RECEIVERS)]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = await stack.enter_async_context(_origin(session, content))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0, trust_env=False))
        receivers = [
            asyncio.create_task(
                receive(
                    session,
                    folder=folder / str(number),
                    repair=origin.url if repair else None,
                    client=client,
                    loss_injection=links[number],
                    quiet_s=0.5,
                    listen_s=30.0,
                )
            )
            for number in range(RECEIVERS)
        ]
        await asyncio.sleep(0.2)
        sending = asyncio.create_task(broadcast(session, content, stop=stop))
        received = await asyncio.gather(*receivers)
        stop.set()
        await sending
        return received, links


async def _peers(content: bytes) -> dict[str, Any]:
    """Thirty UEs that start together and give each other what they have: what is left for the origin."""
    described = object_of(describe(content, name="model.bin", event="benchmark", version=1, port=1))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0, trust_env=False))
        holdings = Holdings()
        holdings.add(described, content)
        origin = await stack.enter_async_context(PeerServer(holdings, uploads_at_once=RECEIVERS))
        cloud = Source("cloud", f"{origin.url}/objects/{described.sha256}")
        servers = [await stack.enter_async_context(PeerServer(Holdings())) for _ in range(RECEIVERS)]

        async def one(server: PeerServer, seed: int) -> float:
            async def others() -> Sequence[Source]:
                return [
                    Source(
                        "peer",
                        f"{other.url}/objects/{described.sha256}",
                        frozenset(other.holdings.of(described).held),
                    )
                    for other in servers
                    if other is not server
                ]

            fetched = await fetch_object(
                described,
                sources=[cloud],
                client=client,
                pieces=server.holdings.of(described),
                prefer="near",
                seed=seed,
                discover=others,
                discover_s=0.1,
                at_once=2,
            )
            return fetched.seconds

        seconds = await asyncio.gather(*(one(server, seed) for seed, server in enumerate(servers)))
        return {
            "receivers": RECEIVERS,
            "origin_bytes_over_unicast": round(origin.bytes_given / (RECEIVERS * len(content)), 4),
            "seconds": round(max(seconds), 3),
        }


def _origin(session: BroadcastSession, content: bytes) -> PeerServer:
    holdings = Holdings()
    holdings.add(object_of(session), content)
    return PeerServer(holdings, uploads_at_once=4 * RECEIVERS)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    print(json.dumps(measure(quick=False), indent=1))
