"""Weights to integers for the fewest bits at a wanted error of the picture: steps, feedback and choice by rate.

Letters: w weight [r, c] (an output and an input of its layer), q integer, s step, w ~ q s. A layer's error counts by
what it does to the picture: output i by a_i, inputs by their second moments H [c, c], so that the expected squared
error of the picture is sum_i a_i e_i H e_i^T (the Kronecker factors of Martens & Grosse 2015).

Steps: rounding costs s^2/12 a_i d_j, and at high rate every weight should cost the same, so s_ij = step/sqrt(a_i d_j),
in half-octaves. d_j is what is left of input j once the later columns have taken over what of its error they can: the
feedback of optimal brain surgery (Frantar & Alistarh 2022), which adds to the columns to come what rounding took.
Choice: an integer nearer to zero when it costs fewer bits than its error is worth (rate-distortion optimised
quantization), rates from a Laplace distribution of the row's and column's size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOPE = 2 * np.log(2) / 12
"""Squared steps that a bit is worth: -dD/dR of a fine uniform quantizer, D = s^2 / 12 at R = h - log2 s."""
MOVING, MOVING_ROUNDS = 3.0, 3
"""What a bit of a delta counts, in bits of a file; and how often moves and their statistics are found anew."""
DAMPING = 0.01
"""Added to the diagonal of H, in units of its mean: what few views did not show must not count as nothing."""
OCTAVES = 160
"""Steps lie within 2 ** -OCTAVES and 2 ** OCTAVES: what float32 can hold, and somewhat more."""
LARGEST = 2.0**30
"""Integers beyond are cut, so that they fit 32 bits."""


@dataclass(frozen=True)
class Importance:
    """What errors of one tensor do to the picture: mean squared derivative of the outputs, moments of the inputs.

    outputs: [r], of the mean over the picture's values of (d value / d output)^2. inputs: [c, c] second moments, or
    [c] when the inputs' correlations are not known.
    """

    outputs: NDArray[np.float64]
    inputs: NDArray[np.float64]


@dataclass(frozen=True)
class Quantized:
    """Integers [r, c] and their steps 2 ** ((rows_i + columns_j) / 2), half-octaves."""

    integers: NDArray[np.integer]
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]


def quantized(
    weights: NDArray[np.number],
    importance: Importance,
    *,
    step: float,
    whole: bool = False,
    slope: float = SLOPE,
    after: Quantized | None = None,
) -> Quantized:
    """Quantize one layer's weights [r, c]; step: root of 12 times the squared error of the picture that a weight costs.

    whole: steps are whole numbers (the weights are integers themselves and must stay so). slope 0: plain rounding.
    after: the same layer of the version before, whose steps are kept, and whose integers as far as they serve.
    """
    if after is not None:
        return _following(weights, importance, after, whole=whole, slope=slope)
    rows, columns = lattice_of(importance, step=step)
    steps = steps_of(rows, columns, whole=whole)
    expected = expected_sizes(weights.astype(np.float64) / steps)

    def choose(values: NDArray[np.float64], j: np.intp) -> NDArray[np.int32]:
        return _chosen(values, expected[:, j], slope)

    return Quantized(_with_feedback(weights, importance, steps, choose), rows, columns)


def _following(
    weights: NDArray[np.number], importance: Importance, after: Quantized, *, whole: bool, slope: float
) -> Quantized:
    """Integers that stay where they were unless the bits of moving are worth it. Bits of a move: by a Laplace model of
    what its row and column moved by, first as if all moved that can, then as they did."""
    steps = steps_of(after.rows, after.columns, whole=whole)
    old = after.integers.astype(np.float64)
    integers = np.rint(weights / steps)
    for _ in range(MOVING_ROUNDS):
        expected = expected_sizes(integers - old)

        def choose(
            values: NDArray[np.float64], j: np.intp, expected: NDArray[np.float64] = expected
        ) -> NDArray[np.int32]:
            return (old[:, j] + _chosen(values - old[:, j], expected[:, j], MOVING * slope)).astype(np.int32)

        integers = _with_feedback(weights, importance, steps, choose)
    return Quantized(integers.astype(np.int32), after.rows, after.columns)


def _with_feedback(
    weights: NDArray[np.number],
    importance: Importance,
    steps: NDArray[np.float64],
    choose: Callable[[NDArray[np.float64], np.intp], NDArray[np.int32]],
) -> NDArray[np.int32]:
    """Integers, column after column, each making up for what those before lost. choose: a column's, from its weights in
    steps and its number."""
    matrix = weights.astype(np.float64)
    inverse_root, _ = _feedback(importance.inputs)
    integers = np.zeros(matrix.shape, np.int32)
    order = _order(importance.inputs)
    for position, j in enumerate(order):
        integers[:, j] = choose(matrix[:, j] / steps[:, j], j)
        if inverse_root is not None:
            error = (matrix[:, j] - integers[:, j] * steps[:, j]) / inverse_root[position, position]
            later = order[position + 1 :]
            matrix[:, later] -= error[:, None] * inverse_root[position, position + 1 :]
    return integers


def step_for_psnr(psnr: float, *, weights: int) -> float:
    """The step at which rounding so many weights costs their pictures this PSNR, dB, against the unrounded ones.

    As far as the weights' errors add up independently and the picture is linear in them: 1 to 2 dB too hopeful.
    """
    return float(np.sqrt(12 * 10 ** (-psnr / 10) / weights))


def lattice_of(importance: Importance, *, step: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Half-octaves of the steps of rows and columns."""
    _, conditional = _feedback(importance.inputs)
    floor = 1e-6 * importance.outputs.mean() + 1e-300
    rows = _half_octaves(step / np.sqrt(np.maximum(importance.outputs, floor)))
    return rows, _half_octaves(1 / np.sqrt(conditional))


