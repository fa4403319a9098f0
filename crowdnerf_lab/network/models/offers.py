"""Offers: what the catalogue holds of each event, in memory, so that a thousand UEs at once cost no file and no query.

Whether anything changed is asked of the disk at every request, in microseconds: the event's folder (a version that was
published) and the catalogue's index (one that was withdrawn). Those who wait for a newer version share one watcher.
"""

import asyncio
import hashlib
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.card import CardFile
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError, Version
from crowdnerf_lab.catalogue.verification import CARD

log = logging.getLogger(__name__)

KEPT_VERSIONS = 8
"""Of an event, with their cards, in memory; older ones are read again when somebody asks for them."""
KEPT_ANSWERS = 4096
"""Answers to UEs, by what they asked, of one state of an event."""
WATCH_S = 0.1
"""How often the watcher of those who wait looks whether there is a newer version."""
Stamp = tuple[int, int, int]


class NoVersionError(ValueError):
    """The event has no such version, or none at all."""


class WithdrawnError(ValueError):
    """The version was withdrawn and is given out no longer."""


@dataclass(frozen=True)
class Offer:
    """One artefact of a version: its card as JSON, and its files by path, the card's own file too."""

    artefact: Artefact
    card_json: str
    files: Mapping[str, CardFile]

    def path_of(self, file: CardFile) -> Path:
        """Where a file of this artefact lies."""
        return self.artefact.folder / file.path


@dataclass(frozen=True)
class OfferedVersion:
    """A version that may be given out, and its artefacts by name."""

    version: Version
    offers: Mapping[str, Offer]

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """What there is to select from."""
        return tuple(offer.artefact for offer in self.offers.values())


@dataclass
class EventOffers:
    """An event as it is now. answers: to questions that were asked before, while this state lasts."""

    versions: tuple[Version, ...]
    answers: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)

    @property
    def latest(self) -> Version | None:
        """The newest version that was not withdrawn."""
        return next((version for version in reversed(self.versions) if version.withdrawn is None), None)

    def one(self, event: str, number: int) -> Version:
        """A version by its number. Raises NoVersionError."""
        found = next((version for version in self.versions if version.number == number), None)
        if found is None:
            raise NoVersionError(f"{event} has no version {number}; GET /events/{event}/versions lists those it has")
        return found

    def remember(self, question: bytes, answer: bytes) -> bytes:
        """Keep an answer, the oldest goes; returns it."""
        self.answers[question] = answer
        if len(self.answers) > KEPT_ANSWERS:
            self.answers.popitem(last=False)
        return answer


