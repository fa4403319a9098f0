"""The service: UEs and the network that they talk to, as one ASGI application.

    python -m crowdnerf_lab.network --home HOME --port 8000 --events concert
    CROWDNERF_HOME=HOME uvicorn --factory crowdnerf_lab.network.service:app --workers 2

Over the air use TLS, here or in a reverse proxy: tokens are bearer tokens. Both commands take uvicorn's
--ssl-certfile and --ssl-keyfile. The operator's token is in HOME/operator.token.
"""

import asyncio
import logging
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network import browser_ue_routes
from crowdnerf_lab.network.api import events_routes, service_routes
from crowdnerf_lab.network.api.context import RequestRates, Service
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.api.events import Events
from crowdnerf_lab.network.api.head_requests import HeadRequests
from crowdnerf_lab.network.api.limits import RequestLimits
from crowdnerf_lab.network.api.metrics import Metrics, RequestMetrics
from crowdnerf_lab.network.api.observation import observe
from crowdnerf_lab.network.api.openapi import describe
from crowdnerf_lab.network.api.problems import install_problems
from crowdnerf_lab.network.api.supervision import Supervised, end_with_parent
from crowdnerf_lab.network.api.tokens import operator_token, remove_expired
from crowdnerf_lab.network.delivery import delivery_routes
from crowdnerf_lab.network.delivery.broadcaster import Broadcaster
from crowdnerf_lab.network.models import browser_models_routes, models_routes
from crowdnerf_lab.network.models.browser_model_files import BrowserModelFiles
from crowdnerf_lab.network.models.deltas import Deltas
from crowdnerf_lab.network.models.downloads import CodedFiles, FileMemory
from crowdnerf_lab.network.models.offers import Offers
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads import contributions_routes, uploads_routes
from crowdnerf_lab.network.uploads.uploads import Uploads
from crowdnerf_lab.network.views import enhanced_routes, views_routes
from crowdnerf_lab.network.views.view_engine import ViewEngine

log = logging.getLogger(__name__)

HOUSEKEEPING_S = 60.0
ROUTERS = (
    models_routes.router,  # first: what a crowd asks for at once; routes are tried in turn
    browser_models_routes.router,
    views_routes.router,
    enhanced_routes.router,
    uploads_routes.router,
    contributions_routes.router,
    events_routes.router,
    delivery_routes.router,
    browser_ue_routes.router,
    service_routes.router,
)


def app() -> FastAPI:
    """The application with the settings of the environment, for `uvicorn --factory`."""
    return create_app(ServiceSettings.from_environment())


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application of one API process; its state is on disk, and several may share a home."""
    catalogue = Catalogue(settings.home / "catalogue")
    service = Service(
        settings=settings,
        database=Database(settings.home),
        catalogue=catalogue,
        metrics=Metrics(),
        rates=RequestRates.of(settings),
        offers=Offers(catalogue),
        memory=FileMemory(settings.memory_cache_bytes),
        coded=CodedFiles(settings.home / "coded"),
        deltas=Deltas(settings.home / "deltas"),
        browser_models=BrowserModelFiles(settings.home / "browser_models"),
    )
    operator_token(service.database, settings.home)
    Events(service.database).make_absent(settings.events)
    application = FastAPI(
        title="crowdnerf_lab.network",
        description="Captures in, models and views out, while the event runs.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    application.state.service = service
    for router in ROUTERS:
        application.router.routes.extend(router.routes)
    application.openapi = partial(describe, application)
    install_problems(application)
    observe(service)
    application.add_middleware(HeadRequests, routes=application.routes)
    application.add_middleware(RequestLimits, most_upload_bytes=settings.max_upload_bytes)
    application.add_middleware(RequestMetrics, metrics=service.metrics)
    return application


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Starts what runs beside the routes, and ends it."""
    service: Service = application.state.service
    settings = service.settings
    end_with_parent()
    async with AsyncExitStack() as running:
        running.callback(service.database.close)
        for part in (service.coded, service.deltas, service.browser_models, service.offers):
            running.push_async_callback(part.close)
        if settings.view_processes > 0:
            service.views = ViewEngine(service.catalogue, settings=settings)
            running.push_async_callback(service.views.close)
            await service.views.start()
        if settings.train:
            service.worker = Supervised(
                (sys.executable, "-m", "crowdnerf_lab.network.updates.worker", str(settings.home)),
                lock=settings.home / "worker.lock",
                on_restart=service.metrics.restarts.labels("worker").inc,
            )
            running.push_async_callback(service.worker.close)
            service.worker.start()
        if settings.broadcast is not None:
            broadcaster = Broadcaster(settings.home, service.catalogue, settings.broadcast)
            running.callback(broadcaster.close)
            broadcaster.start()
        housekeeping = asyncio.create_task(_keep_house(service))
        running.callback(housekeeping.cancel)
        yield


async def _keep_house(service: Service) -> None:
    """Remove, now and then, what has expired."""
    uploads = Uploads(service.database, settings=service.settings)
    while True:
        for what, remove in (("uploads", uploads.sweep), ("tokens", lambda: remove_expired(service.database))):
            try:
                await run_in_threadpool(remove)
            except (OSError, sqlite3.Error) as error:
                log.warning("expired %s stay for now: %s", what, error)
        await asyncio.sleep(HOUSEKEEPING_S)
