"""Views over HTTP and over a WebSocket: thin routes before the view engine."""

import asyncio
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket

from crowdnerf_lab.network.api.context import CallingMember, CurrentService, Service, service_of
from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.views.view_codecs import MEDIA_TYPES
from crowdnerf_lab.network.views.view_documents import ViewDocument
from crowdnerf_lab.network.views.view_engine import Busy, NoModel, RenderError, ServedView, ViewEngine, ViewError
from crowdnerf_lab.network.views.view_stream import stream_views

NO_MODEL_RETRY_S = 5
NUMBER = {"schema": {"type": "integer"}}
SHOWN = {
    "description": "The view, perhaps smaller than asked for: see X-View-Width and X-View-Height.",
    "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()},
    "headers": {
        "X-View-Version": NUMBER | {"description": "Version of the event's models that it shows."},
        "X-View-Width": NUMBER | {"description": "Pixels across."},
        "X-View-Height": NUMBER | {"description": "Pixels down."},
        "X-View-Cached": {"schema": {"type": "boolean"}, "description": "Whether it had been made before."},
        "Server-Timing": {"schema": {"type": "string"}, "description": "Milliseconds: queue, render, encode."},
    },
}
router = APIRouter(tags=["views"])


@router.post(
    "/events/{event}/views",
    operation_id="view",
    response_class=Response,
    responses={200: SHOWN} | declared(400, 401, 403, 404, 413, 422, 429, 503),
)
async def view(body: ViewDocument, request: Request, service: CurrentService, caller: CallingMember) -> Response:
    """One view of the event's latest version, in time, or 429 with Retry-After."""
    engine = engine_of(service)
    asking = engine.view(
        caller.event, body.request(), format=body.format, quality=body.quality, deadline_ms=body.deadline_ms
    )
    try:
        shown = await while_there(request, asking)
    except (ViewError, Busy, NoModel, RenderError) as error:
        raise problem_of(error) from error
    return Response(shown.content, media_type=shown.media_type, headers=headers_of(shown))


@router.websocket("/events/{event}/views/stream")
async def stream(socket: WebSocket, event: str) -> None:
    """Views of a moving camera; see `view_stream`."""
    service = service_of(socket)
    await stream_views(socket, event, service=service, problem_of=problem_of, engine_of=engine_of)


def engine_of(service: Service) -> ViewEngine:
    """The service's engine. Raises Problem 503 while there is none."""
    if service.views is None:
        raise Problem(
            503,
            "Service Unavailable",
            "this service renders no views at the moment; try again later, or select a model",
            kind="no-views",
            headers={"Retry-After": str(NO_MODEL_RETRY_S)},
        )
    return service.views


def headers_of(shown: ServedView) -> dict[str, str]:
    """What an answer says of its view."""
    stages = {"queue": shown.timings.queue, "render": shown.timings.render, "encode": shown.timings.encode}
    return {
        "Server-Timing": ", ".join(f"{name};dur={milliseconds:.2f}" for name, milliseconds in stages.items()),
        "X-View-Version": str(shown.version),
        "X-View-Cached": "true" if shown.cached else "false",
        "X-View-Width": str(shown.width),
        "X-View-Height": str(shown.height),
        "Cache-Control": "no-store",
    }


def problem_of(error: Exception) -> Problem:
    """What an engine raised, as the problem that a UE is told."""
    match error:
        case Busy():
            retry = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
            return Problem(429, "Too Many Requests", str(error), kind="views-busy", headers=retry)
        case NoModel():
            retry = {"Retry-After": str(NO_MODEL_RETRY_S)}
            return Problem(503, "Service Unavailable", str(error), kind="no-version", headers=retry)
        case RenderError():
            return Problem(503, "Service Unavailable", str(error), kind="render-failed", headers={"Retry-After": "1"})
        case _:
            return Problem(422, "Unprocessable Content", str(error), kind="invalid-view")


async def while_there(request: Request, asking: Coroutine[Any, Any, ServedView]) -> ServedView:
    """Wait for a view as long as its client does; nothing is rendered for one that has gone."""
    viewing = asyncio.ensure_future(asking)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({viewing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not viewing.done():
            raise Busy("the client has gone", retry_after_s=1.0)
        return viewing.result()
    finally:
        for task in (viewing, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _left(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
