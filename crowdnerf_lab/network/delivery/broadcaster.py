"""Broadcasts what an event's latest version holds, as soon as it is published: a thread of the API process.

One process of a service broadcasts (a lock in its home); all of them tell UEs about it (a file beside it).
"""

import asyncio
import contextlib
import fcntl
import logging
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError
from crowdnerf_lab.files import write_json
from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.delivery.carousel import broadcast_together
from crowdnerf_lab.network.delivery.objects import BroadcastSession, DeliveryError
from crowdnerf_lab.network.delivery.on_air import deltas_of, objects_of
from crowdnerf_lab.network.models.deltas import Deltas

__all__ = ["BroadcastSettings", "Broadcaster", "sessions_of"]

log = logging.getLogger(__name__)

FOLDER = "broadcasts"
LOOK_S = 0.25
"""How often the broadcaster looks for a newer version."""
REST_S = 2.5
"""After something went wrong."""


def sessions_of(home: Path, event: str) -> tuple[BroadcastSession, ...]:
    """What is on the air at an event, as the broadcasting process noted it; none where nobody broadcasts."""
    path = home / FOLDER / f"{event}.json"
    try:
        sessions = _SESSIONS.validate_json(path.read_bytes())
    except (OSError, ValidationError):  # not broadcasting, or a note of another release
        return ()
    return tuple(session for session in sessions if session.expires > time.time())


class Broadcaster:
    """Keeps the events' latest versions on the air from `start` to `close`."""

    def __init__(self, home: Path, catalogue: Catalogue, settings: BroadcastSettings) -> None:
        self.home, self.settings = home, settings
        self._catalogue, self._deltas = catalogue, Deltas(home / "deltas")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Broadcast in a thread with an event loop of its own."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="broadcaster", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sending, and say so."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    async def _run(self) -> None:
        folder = self.home / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            while not self._closing.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:  # another process of this service broadcasts
                    await asyncio.sleep(LOOK_S)
                    continue
                for note in folder.glob("*.json"):  # of a process that was killed
                    note.unlink()
                await self._broadcast()
                await self._deltas.close()

    async def _broadcast(self) -> None:
        """Until closed: one carousel for each event, begun anew when its latest version changes."""
        carousels: dict[str, _Carousel] = {}
        try:
            while not self._closing.is_set():
                try:
                    for event in await asyncio.to_thread(self._catalogue.events):
                        await self._keep_up(event, carousels)
                except (CatalogueError, OSError, sqlite3.Error):
                    log.exception("the catalogue cannot be read; it is tried again")
                await asyncio.sleep(LOOK_S)
        finally:
            for carousel in carousels.values():
                await carousel.stopped()

    async def _keep_up(self, event: str, carousels: dict[str, "_Carousel"]) -> None:
        latest = await asyncio.to_thread(self._catalogue.latest, event)
        number = 0 if latest is None else latest.number
        running = carousels.get(event)
        if running is not None and (running.version != number or running.task.done()):
            await carousels.pop(event).stopped()
        if number and event not in carousels:
            stop = asyncio.Event()
            carousels[event] = _Carousel(number, stop, asyncio.create_task(self._carousel(event, stop)))

    async def _carousel(self, event: str, stop: asyncio.Event) -> None:
        note = self.home / FOLDER / f"{event}.json"
        try:
            models = await asyncio.to_thread(objects_of, self._catalogue, event, self.settings)
            deltas = await deltas_of(self._catalogue, event, self.settings, self._deltas)
            objects = (*deltas, *(() if models is None else models.objects))
            if not objects:
                await stop.wait()
                return
            await asyncio.to_thread(write_json, note, [session.model_dump(mode="json") for session, _ in objects])
            log.info("%s: version %d is on the air, %d objects", event, objects[0][0].version, len(objects))
            await broadcast_together(objects, stop=stop, interface=self.settings.interface, hops=self.settings.hops)
        except (DeliveryError, CatalogueError, OSError, sqlite3.Error):
            log.exception("%s: broadcasting stopped; it is tried again", event)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REST_S)
        finally:
            note.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Carousel:
    """One event's, in motion."""

    version: int
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def stopped(self) -> None:
        """Stop it, and wait for that."""
        self.stop.set()
        await self.task


_SESSIONS = TypeAdapter(tuple[BroadcastSession, ...])
