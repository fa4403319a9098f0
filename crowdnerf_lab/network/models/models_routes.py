"""Routes of an event's models: versions, selection by what a UE can do, and downloads."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.card import CardFile
from crowdnerf_lab.catalogue.catalogue import EVENT, Version
from crowdnerf_lab.catalogue.select import Target, select, select_set
from crowdnerf_lab.network.api.context import CallingMember, CurrentService, Service, calling_member, service_of
from crowdnerf_lab.network.api.problems import Problem, declared
from crowdnerf_lab.network.models.crowd_route import CrowdRoute, answers_quickly
from crowdnerf_lab.network.models.deltas import MEDIA_TYPE as DELTA_TYPE
from crowdnerf_lab.network.models.downloads import Coder, StoredFile, download
from crowdnerf_lab.network.models.models_documents import (
    CardsDocument,
    SelectionDocument,
    SelectRequest,
    VersionDocument,
    VersionList,
)
from crowdnerf_lab.network.models.offers import NoVersionError, Offer, OfferedVersion, WithdrawnError

MOST_WAIT_S = 60.0
SOON_S = 0.5
"""How long a selection waits for a delta that is being made; the next one will find it."""
PATIENCE_S = 20.0
"""How long the delta's own route waits for it."""
VersionNumber = Annotated[int, Path(ge=1, le=10**9, description="A version's number.")]
NamedArtefact = Annotated[str, Path(max_length=256, description="An artefact's name.")]
LONGEST_REMEMBERED = 4096
"""Bytes of a question whose answer is kept."""
router = APIRouter(tags=["models"], route_class=CrowdRoute)
READ = declared(401, 403, 404, 422, 429)


@router.post(
    "/events/{event}/models:select",
    operation_id="select_models",
    response_model=SelectionDocument,
    responses=READ | declared(400, 413, 415),
)
async def select_models(caller: CallingMember, body: SelectRequest, request: Request) -> Response:
    """Which models fit a UE now, or why it should ask the network for views."""
    service = service_of(request)
    state = await service.offers.of(caller.event)
    question = await request.body()
    answer = state.answers.get(question)
    if answer is None:
        latest = await service.offers.latest(caller.event)
        answer, final = await _selection(service, latest, body)
        if final and len(question) <= LONGEST_REMEMBERED:
            state.remember(question, answer)
    return _selected(service, answer)


@router.get(
    "/events/{event}/versions/{number}/artefacts/{name}/files/{path:path}",
    operation_id="download_file",
    response_class=Response,
    responses=READ
    | declared(406, 410, 412, 416)
    | {
        200: {"description": "The file.", "content": {"application/octet-stream": {}}},
        206: {"description": "The ranges that were asked for.", "content": {"application/octet-stream": {}}},
        304: {"description": "The UE has it already."},
    },
)
@router.head("/events/{event}/versions/{number}/artefacts/{name}/files/{path:path}", include_in_schema=False)
async def download_file(
    caller: CallingMember,
    request: Request,
    number: VersionNumber,
    name: NamedArtefact,
    path: Annotated[str, Path(max_length=512, description="A file's path, as the card lists it.")],
) -> Response:
    """One file of an artefact. It never changes: ranges, If-Range, If-None-Match, zstd or gzip where that pays."""
    service = service_of(request)
    offer = named(await given_out(service, caller.event, number), name)
    file = offer.files.get(path)
    if file is None:
        known = ", ".join(sorted(offer.files))
        raise Problem(404, "Not Found", f"{name} has no file {path!r:.160}; it has {known}")
    stored = StoredFile(offer.path_of(file), file.bytes, file.sha256)
    coded = service.coded if offer.artefact.card.coding == "none" else None
    return await sent(service, request, stored, coded=coded)


@router.get("/events/{event}/versions", operation_id="list_versions", response_model=VersionList, responses=READ)
async def list_versions(caller: CallingMember, service: CurrentService) -> Response:
    """The versions of an event's models."""
    state = await service.offers.of(caller.event)
    latest = state.latest
    document = {"latest": latest and latest.number, "versions": [_version(version) for version in state.versions]}
    return _json(json.dumps(document))


