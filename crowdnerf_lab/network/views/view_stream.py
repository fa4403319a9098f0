"""A stream of views over a WebSocket, for a camera that moves.

The client sends poses as text (`PoseDocument`, JSON), whenever it likes. The newest one is rendered next; those before
it are left out and counted. Views come back as binary messages:

    4 bytes, big-endian   length of the header
    header                JSON: sequence, width, height, media_type, version, cached, dropped (poses left out since the
                          view before), timings (milliseconds: queue, render, encode)
    the rest              the encoded view

and problems as text: a problem document (RFC 9457), with the sequence of its pose. A view that would be late is
rendered smaller, and views become smaller while the frame rate that was asked for cannot be kept. Who sends no
Authorization header sends {"token": "..."} first.

Closed with 1000 by the client's wish, 1001 when the service stops, 1003 for binary messages, 1008 for a bad token or a
flood of messages, 1009 for a message that is too large.
"""

import asyncio
import json
import logging
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from crowdnerf_lab.network.api.context import Caller, Service, caller_of_token
from crowdnerf_lab.network.api.limits import Rates, address_of
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.views.view_documents import PoseDocument, read_pose, read_token
from crowdnerf_lab.network.views.view_engine import Busy, NoModel, RenderError, ServedView, ViewEngine, ViewError
from crowdnerf_lab.network.views.view_schedule import RenderTimes

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 1 << 16
"""Characters of a message; a pose takes under 500."""
MESSAGES_PER_S, MESSAGES_AT_ONCE = 240.0, 480
"""Poses that a client may send, in the long run and at once; four times a screen's frames."""
MOST_STREAMS = 8
"""Of one UE at a time, from one API process."""
TOKEN_WITHIN_S = 10.0
TOKEN_AGAIN_S = 5.0
"""How long a token that has ended may still be used by an open stream."""
MOST_PROBLEMS = 100
"""Messages in a row that make no sense, before the stream is closed."""
PATIENCE_S = 5.0
"""How long a newest pose is tried again while too much is asked for, before its client is told."""

_LENGTH = struct.Struct(">I")


class _Closed(Exception):  # noqa: N818 an ending, not always a mistake
    """The stream ends with this code; the reason is told as a problem before."""

    def __init__(self, code: int, problem: Problem | None = None) -> None:
        super().__init__(code)
        self.code, self.problem = code, problem


async def stream_views(
    socket: WebSocket,
    event: str,
    *,
    service: Service,
    engine_of: Callable[[Service], ViewEngine],
    problem_of: Callable[[Exception], Problem],
) -> None:
    """Serve one WebSocket from its handshake to its end."""
    code = 1000
    try:
        token = await _token(socket)
        try:
            caller = _caller(socket, service, token, event)
            engine = engine_of(service)
        except Problem as problem:
            raise _Closed(1008 if problem.status in (401, 403, 404) else 1013, problem) from problem
        who = caller.token_sha256
        if engine.streams[who] >= MOST_STREAMS:
            detail = f"this UE has {MOST_STREAMS} streams open; close one before opening another"
            raise _Closed(1008, Problem(429, "Too Many Requests", detail, kind="too-many-streams"))
        if socket.application_state == WebSocketState.CONNECTING:
            await socket.accept()
        engine.streams[who] += 1
        try:
            await ViewStream(socket, engine, event, problem_of).run(
                check_token=lambda: caller_of_token(service, token, event)
            )
        finally:
            engine.streams[who] -= 1
            if not engine.streams[who]:
                del engine.streams[who]
    except _Closed as closed:
        code = closed.code
        if closed.problem is not None:
            await _refuse(socket, closed.problem)
    except WebSocketDisconnect:
        return
    except asyncio.CancelledError:
        await _close(socket, 1001)
        raise
    await _close(socket, code)


def _caller(socket: WebSocket, service: Service, token: str, event: str) -> Caller:
    """Whose token it is; opening a stream counts as a request. Raises Problem."""
    try:
        caller = caller_of_token(service, token, event)
    except Problem as problem:
        if problem.status == 401:
            service.rates.refused.take(address_of(socket), what="requests without a good token from this address")
        raise
    if caller.role == "ue":
        service.rates.ues.take(f"{caller.event} {caller.ue}", what="requests")
    return caller


async def _token(socket: WebSocket) -> str:
    """The client's token, of its header or of its first message."""
    header = socket.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _Closed(1008, _unauthorised("the Authorization header must be 'Bearer TOKEN'"))
        return token.strip()
    await socket.accept()
    try:
        return read_token(await asyncio.wait_for(_received_text(socket), TOKEN_WITHIN_S))
    except TimeoutError:
        raise _Closed(1008, _unauthorised(f"no token within {TOKEN_WITHIN_S:.0f} s; send it first")) from None
    except ViewError as error:
        raise _Closed(1008, _unauthorised(str(error))) from error


