"""A UE's own photo back, enhanced by what the crowd has learned: one at a time, after everything else."""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Response

from crowdnerf_lab.network.api.context import CallingUE, CurrentService, Service
from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.uploads.contributions import Contribution, Contributions
from crowdnerf_lab.network.views.view_messages import Message, next_message

log = logging.getLogger(__name__)

PROGRAM = "crowdnerf_lab.network.views.enhancement"
LONGEST_S = 120.0
RETRY_S = 10
NUMBER = {"schema": {"type": "integer"}}
SHOWN = {
    "description": "The photo, enhanced, at most 640 pixels long.",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
    "headers": dict.fromkeys(("X-View-Version", "X-View-Width", "X-View-Height"), NUMBER),
}
router = APIRouter(tags=["views"])


@router.get(
    "/events/{event}/contributions/{id}/enhanced",
    operation_id="enhanced_photo",
    response_class=Response,
    responses={200: SHOWN} | declared(401, 403, 404, 409, 410, 422, 429, 503),
)
async def enhanced(
    id: Annotated[str, Path(description="Of my contribution.")], service: CurrentService, caller: CallingUE
) -> Response:
    """My photo, better: noise and people in front of it are replaced by what the crowd's field knows. Takes seconds."""
    found = await asyncio.to_thread(Contributions(service.database).one, id)
    if found is None or (found.event, found.ue) != (caller.event, caller.ue):
        raise Problem(404, "Not Found", f"you have no contribution {id!r:.160}; GET contributions lists yours")
    _check_state(found)
    if service.enhancing.locked():
        raise Problem(
            429,
            "Too Many Requests",
            "another photo is being enhanced; ask again in a moment",
            kind="enhancing-busy",
            headers={"Retry-After": str(RETRY_S)},
        )
    async with service.enhancing:
        message = await _enhancement(service, found)
    if "refused" in message.header:
        raise Problem(409, "Conflict", str(message.header["refused"]), kind="not-enhanced")
    headers = {f"X-View-{name.title()}": str(message.header[name]) for name in ("version", "width", "height")}
    return Response(
        message.body, media_type=message.header["media_type"], headers=headers | {"Cache-Control": "no-store"}
    )


def _check_state(contribution: Contribution) -> None:
    """Raise a Problem for one that is not, or no longer, among the event's photos."""
    if contribution.state == "forgotten":
        raise Problem(410, "Gone", "the contribution is forgotten; nothing is left of it")
    if contribution.state == "refused":
        raise Problem(409, "Conflict", "the contribution was refused, see its status; send another one")
    if contribution.state == "received":
        raise Problem(409, "Conflict", "the contribution has not been taken in yet; ask again later", kind="not-yet")


async def _enhancement(service: Service, contribution: Contribution) -> Message:
    """What a process of its own makes of a photo; the process ends with the request. Raises Problem 503."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        PROGRAM,
        str(service.settings.home),
        contribution.event,
        contribution.id,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        message = await asyncio.wait_for(next_message(process.stdout), LONGEST_S)
    except TimeoutError:
        message = None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await asyncio.shield(process.wait())
    if message is None:
        log.error("the photo of contribution %s could not be enhanced", contribution.id)
        detail = "the photo could not be enhanced; try again later"
        raise Problem(503, "Service Unavailable", detail, kind="not-enhanced", headers={"Retry-After": str(RETRY_S)})
    return message
