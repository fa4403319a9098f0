"""Views that a UE asks the network for: one over HTTP, or one after another over a WebSocket while a camera moves."""

import asyncio
import json
import re
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import websockets
from numpy.typing import NDArray

from crowdnerf_lab.network.ues.answers import NetworkError, RefusedError, UntrustedAnswerError, printable, refusal_of
from crowdnerf_lab.network.ues.event_connection import BUSY, EventConnection
from crowdnerf_lab.network.views.view_codecs import EncodedView, Format, decode_view
from crowdnerf_lab.network.views.view_request import ViewError, ViewRequest

VIEW_BYTES = 16 << 20
"""Most that an encoded view may take."""
HEADER_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class NetworkView:
    """A view as the network sent it. picture: [h w 3] sRGB, perhaps smaller than asked for.

    milliseconds: of each stage: request (all until the last byte), of which the service says queue, render and encode;
    decode. dropped: poses of a stream that the network left out since the view before.
    """

    picture: NDArray[np.uint8]
    version: int | None
    cached: bool
    bytes: int
    milliseconds: Mapping[str, float]
    sequence: int = 0
    dropped: int = 0


async def view_over_http(
    connection: EventConnection,
    request: ViewRequest,
    *,
    format: Format = "webp",
    quality: int = 80,
    deadline_ms: float | None = None,
) -> NetworkView:
    """Ask for one view. Raises RefusedError (429: it would be late), NetworkError."""
    document = _document(request, format=format, quality=quality, deadline_ms=deadline_ms)
    timeout_s = None if deadline_ms is None else 2 * deadline_ms / 1e3 + 1
    asked, started = "asking for a view", time.perf_counter()
    answer = await connection.ask(
        "POST",
        connection.path("views"),
        document=document,
        asked=asked,
        repeats=0,
        timeout_s=timeout_s,
        most_bytes=VIEW_BYTES,
    )
    request_ms = 1e3 * (time.perf_counter() - started)
    headers = answer.headers
    width, height = (_number(headers.get(f"x-view-{side}")) for side in ("width", "height"))
    version = _number(headers.get("x-view-version"))
    encoded = EncodedView(
        content=answer.content,
        media_type=headers.get("content-type", ""),
        width=int(width or request.width),
        height=int(height or request.height),
        render_ms=0.0,
        encode_ms=0.0,
    )
    picture, decode_ms = await _decoded(encoded, request, asked)
    return NetworkView(
        picture=picture,
        version=None if version is None else int(version),
        cached=headers.get("x-view-cached", "").strip().lower() in ("1", "true", "yes"),
        bytes=len(answer.content),
        milliseconds={"request": request_ms, **server_timing(headers.get("server-timing", "")), "decode": decode_ms},
    )


async def views_over_websocket(
    connection: EventConnection,
    requests: Iterable[ViewRequest] | AsyncIterator[ViewRequest],
    *,
    frames_per_s: float,
    format: Format = "webp",
    quality: int = 80,
) -> AsyncGenerator[NetworkView, None]:
    """Views of a moving camera, the newest pose first: poses that the network is too late for are left out, counted.

    Poses are sent frames_per_s times a second, whether views come or not; it ends when the last pose was answered.
    """
    asked = "streaming views"
    url = connection.path("views", "stream").replace("http", "ws", 1)
    sent: dict[int, tuple[ViewRequest, float]] = {}
    try:
        async with websockets.connect(
            url,
            additional_headers=await connection.authorization(),
            max_size=VIEW_BYTES + HEADER_BYTES,
            open_timeout=10,
            close_timeout=2,
            proxy=None,
        ) as socket:
            sending = asyncio.create_task(_send_poses(socket, requests, sent, frames_per_s, format, quality))
            try:
                async with aclosing(_received(socket, sending, sent, asked, connection)) as views:
                    async for view in views:
                        yield view
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except websockets.InvalidStatus as error:
        response = error.response
        raise refusal_of(response.status_code, response.headers, bytes(response.body), asked=asked) from error
    except (websockets.WebSocketException, OSError, TimeoutError) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(f"{asked}: {connection.url} ended it ({printable(str(error))}); ask again") from error


def server_timing(header: str) -> dict[str, float]:
    """Milliseconds by stage of a Server-Timing header (W3C): `render;dur=12.5, encode;dur=3`."""
    stages = re.findall(r"([A-Za-z][\w-]{0,31})\s*;[^,]*?\bdur=(\d{1,9}(?:\.\d{1,9})?)", header[:4096])
    return {name: float(milliseconds) for name, milliseconds in stages}


async def _send_poses(
    socket: Any,
    requests: Iterable[ViewRequest] | AsyncIterator[ViewRequest],
    sent: dict[int, tuple[ViewRequest, float]],
    frames_per_s: float,
    format: Format,
    quality: int,
) -> int:
    """Send pose after pose at a steady rate; returns the last one's sequence number."""
    sequence, due = 0, time.perf_counter()
    async for request in _each(requests):
        sequence += 1
        document = _document(request, format=format, quality=quality, deadline_ms=None)
        sent[sequence] = (request, time.perf_counter())
        await socket.send(json.dumps(document | {"sequence": sequence, "frames_per_s": frames_per_s}, allow_nan=False))
        due += 1 / frames_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    return sequence


