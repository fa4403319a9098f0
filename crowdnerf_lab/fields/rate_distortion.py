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

from crowdnerf_lab.coding.row_statistics import COLOUR_CLASSES, CONTEXTS, FILLED_CLASS, colour_before, column_order

BLOCKS = 8
"""Parts of a level that are quantized side by side; fixed, so that the choices do not depend on the threads."""
ROUNDS = 3
STEP_PER_MULTIPLIER = 8.0
"""step^2 E / lambda. High-rate theory says 6 ln 2 to 6 / ln 2 (Gish and Pierce 1968); 3 to 12 differ little."""
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


def quantize_level(
    rows: np.ndarray, importance: np.ndarray, *, multiplier: float, top: int, dropped: int = 0
) -> QuantizedLevel:
    """Choose integers in +-top for rows [n, numbers] of importance [n, numbers] at `multiplier` (lambda): importance
    times squared error that a bit is worth. dropped: rows of the level that are known to go, and not among these.

    The step of each number is what suits the importance of its larger values; the scale that comes back is the one
    that loses least for the integers chosen (the centroid of least squares).
    """
    numbers = rows.shape[1]
    order = np.array(column_order(numbers))
    x, weight = np.ascontiguousarray(rows[:, order]), np.ascontiguousarray(importance[:, order])
    step = _steps(x, weight, multiplier, top)
    before = np.array(colour_before(numbers))
    bits = np.broadcast_to(1 + 1.5 * np.abs(np.arange(-top, top + 1)), (numbers, CONTEXTS, 2 * top + 1))
    bits, flag_bits = np.ascontiguousarray(bits, np.float32), np.ones(2, np.float32)
    chosen = np.zeros(x.shape, np.int8)
    cost = np.zeros((BLOCKS, 2))
    for _ in range(ROUNDS):
        counts = np.zeros((BLOCKS, numbers, CONTEXTS, 2 * top + 1), np.int32)
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
            flag_bits,
            bits,
            chosen,
            counts,
            flag_counts,
            cost,
        )
        flag_bits, bits = _bits_of(flag_counts.sum(0)), _bits_of(counts.sum(0))
    values = np.zeros_like(chosen)
    values[:, order] = chosen
    q = values.astype(np.float32)
    energy = (importance * q * q).sum(0, dtype=np.float64)
    unordered = np.empty_like(step)
    unordered[order] = step
    centroid = (importance * rows * q).sum(0, dtype=np.float64) / np.where(energy > 0, energy, 1)
    scale = np.where((energy > 0) & (centroid > 0), centroid, unordered).astype(np.float32)
    distortion, rate = cost.sum(0)
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
    flag_bits,
    bits,
    chosen,
    counts,
    flag_counts,
    cost,
):
    """Quantize rows x [n, numbers] in units of step to chosen; columns in the order of coding.

    flag_bits [2] and bits [numbers, CONTEXTS, 2 top + 1] are what symbols cost; flag_counts [BLOCKS, 2] and counts
    [BLOCKS, ...] get how often each was chosen, cost [BLOCKS, 2] the distortion and the bits.
    """
    numbers = x.shape[1]
    size = (len(x) + BLOCKS - 1) // BLOCKS
    for block in prange(BLOCKS):
        row, at = np.zeros(numbers, np.int64), np.zeros(numbers, np.int64)
        for i in range(block * size, min((block + 1) * size, len(x))):
            distortion, rate, dropped, filled = 0.0, flag_bits[1], 0.0, 0
            for k in range(numbers):
                u = x[i, k] / step[k]
                w = weight[i, k] * step[k] * step[k]
                context = filled_class[filled] * COLOUR_CLASSES
                if before[k] >= 0:
                    context += min(max(row[before[k]], -2), 2) + 2
                at[k] = context
                best = np.int64(np.rint(min(max(u, -top), top)))
                toward = -1 if best > 0 else 1
                least = w * (u - best) ** 2 + multiplier * bits[k, context, best + top]
                nearest = best
                for away in range(1, 4):
                    # One and two nearer to zero, and zero itself.
                    trial = nearest + toward * away if away < 3 else 0
                    if nearest == 0 or trial * nearest < 0:
                        continue
                    cost_of_trial = w * (u - trial) ** 2 + multiplier * bits[k, context, trial + top]
                    if cost_of_trial < least:
                        best, least = trial, cost_of_trial
                row[k] = best
                dropped += w * u * u
                distortion += w * (u - best) ** 2
                rate += bits[k, context, best + top]
                filled += min(abs(best), 2)
            kept = filled > 0 and distortion + multiplier * rate < dropped + multiplier * flag_bits[0]
            flag_counts[block, 1 if kept else 0] += 1
            cost[block, 0] += distortion if kept else dropped
            cost[block, 1] += rate if kept else flag_bits[0]
            for k in range(numbers):
                chosen[i, k] = row[k] if kept else 0
                if kept:
                    counts[block, k, at[k], row[k] + top] += 1
