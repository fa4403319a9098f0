"""The training worker of a service: `python -m crowdnerf_lab.network.updates.worker HOME`.

One process for each home. It goes through all events in turn, round after round, and ends on SIGTERM after the current
step, or when the process that started it ends. Killed in any other way, the next worker goes on where it was.
"""

import argparse
import fcntl
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.privacy.faces import FaceError
from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.updates.pipeline import EventUpdates, StoppedError, sandbox_for
from crowdnerf_lab.network.updates.update_settings import UpdateSettings

log = logging.getLogger(__name__)

LOCK = "training.lock"
"""Beside the lock of the service that supervises the worker."""
LOCK_PATIENCE_S = 10.0
"""For a worker that was told to stop and has not yet."""
LAST_STEP_S = 10.0
"""For the step in hand when the service has died; then the worker ends in the middle of it."""
NICENESS = 5
"""Training waits for those who want to see something now."""
PAUSE_S = 0.2
"""Between looks at the events when there was nothing to do."""
PAUSE_AFTER_TROUBLE_S = 5.0


class WorkerError(RuntimeError):
    """A worker that cannot start; the message says why."""


def work(home: Path, settings: UpdateSettings, *, rounds: int | None = None) -> None:
    """Update the events of a home until interrupted. rounds: end after so many looks at all events; None: never.

    Raises WorkerError when another worker has the home.
    """
    with _alone(home), sandbox_for(settings) as sandbox:
        database = Database(home)
        events: dict[str, EventUpdates] = {}
        while rounds is None or rounds > 0:
            pause = PAUSE_S
            for event in _events(database):
                if event not in events:
                    events[event] = EventUpdates(home, event, settings=settings, sandbox=sandbox)
                pause = max(pause, _looked_at(events[event]))
            rounds = None if rounds is None else rounds - 1
            if rounds != 0:
                time.sleep(pause)


def _looked_at(updates: EventUpdates) -> float:
    """One look at an event; returns the least seconds until the next one. What is wrong with one event is logged, and
    does not keep the others waiting."""
    try:
        while updates.update() is not None:
            pass
    except StoppedError:
        raise KeyboardInterrupt from None
    except (FileError, FaceError, CaptureError) as error:
        log.error("%s: %s", updates.event, error)
        updates.folder.say("in trouble", problem=type(error).__name__)
        return PAUSE_AFTER_TROUBLE_S
    return 0.0


def _events(database: Database) -> list[str]:
    return [row["event"] for row in database.connection().execute("SELECT event FROM events ORDER BY created, event")]


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the home's lock; the system frees it when this process dies."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("a") as file:
        patience = time.monotonic() + LOCK_PATIENCE_S
        while not _locked(file.fileno()):
            if time.monotonic() > patience:
                raise WorkerError(f"another worker has {home}; one is enough")
            time.sleep(PAUSE_S)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_with_parent() -> None:
    """Stop when the standard input, a pipe from the service that started this worker, comes to its end."""
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return

    def wait_for_the_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin itself, whose lock Python needs to exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_STEP_S)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def _stop(_signal: int, _frame: object) -> None:
    """SIGTERM ends the current step as Ctrl-C does, and with it the worker."""
    signal.raise_signal(signal.SIGINT)


def main() -> int:
    """The command line: the home; settings are those of the environment, as the service has them."""
    parser = argparse.ArgumentParser(prog="python -m crowdnerf_lab.network.updates.worker", description=work.__doc__)
    parser.add_argument("home", type=Path)
    home = parser.parse_args().home
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit its being ignored
    signal.signal(signal.SIGTERM, _stop)
    _end_with_parent()
    os.nice(NICENESS)
    settings = ServiceSettings.from_environment({**os.environ, "CROWDNERF_HOME": str(home)})
    try:
        work(home, settings.updates)
    except KeyboardInterrupt:
        log.info("stopped; the next worker goes on from here")
    except WorkerError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
