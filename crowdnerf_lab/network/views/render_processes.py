"""The render processes of a service, as it sees them: started, told what to do, and started again when they die."""

import asyncio
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crowdnerf_lab
from crowdnerf_lab.network.views.view_messages import Message, next_message, packed

log = logging.getLogger(__name__)

PROGRAM = "crowdnerf_lab.network.views.render_process"
SHORT_LIFE_S, LONGEST_PAUSE_S = 5.0, 10.0
"""A process that dies younger than the first is started again after a pause, twice as long each time, at most this."""


@dataclass(eq=False)
class RenderProcess:
    """One running process. loaded, failed: fields that it holds, or could not load (and why); loading: the one it is
    at. jobs: numbers of the views it was told to render; free_at: when (monotonic seconds) they should be done."""

    process: asyncio.subprocess.Process
    started: float = field(default_factory=time.monotonic)
    loaded: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    loading: str | None = None
    jobs: set[int] = field(default_factory=set)
    free_at: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, **header: Any) -> None:
        """Tell the process something; without effect when it has died, which its reader notices."""
        stream = self.process.stdin
        if stream is not None and not stream.is_closing():
            stream.write(packed(Message(header)))

    def load(self, name: str, folder: Path) -> None:
        """Have it load a field."""
        self.loading = name
        self.send(do="load", field=name, folder=str(folder))

    def drop(self, name: str) -> None:
        """Have it forget a field."""
        self.loaded.discard(name)
        self.send(do="drop", field=name)

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()


class RenderProcesses:
    """So many processes, kept alive.

    on_start is called with each that has started, on_message with what it says, on_end once it is gone.
    """

    def __init__(
        self,
        count: int,
        *,
        on_start: Callable[[RenderProcess], None],
        on_message: Callable[[RenderProcess, Message], None],
        on_end: Callable[[RenderProcess], None],
    ) -> None:
        self.count = count
        self.restarts = 0
        self.alive: list[RenderProcess] = []
        self._on_start, self._on_message, self._on_end = on_start, on_message, on_end
        self._keepers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start them all; they appear in `alive` as they do."""
        self._keepers = [asyncio.create_task(self._keep_alive()) for _ in range(self.count)]

    async def close(self) -> None:
        """End them all and wait until they are gone."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []

    async def _keep_alive(self) -> None:
        pauses = itertools.chain((0.0,), itertools.count())
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except OSError as error:
                log.error("a render process could not be started: %s", error.strerror or error)
            self.restarts += 1
            if time.monotonic() - began > SHORT_LIFE_S:
                pauses = itertools.chain((0.0,), itertools.count())
            exponent = next(pauses)
            await asyncio.sleep(min(LONGEST_PAUSE_S, 0.25 * 2**exponent) if exponent else 0.05)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        process = RenderProcess(child)
        try:
            assert child.stdout is not None
            self.alive.append(process)
            self._on_start(process)
            while (message := await next_message(child.stdout)) is not None:
                self._on_message(process, message)
        finally:
            self.alive.remove(process)
            process.kill()
            if child.stdin is not None:
                child.stdin.close()
            status = await asyncio.shield(child.wait())
            log.info("render process %d ended with status %d", process.pid, status)
            self._on_end(process)


def _environment() -> dict[str, str]:
    """The parent's, with one thread for libraries that would take all, and this very package found."""
    root = str(Path(crowdnerf_lab.__file__).parents[1])
    found = os.environ.get("PYTHONPATH")
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": root if not found else os.pathsep.join((root, found)),
    }
