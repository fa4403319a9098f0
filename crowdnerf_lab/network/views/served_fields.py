"""Which field views are rendered from: of each event's newest versions the best baked field that could be loaded.

`EventFields` follows one event through the catalogue; `ServedFields` has the render processes hold what is needed.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.catalogue.artefact import Artefact, ArtefactError
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError
from crowdnerf_lab.network.views.render_processes import RenderProcesses
from crowdnerf_lab.network.views.view_request import Busy, NoModel
from crowdnerf_lab.network.views.view_schedule import RenderTimes

log = logging.getLogger(__name__)

VERSIONS_KEPT = 2
"""Versions of an event that stay in memory: withdrawing the newest must not make anybody wait."""


@dataclass(frozen=True)
class ServedField:
    """A baked field of a published version, to be rendered from."""

    event: str
    version: int
    name: str
    folder: Path

    @property
    def key(self) -> str:
        """What it is called among processes."""
        return f"{self.event}/{self.version}/{self.name}"


def best_field(artefacts: Iterable[Artefact]) -> list[Artefact]:
    """The baked fields among artefacts: those of the whole scene first, then the better, then the smaller ones."""
    fields = [artefact for artefact in artefacts if artefact.card.kind == "baked_field"]

    def rank(artefact: Artefact) -> tuple[bool, float, int]:
        card = artefact.card
        psnr = card.quality.psnr
        return card.view_cell is not None, -(float("-inf") if psnr is None else psnr), card.bytes

    return sorted(fields, key=rank)


class EventFields:
    """The fields of one event, newest first, as its catalogue says; `refresh` reads it (blocking: not in a loop)."""

    def __init__(self, catalogue: Catalogue, event: str) -> None:
        self.event = event
        self.current: ServedField | None = None
        self.offered: tuple[ServedField, ...] = ()
        self.read = False
        self._catalogue = catalogue
        self._refused: frozenset[str] = frozenset()
        self._seen: object = None

    def refresh(self) -> bool:
        """Read the catalogue. True when what it offers has changed."""
        try:
            standing = [each for each in self._catalogue.versions(self.event) if each.withdrawn is None]
        except CatalogueError:  # no version yet
            standing = []
        self.read = True
        numbers = tuple(reversed([version.number for version in standing]))
        if (seen := (numbers, self._refused)) == self._seen:
            return False
        offered: list[ServedField] = []
        for number in numbers:
            if (chosen := self._field_of(number)) is not None:
                offered.append(chosen)
            if len(offered) == VERSIONS_KEPT:
                break
        self.offered, self._seen = tuple(offered), seen
        return True

    def refuse(self, key: str, *, reason: str) -> None:
        """Offer a field no more that could not be loaded; another of its version, or the version before, takes over."""
        log.error("%s cannot be rendered from: %s", key, reason)
        self._refused |= {key}

    def choose(self, holders: dict[str, int]) -> ServedField | None:
        """The field to render from now. holders: by how many processes each field is loaded.

        A newer version takes over once as many processes hold it as hold the one before, so that nobody waits for it;
        a withdrawn one is left at once.
        """
        serving = self.current if self.current in self.offered else None
        enough = max(1, holders.get(serving.key, 0)) if serving else 1
        for each in self.offered:
            if each == serving or holders.get(each.key, 0) >= enough:
                return each
        return None

    def wanted(self) -> tuple[ServedField, ...]:
        """What processes should hold: the newest version, and the one that is shown until that is ready."""
        kept = [each for each in self.offered if each == self.current]
        return tuple(dict.fromkeys([*self.offered[:1], *kept]))

    def _field_of(self, number: int) -> ServedField | None:
        try:
            artefacts = self._catalogue.artefacts(self.event, number)
        except (CatalogueError, ArtefactError, ValueError) as error:
            log.error("%s: version %d cannot be read: %s", self.event, number, error)
            return None
        fields = (ServedField(self.event, number, each.card.name, each.folder) for each in best_field(artefacts))
        return next((each for each in fields if each.key not in self._refused), None)


class ServedFields:
    """What every event is rendered from, and which process holds it. times: what views of a field take.

    loading_s: how long a field took to load, the last time.
    """

    def __init__(self, catalogue: Catalogue, processes: RenderProcesses, *, most_events: int) -> None:
        self.times: dict[str, RenderTimes] = {}
        self.loading_s = 3.0
        self._catalogue, self._processes, self._most_events = catalogue, processes, most_events
        self._events: dict[str, EventFields] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every event that has a field is held by a process."""
        holders = self._holders()
        fields = [each.current for each in self._events.values() if each.offered]
        return all(each is not None and holders[each.key] > 0 for each in fields)

    def current(self, event: str) -> ServedField | None:
        """What an event is rendered from now."""
        fields = self._events.get(event)
        return None if fields is None else fields.current

    async def follow_all(self) -> None:
        """Load the fields of the events that the catalogue has."""
        for event in (await asyncio.to_thread(self._catalogue.events))[: self._most_events]:
            self._events[event] = EventFields(self._catalogue, event)
        await self.look()

    async def look(self) -> None:
        """Bring all that is followed up to what the catalogue says."""
        for fields in tuple(self._events.values()):
            try:
                await asyncio.to_thread(fields.refresh)
            except (OSError, ValueError) as error:
                log.error("%s: the catalogue cannot be read: %s", fields.event, error)
        self.assign()

    async def awaited(self, event: str, *, deadline: float) -> ServedField:
        """What an event is rendered from; waits while that is loaded. Raises NoModel, and Busy at the deadline."""
        fields = self._events.pop(event, None)
        if fields is None:
            fields = EventFields(self._catalogue, event)
            await asyncio.to_thread(fields.refresh)
            fields = self._events.pop(event, fields)
        if fields.offered or not fields.read:
            self._events[event] = fields  # in front: the event that was asked for last leaves memory last
        if fields.current is None:
            self.assign()
        while fields.current is None:
            if fields.read and not fields.offered:
                raise NoModel(f"{event} has no published version that views can be rendered from; try again later")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise Busy(f"the model of {event} is still being loaded; ask again", retry_after_s=1.0) from None
        return fields.current

    def loaded(self, key: str, *, seconds: float, pixels: int, ms: float) -> None:
        """A process has loaded a field, and its trial view of so many pixels took so long."""
        self.loading_s = seconds
        self.times.setdefault(key, RenderTimes(pixels=pixels, ms=ms))
        self.assign()

    def failed(self, key: str, *, reason: str) -> None:
        """A process could not load a field; `look` finds another one."""
        fields = self._events.get(key.split("/", 1)[0])
        if fields is not None:
            fields.refuse(key, reason=reason)

    def assign(self) -> None:
        """Choose what every event is rendered from; have processes load what they lack and drop what nobody needs."""
        for event in tuple(self._events)[: -self._most_events]:
            del self._events[event]
        holders = self._holders()
        for fields in self._events.values():
            chosen = fields.choose(holders)
            if chosen != fields.current:
                log.info("%s: views come from version %s", fields.event, chosen.version if chosen else "none")
                fields.current = chosen
                self._changed.set()
        offered = {each.key for fields in self._events.values() for each in fields.offered}
        wanted = [each for fields in self._events.values() for each in fields.wanted()]
        for process in self._processes.alive:
            for key in process.loaded - offered:
                process.drop(key)
            lacking = [each for each in wanted if each.key not in process.loaded]
            # One at a time once somebody can render: loading takes processors from rendering.
            others = bool(holders) and any(each.loading for each in self._processes.alive)
            if process.loading is None and lacking and not others:
                process.load(lacking[0].key, lacking[0].folder)
        for key in self.times.keys() - offered:
            del self.times[key]

    def _holders(self) -> Counter[str]:
        return Counter(key for process in self._processes.alive for key in process.loaded)
