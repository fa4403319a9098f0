"""Downloads: files that never change, by RFC 9110: conditional, in ranges, and in a coding where that pays.

Small files are kept in memory, one copy for all who ask; large ones are read while they are sent, a piece at a time.
"""

import asyncio
import gzip
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import zstandard
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.models.negotiation import CODINGS, Coding, Range, accepted_codings, matches, ranges_of

PAYS = 0.95
"""A coding is used where the coded file has at most this fraction of the bytes."""
MOST_CODED_BYTES = 64 << 20
SMALL_BYTES = 8 << 20
"""Up to this size a file is kept in memory."""
PIECE_BYTES = 256 << 10
IMMUTABLE = "private, max-age=31536000, immutable"


@dataclass(frozen=True)
class StoredFile:
    """A file that never changes. path: may be gone by the time it is read. sha256: of its bytes, hex."""

    path: Path
    bytes: int
    sha256: str
    media_type: str = "application/octet-stream"

    def etag(self, coding: Coding) -> str:
        """The strong entity tag of one coding of it."""
        return f'"{self.sha256}"' if coding == "identity" else f'"{self.sha256}-{coding}"'


class FileMemory:
    """Contents of small files by SHA-256, up to so many bytes together; who was not asked for longest goes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    async def content(self, file: StoredFile) -> bytes | None:
        """The file's bytes; None for one that is better read piece by piece. Raises OSError when it is gone."""
        found = self._contents.get(file.sha256)
        if found is not None:
            self._contents.move_to_end(file.sha256)
            return found
        if file.bytes > min(SMALL_BYTES, self.limit):
            file.path.stat()  # gone: better now than in the middle of an answer
            return None
        content = await asyncio.to_thread(file.path.read_bytes)
        if file.sha256 not in self._contents:
            self._contents[file.sha256] = content
            self.held += len(content)
        while self.held > self.limit:
            _, dropped = self._contents.popitem(last=False)
            self.held -= len(dropped)
        return content


class Coder(Protocol):
    """What has files in content codings."""

    async def coded(self, file: StoredFile, coding: Coding, *, wait: bool = False) -> StoredFile | None:
        """A file in a coding; None while it is not there, or does not pay. wait: until it is there."""
        ...


class CodedFiles:
    """Files in content codings, made once, in a folder that may be removed at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._making: dict[tuple[str, Coding], asyncio.Task[None]] = {}
        self._known: dict[tuple[str, Coding], StoredFile | None] = {}

    async def coded(self, file: StoredFile, coding: Coding, *, wait: bool = False) -> StoredFile | None:
        """A file in a coding; None while it is not there, or does not pay. The first who asks has it made."""
        key = (file.sha256, coding)
        made = self._known.get(key)
        if key not in self._known or (made is not None and not made.path.exists()):
            if key not in self._making:
                self._making[key] = asyncio.create_task(self._make(file, coding))
                self._making[key].add_done_callback(lambda _: self._making.pop(key, None))
            if wait:
                await asyncio.shield(self._making[key])
        return self._known.get(key)

    async def close(self) -> None:
        """Wait for what is being made."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _make(self, file: StoredFile, coding: Coding) -> None:
        path = self.folder / f"{file.sha256}.{coding}"
        try:
            size = await asyncio.to_thread(_encode, file.path, path, coding)
        except OSError:  # a full disk, or a file that is gone: sent as it is, if at all
            size = None
        coded = None if size is None or size > PAYS * file.bytes else StoredFile(path, size, f"{file.sha256}.{coding}")
        self._known[(file.sha256, coding)] = coded


async def download(
    headers: Headers, method: str, file: StoredFile, *, memory: FileMemory, coded: Coder | None
) -> Response:
    """The answer to a GET or HEAD of a file with these headers. coded: None when no coding can pay.

    Raises Problem: 406 when no coding is acceptable, 412 when If-Match fails, 416, and OSError when the file is gone.
    """
    tags = [file.etag(coding) for coding in ("identity", *CODINGS)]
    if (wanted := headers.get("if-match")) is not None and matches(wanted, tags, weakly=False) is None:
        raise Problem(
            412, "Precondition Failed", f"the file's ETag is {tags[0]}, If-Match asks for another; leave it out"
        )
    common = {"Cache-Control": IMMUTABLE, "Vary": "Accept-Encoding", "Accept-Ranges": "bytes"}
    if (known := headers.get("if-none-match")) is not None and (tag := matches(known, tags, weakly=True)):
        return Response(status_code=304, headers=common | {"ETag": tag})
    ranges = _asked_ranges(headers, method, file)
    if ranges is not None:
        content = await memory.content(file)
        if len(ranges) == 1:
            first, last = ranges[0]
            part = {"Content-Range": f"bytes {first}-{last}/{file.bytes}", "ETag": tags[0]}
            return FileResponse(file, content, ranges, status=206, headers=common | part)
        return MultipartResponse(file, content, ranges, headers=common | {"ETag": tags[0]})
    coding, chosen = await _negotiated(headers.get("accept-encoding"), file, coded)
    described = common | {"ETag": file.etag(coding)} | ({} if coding == "identity" else {"Content-Encoding": coding})
    content = await memory.content(chosen)
    return FileResponse(
        chosen, content, [(0, chosen.bytes - 1)], status=200, headers=described, media_type=file.media_type
    )