@router.get(
    "/events/{event}/versions/latest",
    operation_id="latest_version",
    response_model=VersionDocument,
    responses=READ | {204: {"description": "There is none newer than that, also after waiting."}},
)
async def latest_version(
    caller: CallingMember,
    service: CurrentService,
    newer_than: Annotated[int, Query(ge=0, le=10**9, description="The version that the UE has; 0: none.")] = 0,
    wait_s: Annotated[float, Query(ge=0, le=MOST_WAIT_S, description="Wait so long for a newer one, seconds.")] = 0.0,
) -> Response:
    """The latest version when it is newer than the one that the UE has, or when that one was withdrawn."""
    found = await service.offers.newer(caller.event, than=newer_than, wait_s=wait_s)
    return Response(status_code=204) if found is None else _json(json.dumps(_version(found)))


@router.get(
    "/events/{event}/versions/{number}",
    operation_id="read_version",
    response_model=CardsDocument,
    responses=READ | declared(410),
)
async def read_version(caller: CallingMember, service: CurrentService, number: VersionNumber) -> Response:
    """One version, with the cards of its artefacts."""
    found = await given_out(service, caller.event, number)
    cards = ",".join(offer.card_json for offer in found.offers.values())
    return _json(f'{json.dumps(_version(found.version))[:-1]}, "cards": [{cards}]}}')


@router.get(
    "/events/{event}/versions/{number}/artefacts/{name}/delta",
    operation_id="download_delta",
    response_class=Response,
    responses=READ
    | declared(406, 410, 412, 416)
    | {
        200: {"description": "The delta.", "content": {DELTA_TYPE: {}}},
        206: {"description": "The ranges that were asked for.", "content": {DELTA_TYPE: {}}},
        304: {"description": "The UE has it already."},
    },
)
async def download_delta(
    caller: CallingMember,
    request: Request,
    number: VersionNumber,
    name: NamedArtefact,
    since: Annotated[int, Query(alias="from", ge=1, le=10**9, description="The version that the UE has.")],
) -> Response:
    """What makes an artefact's model of the same artefact's in an earlier version; 404 when that does not pay."""
    service = service_of(request)
    offer = named(await given_out(service, caller.event, number), name)
    # A withdrawn version is no longer given out, but who has it may well leave it by a delta.
    old = named(await _any_version(service, caller.event, since), name)
    delta = await service.deltas.between(model_of(old), model_of(offer), wait_s=PATIENCE_S)
    if delta is None:
        detail = f"no delta leads from version {since} of {name} to {number} in fewer bytes; fetch the file whole"
        raise Problem(404, "Not Found", detail, kind="no-delta")
    return await sent(service, request, delta, coded=None)


@answers_quickly("select_models")
async def _known_selection(request: Request) -> Response | None:
    """The answer to a selection that somebody asked for before, in the same words."""
    event, service = request.path_params["event"], service_of(request)
    if request.headers.get("content-type") != "application/json":
        return None
    answer = service.offers.remembered(event, await request.body())
    if answer is None:
        return None
    await calling_member(event, request)
    return _selected(service, answer)


@answers_quickly("download_file")
async def _plain_download(request: Request) -> Response | None:
    """A file, where the path is as `select_models` gives it."""
    event, number, name, path = (request.path_params[each] for each in ("event", "number", "name", "path"))
    usual = re.fullmatch(r"[1-9][0-9]{0,8}", number) and EVENT.fullmatch(event) and len(name) + len(path) <= 256
    if not usual or request.query_params:
        return None
    caller = await calling_member(event, request)
    return await download_file(caller, request, int(number), name, path)


def _selected(service: Service, answer: bytes) -> Response:
    service.metrics.selections.labels("device" if answer.endswith(b'"inference": "device"}') else "network").inc()
    return _json(answer)


async def _selection(service: Service, latest: OfferedVersion | None, body: SelectRequest) -> tuple[bytes, bool]:
    """The answer as JSON, and whether it stays so while the event's versions do (no delta is being made)."""
    try:
        chosen, reason = _chosen(() if latest is None else latest.artefacts, body)
    except ArithmeticError as error:
        detail = f"the capability and the target cannot be computed with ({error}); send numbers of real devices"
        raise Problem(422, "Unprocessable Content", detail, kind="invalid-request") from error
    if latest is None or not chosen:
        number = None if latest is None else latest.version.number
        document = {"version": number, "reason": reason, "artefacts": [], "inference": "network"}
        return json.dumps(document).encode(), True
    offers, final = [], True
    for artefact in chosen:
        offer = latest.offers[artefact.card.name]
        delta, known = await _delta(service, latest.version, offer, body)
        final = final and known
        offers.append(_offer_json(latest.version, offer, delta))
    head = json.dumps({"version": latest.version.number, "reason": reason})[:-1]
    return f'{head}, "artefacts": [{", ".join(offers)}], "inference": "device"}}'.encode(), final


