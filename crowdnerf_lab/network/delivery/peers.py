"""Fetching an object from wherever it is fastest: the cloud (origin), an edge, other UEs.

Pieces are checked one by one, so a source that lies is found out with its first piece and asked no more. The rarest
pieces come first, so that the crowd soon holds all of them without the origin (Cohen 2003, BitTorrent).
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx

from crowdnerf_lab.network.delivery.objects import DeliveryError
from crowdnerf_lab.network.delivery.pieces import SharedObject, VerifiedPieces
from crowdnerf_lab.network.delivery.spans import SpanError, fetch_span

log = logging.getLogger(__name__)

Kind = Literal["cloud", "edge", "peer"]
Order = Literal["rarest", "random"]
Prefer = Literal["fast", "near"]
SMOOTHING = 0.3
"""Weight of the newest measurement of a source's throughput."""
MOST_FAILURES = 3
"""In a row, after which a source is given up."""
PAUSE_S = 0.1
"""After a first failure; twice as long after each further one."""


@dataclass(frozen=True)
class Source:
    """A place that holds the object, or pieces of it. url: of the object there. pieces: None is all of them.

    headers: for this source only; a token of the service is never shown to a peer.
    """

    kind: Kind
    url: str
    pieces: frozenset[int] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def holds(self, piece: int) -> bool:
        """Whether it is said to have this piece."""
        return self.pieces is None or piece in self.pieces


@dataclass
class Standing:
    """What was measured of a source. bytes_per_s: smoothed throughput of a piece, waiting included; None: not known."""

    source: Source
    bytes_per_s: float | None = None
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0
    dropped: str | None = None
    given: int = 0

    def measured(self, size: int, seconds: float) -> None:
        """Note one piece that came."""
        rate = size / max(seconds, 1e-6)
        self.bytes_per_s = rate if self.bytes_per_s is None else (1 - SMOOTHING) * self.bytes_per_s + SMOOTHING * rate
        self.failures, self.given = 0, self.given + size

    def failed(self, error: SpanError) -> None:
        """Let it rest, or give it up."""
        self.failures += 1
        pause = max(error.retry_after_s or 0.0, PAUSE_S * 2**self.failures)
        self.rests_until = time.monotonic() + pause
        if self.failures >= MOST_FAILURES:
            self.dropped = f"failed {self.failures} times in a row: {error}"


class SourceChoice:
    """Chooses where the next piece comes from, by what each source was measured to give.

    prefer: "fast" takes whichever will answer first; "near" spares the cloud, which then gives only what no edge and no
    peer has.
    """

    def __init__(self, sources: Sequence[Source], *, prefer: Prefer, seed: int) -> None:
        self.standings: dict[str, Standing] = {}
        self._prefer, self._luck = prefer, random.Random(seed)
        self.update(sources)

    def update(self, sources: Sequence[Source]) -> None:
        """Learn of new sources, and of pieces that known ones hold now."""
        for source in sources:
            known = self.standings.setdefault(source.url, Standing(source))
            known.source = source

    def choose(self, piece: int) -> Standing | None:
        """The source of which this piece is expected first; one that was never asked is tried. None: not now."""
        now = time.monotonic()
        able = [one for one in self.alive() if one.rests_until <= now and one.source.holds(piece)]
        if self._prefer == "near":
            able = [one for one in able if one.source.kind != "cloud"] or [
                one for one in able if not any(other.source.holds(piece) for other in self.alive() if other is not one)
            ]
        if not able:
            return None
        return min(able, key=lambda one: (self._wait(one), self._luck.random()))

    def alive(self) -> list[Standing]:
        """Sources that were not given up."""
        return [one for one in self.standings.values() if one.dropped is None]

    def holders(self) -> Counter[int]:
        """How many edges and peers hold each piece that not all of them hold."""
        return Counter(piece for one in self.alive() for piece in one.source.pieces or ())

    @staticmethod
    def _wait(one: Standing) -> float:
        """Relative time until it would have given one more piece; 0 for a source that was never asked."""
        if one.bytes_per_s is None:
            return float(one.in_flight)
        return (1 + one.in_flight) / one.bytes_per_s


@dataclass(frozen=True)
class Fetched:
    """An object that is here. bytes_from: by kind of source. dropped: sources that were given up, and why."""

    content: bytes
    bytes_from: Mapping[str, int]
    dropped: Mapping[str, str]
    seconds: float


