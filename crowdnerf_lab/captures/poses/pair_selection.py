"""Which photos to compare, so that N photos cost a multiple of N and not N^2.

Three hints, none of which is trusted alone: photos that a phone took one after the other; photos that should see the
same things from where the phones say they are; photos that look alike. A wrong GPS position therefore never cuts a
photo off: its burst and its likeness still connect it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

NEIGHBOURS = 28
"""Photos that each photo is compared with at its own wish; being wished for comes on top."""
VISUAL_SHARE = 0.4
"""Part of the wishes that goes to photos that look alike, where positions are known; all of them where none is."""
BURST = (1, 2, 4)
"""Steps along a phone's own sequence, to either side, in the order of time."""
BURST_S = 30.0
"""Photos of one phone further apart in time, in seconds, are no burst."""
DEPTHS = (0.5, 1.0, 2.0)
"""Where things are thought to be along a view, as multiples of the distance to what the crowd looks at."""
VIEW_ANGLE = math.radians(35)
"""SIFT loses half its matches when a surface is seen from directions this far apart."""
LEAST_OVERLAP = 0.05
"""Photos expected to share less than this are no neighbours, whatever their rank."""
GPS_REACH_M = 15.0
"""How far apart two photos of unknown direction may stand to be neighbours: e-fold of their rank."""


@dataclass(frozen=True)
class Sighting:
    """Where a photo is believed to have been taken from; None where nothing is known.

    position: east, north, up, metres. forward: unit viewing direction. half_view: half the angle of view, radians.
    """

    phone: str
    time_s: float
    position: tuple[float, float, float] | None
    forward: tuple[float, float, float] | None
    half_view: float


Pairs = Int64[np.ndarray, "pairs 2"]


def every_pair(count: int) -> Pairs:
    """All of them: count (count - 1) / 2."""
    return np.stack(np.triu_indices(count, 1), axis=1)


def select_pairs(
    sightings: Sequence[Sighting],
    signatures: Float32[np.ndarray, "n d"],
    *,
    neighbours: int = NEIGHBOURS,
    new: Bool[np.ndarray, "n"] | None = None,
) -> Pairs:
    """Pairs of rows (first < second, ascending) worth comparing: at most neighbours + 2 len(BURST) a photo.

    signatures: see `visual_signatures`. new: only these photos choose (they are added to a scene whose pairs are
    known); all by default.
    """
    count = len(sightings)
    alike = signatures @ signatures.T
    overlap = expected_overlap(sightings)
    wanted = np.zeros((count, count), dtype=bool)
    choosing = np.flatnonzero(new) if new is not None else np.arange(count)
    for row in choosing.tolist():
        wanted[row, _wishes(row, overlap[row], alike[row], neighbours)] = True
    for first, second in _bursts(sightings):
        wanted[first, second] = new is None or bool(new[[first, second]].any())
    np.fill_diagonal(wanted, False)
    return np.argwhere(np.triu(wanted | wanted.T))


