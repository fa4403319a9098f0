"""A UE reduced to what it costs the network, so that a thousand of them cost the machine that plays them little.

One connection each, kept open; HTTP/1.1 as far as this service speaks it (RFC 9112: Content-Length, no chunks). What it
fetches it verifies, as every UE does; it does not load it.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from crowdnerf_lab.network.ues.answers import NetworkError, UntrustedAnswerError

MOST_BYTES = 64 << 20
"""Of one answer."""


class LeanUE:
    """A UE that has joined an event and has this token."""

    def __init__(self, url: str, *, event: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        self._event = event
        self._connection: _Connection | None = None

    async def connect(self) -> None:
        """Open the connection; a UE that has been at the event for a while has one."""
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(_Connection, self._host, self._port)

    async def ready(self) -> None:
        """Open the connection again if it was closed while nothing was asked."""
        if self._connection is None or self._connection.lost:
            await self.connect()

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()

    async def fetch_model(self, question: bytes) -> int:
        """Select with this JSON, download what is offered, verify it. Returns the bytes of both answers."""
        said = await self._ask("POST", f"/events/{self._event}/models:select", question)
        try:
            offer = json.loads(said)["artefacts"][0]
            file = next(file for file in offer["files"] if file["path"] == offer["card"]["model"])
        except (ValueError, LookupError, TypeError, StopIteration) as error:
            raise UntrustedAnswerError(f"models:select: no model is offered ({error})") from error
        content = await self._ask("GET", file["href"])
        if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise UntrustedAnswerError(f"{offer['name']} is not what was announced")
        return len(said) + len(content)

    async def fetch_view(self, request: bytes) -> int:
        """Ask for the view that this JSON says. Returns its bytes."""
        return len(await self._ask("POST", f"/events/{self._event}/views", request))

    async def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        await self.ready()
        assert self._connection is not None
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        status, answer = await self._connection.ask(
            f"{method} {path} HTTP/1.1\r\n{self._head}{content}\r\n".encode() + body
        )
        if status not in (200, 206):
            raise NetworkError(f"{method} {path.rpartition('/')[2]}: status {status}")
        return answer


class _Connection(asyncio.Protocol):
    """One request after another, each with its answer of announced length."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._pieces: list[bytes] = []
        self._missing = -1
        self._status = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail("the service closed the connection")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; its status and its body will come."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._pieces, self._missing = [], -1
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            head, found, data = (b"".join(self._pieces) + data).partition(b"\r\n\r\n")
            if not found:
                self._pieces = [head]
                if len(head) > 1 << 16:
                    self._fail("an answer with endless headers")
                return
            self._pieces = []
            try:
                self._status, self._missing = _status_and_length(head)
            except (ValueError, IndexError):
                self._fail("an answer that is no HTTP")
                return
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing <= 0 and self._answer is not None and not self._answer.done():
            self._answer.set_result((self._status, b"".join(self._pieces)))

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NetworkError(why))
        self.close()


def _status_and_length(head: bytes) -> tuple[int, int]:
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: Mapping[str, str] = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MOST_BYTES:
        raise ValueError(f"{length} bytes")
    return int(status.split()[1]), length
