"""Routes of events and of the UEs present at them."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from crowdnerf_lab.captures.bundle import Consent
from crowdnerf_lab.catalogue.catalogue import EVENT
from crowdnerf_lab.devices.profile import OperatingSystem
from crowdnerf_lab.network.api.context import (
    CallingOperator,
    CallingUE,
    CurrentService,
    EventName,
)
from crowdnerf_lab.network.api.events import (
    Event,
    EventError,
    EventExistsError,
    Events,
    Joining,
    NoEventError,
    NotAdmittedError,
)
from crowdnerf_lab.network.api.limits import address_of
from crowdnerf_lab.network.api.problems import Problem, declared

router = APIRouter(tags=["events"])
Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EventRequest(_Document):
    """An event to make. join_code: what UEs must send to join, as shown at the event; None: everybody may join."""

    event: Annotated[str, Field(pattern=f"^{EVENT.pattern}$")]
    title: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    join_code: Annotated[str, Field(min_length=4, max_length=128)] | None = None


class EventDocument(_Document):
    """An event. created: Unix time."""

    event: str
    title: str
    created: float
    join_code_required: bool


class EventList(_Document):
    """All events, the oldest first."""

    events: tuple[EventDocument, ...]


class ConsentDocument(_Document):
    """What a contributor allows: training models on the photos, publishing the photos themselves; true or false."""

    train: StrictBool
    publish: StrictBool


class JoinRequest(_Document):
    """What a UE says when it joins. consent: to training on its photos, and to publishing them. licence: of them."""

    join_code: Annotated[str, Field(max_length=128)] | None = None
    device: Words
    operating_system: OperatingSystem | None = None
    consent: ConsentDocument
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")] = "CC-BY-4.0"


class TokenDocument(_Document):
    """A UE's pseudonym and its token, which is shown this once. expires: Unix time."""

    ue: str
    token: str
    expires: float


class UEDocument(_Document):
    """A UE and what it has at the service. Unix times; left: null while it is present."""

    ue: str
    device: str
    operating_system: str | None
    joined: float
    left: float | None
    contributions: int
    bytes: int
    uploads: int
    tokens: int


class UEList(_Document):
    """UEs in the order of joining."""

    ues: tuple[UEDocument, ...]


class Revocation(_Document):
    """How many tokens ended."""

    revoked: int


@router.post("/events", status_code=201, operation_id="make_event", responses=declared(401, 403, 409, 413, 422, 429))
def make_event(
    body: EventRequest, service: CurrentService, _operator: CallingOperator, response: Response
) -> EventDocument:
    """Make an event (operator)."""
    try:
        made = Events(service.database).make(body.event, title=body.title, join_code=body.join_code)
    except EventExistsError as error:
        raise Problem(409, "Conflict", str(error), kind="event-exists") from error
    response.headers["Location"] = f"/events/{made.event}"
    return _described(made)


@router.get("/events", operation_id="list_events", responses=declared(422))
def list_events(service: CurrentService) -> EventList:
    """All events; anybody may ask, to find the one to join."""
    return EventList(events=tuple(_described(event) for event in Events(service.database).all()))


@router.get("/events/{event}", operation_id="read_event", responses=declared(404, 422))
def read_event(event: EventName, service: CurrentService) -> EventDocument:
    """One event."""
    try:
        return _described(Events(service.database).one(event))
    except NoEventError as error:
        raise _absent(error) from error


@router.post(
    "/events/{event}/ues", status_code=201, operation_id="join_event", responses=declared(403, 404, 413, 422, 429)
)
def join_event(
    event: EventName, body: JoinRequest, service: CurrentService, request: Request, response: Response
) -> TokenDocument:
    """Join an event: a pseudonym and a token. So many a minute from one address."""
    service.rates.joins.take(address_of(request), what="UEs joining from this address")
    joining = Joining(
        body.device,
        body.operating_system,
        Consent(train=body.consent.train, publish=body.consent.publish),
        body.licence,
    )
    try:
        joined = Events(service.database).join(
            event, joining, join_code=body.join_code, hours=service.settings.token_hours
        )
    except NoEventError as error:
        raise _absent(error) from error
    except NotAdmittedError as error:
        raise Problem(403, "Forbidden", str(error), kind="wrong-join-code") from error
    response.headers["Cache-Control"] = "no-store"
    return TokenDocument(ue=joined.ue, token=joined.token.text, expires=joined.token.expires)


@router.get("/events/{event}/ues", operation_id="list_ues", responses=declared(401, 403, 404, 422, 429))
def list_ues(event: EventName, service: CurrentService, _operator: CallingOperator) -> UEList:
    """UEs that joined, and what each has here (operator)."""
    accounts = Events(service.database).accounts(event)
    return UEList(ues=tuple(UEDocument.model_validate(account, from_attributes=True) for account in accounts))


@router.post(
    "/events/{event}/ues/me/token",
    status_code=201,
    operation_id="renew_token",
    responses=declared(401, 403, 404, 422, 429),
)
def renew_token(caller: CallingUE, service: CurrentService, response: Response) -> TokenDocument:
    """A new token; the one that was sent ends."""
    try:
        token = Events(service.database).renew(
            caller.event, caller.ue, token_sha256=caller.token_sha256, hours=service.settings.token_hours
        )
    except EventError as error:
        raise _ended(error) from error
    response.headers["Cache-Control"] = "no-store"
    return TokenDocument(ue=caller.ue, token=token.text, expires=token.expires)


@router.delete(
    "/events/{event}/ues/me", status_code=204, operation_id="leave_event", responses=declared(401, 403, 404, 422, 429)
)
def leave_event(caller: CallingUE, service: CurrentService) -> None:
    """Leave: all tokens end; what was contributed stays (DELETE …/contributions forgets it)."""
    Events(service.database).leave(caller.event, caller.ue)


@router.delete(
    "/events/{event}/ues/{ue}/tokens", operation_id="revoke_tokens", responses=declared(401, 403, 404, 422, 429)
)
def revoke_tokens(
    event: EventName,
    ue: Annotated[str, Path(pattern=r"^ue[0-9a-f]{8,64}$", description="A UE's pseudonym.")],
    service: CurrentService,
    _operator: CallingOperator,
) -> Revocation:
    """End all tokens of a UE (operator)."""
    try:
        return Revocation(revoked=Events(service.database).revoke_tokens(event, ue))
    except EventError as error:
        raise _absent(error) from error


def _described(event: Event) -> EventDocument:
    return EventDocument.model_validate(event, from_attributes=True)


def _absent(error: EventError) -> Problem:
    return Problem(404, "Not Found", str(error))


def _ended(error: EventError) -> Problem:
    return Problem(401, "Unauthorized", str(error), headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
