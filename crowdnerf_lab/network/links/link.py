"""A link for real clients: a TCP proxy before the service that lets bytes arrive as late as a `LinkProfile` has it.

Any client goes through it (HTTP, WebSockets, tus), for it looks at no byte. The proxy stands for one UE's link: all its
connections share the rate of each direction. A new connection pays one round trip before its first byte, as TCP's
handshake does; TLS would pay another, and the service's own is behind the proxy. `transfers` has the schedule
and what it assumes of losses.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from urllib.parse import urlsplit, urlunsplit

from crowdnerf_lab.network.links.link_profiles import LINKS, Direction, LinkError, LinkProfile
from crowdnerf_lab.network.links.transfers import SEGMENT, Lane, Stream

__all__ = ["LINKS", "LinkError", "LinkProfile", "shaped_tcp"]

log = logging.getLogger(__name__)

QUEUE_S = 0.05
"""How much the link takes in ahead of its rate: its sender's queue, and what a busy machine may wake up too late."""
MERGED_S = 0.0005
"""Segments that arrive within so short a time are written at once."""
MOST_READ = 65536
"""Bytes taken from a connection at a time, at most; and of the sockets' buffers, so that a slow link is felt."""


@asynccontextmanager
async def shaped_tcp(target: str, profile: LinkProfile, *, seed: int = 0) -> AsyncIterator[str]:
    """The URL under which a service is found behind a link, as long as the context lasts.

    target: the service's own URL, http:// or https:// with a port. seed: of jitter and losses.
    """
    parts = urlsplit(target)
    if not parts.hostname or not parts.port:
        raise LinkError(f"no host and port in {target!r}; give the service's URL, as in http://127.0.0.1:8000")
    link = _Link(profile, host=parts.hostname, port=parts.port, seed=seed)
    server = await asyncio.start_server(link.connect, "127.0.0.1", 0, limit=MOST_READ)
    port = server.sockets[0].getsockname()[1]
    try:
        yield urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))
    finally:
        server.close()
        await link.close()
        await server.wait_closed()


class _Link:
    """The two lanes of a UE's link and the connections on it."""

    def __init__(self, profile: LinkProfile, *, host: str, port: int, seed: int) -> None:
        self._profile, self._host, self._port = profile, host, port
        self._lanes: dict[Direction, Lane] = {
            direction: Lane(profile.bytes_per_second(direction)) for direction in ("up", "down")
        }
        self._seeds = count(1000 * seed)
        self._connections: set[asyncio.Task[None]] = set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client until both ends are done, either breaks, or the link is closed."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        await asyncio.wait([task])
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection over the link %s broke: %s", self._profile.name, error, exc_info=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opens_at = asyncio.get_running_loop().time() + self._profile.rtt_ms / 1e3
        try:
            far_reader, far_writer = await self._reach_target()
        except OSError as error:
            log.warning("behind the link %s nothing answers at port %d (%s)", self._profile.name, self._port, error)
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as ways:
                self._carry(ways, reader, far_writer, direction="up", opens_at=opens_at)
                self._carry(ways, far_reader, writer, direction="down", opens_at=opens_at)
        except* (ConnectionError, TimeoutError):
            writer.transport.abort()  # an end went away, and takes the other along
            far_writer.transport.abort()
        finally:
            writer.close()
            far_writer.close()

    async def close(self) -> None:
        """End all connections."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _reach_target(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = addresses[0]
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MOST_READ)
        try:
            await loop.sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection, limit=MOST_READ)

    def _carry(
        self,
        ways: asyncio.TaskGroup,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        direction: Direction,
        opens_at: float,
    ) -> None:
        """Start one direction of a connection: bytes are taken in, and arrive when they may."""
        stream = Stream(self._lanes[direction], self._profile, opens_at=opens_at, seed=next(self._seeds))
        parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        ways.create_task(_take_in(reader, stream, parts))
        ways.create_task(_let_arrive(parts, writer))


async def _take_in(reader: asyncio.StreamReader, stream: Stream, parts: asyncio.Queue[tuple[float, bytes]]) -> None:
    """Give bytes their time of arrival, and take no more in than the link's queue holds; nothing at all ends them."""
    clock = asyncio.get_running_loop().time
    at_once = max(SEGMENT, min(MOST_READ, int(stream.bytes_per_second * QUEUE_S / 2)))
    at = 0.0
    while content := await reader.read(at_once):
        begins = ends = 0
        for arrival, size in stream.arrivals(clock(), len(content)):
            if ends > begins and arrival > at + MERGED_S:
                parts.put_nowait((at, content[begins:ends]))
                begins = ends
            at, ends = arrival, ends + size
        parts.put_nowait((at, content[begins:]))
        await asyncio.sleep(max(0.0, stream.busy_until - clock() - QUEUE_S))
    parts.put_nowait((at, b""))


async def _let_arrive(parts: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        at, content = await parts.get()
        await asyncio.sleep(max(0.0, at - clock()))
        if not content:
            break
        writer.write(content)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
