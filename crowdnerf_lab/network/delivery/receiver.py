"""The receiver: joins a carousel at any moment, collects until the object is whole, repairs over unicast, writes it.

Whatever arrives, a receiver keeps no more than the object and a few symbols, and writes nothing that is not the object.
"""

import asyncio
import contextlib
import logging
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from crowdnerf_lab.files import inside, write_bytes
from crowdnerf_lab.network.delivery.objects import BroadcastSession, DeliveryError
from crowdnerf_lab.network.delivery.reception import Reception, reception_of
from crowdnerf_lab.network.delivery.spans import SpanError, fetch_spans, joined

log = logging.getLogger(__name__)

BUFFER_BYTES = 4 << 20
"""Asked of the system for packets that wait while the process is busy."""
REPAIR_ROUNDS, MOST_REQUEST_BYTES = 6, 1 << 20


@dataclass(frozen=True)
class Received:
    """An object that is here, verified.

    symbols_received: packets of it that came until it was whole, resumed ones included; K: its source symbols.
    repaired_bytes: fetched over unicast. seconds: from joining on. poisonings: how often forged symbols had to be
    thrown away. path: where it was written.
    """

    path: Path
    symbols_received: int
    K: int
    repaired_bytes: int
    seconds: float
    poisonings: int = 0


async def receive(
    session: BroadcastSession,
    *,
    folder: Path,
    repair: str | None = None,
    headers: Mapping[str, str] | None = None,
    client: httpx.AsyncClient | None = None,
    loss_injection: Iterator[bool] | None = None,
    listener: socket.socket | None = None,
    interface: str = "127.0.0.1",
    quiet_s: float = 1.0,
    listen_s: float = 60.0,
    back_off_s: float = 0.0,
) -> Received:
    """Receive one object from its carousel into `folder`, under its name.

    repair: URL of the service (session.href is looked up there), or of the object where the session has no href; asked
    with `headers` (a token) once the carousel has been silent for quiet_s, has run for listen_s without making the
    object whole, or sends forged symbols. A crowd spreads its repairs over back_off_s (3GPP TS 26.346, 9.3). listener:
    a socket of `listening_socket` that was opened before. interface: address of the network interface to join at.
    loss_injection: whether each packet is lost. What was gathered before an interruption is used again.

    Raises DeliveryError when the object does not become whole.
    """
    path = inside(Path(folder), session.name)
    gathered = path.with_name(f".{path.name}.{session.sha256[:16]}.symbols")
    reception = reception_of(session)
    began = time.monotonic()
    sock = listener or listening_socket(session, interface=interface)
    repaired = 0
    try:
        if gathered.is_file() and gathered.stat().st_size <= 2 * session.bytes + (1 << 20):
            reception.unpack(gathered.read_bytes())
        await _listen(reception, session, sock, loss_injection, quiet_s, listen_s, may_repair=repair is not None)
        if reception.content is None:
            if repair is None:
                raise DeliveryError(f"{session.name} is not whole: {_progress(reception, session)}; give a repair URL")
            await asyncio.sleep(random.uniform(0.0, back_off_s))
            repaired = await _repair(reception, session, repair, headers=headers, client=client)
        content = reception.content
        if content is None:
            raise DeliveryError(f"{session.name} is not what was described, nor is what {repair} has; ask again later")
        await asyncio.to_thread(write_bytes, path, content)
        gathered.unlink(missing_ok=True)
    except BaseException:
        if reception.content is None:
            with contextlib.suppress(OSError):
                write_bytes(gathered, reception.packed())
        raise
    finally:
        sock.close()
        reception.close()
    seconds = time.monotonic() - began
    return Received(
        path, reception.symbols_received, session.source_symbols, repaired, seconds, poisonings=reception.poisonings
    )


def listening_socket(
    session: BroadcastSession, *, interface: str = "127.0.0.1", address: tuple[str, int] | None = None
) -> socket.socket:
    """A socket that hears the session: a member of its multicast group, or bound to `address` (port 0: any).

    Raises DeliveryError where the machine has no multicast at this interface or the address is taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        if session.group is not None and address is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(session.group) if sys.platform == "linux" else "", session.port))
            member = struct.pack("4s4s", session.group.packed, socket.inet_aton(interface))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        else:
            sock.bind(address or ("", session.port))
    except OSError as error:
        sock.close()
        where = session.group if address is None else address[0]
        raise DeliveryError(
            f"cannot listen at {where} by {interface} ({error.strerror or error}); "
            "give another interface, or ask for unicast"
        ) from error
    return sock


class _Ear(asyncio.DatagramProtocol):
    """Hands packets to a reception. heard: when the carousel was last heard."""

    def __init__(self, reception: Reception, source: str | None, losses: Iterator[bool] | None) -> None:
        self._reception, self._source, self._losses = reception, source, losses
        self.heard: float | None = None
        self.done = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self.done.is_set() or (self._source is not None and addr[0] != self._source):
            return
        if self._losses is not None and next(self._losses):
            return
        if self._reception.push(data):
            self.heard = time.monotonic()
        if self._reception.content is not None or self._reception.poisonings:
            self.done.set()


async def _listen(
    reception: Reception,
    session: BroadcastSession,
    sock: socket.socket,
    losses: Iterator[bool] | None,
    quiet_s: float,
    listen_s: float,
    *,
    may_repair: bool,
) -> None:
    """Until the object is whole, or something says that it will not become so here."""
    source = str(session.source) if session.source is not None else None
    ear = _Ear(reception, source, losses)
    if reception.content is not None:
        return
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: ear, sock=sock)
    began = time.monotonic()
    try:
        while reception.content is None:
            left = began + listen_s - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ear.done.wait(), min(left, max(quiet_s / 4, 0.01)))
            if reception.content is None and ear.done.is_set():
                if may_repair:
                    return
                log.warning("%s: forged symbols; what is left is collected again", session.name)
                ear.done.clear()
            over = time.time() > session.expires
            if may_repair and (time.monotonic() - (ear.heard or began) > quiet_s or over):
                return
    finally:
        transport.close()


async def _repair(
    reception: Reception,
    session: BroadcastSession,
    repair: str,
    *,
    headers: Mapping[str, str] | None,
    client: httpx.AsyncClient | None,
) -> int:
    """Fetch what is missing until the object is whole; bytes fetched."""
    url = str(httpx.URL(repair).join(session.href)) if session.href else repair
    fetched = 0
    async with contextlib.AsyncExitStack() as stack:
        asking = client or await stack.enter_async_context(httpx.AsyncClient(timeout=10.0, follow_redirects=False))
        for _ in range(REPAIR_ROUNDS):
            spans = joined(reception.spans_to_repair(), most_bytes=MOST_REQUEST_BYTES)
            if reception.content is not None or not spans:
                break
            try:
                contents = await fetch_spans(asking, url, spans, headers=headers)
            except SpanError as error:
                raise DeliveryError(
                    f"{session.name} is not whole ({_progress(reception, session)}), and repair failed: {error}"
                ) from error
            for span, content in zip(spans, contents, strict=True):
                fetched += len(content)
                reception.repair(span, content)
    return fetched


def _progress(reception: Reception, session: BroadcastSession) -> str:
    return f"{reception.symbols_received} symbols came, {session.source_symbols} or a few more are needed"
