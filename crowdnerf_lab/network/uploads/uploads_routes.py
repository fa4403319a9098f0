"""Uploads over HTTP: tus 1.0.0 with creation, creation-with-upload, checksum, termination and expiration.

Any tus client sends to /events/{event}/uploads with its UE's token. What is complete is a contribution of the same id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from email.utils import formatdate
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from crowdnerf_lab.network.api.context import CallingUE, CurrentService, Service
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.uploads import tus
from crowdnerf_lab.network.uploads.upload_writing import Writing
from crowdnerf_lab.network.uploads.uploads import Upload, Uploads
from crowdnerf_lab.network.uploads.uploads_openapi import (
    CREATE,
    OPTIONS,
    OPTIONS_OF_ONE,
    OVERRIDE,
    PATCH,
    READ,
    TERMINATE,
)

PIECE_BYTES = 256 << 10
"""So many bytes of a body are in memory at a time."""
IDLE_S = 30.0
"""A body that pauses for longer is taken to have broken off."""


class TusRoute(APIRoute):
    """Tells the protocol's version in every answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wraps the framework's."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                response = await handle(request)
            except HTTPException as problem:
                problem.headers = {**(problem.headers or {}), "Tus-Resumable": tus.VERSION}
                raise
            response.headers["Tus-Resumable"] = tus.VERSION
            return response

        return handled


def _spoken(request: Request) -> None:
    tus.check_version(request.headers)


router = APIRouter(prefix="/events/{event}/uploads", tags=["uploads"], route_class=TusRoute)
SpokenTus = Annotated[None, Depends(_spoken)]
"""Behind the caller: who may not ask at all is told so first."""
UploadId = Annotated[str, Path(description="As the creation's Location names it.", examples=["0" * 32])]


@router.options("", operation_id="uploads_options", status_code=204, response_class=Response, **OPTIONS)
@router.options("/{id}", operation_id="upload_options", status_code=204, response_class=Response, **OPTIONS_OF_ONE)
async def options(service: CurrentService) -> Response:
    """What this service speaks of tus; needs no token."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(service.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post("", operation_id="create_upload", status_code=201, response_class=Response, **CREATE)
async def create(request: Request, service: CurrentService, caller: CallingUE, _tus: SpokenTus) -> Response:
    """Announce a photo or clip, and send its first bytes, or all, if the body has any.

    The same Idempotency-Key again, or the same announced sha256, gives the same upload: go on at its Upload-Offset.
    """
    uploads, headers = _uploads(service), request.headers
    announced = tus.creation_of(headers, most_bytes=service.settings.max_upload_bytes)
    checksum, has_body = tus.checksum_of(headers), tus.body_announced(headers)
    if has_body and not tus.is_offset_stream(headers):
        raise tus.wrong_content_type(headers)
    upload = await run_in_threadpool(uploads.create, caller.event, caller.ue, announced=announced)
    if has_body and upload.offset == 0:
        upload = await _received(request, uploads, upload, offset=0, checksum=checksum)
    path = request.url_for("read_upload", event=upload.event, id=upload.id).path
    return Response(status_code=201, headers={"Location": path} | _progress(upload))


@router.head("/{id}", name="read_upload", operation_id="read_upload", response_class=Response, **READ)
async def read(id: UploadId, service: CurrentService, caller: CallingUE, _tus: SpokenTus) -> Response:
    """How many bytes of an upload are safe: where to go on."""
    upload = await run_in_threadpool(_uploads(service).one, caller.event, caller.ue, id=id)
    headers = {"Upload-Length": str(upload.length), "Cache-Control": "no-store"} | _progress(upload)
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(status_code=200, headers=headers)


@router.patch("/{id}", operation_id="continue_upload", status_code=204, response_class=Response, **PATCH)
async def go_on(
    id: UploadId, request: Request, service: CurrentService, caller: CallingUE, _tus: SpokenTus
) -> Response:
    """Send an upload's next bytes. With the last one it is a contribution of the same id, in state `received`."""
    if not tus.is_offset_stream(request.headers):
        raise tus.wrong_content_type(request.headers)
    offset, checksum = tus.offset_of(request.headers), tus.checksum_of(request.headers)
    uploads = _uploads(service)
    upload = await run_in_threadpool(uploads.one, caller.event, caller.ue, id=id)
    upload = await _received(request, uploads, upload, offset=offset, checksum=checksum)
    return Response(status_code=204, headers=_progress(upload))


@router.post("/{id}", operation_id="override_upload_method", status_code=204, response_class=Response, **OVERRIDE)
async def override(
    id: UploadId, request: Request, service: CurrentService, caller: CallingUE, _tus: SpokenTus
) -> Response:
    """HEAD, PATCH or DELETE, as X-HTTP-Method-Override says, where a network between lets POST alone through."""
    meant = request.headers.get("X-HTTP-Method-Override", "")
    if meant == "PATCH":
        return await go_on(id, request, service, caller, None)
    if meant == "HEAD":
        return await read(id, service, caller, None)
    if meant == "DELETE":
        return await terminate(id, service, caller, None)
    raise Problem(
        405,
        "Method Not Allowed",
        f"POST to an upload means what X-HTTP-Method-Override says, and that is {meant!r:.40}; "
        "send PATCH, HEAD or DELETE there, or as the method",
        headers={"Allow": "OPTIONS, HEAD, PATCH, DELETE, POST"},
    )


@router.delete("/{id}", operation_id="terminate_upload", status_code=204, response_class=Response, **TERMINATE)
async def terminate(id: UploadId, service: CurrentService, caller: CallingUE, _tus: SpokenTus) -> Response:
    """Delete an upload and its bytes; one that is complete can be taken back until the pipeline has taken it in."""
    await run_in_threadpool(_uploads(service).terminate, caller.event, caller.ue, id=id)
    return Response(status_code=204)


def _uploads(service: Service) -> Uploads:
    return Uploads(service.database, service.settings)


async def _received(
    request: Request, uploads: Uploads, upload: Upload, *, offset: int, checksum: tus.Checksum | None
) -> Upload:
    """Write a request's body as it arrives; a body that breaks off is kept as far as it came."""
    announced = request.headers.get("Content-Length")
    length = int(announced) if announced is not None and announced.isdecimal() else None

    def opened() -> Writing:
        return Writing(uploads, upload, offset=offset, checksum=checksum, length=length)

    writing = await run_in_threadpool(opened)
    try:
        async for piece in _pieces(request):
            await run_in_threadpool(writing.append, piece)
        return await run_in_threadpool(writing.finish)
    finally:
        writing.close()


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """A body's bytes, PIECE_BYTES or more at a time; the rest also when it breaks off.

    Raises Problem 400 when the client goes away, 408 when it falls silent.
    """
    stream, pending, broken = request.stream(), bytearray(), None
    while broken is None:
        try:
            async with asyncio.timeout(IDLE_S):
                pending += await anext(stream)
        except StopAsyncIteration:
            break
        except ClientDisconnect:
            broken = Problem(400, "Bad Request", "the body broke off; ask for the offset and go on there")
        except TimeoutError:
            detail = f"no byte came for {IDLE_S:g} s; ask for the offset and go on there"
            broken = Problem(408, "Request Timeout", detail, headers={"Connection": "close"})
        if len(pending) >= PIECE_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)
    if broken is not None:
        raise broken


def _progress(upload: Upload) -> dict[str, str]:
    """Upload-Offset, and when the upload expires unless it is complete."""
    headers = {"Upload-Offset": str(upload.offset)}
    if not upload.complete:
        headers["Upload-Expires"] = formatdate(upload.expires, usegmt=True)
    return headers