async def fetch_object(
    described: SharedObject,
    *,
    sources: Sequence[Source],
    client: httpx.AsyncClient,
    pieces: VerifiedPieces | None = None,
    prefer: Prefer = "fast",
    order: Order = "rarest",
    at_once: int = 4,
    seed: int = 0,
    discover: Callable[[], Awaitable[Sequence[Source]]] | None = None,
    discover_s: float = 0.5,
    patience_s: float = 30.0,
) -> Fetched:
    """Fetch an object piece by piece, `at_once` of them, into `pieces` (what a PeerServer holds, so that they are given
    on while the rest arrives).

    discover: asked again and again for sources, such as `Tracker.announce`. Raises DeliveryError when patience_s pass
    without a piece, or no source is left.
    """
    here = pieces or VerifiedPieces(described)
    download = _Download(here, SourceChoice(sources, prefer=prefer, seed=seed), client, order, seed, patience_s)
    began = time.monotonic()
    looking = None if discover is None else asyncio.create_task(_look_again(discover, download, discover_s))
    workers = [asyncio.create_task(download.work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in (*workers, *(() if looking is None else (looking,))):
            task.cancel()
        await asyncio.gather(*workers, *(() if looking is None else (looking,)), return_exceptions=True)
    content = here.whole()
    if content is None:
        raise DeliveryError(f"{described.name}: its pieces are right but the whole is not; ask the service again")
    given: Counter[str] = Counter()
    for one in download.choice.standings.values():
        given[one.source.kind] += one.given
    dropped = {url: one.dropped for url, one in download.choice.standings.items() if one.dropped is not None}
    return Fetched(content, dict(given), dropped, time.monotonic() - began)


class _Download:
    """One object on its way; several workers share it."""

    def __init__(
        self,
        here: VerifiedPieces,
        choice: SourceChoice,
        client: httpx.AsyncClient,
        order: Order,
        seed: int,
        patience_s: float,
    ) -> None:
        self.here, self.choice = here, choice
        self._client, self._order, self._luck, self._patience_s = client, order, random.Random(seed), patience_s
        self._asked: set[int] = set()
        self._news = time.monotonic()
        self._changed = asyncio.Event()

    def look_at(self, sources: Sequence[Source]) -> None:
        """Learn of sources that were discovered meanwhile."""
        self.choice.update(sources)
        self._changed.set()

    async def work(self) -> None:
        """Fetch pieces until none is missing."""
        while missing := self.here.missing():
            wanted = [piece for piece in missing if piece not in self._asked]
            if self._order == "rarest":
                holders = self.choice.holders()
                wanted.sort(key=lambda piece: (holders[piece], self._luck.random()))
            else:
                self._luck.shuffle(wanted)
            found = next(((piece, one) for piece in wanted if (one := self.choice.choose(piece))), None)
            if found is None:
                self._check_patience(len(missing))
                await self._something_new()
                continue
            await self._fetch(*found)

    async def _fetch(self, piece: int, one: Standing) -> None:
        self._asked.add(piece)
        one.in_flight += 1
        began = time.monotonic()
        span = self.here.span(piece)
        try:
            content = await fetch_span(self._client, one.source.url, span, headers=one.source.headers)
        except SpanError as error:
            one.failed(error)
            return
        finally:
            self._asked.discard(piece)
            one.in_flight -= 1
            self._changed.set()
        if self.here.take(piece, content):
            one.measured(len(content), time.monotonic() - began)
            self._news = time.monotonic()
        else:
            one.dropped = f"piece {piece} has another SHA-256 than the service said"
            log.warning("%s lied about %s: %s", one.source.kind, self.here.described.name, one.dropped)

    async def _something_new(self) -> None:
        """Wait until a piece came or failed, a source was discovered, or one may have rested enough."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), PAUSE_S)

    def _check_patience(self, missing: int) -> None:
        waited = time.monotonic() - self._news
        name, alive = self.here.described.name, self.choice.alive()
        if not alive and not self._asked:
            reasons = "; ".join(f"{one.source.kind}: {one.dropped}" for one in self.choice.standings.values())
            raise DeliveryError(f"{name}: no source is left for {missing} pieces ({reasons}); ask the service again")
        if waited > self._patience_s:
            raise DeliveryError(
                f"{name}: no piece came for {waited:.0f} s, {missing} are missing; look for more sources"
            )


async def _look_again(
    discover: Callable[[], Awaitable[Sequence[Source]]], download: _Download, discover_s: float
) -> None:
    while True:
        with contextlib.suppress(DeliveryError):
            download.look_at(await discover())
        await asyncio.sleep(discover_s)
