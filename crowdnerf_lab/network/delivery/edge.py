"""An edge: a relay near the crowd that keeps the models it was asked for, so that each leaves the cloud once.

    python -m crowdnerf_lab.network.delivery.edge https://service --folder CACHE --port 8001

It answers the service's own routes of artefact files, and nothing else. Whether a UE may have a file is for the service
to say: the UE's token goes there with a HEAD request, whose answer is believed for a short while.
"""

import argparse
import asyncio
import hashlib
import logging
import re
import tempfile
import time
from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crowdnerf_lab.files import FileError, write_copy
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.delivery.http_server import serving
from crowdnerf_lab.network.models.downloads import FileMemory, StoredFile, download

log = logging.getLogger(__name__)

RELAYED = re.compile(
    rb"/events/[A-Za-z0-9_.-]{1,128}/versions/[0-9]{1,9}/artefacts/[A-Za-z0-9_.-]{1,128}/files/[A-Za-z0-9_./-]{1,512}"
)
ETAG = re.compile(r'"([0-9a-f]{64})"')
BELIEVED_S = 30.0
"""How long the service's word that a token may have a file is believed: a revoked token lives on so long here."""
MOST_BELIEVED = 20_000
MEMORY_BYTES = 64 << 20


@dataclass(frozen=True)
class Admission:
    """What the service said of a file to one who asked. sha256, bytes, media_type: of the file."""

    sha256: str
    bytes: int
    media_type: str
    until: float


