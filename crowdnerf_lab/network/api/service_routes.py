"""Routes of the service itself: what it is, how it is, and what it counts."""

import sqlite3
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from crowdnerf_lab.network.api.context import CurrentService, Service
from crowdnerf_lab.network.api.metrics import MEDIA_TYPE
from crowdnerf_lab.network.api.openapi import page_of

router = APIRouter(tags=["service"])
VERSION = "0.1.0"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Welcome(_Document):
    """Where to go from here."""

    service: str = "crowdnerf_lab.network"
    version: str = VERSION
    events: str = "/events"
    description: str = "/openapi.json"
    documentation: str = "/docs"
    health: str = "/health"


class Health(_Document):
    """status: ready when everything is, degraded while some part is not, failed when no request can be served.

    database, catalogue: whether they answer. views: the render processes. worker: the training; elsewhere: another
    process of this service has it. off: not wanted by the settings. version: of the package.
    """

    status: Literal["ready", "degraded", "failed"]
    version: str
    database: Literal["ready", "failed"]
    catalogue: Literal["ready", "failed"]
    views: Literal["ready", "starting", "failed", "off"]
    worker: Literal["running", "waiting", "elsewhere", "stopped", "off"]


@router.get("/", operation_id="welcome")
async def welcome() -> Welcome:
    """What this is."""
    return Welcome()


@router.get(
    "/health",
    operation_id="health",
    response_model=Health,
    responses={503: {"description": "No request can be served.", "model": Health}},
)
async def health(service: CurrentService, response: Response) -> Health:
    """Whether the service lives and which of its parts are ready; anybody may ask."""
    found = await run_in_threadpool(health_of, service)
    response.status_code = 503 if found.status == "failed" else 200
    response.headers["Cache-Control"] = "no-store"
    return found


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
def metrics(service: CurrentService) -> Response:
    """Counts and times of this API process, and of the queues; no UE is named."""
    return Response(service.metrics.text(), headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"})


@router.get(
    "/docs",
    operation_id="documentation",
    response_class=HTMLResponse,
    responses={200: {"description": "This description, as a page."}},
)
async def documentation(request: Request) -> HTMLResponse:
    """This description, as a page that needs no other server."""
    return HTMLResponse(page_of(request.app.openapi()))


def health_of(service: Service) -> Health:
    """The service's health, from its parts."""
    parts = {"database": _answers(service), "catalogue": _has_catalogue(service)}
    absent = "off" if service.settings.view_processes == 0 else "failed"
    views = absent if service.views is None else "ready" if service.views.ready else "starting"
    worker = "off" if service.worker is None else service.worker.status.state
    serving = set(parts.values()) == {"ready"}
    complete = serving and views in ("ready", "off") and worker in ("running", "elsewhere", "off")
    status = "ready" if complete else "degraded" if serving else "failed"
    return Health.model_validate(parts | {"status": status, "version": VERSION, "views": views, "worker": worker})


def _answers(service: Service) -> Literal["ready", "failed"]:
    try:
        service.database.connection().execute("SELECT 1 FROM events LIMIT 1").fetchone()
    except sqlite3.Error:
        return "failed"
    return "ready"


def _has_catalogue(service: Service) -> Literal["ready", "failed"]:
    return "ready" if (service.catalogue.root / "events").is_dir() else "failed"