class FileResponse(Response):
    """One stretch of a file, from memory or read as it is sent; of a HEAD request the headers alone."""

    def __init__(
        self,
        file: StoredFile,
        content: bytes | None,
        ranges: Sequence[Range],
        *,
        status: int,
        headers: dict[str, str],
        media_type: str | None = None,
    ) -> None:
        self.file, self.content, self.ranges = file, content, ranges
        super().__init__(status_code=status, headers=headers, media_type=media_type or file.media_type)
        self.headers["Content-Length"] = str(self.length)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(last - first + 1 for first, last in self.ranges)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        before = b""
        if scope["method"] != "HEAD":
            async for piece in self.pieces():
                if before:
                    await send({"type": "http.response.body", "body": before, "more_body": True})
                before = piece
        await send({"type": "http.response.body", "body": before, "more_body": False})

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in pieces, of PIECE_BYTES where the file is read as it is sent: a slow receiver holds no more."""
        for stretch in self.ranges:
            async for piece in _pieces(self.file.path, self.content, stretch):
                yield piece


class MultipartResponse(FileResponse):
    """Several stretches of a file as multipart/byteranges (RFC 9110, 14.6)."""

    def __init__(
        self, file: StoredFile, content: bytes | None, ranges: Sequence[Range], *, headers: dict[str, str]
    ) -> None:
        boundary = secrets.token_hex(16)
        self._heads = [
            f"\r\n--{boundary}\r\nContent-Type: {file.media_type}\r\n"
            f"Content-Range: bytes {first}-{last}/{file.bytes}\r\n\r\n".encode()
            for first, last in ranges
        ]
        self._end = f"\r\n--{boundary}--\r\n".encode()
        media_type = f"multipart/byteranges; boundary={boundary}"
        super().__init__(file, content, ranges, status=206, headers=headers, media_type=media_type)

    @property
    def length(self) -> int:
        return super().length + sum(map(len, self._heads)) + len(self._end)

    async def pieces(self) -> AsyncIterator[bytes]:
        for head, stretch in zip(self._heads, self.ranges, strict=True):
            yield head
            async for piece in _pieces(self.file.path, self.content, stretch):
                yield piece
        yield self._end


def _asked_ranges(headers: Headers, method: str, file: StoredFile) -> Sequence[Range] | None:
    """Ranges to send; none for a HEAD, nor when If-Range names another state of the file (RFC 9110, 13.1.5)."""
    condition = headers.get("if-range")
    if method != "GET" or "range" not in headers:
        return None
    if condition is not None and condition.strip() != file.etag("identity"):
        return None
    return ranges_of(",".join(headers.getlist("range")), file.bytes)


async def _negotiated(header: str | None, file: StoredFile, coded: Coder | None) -> tuple[Coding, StoredFile]:
    allowed = accepted_codings(header)
    identity = allowed.get("identity")
    offered: list[Coding] = [coding for coding in CODINGS if coding in allowed]
    for coding in sorted(offered, key=lambda each: -allowed[each]):
        if coded is not None and (identity is None or allowed[coding] >= identity):
            found = await coded.coded(file, coding, wait=identity is None)
            if found is not None:
                return coding, found
    if identity is None:
        raise Problem(
            406, "Not Acceptable", f"Accept-Encoding {header!r:.80} leaves no coding for this file; allow identity"
        )
    return "identity", file


async def _pieces(path: Path, content: bytes | None, stretch: Range) -> AsyncIterator[bytes]:
    first, end = stretch[0], stretch[1] + 1
    if content is not None:
        yield content if end - first == len(content) else content[first:end]
        return
    with path.open("rb") as file:
        file.seek(first)
        while first < end:
            piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, end - first))
            if not piece:
                raise OSError(f"{path.name} ends early")
            first += len(piece)
            yield piece


def _encode(source: Path, target: Path, coding: Coding) -> int | None:
    """Bytes of the coded file, made where it is not there yet; None for one too large to try."""
    if target.exists():
        return target.stat().st_size
    if source.stat().st_size > MOST_CODED_BYTES:
        return None
    content = source.read_bytes()
    if coding == "zstd":
        encoded = zstandard.ZstdCompressor(level=12).compress(content)
    else:
        encoded = gzip.compress(content, compresslevel=6, mtime=0)
    write_bytes(target, encoded)
    return len(encoded)
