"""Routes of delivery to a crowd: what is being broadcast, and which UEs hold pieces of what."""

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crowdnerf_lab.network.api.context import CallingMember, CallingUE, CurrentService, Service
from crowdnerf_lab.network.api.limits import address_of
from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.api.whole_numbers import WHOLE
from crowdnerf_lab.network.delivery.broadcaster import sessions_of
from crowdnerf_lab.network.delivery.objects import (
    MOST_BYTES,
    MOST_PIECES,
    BroadcastSession,
    DeliveryError,
    Sha256,
    pieces_of,
)
from crowdnerf_lab.network.delivery.pieces import SharedObject
from crowdnerf_lab.network.delivery.tracker import PEER_S, Peer, PeerBook, Peers

router = APIRouter(tags=["delivery"])
RECENT_VERSIONS = 4
"""Versions whose files peers may give to each other, the newest first."""


class BroadcastList(BaseModel):
    """What is on the air at an event now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sessions: tuple[BroadcastSession, ...]


class Announcement(BaseModel):
    """What a UE gives to others. port: where, at the address from which this is said; pieces: none takes it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    port: Annotated[int, Field(ge=1024, le=65535), WHOLE]
    pieces: Annotated[tuple[Annotated[int, Field(ge=0, lt=MOST_PIECES), WHOLE], ...], Field(max_length=MOST_PIECES)]


READ = declared(401, 403, 404, 422, 429)


@router.get("/events/{event}/broadcasts", operation_id="list_broadcasts", response_model=BroadcastList, responses=READ)
async def list_broadcasts(caller: CallingMember, service: CurrentService) -> BroadcastList:
    """Sessions that run now; a UE that misses something repairs it by Range requests to their href."""
    return BroadcastList(sessions=await asyncio.to_thread(sessions_of, service.settings.home, caller.event))


@router.get("/events/{event}/peers", operation_id="list_peers", response_model=Peers, responses=READ)
async def list_peers(
    caller: CallingMember,
    service: CurrentService,
    sha256: Annotated[Sha256, Query(description="Of the file that is looked for.")],
) -> Peers:
    """UEs that give pieces of a file of this event, and the hashes by which to check what they give."""
    described, href = await _known(service, caller.event, sha256)
    return await asyncio.to_thread(_listed, service, caller.event, caller.ue, described, href)


@router.post(
    "/events/{event}/peers",
    operation_id="announce_pieces",
    response_model=Peers,
    responses=READ | declared(400, 409, 413, 415),
)
async def announce_pieces(caller: CallingUE, service: CurrentService, body: Announcement, request: Request) -> Peers:
    """Say which pieces of a file this UE gives to others, for the next half minute. The answer is that of the list."""
    described, href = await _known(service, caller.event, body.sha256)
    count = len(described.pieces.sha256)
    if any(piece >= count for piece in body.pieces):
        raise Problem(
            422,
            "Unprocessable Content",
            f"piece {max(body.pieces)} of {count}; they are counted from 0",
            kind="invalid-request",
        )
    host = address_of(request)
    url = f"http://{f'[{host}]' if ':' in host else host}:{body.port}/objects/{body.sha256}"
    try:
        peer = Peer(url=url, pieces=body.pieces)
    except ValidationError as error:
        detail = f"the address {host!r:.80} cannot be given to other UEs; connect by an address of your own"
        raise Problem(409, "Conflict", detail, kind="no-address") from error

    def noted() -> Peers:
        book = _book(service.settings.home)
        book.announce(caller.event, body.sha256, ue=caller.ue, peer=peer)
        return _listed(service, caller.event, caller.ue, described, href)

    try:
        return await asyncio.to_thread(noted)
    except DeliveryError as error:
        raise Problem(409, "Conflict", str(error), kind="too-many-objects") from error


def _listed(service: Service, event: str, ue: str, described: SharedObject, href: str) -> Peers:
    peers = _book(service.settings.home).peers(event, described.sha256, but=ue)
    return Peers(object=described, href=href, peers=peers, ask_again_s=PEER_S / 3)


async def _known(service: Service, event: str, sha256: str) -> tuple[SharedObject, str]:
    """A file of one of the event's recent versions. Raises Problem 404: peers give nothing that is not the event's."""
    state = await service.offers.of(event)
    recent = [version for version in reversed(state.versions) if version.withdrawn is None][:RECENT_VERSIONS]
    for version in recent:
        offered = await service.offers.version(event, version.number)
        for name, offer in offered.offers.items():
            for file in offer.files.values():
                if file.sha256 == sha256 and 0 < file.bytes <= MOST_BYTES:
                    described = await asyncio.to_thread(_described, offer.path_of(file), sha256)
                    place = f"/events/{event}/versions/{version.number}/artefacts/{name}/files/{file.path}"
                    return described, place
    raise Problem(
        404, "Not Found", f"no recent version of {event} has a file with SHA-256 {sha256}; GET /events/{event}/versions"
    )


@lru_cache(maxsize=512)
def _described(path: Path, sha256: str) -> SharedObject:
    content = path.read_bytes()
    return SharedObject(name=path.name, bytes=len(content), sha256=sha256, pieces=pieces_of(content))


@lru_cache(maxsize=8)
def _book(home: Path) -> PeerBook:
    return PeerBook(home / "peers.sqlite")
