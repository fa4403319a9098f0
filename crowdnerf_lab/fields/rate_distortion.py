"""Rate-distortion optimised quantization of the rows of a baked field.

Every number of a row may become its nearest integer, one nearer to zero, or zero, and a whole row may be dropped: what
is least of E (x - q step)^2 + lambda bits, as video encoders (Karczewicz et al. 2008, RDOQ) and neural-network coders
(Wiedemann et al. 2020, DeepCABAC) choose. E is a number's importance; the bits are those of the coder of
`coding.row_statistics`, whose histograms and these choices follow each other in rounds.

The kernel is numba's: a level of the concert has half a million rows and is quantized dozens of times.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from numba import njit, prange

from crowdnerf_lab.coding.row_statistics import (
    COLOUR_CLASSES,
    CONTEXTS,
    FILLED_CLASS,
    MOVED_CONTEXTS,
    MOVED_FILLED,
    MOVED_LARGE,
    colour_before,
    column_order,
)
from crowdnerf_lab.kernels.turns import in_turn

BLOCKS = 8
"""Parts of a level that are quantized side by side; fixed, so that the choices do not depend on the threads."""
ROUNDS = 3
STEP_PER_MULTIPLIER = 8.0
"""step^2 E / lambda. High-rate theory says 6 ln 2 to 6 / ln 2 (Gish and Pierce 1968); 3 to 12 differ little."""
MOVING = 4.0
"""What a bit of a delta counts, in bits of the file."""
FLAG_MOVED_BITS = 6.0
"""Bits of a delta that a row takes which comes or goes, besides its numbers."""
SPARE = 0.05
"""Added to counts, so that what did not occur yet costs much but not everything."""


@dataclass(frozen=True)
class QuantizedLevel:
    """Rows [n, numbers] int8 in units of scale [numbers] (all zeros: dropped), what they lose (importance times squared
    error, summed) and the bits they take."""

    values: np.ndarray
    scale: np.ndarray
    distortion: float
    bits: float


@dataclass(frozen=True)
class Before:
    """What the version before has in the place of a level's rows: values [n, numbers] int8 (zeros where it kept none)
    in units of scale [numbers], and which rows it kept [n]."""

    values: np.ndarray
    kept: np.ndarray
    scale: np.ndarray


def quantize_level(
    rows: np.ndarray,
    importance: np.ndarray,
    *,
    multiplier: float,
    top: int,
    dropped: int = 0,
    after: Before | None = None,
) -> QuantizedLevel:
    """Choose integers in +-top for rows [n, numbers] of importance [n, numbers] at `multiplier` (lambda): importance
    times squared error that a bit is worth. dropped: rows of the level that are known to go, and not among these.
    after: the version before, whose scale is kept; every number stays where it was unless moving it is worth the bits.

    The step of each number is what suits the importance of its larger values; the scale that comes back is the one
    that loses least for the integers chosen (the centroid of least squares).
    """
    numbers = rows.shape[1]
    order = np.array(column_order(numbers))
    x, weight = np.ascontiguousarray(rows[:, order]), np.ascontiguousarray(importance[:, order])
    step = _steps(x, weight, multiplier, top) if after is None else after.scale[order].astype(np.float32)
    old, old_kept = np.zeros(x.shape, np.int8), np.zeros(len(x), np.bool_)
    if after is not None:
        old, old_kept = np.ascontiguousarray(after.values[:, order].clip(-top, top)), after.kept
    before = np.array(colour_before(numbers))
    bits = np.broadcast_to(1 + 1.5 * np.abs(np.arange(-top, top + 1)), (numbers, CONTEXTS, 2 * top + 1))
    bits, flag_bits = np.ascontiguousarray(bits, np.float32), np.ones(2, np.float32)
    moved_bits = np.broadcast_to(0.5 + 1.5 * np.abs(np.arange(-2 * top, 2 * top + 1)), (MOVED_CONTEXTS, 4 * top + 1))
    moved_bits = np.ascontiguousarray(np.broadcast_to(moved_bits, (numbers, *moved_bits.shape)), np.float32)
    chosen = np.zeros(x.shape, np.int8)
    cost = np.zeros((BLOCKS, 2))
    for _ in range(ROUNDS):
        counts = np.zeros((BLOCKS, numbers, CONTEXTS, 2 * top + 1), np.int32)
        moved_counts = np.zeros((BLOCKS, *moved_bits.shape), np.int32)
        flag_counts, cost = np.zeros((BLOCKS, 2), np.int64), np.zeros((BLOCKS, 2))
        flag_counts[0, 0], cost[0, 1] = dropped, dropped * flag_bits[0]
        _choose(
            x,
            weight,
            step,
            top,
            np.float32(multiplier),
            before,
            FILLED_CLASS.astype(np.int64),
            np.float32(0 if after is None else MOVING),
            old,
            old_kept,
            moved_bits,
            flag_bits,
            bits,
            chosen,
            counts,
            moved_counts,
            flag_counts,
            cost,
        )
        flag_bits, bits = _bits_of(flag_counts.sum(0)), _bits_of(counts.sum(0))
        moved_bits = _bits_of(moved_counts.sum(0))
    values = np.zeros_like(chosen)
    values[:, order] = chosen
    distortion, rate = cost.sum(0)
    if after is not None:
        return QuantizedLevel(values, after.scale, float(distortion), float(rate))
    q = values.astype(np.float32)
    energy = (importance * q * q).sum(0, dtype=np.float64)
    unordered = np.empty_like(step)
    unordered[order] = step
    centroid = (importance * rows * q).sum(0, dtype=np.float64) / np.where(energy > 0, energy, 1)
    scale = np.where((energy > 0) & (centroid > 0), centroid, unordered).astype(np.float32)
    return QuantizedLevel(values, scale, float(distortion), float(rate))


def _steps(x: np.ndarray, weight: np.ndarray, multiplier: float, top: int) -> np.ndarray:
    """Step of each number, float32, at least what lets the largest value be said."""
    energy = (weight * x * x).sum(0, dtype=np.float64)
    typical = (weight.astype(np.float64) ** 2 * x * x).sum(0) / np.where(energy > 0, energy, 1)
    wanted = np.sqrt(STEP_PER_MULTIPLIER * multiplier / np.where(typical > 0, typical, 1))
    return np.maximum(np.maximum(wanted, np.abs(x).max(0, initial=0) / top), 1e-8).astype(np.float32)


def _bits_of(counts: np.ndarray) -> np.ndarray:
    """Bits of each symbol [..., n] under the statistics that counts [..., n] give."""
    counts = counts + SPARE
    return (np.log2(counts.sum(-1, keepdims=True)) - np.log2(counts)).astype(np.float32)


@in_turn
@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
@no_type_check
def _choose(
    x,
    weight,
    step,
    top,
    multiplier,
    before,
    filled_class,
    moving,
    old,
    old_kept,
    moved_bits,
    flag_bits,
    bits,
    chosen,
    counts,
    moved_counts,
    flag_counts,
    cost,
):
    """Quantize rows x [n, numbers] in units of step to chosen; columns in the order of coding.

    flag_bits [2] and bits [numbers, CONTEXTS, 2 top + 1] are what symbols cost; flag_counts [BLOCKS, 2] and counts
    [BLOCKS, ...] get how often each was chosen, cost [BLOCKS, 2] the distortion and the bits. old [n, numbers],
    old_kept [n]: the version before; moved_bits [numbers, MOVED_CONTEXTS, 4 top + 1] is what leaving it costs, counted
    `moving` times, and moved_counts [BLOCKS, ...] how often it happened.
    """
    numbers = x.shape[1]
    size = (len(x) + BLOCKS - 1) // BLOCKS
    for block in prange(BLOCKS):
        row, at, moved_at = np.zeros(numbers, np.int64), np.zeros(numbers, np.int64), np.zeros(numbers, np.int64)
        for i in range(block * size, min((block + 1) * size, len(x))):
            distortion, rate, dropped, filled, moved = 0.0, flag_bits[1], 0.0, 0, 0
            moved_rate = 0.0 if old_kept[i] else moving * FLAG_MOVED_BITS
            for k in range(numbers):
                u = x[i, k] / step[k]
                w = weight[i, k] * step[k] * step[k]
                context = filled_class[filled] * COLOUR_CLASSES
                if before[k] >= 0:
                    context += min(max(row[before[k]], -2), 2) + 2
                at[k] = context
                there = np.int64(old[i, k])
                moved_at[k] = min(abs(there), MOVED_LARGE) * MOVED_FILLED + filled_class[moved]
                nearest = np.int64(np.rint(min(max(u, -top), top)))
                toward, back = -1 if nearest > 0 else 1, np.sign(there - nearest)
                best, least, best_moved = nearest, np.inf, 0.0
                for candidate in range(6):
                    # The nearest, one and two nearer to zero, zero itself; where it was, and one nearer to there.
                    trial = nearest + toward * candidate
                    if candidate == 3:
                        trial = 0
                    elif candidate > 3:
                        trial = there if candidate == 4 else nearest + back
                    elif candidate > 0 and (nearest == 0 or trial * nearest < 0):
                        continue
                    extra = np.float32(0.0)
                    if old_kept[i]:
                        extra = moving * moved_bits[k, moved_at[k], trial - there + 2 * top]
                    else:
                        extra = moving * bits[k, context, trial + top]
                    cost_of_trial = w * (u - trial) ** 2 + multiplier * (bits[k, context, trial + top] + extra)
                    if cost_of_trial < least:
                        best, least, best_moved = trial, cost_of_trial, extra
                row[k] = best
                dropped += w * u * u
                distortion += w * (u - best) ** 2
                rate += bits[k, context, best + top]
                filled += min(abs(best), 2)
                moved += min(abs(best - there), 2)
                moved_rate += best_moved
            gone = flag_bits[0] + (moving * FLAG_MOVED_BITS if old_kept[i] else 0.0)
            kept = filled > 0 and distortion + multiplier * (rate + moved_rate) < dropped + multiplier * gone
            flag_counts[block, 1 if kept else 0] += 1
            cost[block, 0] += distortion if kept else dropped
            cost[block, 1] += rate if kept else flag_bits[0]
            for k in range(numbers):
                chosen[i, k] = row[k] if kept else 0
                if kept:
                    counts[block, k, at[k], row[k] + top] += 1
                if kept and old_kept[i]:
                    moved_counts[block, k, moved_at[k], row[k] - old[i, k] + 2 * top] += 1
