"""A small HTTP server among the other tasks of a process: what peers and edges answer with."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from crowdnerf_lab.network.delivery.objects import DeliveryError


class _ServerInside(uvicorn.Server):
    """Signals are the process's own affair."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(application: ASGIApp, *, host: str, port: int) -> AsyncIterator[int]:
    """An ASGI application served in this event loop; gives its port once it answers. port: 0 takes a free one.

    Raises DeliveryError when the address is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise DeliveryError(f"cannot serve at {host}:{port} ({error.strerror}); use port 0") from error
    config = uvicorn.Config(application, interface="asgi3", lifespan="off", log_config=None, access_log=False)
    server = _ServerInside(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()
