"""A UE as a server: it gives the pieces that it has verified to other UEs over HTTP, as many at a time as it will.

    GET /objects/SHA256     Range of bytes within the pieces that are here; the whole object when all of it is

Who knows an object's SHA-256 has it from the service, and may have the object; nobody else learns what is here.
"""

import asyncio
import logging
from types import TracebackType

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.delivery.carousel import TokenBucket
from crowdnerf_lab.network.delivery.http_server import serving
from crowdnerf_lab.network.delivery.objects import DeliveryError
from crowdnerf_lab.network.delivery.pieces import SharedObject, VerifiedPieces
from crowdnerf_lab.network.delivery.spans import allowed_s
from crowdnerf_lab.network.models.negotiation import ranges_of

log = logging.getLogger(__name__)

SENT_AT_A_TIME = 16 * 1024
"""Bytes between two looks at the upload limit."""


class Holdings:
    """Objects of which a UE has verified pieces, by SHA-256."""

    def __init__(self) -> None:
        self._objects: dict[str, VerifiedPieces] = {}

    def of(self, described: SharedObject) -> VerifiedPieces:
        """The pieces of this object, empty at first."""
        return self._objects.setdefault(described.sha256, VerifiedPieces(described))

    def add(self, described: SharedObject, content: bytes) -> VerifiedPieces:
        """Hold a whole object. Raises DeliveryError when the bytes are not those described."""
        pieces = self.of(described)
        pieces.take_span((0, len(content)), content)
        if pieces.whole() is None:
            raise DeliveryError(f"{described.name}: these bytes are not the object that was described; fetch it again")
        return pieces

    def find(self, sha256: str) -> VerifiedPieces | None:
        """The pieces of an object that is held."""
        return self._objects.get(sha256)

    def forget(self, sha256: str) -> None:
        """Hold an object no longer."""
        self._objects.pop(sha256, None)


class PeerServer:
    """Serves a UE's holdings on `host`; `async with` opens and closes it.

    uploads_at_once: more are asked to come back (503 with Retry-After). upload_mbit_s: of all uploads together; None
    is as fast as the link. port: 0 takes a free one.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        uploads_at_once: int = 4,
        upload_mbit_s: float | None = None,
    ) -> None:
        self.holdings, self.host, self.port = holdings, host, port
        self.bytes_given = 0
        self._uploads, self._uploads_at_once = 0, uploads_at_once
        self._bucket = None if upload_mbit_s is None else TokenBucket(upload_mbit_s * 1e6 / 8)

    @property
    def url(self) -> str:
        """Where other UEs find it."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> "PeerServer":
        self._serving = serving(self._answer, host=self.host, port=self.port)
        self.port = await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._serving.__aexit__(kind, error, trace)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._given(Request(scope), scope, receive, send)
        except Problem as problem:
            await problem.response()(scope, receive, send)

    async def _given(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        root, _, sha256 = request.url.path.removeprefix("/").partition("/")
        if request.method != "GET":
            raise Problem(405, "Method Not Allowed", "a peer gives pieces by GET", headers={"Allow": "GET"})
        held = self.holdings.find(sha256) if root == "objects" else None
        if held is None:
            raise Problem(404, "Not Found", "this peer does not hold that object; ask another one")
        size = held.described.bytes
        ranges = ranges_of(request.headers.get("range"), size)
        whole = ranges is None or len(ranges) != 1
        first, last = (0, size - 1) if ranges is None or whole else ranges[0]
        content = held.read((first, last + 1))
        if content is None:
            raise Problem(404, "Not Found", f"this peer does not hold bytes {first} to {last} yet; ask another one")
        if self._uploads >= self._uploads_at_once:
            headers = {"Retry-After": "1"}
            raise Problem(503, "Service Unavailable", "this peer gives to others just now", headers=headers)
        headers = {"ETag": f'"{sha256}"', "Content-Length": str(len(content)), "Accept-Ranges": "bytes"}
        if not whole:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        start = Response(status_code=200 if whole else 206, headers=headers, media_type="application/octet-stream")
        self._uploads += 1
        try:
            async with asyncio.timeout(allowed_s(len(content))):
                await self._upload(start, content, send)
        except TimeoutError:
            log.info("an upload was given up; who took it was too slow")
        finally:
            self._uploads -= 1

    async def _upload(self, start: Response, content: bytes, send: Send) -> None:
        await send({"type": "http.response.start", "status": start.status_code, "headers": start.raw_headers})
        for first in range(0, len(content), SENT_AT_A_TIME):
            part = content[first : first + SENT_AT_A_TIME]
            if self._bucket is not None:
                await self._bucket.take(len(part))
            more = first + SENT_AT_A_TIME < len(content)
            await send({"type": "http.response.body", "body": part, "more_body": more})
            self.bytes_given += len(part)