def _wishes(
    row: int, overlap: Float[np.ndarray, "n"], alike: Float[np.ndarray, "n"], neighbours: int
) -> Int64[np.ndarray, "_"]:
    """Whom one photo wants to be compared with: by place, half of them the nearest views and half spread over all that
    still overlap, since views from far apart hold a model together; then by likeness until all wishes are used.
    """
    placed = np.argsort(-overlap, kind="stable")
    placed = placed[(overlap[placed] > LEAST_OVERLAP) & (placed != row)]
    by_place = round((1 - VISUAL_SHARE) * neighbours)
    near, far = placed[: by_place // 2], placed[by_place // 2 :]
    spread = far[np.linspace(0, len(far) - 1, min(len(far), by_place - len(near))).astype(int)]
    chosen = np.concatenate([near, spread])
    seen = np.argsort(-alike, kind="stable")
    seen = seen[(seen != row) & ~np.isin(seen, chosen)]
    return np.concatenate([chosen, seen[: neighbours - len(chosen)]])


def _bursts(sightings: Sequence[Sighting]) -> list[tuple[int, int]]:
    """Pairs of photos that one phone took shortly after each other."""
    ordered: dict[str, list[int]] = {}
    for row in sorted(range(len(sightings)), key=lambda row: sightings[row].time_s):
        ordered.setdefault(sightings[row].phone, []).append(row)
    return [
        (first, second)
        for rows in ordered.values()
        for step in BURST
        for first, second in zip(rows, rows[step:], strict=False)
        if sightings[second].time_s - sightings[first].time_s <= BURST_S
    ]


def expected_overlap(sightings: Sequence[Sighting]) -> Float[np.ndarray, "n n"]:
    """How much of what one photo sees another should see and recognise, in [0, 1]; 0 where a position is unknown.

    Points are put along the first view at plausible distances; each counts by how far inside the second view it lies,
    by the angle between the two lines of sight, and by the difference in size. Photos whose direction is unknown are
    judged by their distance. Symmetric: the mean of both ways.
    """
    count = len(sightings)
    positions = _stacked([sighting.position for sighting in sightings])
    forwards = _stacked([sighting.forward for sighting in sightings])
    half_views = np.array([sighting.half_view for sighting in sightings])
    with np.errstate(invalid="ignore"):
        ways = _overlap_one_way(positions, forwards, half_views)
    overlap = np.nan_to_num((ways + ways.T) / 2)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    undirected = np.isnan(forwards[:, 0])
    blind = (undirected[:, None] | undirected[None]) & ~np.isnan(distances)
    overlap = np.where(blind, np.exp(-np.nan_to_num(distances) / GPS_REACH_M), overlap)
    overlap[np.arange(count), np.arange(count)] = 0
    return overlap


def _overlap_one_way(
    positions: Float[np.ndarray, "n 3"], forwards: Float[np.ndarray, "n 3"], half_views: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n n"]:
    """Row i, column j: of what i sees, how much j recognises. NaN where a position or a direction is unknown."""
    reach = _distance_to_focus(positions, forwards)
    found = np.zeros((len(positions), len(positions)))
    for depth in DEPTHS:
        points = positions + (depth * reach)[:, None] * forwards
        rays = points[:, None] - positions[None]
        lengths = np.maximum(np.linalg.norm(rays, axis=-1), 1e-6)
        aside = np.arccos(np.clip(np.einsum("ijk,jk->ij", rays, forwards) / lengths, -1, 1))
        inside = np.clip(1.5 - aside / half_views[None], 0, 1)
        turn = np.arccos(np.clip(np.einsum("ijk,ik->ij", rays, forwards) / lengths, -1, 1))
        sizes = np.exp(-np.abs(np.log(lengths / (depth * reach)[:, None])))
        found += inside * np.exp(-((turn / VIEW_ANGLE) ** 2)) * sizes
    return found / len(DEPTHS)


def _distance_to_focus(
    positions: Float[np.ndarray, "n 3"], forwards: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n"]:
    """Metres to the point that the views pass nearest to (least squares), at least a tenth of the median distance."""
    known = ~np.isnan(positions + forwards).any(axis=1)
    if not known.any():
        return np.ones(len(positions))
    across = np.eye(3) - forwards[known][:, :, None] * forwards[known][:, None, :]
    focus = np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, positions[known]), rcond=None)[0]
    distances = np.linalg.norm(focus - positions, axis=1)
    middle = float(np.median(distances[known]))
    return np.maximum(distances, max(0.1 * middle, 1e-3))


def _stacked(vectors: Sequence[tuple[float, float, float] | None]) -> Float[np.ndarray, "n 3"]:
    """One row a vector, NaN where there is none."""
    return np.array([vector or (math.nan,) * 3 for vector in vectors], dtype=float).reshape(-1, 3)
