"""A real server in a process of its own that can be killed and started again on the same socket."""

import multiprocessing
import os
import signal
import socket
from contextlib import suppress
from types import TracebackType

from crowdnerf_lab.network.settings import ServiceSettings

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["crowdnerf_lab.network.service", "uvicorn"])


def _serve(settings: ServiceSettings, listening: socket.socket) -> None:
    import uvicorn

    from crowdnerf_lab.network.service import create_app

    config = uvicorn.Config(create_app(settings), lifespan="off", log_level="error")
    uvicorn.Server(config).run(sockets=[listening])


class MortalServer:
    """Requests that come while it is dead wait in the socket's queue for the next one."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._process = None

    def start(self) -> None:
        self._process = _PROCESSES.Process(target=_serve, args=(self._settings, self._listening), daemon=True)
        self._process.start()

    def kill(self) -> None:
        """SIGKILL: no handler, no flush, no good-bye."""
        if self._process is not None and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.join()
            self._process.close()
            self._process = None

    def __enter__(self) -> "MortalServer":
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._listening.close()
