"""UEs that give each other pieces of an object, in rounds of one piece: who has it all when, simulated.

In a round every UE gives one piece to one that asked it, at most. Whoever lacks pieces asks random others and takes a
random piece that it lacks; the service gives the piece that is rarest, to random UEs, as far as its link goes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 16 * 1024
MOST_ROUNDS = 20_000
"""Longer than any exchange that ends: the service alone could serve everybody by then, or nothing can."""


@dataclass(frozen=True)
class Exchange:
    """seconds: [receivers] when each had all pieces, infinite: never. seeded, given: bytes from the service and from
    peers."""

    seconds: NDArray[np.float64]
    seeded: float
    given: float


def exchange_pieces(
    wanted: NDArray[np.float64],
    *,
    object_bytes: int,
    seed_rate: float,
    peer_rate: float,
    down_rate: float,
    piece_bytes: int = PIECE_BYTES,
    seed: int = 0,
) -> Exchange:
    """Exchange an object among UEs that want it at times `wanted` [receivers], s, and stay. Rates are bytes/s: what the
    service gives in all, what a UE gives, and what a UE can take."""
    random = np.random.default_rng([seed, 3])
    pieces, round_s = -(-object_bytes // piece_bytes), piece_bytes / peer_rate
    have = np.zeros((len(wanted), pieces), bool)
    seconds = np.full(len(wanted), np.inf)
    asks = max(1, int(down_rate / peer_rate))
    seeded = given = 0
    credit = 0.0
    for number in range(int(wanted.min() / round_s), MOST_ROUNDS):
        present = wanted <= number * round_s
        lacking = np.flatnonzero(present & np.isinf(seconds))
        if not lacking.size:
            if present.all():
                break
            continue
        holders = np.flatnonzero(have.any(axis=1))
        credit = min(credit + seed_rate * round_s / piece_bytes, lacking.size * asks)
        seeded += _seed(have, lacking, pieces=int(credit), random=random)
        credit -= int(credit)
        if holders.size:
            given += _give(have, lacking, holders, asks=asks, random=random)
        seconds[lacking[have[lacking].all(axis=1)]] = (number + 1) * round_s
    return Exchange(seconds, float(seeded * piece_bytes), float(given * piece_bytes))


def _seed(have: NDArray[np.bool_], lacking: NDArray[np.int64], *, pieces: int, random: np.random.Generator) -> int:
    """The service gives pieces, the rarest first, to UEs that lack them; how many."""
    receivers = random.choice(lacking, min(pieces, lacking.size), replace=False)
    rarity = have.sum(axis=0) + random.random(have.shape[1])
    ranked = np.argsort(rarity)
    wish = ranked[np.arange(receivers.size) % have.shape[1]]
    has = have[receivers, wish]
    have[receivers[~has], wish[~has]] = True
    return int((~has).sum())


def _give(
    have: NDArray[np.bool_],
    lacking: NDArray[np.int64],
    holders: NDArray[np.int64],
    *,
    asks: int,
    random: np.random.Generator,
) -> int:
    """Peers give one piece each; how many."""
    askers = random.permutation(np.repeat(lacking, asks))
    asked = random.choice(holders, askers.size)
    givers, first = np.unique(asked, return_index=True)
    takers = askers[first]
    useful = have[givers] & ~have[takers]
    piece = np.argmax(useful * random.random(useful.shape, np.float32), axis=1)
    works = useful[np.arange(len(piece)), piece]
    before = int(have.sum())
    have[takers[works], piece[works]] = True
    return int(have.sum()) - before
