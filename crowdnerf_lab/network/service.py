"""The service: UEs and the network that they talk to, as one ASGI application.

    python -m crowdnerf_lab.network --home HOME --port 8000 --events concert
    CROWDNERF_HOME=HOME uvicorn --factory crowdnerf_lab.network.service:app --workers 2

Over the air use TLS, here or in a reverse proxy: tokens are bearer tokens. Both commands take uvicorn's
--ssl-certfile and --ssl-keyfile. The operator's token is in HOME/operator.token.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network import contributions_routes, events_routes, models_routes, uploads_routes
from crowdnerf_lab.network.context import RequestRates, Service
from crowdnerf_lab.network.database import Database
from crowdnerf_lab.network.deltas import Deltas
from crowdnerf_lab.network.downloads import CodedFiles, FileMemory
from crowdnerf_lab.network.events import Events
from crowdnerf_lab.network.limits import RequestLimits
from crowdnerf_lab.network.metrics import Metrics
from crowdnerf_lab.network.offers import Offers
from crowdnerf_lab.network.problems import install_problems
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.tokens import operator_token

ROUTERS = (events_routes.router, uploads_routes.router, contributions_routes.router, models_routes.router)


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
    )
    operator_token(service.database, settings.home)
    Events(service.database).make_absent(settings.events)
    application = FastAPI(
        title="crowdnerf_lab.network",
        description="Captures in, models and views out, while the event runs.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    application.state.service = service
    for router in ROUTERS:
        application.router.routes.extend(router.routes)
    install_problems(application)
    application.add_middleware(
        RequestLimits,
        is_upload=lambda path: "/uploads" in path,
        most_upload_bytes=settings.max_upload_bytes,
    )
    return application


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    service: Service = application.state.service
    async with uploads_routes.sweeping(service):
        yield
    await service.offers.close()
    await service.deltas.close()
    await service.coded.close()
    service.database.close()
