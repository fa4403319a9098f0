"""What the tests of delivery share: content, a free multicast port, and a crowd of receivers in one process."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crowdnerf_lab.network.delivery.carousel import Sent, broadcast
from crowdnerf_lab.network.delivery.objects import BroadcastSession, describe
from crowdnerf_lab.network.delivery.receiver import Received, receive

GROUP = "239.255.77.1"


def content_of(size: int, *, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def session_of(content: bytes, **others: Any) -> BroadcastSession:
    """A session on this machine's multicast group, fast enough for tests."""
    given: dict[str, Any] = {
        "name": "model.bin",
        "event": "concert",
        "version": 3,
        "port": free_port(),
        "rate_mbit_s": 200.0,
        "rounds": 1.4,
        "symbol_bytes": 1280,
    }
    if "addresses" not in others:
        given["group"] = GROUP
    return describe(content, **(given | others))


def to_a_crowd(
    session: BroadcastSession,
    content: bytes,
    *,
    folder: Path,
    receivers: int,
    losses: Callable[[int], Iterator[bool] | None] = lambda _receiver: None,
    between: Callable[[], Awaitable[None]] | None = None,
    **others: Any,
) -> tuple[Sent, list[Received]]:
    """Broadcast to so many receivers, all joined before the first packet, and wait for all of them."""

    async def both() -> tuple[Sent, list[Received]]:
        tasks = [
            asyncio.create_task(receive(session, folder=folder / str(n), loss_injection=losses(n), **others))
            for n in range(receivers)
        ]
        await asyncio.sleep(0.05)
        if between is not None:
            await between()
        sent = await broadcast(session, content)
        return sent, list(await asyncio.gather(*tasks))

    return asyncio.run(both())
