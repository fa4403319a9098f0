"""Delivery to a crowd, simulated: who has the object when, and what each link carried, for tens of thousands of UEs.

`simulate_broadcast` sends symbol after symbol and counts what every receiver has; it is held against real sockets (the
carousel of `delivery.carousel`) where both can go. `simulate_flash_crowd` lets a crowd want the object at nearly the
same time and compares unicast, edge caches, broadcast with repair, and peers.

Letters: K source symbols of a block; a RaptorQ decoder fails with K + h symbols with a probability of 0.01^(h + 1)
(Shokrollahi and Luby, "Raptor Codes", 2011; RFC 6330's requirement), and not at all with the K source symbols.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.network.delivery.fair_sharing import fair_share
from crowdnerf_lab.network.delivery.losses import GilbertElliott, LossProcess
from crowdnerf_lab.network.delivery.objects import SYMBOL_BYTES, block_sizes, symbols_and_blocks
from crowdnerf_lab.network.delivery.peer_rounds import exchange_pieces
from crowdnerf_lab.network.links.link_profiles import LINKS, LinkProfile
from crowdnerf_lab.network.links.transfers import transfer_ms

FAILURE = 0.01
"""Probability that a RaptorQ decoder fails with K symbols, and by how much each further one lowers it."""
HEADERS_BYTES = 50
"""In front of each symbol: 22 of the carousel, 28 of UDP and IPv4."""
REPAIR_SYMBOLS_BYTES = 2 * 1024 * 1024
"""Repair symbols that the carousel makes of a block, at least K; then they come again."""
CHUNK = 64
"""Symbols whose losses are drawn at once."""

Way = Literal["unicast", "edges", "broadcast", "peers"]
WAYS: tuple[Way, ...] = ("unicast", "edges", "broadcast", "peers")


@dataclass(frozen=True)
class Delivery:
    """How a crowd got an object. wanted, seconds: [receivers] when each wanted it and when it had it, s; infinite:
    never. carried: bytes over each link, by its name."""

    way: Way
    wanted: NDArray[np.float64]
    seconds: NDArray[np.float64]
    carried: Mapping[str, float]

    @property
    def waited(self) -> NDArray[np.float64]:
        """Seconds from wanting the object to having it, [receivers]."""
        return self.seconds - self.wanted

    def share_within(self, seconds: float) -> float:
        """Share of the crowd that waited no longer."""
        return float(np.mean(self.waited <= seconds))

    @property
    def complete_fraction(self) -> float:
        """Share of the crowd that got the object at all."""
        return float(np.mean(np.isfinite(self.seconds)))


@dataclass(frozen=True)
class Broadcast(Delivery):
    """A broadcast. source_symbols: K of the whole object; sent_symbols: until the carousel ended. received: [receivers]
    symbols that each had taken when its object was whole, or the carousel ended. whole_after: [receivers] symbols sent
    until then; infinite where repair had to finish it. repaired: [receivers] symbols fetched over unicast."""

    source_symbols: int
    sent_symbols: int
    received: NDArray[np.int64]
    whole_after: NDArray[np.float64]
    repaired: NDArray[np.int64]

    def complete_after(self, symbols: float) -> float:
        """Share of the crowd whose object was whole after so many symbols, without repair."""
        return float(np.mean(self.whole_after <= symbols))

    def symbols_for(self, share: float) -> float:
        """Symbols sent until a share of the crowd was complete; infinite where repair had to help."""
        return float(np.sort(self.whole_after)[int(np.ceil(share * len(self.whole_after))) - 1])


@dataclass(frozen=True)
class CrowdLinks:
    """What links a crowd has. origin_mbit_s: of the service, shared by all that it serves one by one. radio_mbit_s: of
    all cells together, shared likewise. caches: at the cells' edge, each filled over the service's link when the first
    UE asks it. broadcast_mbit_s: of the carousel, heard by all. peer_mbit_s: what a UE gives to others. ue: the link of
    each UE, with its losses; the radio repairs those of unicast."""

    origin_mbit_s: float = 1000.0
    radio_mbit_s: float = 6000.0
    caches: int = 20
    broadcast_mbit_s: float = 20.0
    peer_mbit_s: float = 5.0
    ue: LinkProfile = field(default_factory=lambda: LINKS["5g_poor"])


def simulate_broadcast(
    receivers: int,
    *,
    object_bytes: int,
    loss: GilbertElliott,
    symbol_bytes: int = SYMBOL_BYTES,
    rate_mbit_s: float = 20.0,
    rounds: float = 2.0,
    joins: NDArray[np.floating] | None = None,
    repair_mbit_s: float | None = None,
    repair_rtt_s: float = 0.05,
    quiet_s: float = 1.0,
    seed: int = 0,
) -> Broadcast:
    """A carousel of one object, first its source symbols and then repair symbols, each heard by all who do not lose it.

    rounds: the carousel ends after so many times K symbols. joins: [receivers] when each begins to listen, s; None: all
    from the start. repair_mbit_s: whoever is not whole at the end, and quiet_s later, fetches the symbols that it lacks
    over a link of this rate, shared fairly; None: no repair.
    """
    symbols, blocks = symbols_and_blocks(object_bytes, symbol_bytes=symbol_bytes)
    wanted = np.zeros(receivers) if joins is None else np.asarray(joins, float)
    symbol_s = 8 * (symbol_bytes + HEADERS_BYTES) / (rate_mbit_s * 1e6)
    order = _order(block_sizes(symbols, blocks), round(rounds * symbols), symbol_bytes)
    tally = _Tally(block_sizes(symbols, blocks), receivers, seed=seed)
    process = LossProcess(loss, receivers, seed=seed)
    first_heard = np.ceil(wanted / symbol_s)
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        for position, (block, esi), lost in zip(
            range(start, start + len(chunk)), chunk, process.next(len(chunk)), strict=True
        ):
            tally.hear(block, esi, ~lost & (first_heard <= position), position=position)
    seconds = tally.whole_after * symbol_s
    ended = len(order) * symbol_s
    repaired = tally.lacking if repair_mbit_s is not None else np.zeros(receivers, np.int64)
    asking = np.flatnonzero(repaired)
    if asking.size and repair_mbit_s is not None:
        begins = np.maximum(ended, wanted[asking]) + quiet_s + repair_rtt_s
        seconds[asking] = fair_share(begins, repaired[asking] * float(symbol_bytes), rate=repair_mbit_s * 1e6 / 8)
    carried = {
        "broadcast": float(len(order) * (symbol_bytes + HEADERS_BYTES)),
        "repair": float(repaired.sum() * symbol_bytes),
    }
    return Broadcast(
        "broadcast", wanted, seconds, carried, symbols, len(order), tally.received, tally.whole_after, repaired
    )


class _Tally:
    """What every receiver has of every block. received, whole_after: as `Broadcast` has them."""

    def __init__(self, sizes: tuple[int, ...], receivers: int, *, seed: int) -> None:
        luck = np.random.default_rng([seed, 1]).random((len(sizes), receivers))
        self._sizes = np.array(sizes)[:, None]
        self._spare = np.floor(np.log(np.maximum(luck, 1e-300)) / np.log(FAILURE)).astype(np.int64)
        self._have = [dict[int, NDArray[np.bool_]]() for _ in sizes]
        self._count = np.zeros((len(sizes), receivers), np.int64)
        self._of_source = np.zeros((len(sizes), receivers), np.int64)
        self.received = np.zeros(receivers, np.int64)
        self.whole_after = np.full(receivers, np.inf)

    def hear(self, block: int, esi: int, heard: NDArray[np.bool_], *, position: int) -> None:
        """The symbol sent at this position reaches some."""
        wanting = np.isinf(self.whole_after)
        self.received += heard & wanting
        before = self._have[block].get(esi)
        new = heard if before is None else heard & ~before
        self._have[block][esi] = heard if before is None else heard | before
        self._count[block] += new
        if esi < self._sizes[block, 0]:
            self._of_source[block] += new
        self.whole_after[wanting & self._decoded().all(axis=0)] = position + 1

    @property
    def lacking(self) -> NDArray[np.int64]:
        """Symbols that each still needs, [receivers]."""
        too_few = np.where(self._decoded(), 0, np.maximum(1, self._sizes + self._spare - self._count))
        return too_few.sum(axis=0)

    def _decoded(self) -> NDArray[np.bool_]:
        """Whether each block is there, [blocks receivers]."""
        return (self._of_source == self._sizes) | (self._count >= self._sizes + self._spare)


def simulate_flash_crowd(
    receivers: int,
    *,
    object_bytes: int,
    way: Way,
    links: CrowdLinks | None = None,
    arrival_s: float = 1.0,
    rounds: float | None = None,
    seed: int = 0,
) -> Delivery:
    """A crowd wants the same object within moments: how it gets it one way or another.

    arrival_s: mean of the exponential law of when each UE wants it. unicast: the service serves everybody over its own
    link. edges: caches at the cells do, once they have it. broadcast: one carousel for all, of so many rounds (None:
    until two rounds after the last UE has come), then repair from the service. peers: UEs give each other pieces that
    the service seeded, without further round trips.
    """
    links = links or CrowdLinks()
    wanted = np.random.default_rng([seed, 2]).exponential(arrival_s, receivers)
    origin, radio = links.origin_mbit_s * 1e6 / 8, links.radio_mbit_s * 1e6 / 8
    ue_rate = links.ue.bytes_per_second("down")
    travelling = object_bytes / (1 - links.ue.loss)
    # Before anything comes: a connection's handshake, and half a round trip to say what is wanted.
    asked = wanted + 1.5 * links.ue.rtt_ms / 1e3
    # What a download alone takes beyond its bytes at the link's rate: slow start, and the way down.
    starting = max(0.0, transfer_ms(links.ue, object_bytes) / 1e3 - travelling / ue_rate)
    sizes = np.full(receivers, travelling)
    if way == "broadcast":
        once = 8 * object_bytes * (1 + HEADERS_BYTES / SYMBOL_BYTES) / (links.broadcast_mbit_s * 1e6)
        seen = simulate_broadcast(
            receivers,
            object_bytes=object_bytes,
            loss=links.ue.losses,
            rate_mbit_s=links.broadcast_mbit_s,
            rounds=2 + float(asked.max()) / once if rounds is None else rounds,
            joins=asked,
            repair_mbit_s=min(links.origin_mbit_s, links.radio_mbit_s),
            repair_rtt_s=links.ue.rtt_ms / 1e3,
            seed=seed,
        )
        return replace(seen, wanted=wanted)
    if way == "peers":
        exchange = exchange_pieces(
            asked,
            object_bytes=object_bytes,
            seed_rate=min(origin, radio),
            peer_rate=links.peer_mbit_s * 1e6 / 8,
            down_rate=ue_rate,
            seed=seed,
        )
        return Delivery(way, wanted, exchange.seconds, {"origin": exchange.seeded, "peers": exchange.given})
    begins, carried = asked, {"origin": float(sizes.sum())}
    if way == "edges":
        at = np.random.default_rng([seed, 4]).integers(links.caches, size=receivers)
        used, cache = np.unique(at, return_inverse=True)
        first = np.full(len(used), np.inf)
        np.minimum.at(first, cache, asked)
        filled = fair_share(first, np.full(len(used), float(object_bytes)), rate=origin)
        begins = np.maximum(asked, filled[cache])
        carried = {"origin": float(len(used) * object_bytes), "edges": float(sizes.sum())}
    shared = radio if way == "edges" else min(origin, radio)
    return Delivery(way, wanted, fair_share(begins + starting, sizes, rate=shared, most_each=ue_rate), carried)


def _order(sizes: tuple[int, ...], symbols: int, symbol_bytes: int) -> list[tuple[int, int]]:
    """Block and ESI of what a carousel sends: blocks in turns, first source symbols, then repair symbols."""
    repair = [max(size, REPAIR_SYMBOLS_BYTES // symbol_bytes) for size in sizes]
    order = [(block, esi) for esi in range(max(sizes)) for block, size in enumerate(sizes) if esi < size]
    again = [(block, sizes[block] + n) for n in range(max(repair)) for block, most in enumerate(repair) if n < most]
    while len(order) < symbols:
        order += again
    return order[:symbols]
