"""Which server runs on a home: a lock that its end frees, however it ends, and a note of where it listens."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from crowdnerf_lab.files import write_json
from crowdnerf_lab.network.api.supervision import lock_of

LOCK, NOTE = "server.lock", "server.json"


class RunningError(RuntimeError):
    """A server that cannot be started, or be reached; the message says why and what to do."""


@dataclass(frozen=True)
class Running:
    """A server that runs: where it listens, its process, and the package's version there."""

    url: str
    pid: int
    version: str

    @classmethod
    def here(cls, url: str) -> "Running":
        """This process, listening there."""
        return cls(url, os.getpid(), version("crowdnerf-lab"))


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Be the one server of a home. Raises RunningError when another runs there."""
    held = lock_of(home / LOCK)
    if held is None:
        found = running_on(home)
        where = "is starting" if found is None else f"runs at {found.url} (process {found.pid})"
        raise RunningError(f"a server {where} with its home in {home}; use that one, or stop it first")
    try:
        yield
    finally:
        (home / NOTE).unlink(missing_ok=True)
        os.close(held)


def announced(home: Path, running: Running) -> None:
    """Note where the server of this home listens."""
    write_json(home / NOTE, asdict(running))


def running_on(home: Path) -> Running | None:
    """The server that holds this home and has said where it listens; None: there is none, or not yet."""
    if not (home / NOTE).exists():
        return None
    held = lock_of(home / LOCK)
    if held is not None:  # nobody's: what it noted is a dead server's
        os.close(held)
        return None
    try:
        return Running(**json.loads((home / NOTE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def end_server(home: Path, *, patience_s: float = 30.0) -> None:
    """End the server of a home, where one runs, as an interrupt would. Raises RunningError when it does not end."""
    until = time.monotonic() + patience_s
    while home.is_dir() and is_claimed(home):
        found = running_on(home)
        if time.monotonic() > until:
            raise RunningError(f"a server holds {home / LOCK} and does not end; kill {found or 'it'}, or wait")
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)
        time.sleep(0.2)


def is_claimed(home: Path) -> bool:
    """Whether a server has this home, be it about to start or to end."""
    held = lock_of(home / LOCK)
    if held is not None:
        os.close(held)
    return held is None