def _unauthorised(detail: str) -> Problem:
    return Problem(401, "Unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="crowdnerf_lab"'})


async def _received_text(socket: WebSocket) -> str:
    """The next text message. Raises WebSocketDisconnect, and _Closed for messages that no client of ours sends."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise _Closed(1003, Problem(415, "Unsupported Media Type", "a binary message; send poses as JSON text"))
    if len(text) > LARGEST_MESSAGE:
        detail = f"a message of {len(text)} characters; a pose has fewer than {LARGEST_MESSAGE}"
        raise _Closed(1009, Problem(413, "Content Too Large", detail, kind="too-large"))
    return text


async def _refuse(socket: WebSocket, problem: Problem) -> None:
    """Tell a client why it is not served: in the handshake's answer if it can be, else as a message."""
    with suppress(RuntimeError, WebSocketDisconnect):
        if socket.application_state == WebSocketState.CONNECTING:
            if "websocket.http.response" in socket.scope.get("extensions", {}):
                await socket.send_denial_response(problem.response())
                return
            await socket.accept()
        await socket.send_text(json.dumps(problem.document()))


async def _close(socket: WebSocket, code: int) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        if socket.application_state == WebSocketState.CONNECTED:
            await socket.close(code)


class Pace:
    """Which part of the size asked for keeps up with a frame rate, as far as views so far tell."""

    def __init__(self) -> None:
        self._times: RenderTimes | None = None

    def learn(self, *, pixels: int, ms: float) -> None:
        """A view of so many pixels took so long, from its pose to its last byte."""
        if self._times is None:
            self._times = RenderTimes(pixels=pixels, ms=ms)
        self._times.learn(pixels=pixels, ms=ms)

    def scale(self, pose: PoseDocument, scales: list[float]) -> float:
        """The largest of some scales (falling) whose view would be ready within a frame; the last if none would."""
        if self._times is None or pose.frames_per_s is None:
            return scales[0]
        frame_ms, pixels = 1e3 / pose.frames_per_s, pose.width * pose.height
        fitting = (s for s in scales if self._times.expected_ms(round(s * s * pixels)) <= frame_ms)
        return next(fitting, scales[-1])


class ViewStream:
    """An accepted WebSocket: one task takes poses in, one renders the newest and sends it."""

    def __init__(
        self, socket: WebSocket, engine: ViewEngine, event: str, problem_of: Callable[[Exception], Problem]
    ) -> None:
        self._socket, self._engine, self._event, self._problem_of = socket, engine, event, problem_of
        self._newest: tuple[int, PoseDocument] | None = None
        self._arrived = asyncio.Event()
        self._taken = self._dropped = self._nonsense = 0
        self._pace = Pace()

    async def run(self, *, check_token: Callable[[], object]) -> None:
        """Serve until the client leaves; raises WebSocketDisconnect then, _Closed when it must be made to leave."""
        tasks = [
            asyncio.create_task(work) for work in (self._take_poses(), self._send_views(), self._watch(check_token))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_poses(self) -> None:
        rates = Rates(rate=MESSAGES_PER_S, burst=MESSAGES_AT_ONCE)
        while True:
            text = await _received_text(self._socket)
            if rates.wait_s("") > 0:
                detail = f"more than {MESSAGES_PER_S:.0f} poses a second; send fewer"
                raise _Closed(1008, Problem(429, "Too Many Requests", detail, kind="rate-limited"))
            self._taken += 1
            try:
                pose = read_pose(text)
                pose.request().check(most_pixels=self._engine.settings.max_view_pixels)
            except ViewError as error:
                await self._complain(self._problem_of(error), None)
                self._nonsense += 1
                if self._nonsense >= MOST_PROBLEMS:
                    detail = f"{MOST_PROBLEMS} messages in a row were no poses; read their problems"
                    raise _Closed(1008, Problem(422, "Unprocessable Content", detail, kind="no-poses")) from error
                continue
            self._nonsense = 0
            if self._newest is not None:
                self._dropped += 1
            self._newest = (self._taken if pose.sequence is None else pose.sequence, pose)
            self._arrived.set()

    async def _send_views(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._newest is None:
                continue
            (sequence, pose), self._newest = self._newest, None
            started = time.perf_counter()
            try:
                shown = await self._shown(pose)
            except (ViewError, Busy, NoModel, RenderError) as error:
                await self._complain(self._problem_of(error), sequence)
                continue
            if shown is None:  # a newer pose has come meanwhile
                self._dropped += 1
                continue
            dropped, self._dropped = self._dropped, 0
            await self._socket.send_bytes(packed_view(shown, sequence=sequence, dropped=dropped))
            if not shown.cached:
                self._pace.learn(pixels=shown.width * shown.height, ms=1e3 * (time.perf_counter() - started))

    async def _shown(self, pose: PoseDocument) -> ServedView | None:
        """The view of a pose, or None when there is a newer one. Raises what the engine raises."""
        request, given_up = pose.request(), time.monotonic() + PATIENCE_S
        scales = self._engine.policy.scales_for(request)
        while True:
            try:
                return await self._engine.view(
                    self._event,
                    request,
                    format=pose.format,
                    quality=pose.quality,
                    deadline_ms=pose.deadline_ms,
                    at_most=self._pace.scale(pose, scales),
                )
            except Busy as busy:
                if self._newest is not None:
                    return None
                if time.monotonic() > given_up:
                    raise
                await asyncio.sleep(min(busy.retry_after_s, 0.25))

    async def _watch(self, check_token: Callable[[], object]) -> None:
        """Close the stream once its token has ended."""
        while True:
            await asyncio.sleep(TOKEN_AGAIN_S)
            try:
                check_token()
            except Problem as problem:
                raise _Closed(1008, problem) from problem

    async def _complain(self, problem: Problem, sequence: int | None) -> None:
        document = problem.document() | ({} if sequence is None else {"sequence": sequence})
        await self._socket.send_text(json.dumps(document))


def packed_view(shown: ServedView, *, sequence: int, dropped: int) -> bytes:
    """A view as a binary message."""
    header = {
        "sequence": sequence,
        "width": shown.width,
        "height": shown.height,
        "media_type": shown.media_type,
        "version": shown.version,
        "cached": shown.cached,
        "dropped": dropped,
        "timings": {name: round(ms, 3) for name, ms in asdict(shown.timings).items()},
    }
    encoded = json.dumps(header).encode()
    return _LENGTH.pack(len(encoded)) + encoded + shown.content