class Edge:
    """Relays files of `origin` and keeps up to most_bytes of them in `folder`; `async with` opens and closes it.

    hits, misses: files given from here and fetched. port: 0 takes a free one.
    """

    def __init__(
        self, origin: str, folder: Path, *, host: str = "127.0.0.1", port: int = 0, most_bytes: int = 4 << 30
    ) -> None:
        self.origin, self.folder, self.host, self.port = origin.rstrip("/"), Path(folder), host, port
        self.hits = self.misses = 0
        self._most_bytes = most_bytes
        self._admitted: OrderedDict[tuple[str, bytes], Admission] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._memory = FileMemory(MEMORY_BYTES)
        self._open = AsyncExitStack()

    @property
    def url(self) -> str:
        """In the service's place, for artefact files."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> "Edge":
        self.folder.mkdir(parents=True, exist_ok=True)
        client = httpx.AsyncClient(timeout=30.0, follow_redirects=False)
        self._client = await self._open.enter_async_context(client)
        self.port = await self._open.enter_async_context(serving(self._answer, host=self.host, port=self.port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        try:
            response = await self._relayed(request)
        except Problem as problem:
            response = problem.response()
        await response(scope, receive, send)

    async def _relayed(self, request: Request) -> Response:
        path: bytes = request.scope["raw_path"]
        if RELAYED.fullmatch(path) is None or b".." in path:
            raise Problem(404, "Not Found", "an edge gives the files of models only; ask the service itself")
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "Method Not Allowed", "files are for GET and HEAD", headers={"Allow": "GET, HEAD"})
        token = request.headers.get("authorization", "")
        admission = await self._admission(path.decode(), token)
        kept = self.folder / admission.sha256[:2] / admission.sha256
        if kept.is_file():
            self.hits += 1
            await asyncio.to_thread(kept.touch)
        else:
            self.misses += 1
            await self._fetched(path.decode(), token, admission, kept)
        file = StoredFile(kept, admission.bytes, admission.sha256, admission.media_type)
        try:
            return await download(request.headers, request.method, file, memory=self._memory, coded=None)
        except OSError as error:
            raise Problem(503, "Service Unavailable", "the file was just removed here; ask again") from error

    async def _admission(self, path: str, token: str) -> Admission:
        """The service's word, or what is remembered of it. Raises its Problem."""
        key = (path, hashlib.sha256(token.encode("latin-1")).digest())
        found = self._admitted.get(key)
        if found is not None and found.until > time.monotonic():
            return found
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": token} if token else {})
        try:
            answer = await self._client.head(self.origin + path, headers=headers)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        _check(answer)
        etag, length = ETAG.fullmatch(answer.headers.get("etag", "")), answer.headers.get("content-length", "")
        if etag is None or not length.isdigit():
            raise Problem(502, "Bad Gateway", "the service did not say which file this is; ask the service itself")
        media_type = answer.headers.get("content-type", "application/octet-stream")
        admission = Admission(etag[1], int(length), media_type, time.monotonic() + BELIEVED_S)
        self._admitted[key] = admission
        self._admitted.move_to_end(key)
        if len(self._admitted) > MOST_BELIEVED:
            self._admitted.popitem(last=False)
        return admission

    async def _fetched(self, path: str, token: str, admission: Admission, kept: Path) -> None:
        """Fetch a file once, however many ask for it meanwhile."""
        task = self._fetching.get(admission.sha256)
        if task is None:
            task = asyncio.create_task(self._fetch(path, token, admission, kept))
            self._fetching[admission.sha256] = task
            task.add_done_callback(lambda _: self._fetching.pop(admission.sha256, None))
        await asyncio.shield(task)

    async def _fetch(self, path: str, token: str, admission: Admission, kept: Path) -> None:
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": token} if token else {})
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".arriving.") as arriving:
                digest, size = hashlib.sha256(), 0
                async with self._client.stream("GET", self.origin + path, headers=headers) as answer:
                    _check(answer)
                    async for part in answer.aiter_raw():
                        size += len(part)
                        if size > admission.bytes:
                            break
                        digest.update(part)
                        await asyncio.to_thread(arriving.write, part)
                if digest.hexdigest() != admission.sha256 or size != admission.bytes:
                    raise Problem(502, "Bad Gateway", "what came is not the file that was announced; ask again")
                arriving.flush()
                await asyncio.to_thread(write_copy, kept, Path(arriving.name))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except (FileError, OSError) as error:
            log.exception("cannot keep a file in %s", self.folder)
            raise Problem(507, "Insufficient Storage", "this edge cannot keep the file; ask the service") from error
        await asyncio.to_thread(self._make_room)

    def _make_room(self) -> None:
        """Remove what nobody asked for the longest."""
        files = sorted(((path.stat(), path) for path in self.folder.glob("??/*")), key=lambda each: -each[0].st_mtime)
        kept = 0
        for stat, path in files:
            kept += stat.st_size
            if kept > self._most_bytes:
                path.unlink(missing_ok=True)


def _check(answer: httpx.Response) -> None:
    """Raises the service's refusal as a Problem of the edge's own."""
    if answer.status_code == 200:
        return
    passed = {name: answer.headers[name] for name in ("retry-after", "www-authenticate") if name in answer.headers}
    if 400 <= answer.status_code < 500:
        raise Problem(answer.status_code, answer.reason_phrase or "Refused", "the service refuses this", headers=passed)
    raise Problem(502, "Bad Gateway", f"the service answered {answer.status_code}; ask it later", headers=passed)


def _unreachable(error: Exception) -> Problem:
    return Problem(
        502, "Bad Gateway", f"the service cannot be reached from here ({type(error).__name__}); ask it itself"
    )


async def _serve(origin: str, folder: Path, host: str, port: int) -> None:
    async with Edge(origin, folder, host=host, port=port) as edge:
        log.info("an edge of %s at %s", origin, edge.url)
        await asyncio.Event().wait()


def main() -> None:
    """Run an edge until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("origin", help="URL of the service")
    parser.add_argument("--folder", type=Path, required=True, help="where models are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    try:
        asyncio.run(_serve(given.origin, given.folder, given.host, given.port))
    except KeyboardInterrupt:
        log.info("interrupted")


if __name__ == "__main__":
    main()