async def _each(requests: Iterable[ViewRequest] | AsyncIterator[ViewRequest]) -> AsyncIterator[ViewRequest]:
    if isinstance(requests, AsyncIterator):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


async def _received(
    socket: Any,
    sending: asyncio.Task[int],
    sent: dict[int, tuple[ViewRequest, float]],
    asked: str,
    connection: EventConnection,
) -> AsyncGenerator[NetworkView, None]:
    """Views until the last pose that was sent has been answered; one that the network refuses counts as left out.

    Raises RefusedError when it refuses them all.
    """
    answered = refused = shown = 0
    refusal: RefusedError | None = None
    while not (sending.done() and answered >= sending.result()):
        receiving = asyncio.ensure_future(socket.recv())
        waiting = {receiving} if sending.done() else {receiving, sending}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                continue  # the last pose is sent: see whether it was answered already
            message = receiving.result()
        finally:
            receiving.cancel()
        if isinstance(message, str):
            sequence, refusal = _refused(message, asked)
            answered, refused = max(answered, sequence), refused + 1
            continue
        connection.bytes_received += len(message)
        view = await _view_of(message, sent, asked)
        answered = max(answered, view.sequence)
        yield replace(view, dropped=view.dropped + refused)
        refused, shown = 0, shown + 1
    if refusal is not None and not shown:
        raise refusal


async def _view_of(message: bytes, sent: dict[int, tuple[ViewRequest, float]], asked: str) -> NetworkView:
    """The view in a binary message; it also answers for every earlier pose."""
    try:
        (length,) = _LENGTH.unpack_from(message)
        if length > min(HEADER_BYTES, len(message) - _LENGTH.size):
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(message[_LENGTH.size : _LENGTH.size + length])
        sequence, width, height = int(header["sequence"]), int(header["width"]), int(header["height"])
        version, dropped = header.get("version"), int(header.get("dropped", 0))
        timings = {str(name): float(value) for name, value in dict(header.get("timings") or {}).items()}
        request, sent_at = sent[sequence]
    except (struct.error, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UntrustedAnswerError(f"{asked}: a message that is no view ({printable(str(error))})") from error
    content = message[_LENGTH.size + length :]
    request_ms = 1e3 * (time.perf_counter() - sent_at)
    encoded = EncodedView(content, str(header.get("media_type", "")), width, height, 0.0, 0.0)
    picture, decode_ms = await _decoded(encoded, request, asked)
    for earlier in [number for number in sent if number <= sequence]:
        del sent[earlier]
    return NetworkView(
        picture=picture,
        version=version if isinstance(version, int) else None,
        cached=bool(header.get("cached", False)),
        bytes=len(content),
        milliseconds={"request": request_ms, **timings, "decode": decode_ms},
        sequence=sequence,
        dropped=max(0, dropped),
    )


def _refused(message: str, asked: str) -> tuple[int, RefusedError]:
    """The pose that a problem says will get no view, because the network is busy; another problem is raised."""
    try:
        document = json.loads(message)
        status, title, detail = int(document["status"]), document.get("title", ""), document.get("detail", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedAnswerError(f"{asked}: a message that is neither view nor problem") from error
    refusal = RefusedError(f"{asked}: {printable(f'{title}: {detail}')} ({status})", status=status)
    if status in BUSY and type(document.get("sequence")) is int:
        return document["sequence"], refusal
    raise refusal


async def _decoded(encoded: EncodedView, request: ViewRequest, asked: str) -> tuple[NDArray[np.uint8], float]:
    """The picture, at most as large as asked for, and the milliseconds of decoding it."""
    if encoded.width > request.width or encoded.height > request.height or min(encoded.width, encoded.height) < 1:
        raise UntrustedAnswerError(
            f"{asked}: a view of {encoded.width} x {encoded.height} for {request.width} x {request.height}"
        )
    started = time.perf_counter()
    try:
        picture = await asyncio.to_thread(decode_view, encoded)
    except ViewError as error:
        raise UntrustedAnswerError(f"{asked}: {error}") from error
    return picture, 1e3 * (time.perf_counter() - started)


def _document(request: ViewRequest, *, format: Format, quality: int, deadline_ms: float | None) -> dict[str, Any]:
    """A request as the service reads it."""
    document = {
        "camera_to_world": [[float(value) for value in row] for row in request.pose],
        "focal": [float(value) for value in request.focal],
        "centre": [float(value) for value in request.centre],
        "width": request.width,
        "height": request.height,
        "format": format,
        "quality": quality,
    }
    return document if deadline_ms is None else document | {"deadline_ms": deadline_ms}


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text.strip()) else None
