"""Broadcasts what an event's latest version holds, as soon as it is published: a thread of the API process.

One process of a service broadcasts (a lock in its home); all of them tell UEs about it (a file beside it).
"""

import asyncio
import fcntl
import logging
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError
from crowdnerf_lab.files import write_json
from crowdnerf_lab.network.delivery.carousel import broadcast_together
from crowdnerf_lab.network.delivery.objects import BroadcastSession, Code, DeliveryError, describe

log = logging.getLogger(__name__)

FOLDER = "broadcasts"
LOOK_S = 0.25
"""How often the broadcaster looks for a newer version."""


@dataclass(frozen=True)
class BroadcastSettings:
    """Where and how fast a service broadcasts.

    group, port: multicast destination (RFC 2365: 239.0.0.0/8 stays inside an organisation). interface: address of the
    network interface it leaves by; hops: routers it may pass. rate_mbit_s: of one event, headers included. code:
    "flute" for receivers of others. most_bytes: of the objects on one carousel; the smallest models come first.
    expires_s: after which UEs need not wait for a session any more.
    """

    group: str = "239.255.77.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 9771
    interface: str = "127.0.0.1"
    hops: Annotated[int, Field(ge=0, le=255)] = 1
    rate_mbit_s: Annotated[float, Field(gt=0, le=10_000)] = 10.0
    code: Code = "raptorq"
    most_bytes: Annotated[int, Field(ge=1)] = 32 << 20
    expires_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0


@dataclass(frozen=True)
class OnAir:
    """One event's carousel: the version it carries, and the objects with their sessions."""

    version: int
    objects: tuple[tuple[BroadcastSession, bytes], ...]


def sessions_of(home: Path, event: str) -> tuple[BroadcastSession, ...]:
    """What is on the air at an event, as the broadcasting process noted it; none where nobody broadcasts."""
    path = home / FOLDER / f"{event}.json"
    try:
        sessions = _SESSIONS.validate_json(path.read_bytes())
    except (OSError, ValidationError):  # not broadcasting, or a note of another release
        return ()
    return tuple(session for session in sessions if session.expires > time.time())


def objects_of(catalogue: Catalogue, event: str, settings: BroadcastSettings) -> OnAir | None:
    """The latest version's models as a carousel: first layers of progressive ones first, small models before large."""
    try:
        latest = catalogue.latest(event)
    except CatalogueError:
        return None
    if latest is None:
        return None
    objects: list[tuple[BroadcastSession, bytes]] = []
    left = settings.most_bytes
    for artefact in sorted(catalogue.artefacts(event, latest.number), key=lambda one: one.card.bytes):
        content = artefact.model.read_bytes()
        if len(content) > left:
            break
        left -= len(content)
        objects += _with_layers(artefact, content, event, latest.number, settings, first=len(objects))
    return OnAir(latest.number, tuple(objects))


class Broadcaster:
    """Keeps the events' latest versions on the air from `start` to `close`."""

    def __init__(self, home: Path, catalogue: Catalogue, settings: BroadcastSettings) -> None:
        self.home, self.settings = home, settings
        self._catalogue = catalogue
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
                await self._broadcast(folder)

    async def _broadcast(self, folder: Path) -> None:
        """Until closed: one task for each event, begun anew when its latest version changes."""
        carousels: dict[str, tuple[int, asyncio.Event, asyncio.Task[None]]] = {}
        try:
            while not self._closing.is_set():
                for event in self._catalogue.events():
                    latest = self._catalogue.latest(event)
                    running = carousels.get(event)
                    number = 0 if latest is None else latest.number
                    if running is not None and (running[0] != number or running[2].done()):
                        await _stopped(carousels.pop(event))
                        (folder / f"{event}.json").unlink(missing_ok=True)
                        running = None
                    if running is None and number:
                        stop = asyncio.Event()
                        carousels[event] = (number, stop, asyncio.create_task(self._carousel(event, stop)))
                await asyncio.sleep(LOOK_S)
        finally:
            for event, carousel in carousels.items():
                await _stopped(carousel)
                (folder / f"{event}.json").unlink(missing_ok=True)

    async def _carousel(self, event: str, stop: asyncio.Event) -> None:
        try:
            on_air = await asyncio.to_thread(objects_of, self._catalogue, event, self.settings)
            if on_air is None or not on_air.objects:
                await stop.wait()
                return
            note = [session.model_dump(mode="json") for session, _ in on_air.objects]
            await asyncio.to_thread(write_json, self.home / FOLDER / f"{event}.json", note)
            log.info("%s: version %d is on the air, %d objects", event, on_air.version, len(note))
            await broadcast_together(
                on_air.objects, stop=stop, interface=self.settings.interface, hops=self.settings.hops
            )
        except (DeliveryError, OSError):
            log.exception("%s: broadcasting stopped; it is tried again", event)
            await asyncio.sleep(10 * LOOK_S)


async def _stopped(carousel: tuple[int, asyncio.Event, asyncio.Task[None]]) -> None:
    carousel[1].set()
    await carousel[2]


def _with_layers(
    artefact: Artefact, content: bytes, event: str, version: int, settings: BroadcastSettings, *, first: int
) -> list[tuple[BroadcastSession, bytes]]:
    """An artefact's model, and its first layers as an object of their own."""
    card = artefact.card
    beginnings = [content[: layer.bytes] for layer in card.layers[:1] if layer.bytes < len(content)]
    href = f"/events/{event}/versions/{version}/artefacts/{card.name}/files/{card.model}"
    described = []
    for number, part in enumerate((*beginnings, content)):
        layered = "" if len(part) == len(content) else f"-first-{len(part)}"
        session = describe(
            part,
            name=f"{card.name}{layered}-{artefact.model.name}"[:255],
            event=event,
            version=version,
            code=settings.code,
            port=settings.port,
            group=str(IPv4Address(settings.group)),
            rate_mbit_s=settings.rate_mbit_s,
            expires_in_s=settings.expires_s,
            object_number=first + number,
            priority=0 if layered else 1,
            href=href,
        )
        described.append((session, part))
    return described


_SESSIONS = TypeAdapter(tuple[BroadcastSession, ...])