def expected_sizes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean magnitude of each value's row times that of its column: what a Laplace model expects of it."""
    sizes = np.abs(values)
    return sizes.mean(1, keepdims=True) * sizes.mean(0) / max(float(sizes.mean()), 1e-12)


def steps_of(rows: NDArray[np.int32], columns: NDArray[np.int32], *, whole: bool = False) -> NDArray[np.float64]:
    """Steps [r, c] from half-octaves; the same bits on every machine. whole: the nearest whole number, 1 at least."""
    halves = rows[:, None] + columns
    steps = np.ldexp(np.where(halves & 1, 2.0**0.5, 1.0), halves >> 1)
    return np.maximum(np.rint(steps), 1) if whole else steps


def uninformed(weights: NDArray[np.number]) -> Importance:
    """Importance when nothing is known: an error counts relative to the tensor's root mean square."""
    square = float(np.mean(weights.astype(np.float64) ** 2)) or 1.0
    return Importance(np.full(len(weights), 1 / square), np.ones(weights.shape[1]))


def uncorrelated(importance: Importance) -> Importance:
    """The same importance as if inputs were not correlated: rounding errors then count one by one, without feedback."""
    inputs = importance.inputs
    return Importance(importance.outputs, np.diagonal(inputs).copy() if inputs.ndim == 2 else inputs)


def laplace_bits(integers: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits of integers that were rounded from a Laplace distribution of mean magnitude `expected`, in steps."""
    size = np.maximum(expected, 0.02)
    zero = -np.expm1(-0.5 / size)
    other = (np.abs(integers) - 0.5) / size - np.log(-np.expm1(-1 / size) / 2)
    return np.where(integers == 0, -np.log(zero), other) / np.log(2)


def _chosen(values: NDArray[np.float64], expected: NDArray[np.float64], slope: float) -> NDArray[np.int32]:
    """Of the nearest integer, the next one towards zero and zero: the cheapest in error and bits together."""
    nearest = np.clip(np.rint(values), -LARGEST, LARGEST)
    candidates = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
    costs = (candidates - values) ** 2 + slope * laplace_bits(candidates, expected)
    return np.take_along_axis(candidates, costs.argmin(0)[None], 0)[0].astype(np.int32)


def _order(inputs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Columns in the order in which they are rounded: those of large inputs first, while many are left to help."""
    diagonal = np.diagonal(inputs) if inputs.ndim == 2 else inputs
    return np.argsort(-diagonal, kind="stable")


def _feedback(inputs: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Upper Cholesky factor of H's inverse, in rounding order, and d_j of every column; no factor for a diagonal H."""
    if inputs.ndim == 1:
        return None, np.maximum(inputs, DAMPING * inputs.mean() + 1e-300)
    order = _order(inputs)
    damped = inputs + (DAMPING * np.diagonal(inputs).mean() + 1e-300) * np.eye(len(inputs))
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    conditional = np.empty(len(inputs))
    conditional[order] = 1 / np.diagonal(upper) ** 2
    return upper, conditional


def _half_octaves(steps: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(2 * np.log2(steps)), -2 * OCTAVES, 2 * OCTAVES).astype(np.int32)
