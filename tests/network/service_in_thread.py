"""The real service on a real socket, in a thread of the test's own process: up in a fraction of a second."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings


@dataclass(frozen=True)
class ServiceInThread:
    """Where it listens, and the state that its routes share."""

    url: str
    service: Service

    @property
    def operator_token(self) -> str:
        return (self.service.settings.home / "operator.token").read_text().strip()


@contextmanager
def service_in_thread(settings: ServiceSettings, *, port: int = 0) -> Iterator[ServiceInThread]:
    """Serve until the block ends. port: that of a service which has just ended, for one that takes its place."""
    application = create_app(settings)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="on", ws="websockets-sansio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        for _ in range(1000):
            if server.started or not thread.is_alive():
                break
            time.sleep(0.01)
        assert server.started
        yield ServiceInThread(f"http://127.0.0.1:{listening.getsockname()[1]}", application.state.service)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
