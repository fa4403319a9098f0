"""Context: what a route finds of its service, and who is calling it."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.requests import HTTPConnection

from crowdnerf_lab.catalogue.catalogue import EVENT, Catalogue
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.api.limits import Rates, address_of
from crowdnerf_lab.network.api.metrics import Metrics
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.api.supervision import Supervised
from crowdnerf_lab.network.api.tokens import Holder, Role, TokenError, holder_of
from crowdnerf_lab.network.models.browser_model_files import BrowserModelFiles
from crowdnerf_lab.network.models.deltas import Deltas
from crowdnerf_lab.network.models.downloads import CodedFiles, FileMemory
from crowdnerf_lab.network.models.offers import Offers
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.views.view_engine import ViewEngine

EventName = Annotated[str, Path(pattern=f"^{EVENT.pattern}$", description="An event's name.")]


@dataclass
class RequestRates:
    """Buckets of the service: of each UE, and of each address for joining and for asking without a good token."""

    ues: Rates
    joins: Rates
    refused: Rates

    @classmethod
    def of(cls, settings: ServiceSettings) -> "RequestRates":
        """As the settings say."""
        return cls(
            ues=Rates(rate=settings.requests_per_second, burst=settings.burst),
            joins=Rates(rate=settings.joins_per_minute / 60, burst=settings.joins_per_minute),
            refused=Rates(rate=settings.refused_per_minute / 60, burst=settings.refused_per_minute),
        )


@dataclass
class Service:
    """What the routes of one API process share; `request.app.state.service`.

    views: None until the application has started, and where the settings want none. worker: None where no
    contributions are to be turned into versions. enhancing: held while a photo is enhanced, one at a time.
    """

    settings: ServiceSettings
    database: Database
    catalogue: Catalogue
    metrics: Metrics
    rates: RequestRates
    offers: Offers
    memory: FileMemory
    coded: CodedFiles
    deltas: Deltas
    browser_models: BrowserModelFiles
    views: ViewEngine | None = None
    worker: Supervised | None = None
    enhancing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Caller:
    """Who asks: a UE of the event, or the operator (ue is empty). token_sha256: of the token that was shown."""

    event: str
    ue: str
    role: Role
    token_sha256: str


def service_of(connection: HTTPConnection) -> Service:
    """The service that a request or a WebSocket reached."""
    return connection.app.state.service


async def _current_service(connection: HTTPConnection) -> Service:
    """`service_of` for FastAPI, which would send a plain function to another thread."""
    return service_of(connection)


def caller_of_token(service: Service, token: str, event: str) -> Caller:
    """Who shows this token at an event. Raises Problem: 401 when it is not good, 403 or 404 for another event's."""
    try:
        holder = holder_of(service.database, token)
    except TokenError as error:
        raise _unauthorised(str(error), error="invalid_token") from error
    if holder.event != event and not known_event(service, event):
        raise Problem(404, "Not Found", f"there is no event {event!r:.160}; GET /events lists those there are")
    return _caller(holder, event)


def known_event(service: Service, event: str) -> bool:
    """Whether somebody made this event."""
    found = service.database.connection().execute("SELECT 1 FROM events WHERE event = ?", (event,)).fetchone()
    return re.fullmatch(EVENT, event) is not None and found is not None


async def calling_member(event: EventName, request: Request) -> Caller:
    """A UE of the event or the operator, by the bearer token. FastAPI dependency; counts the request of a UE."""
    caller = _authenticated(request, event)
    if caller.role == "ue":
        service_of(request).rates.ues.take(f"{caller.event} {caller.ue}", what="requests")
    return caller


async def calling_ue(caller: Annotated[Caller, Depends(calling_member)]) -> Caller:
    """The UE that asks, by its bearer token. FastAPI dependency. Raises Problem 401, 403, 404, 429."""
    if caller.role != "ue":
        raise Problem(403, "Forbidden", "this is for UEs, and the token is the operator's; join the event as a UE")
    return caller


async def calling_operator(request: Request) -> Caller:
    """The operator, by the bearer token. FastAPI dependency. Raises Problem 401, 403, 429."""
    caller = _authenticated(request, request.path_params.get("event"))
    if caller.role != "operator":
        raise Problem(403, "Forbidden", "this is for the operator; send the operator's token")
    return caller


CallingMember = Annotated[Caller, Depends(calling_member)]
CallingUE = Annotated[Caller, Depends(calling_ue)]
CallingOperator = Annotated[Caller, Depends(calling_operator)]
CurrentService = Annotated[Service, Depends(_current_service)]


def _authenticated(request: Request, event: str | None) -> Caller:
    service = service_of(request)
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    try:
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorised("send the header 'Authorization: Bearer TOKEN'; joining an event gives a token")
        if event is not None:
            return caller_of_token(service, token.strip(), event)
        return _caller(_holder(service, token.strip()), "")
    except Problem as problem:
        if problem.status == 401:
            service.rates.refused.take(address_of(request), what="requests without a good token from this address")
        raise


def _holder(service: Service, token: str) -> Holder:
    try:
        return holder_of(service.database, token)
    except TokenError as error:
        raise _unauthorised(str(error), error="invalid_token") from error


def _caller(holder: Holder, event: str) -> Caller:
    if holder.role == "operator":
        return Caller(event, "", "operator", holder.sha256)
    if event and holder.event != event:
        raise Problem(403, "Forbidden", f"the token is of another event than {event!r:.160}; join this one")
    return Caller(holder.event or "", holder.ue or "", "ue", holder.sha256)


def _unauthorised(detail: str, *, error: str | None = None) -> Problem:
    challenge = 'Bearer realm="crowdnerf_lab"' + ("" if error is None else f', error="{error}"')
    return Problem(401, "Unauthorized", detail, headers={"WWW-Authenticate": challenge})
