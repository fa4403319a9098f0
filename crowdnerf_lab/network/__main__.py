"""Run the service: `python -m crowdnerf_lab.network --home HOME --port 8000 --events concert`.

What is not given here comes from CROWDNERF_* variables (see `network.settings`). One server runs on a home; it ends on
an interrupt or SIGTERM, within seconds, and loses nothing that it acknowledged. Over the air give --ssl-certfile and
--ssl-keyfile, or put a reverse proxy with TLS before it and name its address in --forwarded-allow-ips.
"""

import argparse
import json
import logging.config
import os
import signal
import socket
import sys
import threading

import uvicorn
from uvicorn.supervisors import Multiprocess

from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.api.running import Running, RunningError, announced, claimed
from crowdnerf_lab.network.settings import PREFIX, ServiceSettings, SettingsError

GRACE_S = 3
"""For which requests under way may go on once the server is told to end."""
KEPT_ALIVE_S = 30
"""For which a connection without requests is kept: a UE that looks around asks again and again."""
BACKLOG = 4096
"""Connections that may wait to be accepted: a crowd comes at once."""
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"error": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["error"]},
    "loggers": {"httpx": {"level": "WARNING"}},
}
"""Of every API process: to standard error, which `serve` keeps in a file."""


def main() -> int:
    """Exit status: 0 after a stop, 2 when it cannot run as asked."""
    arguments = _arguments()
    logging.config.dictConfig(LOGGING)
    signal.signal(signal.SIGTERM, _leave)  # which uvicorn raises again when it has shut down
    given = {"HOME": arguments.home, "EVENTS": arguments.events and json.dumps(arguments.events)}
    os.environ.update({PREFIX + name: value for name, value in given.items() if value})
    try:
        settings = ServiceSettings.from_environment()
        settings.home.mkdir(parents=True, exist_ok=True)
        with claimed(settings.home), _bound(arguments.host, arguments.port) as listening:
            scheme = "https" if arguments.ssl_certfile else "http"
            announced(settings.home, Running.here(_url(listening, scheme)))
            if arguments.end_with_input:
                threading.Thread(target=_end_with_input, daemon=True).start()
            _run(arguments, listening)
    except KeyboardInterrupt:
        return 0
    except (SettingsError, RunningError, FileError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m crowdnerf_lab.network", description="Run the service.")
    parser.add_argument("--home", help="folder of the service's state (CROWDNERF_HOME)")
    parser.add_argument("--events", nargs="*", help="events to make, open to everybody (CROWDNERF_EVENTS)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all of this machine's")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--workers", type=int, default=1, help="API processes")
    parser.add_argument("--ssl-certfile", help="certificate, for TLS")
    parser.add_argument("--ssl-keyfile", help="its private key")
    parser.add_argument("--forwarded-allow-ips", help="addresses of proxies whose X-Forwarded-For is believed")
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input does")
    return parser.parse_args()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens soon. Raises RunningError when the port is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RunningError(f"cannot listen at {host}:{port}: {reason}; choose another port, or 0 for any") from error
    return listening


def _url(listening: socket.socket, scheme: str) -> str:
    host, port = str(listening.getsockname()[0]), listening.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _run(arguments: argparse.Namespace, listening: socket.socket) -> None:
    config = uvicorn.Config(
        "crowdnerf_lab.network.service:app",
        factory=True,
        workers=arguments.workers,
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEPT_ALIVE_S,
        ssl_certfile=arguments.ssl_certfile,
        ssl_keyfile=arguments.ssl_keyfile,
        proxy_headers=arguments.forwarded_allow_ips is not None,
        forwarded_allow_ips=arguments.forwarded_allow_ips,
        ws_max_size=1 << 20,
    )
    if arguments.workers > 1:
        # Alone it is for no child: what outlives a killed service would hold its port.
        listening.set_inheritable(True)
        Multiprocess(config, sockets=[listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def _leave(_signal: int, _frame: object) -> None:
    """End by way of every `finally`."""
    sys.exit(0)


def _end_with_input() -> None:
    """End the server, as an interrupt would, once whoever started it closes its input or dies."""
    while os.read(0, 4096):  # not sys.stdin, whose lock Python needs to exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