class Offers:
    """The catalogue as the service's event loop reads it. Every method belongs to that one loop."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._index = _IndexStamp(catalogue.root / "index.sqlite")
        self._states: dict[str, tuple[Stamp, EventOffers]] = {}
        self._loaded: OrderedDict[tuple[str, int], OfferedVersion] = OrderedDict()
        self._reading: dict[str, asyncio.Lock] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def of(self, event: str) -> EventOffers:
        """An event's versions as they are on disk now; none for an event without any."""
        stamp = self._stamp(event)
        found = self._states.get(event)
        if found is not None and found[0] == stamp:
            return found[1]
        async with self._reading.setdefault(event, asyncio.Lock()):
            stamp = self._stamp(event)
            found = self._states.get(event)
            if found is None or found[0] != stamp:
                before = () if found is None else found[1].versions
                state = EventOffers(await asyncio.to_thread(self._read, event, before))
                self._states[event] = (stamp, state)
                return state
            return found[1]

    def remembered(self, event: str, question: bytes) -> bytes | None:
        """The answer to a question that was asked before, if the event's versions are still the same."""
        found = self._states.get(event)
        answer = None if found is None else found[1].answers.get(question)
        return answer if found is not None and answer is not None and found[0] == self._stamp(event) else None

    async def latest(self, event: str) -> OfferedVersion | None:
        """The newest version that was not withdrawn, with its artefacts."""
        newest = (await self.of(event)).latest
        return None if newest is None else await self._with_cards(newest)

    async def version(self, event: str, number: int) -> OfferedVersion:
        """A version that may be given out. Raises NoVersionError, WithdrawnError."""
        version = (await self.of(event)).one(event, number)
        if version.withdrawn is not None:
            raise WithdrawnError(f"version {number} of {event} was withdrawn: {version.withdrawn}; select again")
        return await self._with_cards(version)

    async def any_version(self, event: str, number: int) -> OfferedVersion:
        """A version that somebody may hold, withdrawn or not. Raises NoVersionError."""
        return await self._with_cards((await self.of(event)).one(event, number))

    async def newer(self, event: str, *, than: int, wait_s: float) -> Version | None:
        """The latest version when it is newer than that, or when that one was withdrawn; waits so long for it."""
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            news = self._news.setdefault(event, asyncio.Event())
            found = _newer(await self.of(event), than)
            left_s = until - asyncio.get_running_loop().time()
            if found is not None or left_s <= 0:
                return found
            self._watch(event, self._states[event][0])
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await news.wait()

    async def close(self) -> None:
        """Stop watching, and let those who wait go."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        self._watchers.clear()
        self._index.close()

    def _watch(self, event: str, seen: Stamp) -> None:
        if event not in self._watchers or self._watchers[event].done():
            self._watchers[event] = asyncio.create_task(self._wake_when_changed(event, seen))

    async def _wake_when_changed(self, event: str, seen: Stamp) -> None:
        """Wakes everybody who waits for this event, once; the next who waits starts another watcher."""
        while self._stamp(event) == seen:
            await asyncio.sleep(WATCH_S)
        self._news.pop(event).set()

    async def _with_cards(self, version: Version) -> OfferedVersion:
        key = (version.event, version.number)
        found = self._loaded.get(key)
        if found is None or found.version.published != version.published:
            found = await asyncio.to_thread(self._load, version)
        elif found.version != version:  # withdrawn since
            found = replace(found, version=version)
        self._loaded[key] = found
        self._loaded.move_to_end(key)
        if len(self._loaded) > KEPT_VERSIONS:
            self._loaded.popitem(last=False)
        return found

    def _read(self, event: str, before: tuple[Version, ...]) -> tuple[Version, ...]:
        """Versions on disk; none where there are none, and those of before while one is damaged."""
        try:
            return self.catalogue.versions(event)
        except CatalogueError as error:
            if before:
                log.error("the versions that are known are offered on: %s", error)
            return before

    def _load(self, version: Version) -> OfferedVersion:
        offers = {}
        for artefact in self.catalogue.artefacts(version.event, version.number):
            text = (artefact.folder / CARD).read_bytes()
            card_file = CardFile(path=CARD, bytes=len(text), sha256=hashlib.sha256(text).hexdigest())
            files = {file.path: file for file in (*artefact.card.files, card_file)}
            offers[artefact.card.name] = Offer(artefact, artefact.card.model_dump_json(), files)
        return OfferedVersion(version, offers)

    def _stamp(self, event: str) -> Stamp:
        """Changes whenever the event's versions do."""
        try:
            changed = (self.catalogue.root / "events" / event).stat().st_mtime_ns
        except OSError:
            changed = 0
        return (changed, *self._index.value())


class _IndexStamp:
    """Tells whether somebody wrote to the catalogue's index, which is made anew at times (another inode then)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def value(self) -> tuple[int, int]:
        """Inode and SQLite's data_version, which counts what others committed."""
        try:
            inode = self.path.stat().st_ino
            if self._connection is None or inode != self._inode:
                self.close()
                self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
                self._inode = inode
            return inode, self._connection.execute("PRAGMA data_version").fetchone()[0]
        except (OSError, sqlite3.DatabaseError):
            self.close()
            return 0, 0

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _newer(state: EventOffers, than: int) -> Version | None:
    latest = state.latest
    if latest is None or latest.number == than:
        return None
    withdrawn = any(version.number == than and version.withdrawn is not None for version in state.versions)
    return latest if latest.number > than or withdrawn else None