def _chosen(artefacts: Sequence[Artefact], body: SelectRequest) -> tuple[Sequence[Artefact], str]:
    """Artefacts in the order of their download, and why these."""
    target = Target(**body.target.model_dump())
    if body.most > 1:
        chosen = select_set(artefacts, body.capability, target, task=body.task)
        return chosen.artefacts[: body.most], chosen.reason
    selection = select(artefacts, body.capability, target, task=body.task)
    return () if selection.artefact is None else (selection.artefact,), selection.reason


async def _delta(
    service: Service, version: Version, offer: Offer, body: SelectRequest
) -> tuple[dict[str, Any] | None, bool]:
    """The delta from the newest version of this model that the UE has; and whether there is no more to know of it."""
    name = offer.artefact.card.name
    held = max((model.version for model in body.held if model.name == name), default=version.number)
    if held >= version.number:
        return None, True
    try:
        old = (await service.offers.any_version(version.event, held)).offers.get(name)
    except NoVersionError:
        return None, True
    if old is None or model_of(old).sha256 == model_of(offer).sha256:
        return None, True
    delta = await service.deltas.between(model_of(old), model_of(offer), wait_s=SOON_S)
    if delta is None:
        return None, not service.deltas.under_way(model_of(old), model_of(offer))
    href = f"{_place(version, name)}/delta?from={held}"
    return {
        "from": held,
        "path": offer.artefact.card.model,
        "bytes": delta.bytes,
        "sha256": delta.sha256,
        "href": href,
    }, True


def _offer_json(version: Version, offer: Offer, delta: dict[str, Any] | None) -> str:
    place = _place(version, offer.artefact.card.name)
    files = [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256, "href": f"{place}/files/{file.path}"}
        for file in offer.artefact.card.files
    ]
    about = json.dumps({"name": offer.artefact.card.name, "files": files} | ({} if delta is None else {"delta": delta}))
    return f'{about[:-1]}, "card": {offer.card_json}}}'


def _place(version: Version, name: str) -> str:
    return f"/events/{version.event}/versions/{version.number}/artefacts/{name}"


def _version(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "published": version.published,
        "note": version.note,
        "artefacts": list(version.artefacts),
        "withdrawn": version.withdrawn,
    }


def model_of(offer: Offer) -> StoredFile:
    file: CardFile = offer.files[offer.artefact.card.model]
    return StoredFile(offer.path_of(file), file.bytes, file.sha256)


def named(version: OfferedVersion, name: str) -> Offer:
    if name not in version.offers:
        known = ", ".join(version.offers)
        raise Problem(
            404, "Not Found", f"version {version.version.number} has no artefact {name!r:.160}; it has {known}"
        )
    return version.offers[name]


async def given_out(service: Service, event: str, number: int) -> OfferedVersion:
    try:
        return await service.offers.version(event, number)
    except NoVersionError as error:
        raise Problem(404, "Not Found", str(error)) from error
    except WithdrawnError as error:
        raise Problem(410, "Gone", str(error), kind="version-withdrawn") from error


async def _any_version(service: Service, event: str, number: int) -> OfferedVersion:
    try:
        return await service.offers.any_version(event, number)
    except NoVersionError as error:
        raise Problem(404, "Not Found", str(error)) from error


async def sent(service: Service, request: Request, file: StoredFile, *, coded: Coder | None) -> Response:
    try:
        response = await download(request.headers, request.method, file, memory=service.memory, coded=coded)
    except OSError as error:
        raise Problem(410, "Gone", "the file was removed meanwhile; select again") from error
    service.metrics.sent.labels(response.headers.get("content-encoding", "identity")).inc(
        0 if request.method == "HEAD" else int(response.headers.get("content-length", 0))
    )
    return response


def _json(text: str | bytes) -> Response:
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-cache"})
