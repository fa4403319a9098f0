"""Supervision: a process that runs as long as the service does, once per home, and is started again when it dies."""

import asyncio
import fcntl
import logging
import os
import signal
import threading
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Before a process is started again: twice as long each time that it died soon."""
SOON_S = 60.0
LOOK_S = 1.0
"""How often a service that does not own the process looks whether nobody does any more."""
PATIENCE_S = 3.0
"""For a process to end by itself, and then for it to end when told to."""
State = Literal["elsewhere", "running", "waiting", "stopped"]


def lock_of(path: Path) -> int | None:
    """Hold a file's lock: a descriptor to close, here and in every process it is passed to; None: somebody else has it.

    The system frees it when its holders end, however they do.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def end_with_parent() -> None:
    """Have an API process end when the one that started it (`uvicorn --workers`) dies, whatever killed that."""
    parent = parent_process()
    if parent is not None:

        def wait_for_its_end() -> None:
            wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait_for_its_end, daemon=True).start()


@dataclass(frozen=True)
class Status:
    """A supervised process now. elsewhere: another process of the service has it. pid: while it runs here."""

    state: State
    pid: int | None
    restarts: int


class Supervised:
    """One process, started and ended with the event loop's service.

    The process finds its standard input at an end when this one dies, and must end then. It holds the lock too, so that
    whoever takes over waits for it.
    """

    def __init__(self, command: Sequence[str], *, lock: Path, on_restart: Callable[[], None] = lambda: None) -> None:
        self.command, self.lock, self.on_restart = tuple(command), Path(lock), on_restart
        self._state: State = "stopped"
        self._process: Process | None = None
        self._restarts = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> Status:
        """What the process does now."""
        running = self._process is not None and self._process.returncode is None
        return Status(self._state, self._process.pid if running and self._process else None, self._restarts)

    def start(self) -> None:
        """Begin to supervise, in the background."""
        self._task = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the process and the supervision, within twice PATIENCE_S."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _supervise(self) -> None:
        self._state = "elsewhere"
        while (held := lock_of(self.lock)) is None:
            await asyncio.sleep(LOOK_S)
        wait_s = SHORTEST_WAIT_S
        try:
            while True:
                started = time.monotonic()
                status = await self._run(held)
                lived_s = time.monotonic() - started
                wait_s = SHORTEST_WAIT_S if lived_s > SOON_S else min(2 * wait_s, LONGEST_WAIT_S)
                log.warning(
                    "%s ended with %s after %.0f s; again in %.1f s", self.command[-2:], status, lived_s, wait_s
                )
                self._state = "waiting"
                await asyncio.sleep(wait_s)
                self._restarts += 1
                self.on_restart()
        finally:
            self._state = "stopped"
            os.close(held)

    async def _run(self, held: int) -> int | str:
        """One life of the process. Ends it when this is cancelled."""
        ends_with_us, lifeline = os.pipe()  # a pipe by itself: what asyncio would make of one may be a socket
        try:
            # Its own session: an interrupt at the terminal, or of a notebook, is the service's to handle.
            self._process = await asyncio.create_subprocess_exec(
                *self.command, stdin=ends_with_us, stdout=DEVNULL, pass_fds=(held,), start_new_session=True
            )
        except OSError as error:
            os.close(lifeline)
            return os.strerror(error.errno or 0)
        finally:
            os.close(ends_with_us)
        self._state = "running"
        try:
            return await self._process.wait()
        finally:
            os.close(lifeline)
            await asyncio.shield(ended(self._process))


async def ended(process: Process) -> None:
    """Wait for a process whose input is closed; ask it to end, and then kill it."""
    for end in (lambda: None, process.terminate, process.kill):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            end()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
