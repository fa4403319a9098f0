"""Clocks of many phones from differences between pairs of them, some of which are wrong.

Unknown is one correction x_u a clock; a pair says x_v - x_u = m. Corrections are first those of least absolute
deviation, which a minority of wrong pairs does not move; pairs that contradict them, around any cycle of pairs, are
thrown out; the rest is fitted by least squares. Only differences are known: the median correction of connected clocks
is set to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

TOLERANCE_S = 0.03
"""A pair that contradicts the others by more is wrong: three times what ten metres of GPS error do."""
ROUNDS = 40
_LEAST_S = 1e-4


@dataclass(frozen=True)
class Difference:
    """Correction of clock `second` minus that of clock `first`. confidence: in [0, 1]; error_s: one deviation."""

    first: int
    second: int
    seconds: float
    confidence: float
    error_s: float


@dataclass(frozen=True)
class ClockNetwork:
    """What a set of differences says. corrections, errors_s: seconds a clock, NaN for one that no pair reaches.

    groups: clocks that hang together, the largest group first. kept: for each difference whether it was used.
    residuals_s: of each difference, NaN where a clock is unknown.
    """

    corrections: Float[np.ndarray, "clocks"]
    errors_s: Float[np.ndarray, "clocks"]
    groups: tuple[tuple[int, ...], ...]
    kept: tuple[bool, ...]
    residuals_s: tuple[float, ...]


def settled(clocks: int, differences: Sequence[Difference], *, tolerance_s: float = TOLERANCE_S) -> ClockNetwork:
    """Corrections of so many clocks from the differences between them."""
    kept = np.ones(len(differences), dtype=bool)
    for group in _groups(clocks, differences, kept):
        inside = [index for index, each in enumerate(differences) if each.first in group]
        robust = _least_absolute(group, [differences[index] for index in inside])
        for index in inside:
            kept[index] = abs(_residual(differences[index], robust)) <= tolerance_s
    corrections, errors = np.full(clocks, np.nan), np.full(clocks, np.nan)
    groups = _groups(clocks, differences, kept)
    for group in groups:
        used = [each for index, each in enumerate(differences) if kept[index] and each.first in group]
        weights = np.array([1 / each.error_s**2 for each in used])
        fitted, covariance = _least_squares(group, used, weights)
        corrections[list(group)] = fitted - np.median(fitted)
        errors[list(group)] = np.sqrt(np.maximum(np.diag(covariance), 0))
    residuals = tuple(float(_residual(each, dict(enumerate(corrections)))) for each in differences)
    return ClockNetwork(corrections, errors, groups, kept=tuple(kept.tolist()), residuals_s=residuals)


def _residual(difference: Difference, corrections: dict[int, float]) -> float:
    return difference.seconds - (corrections[difference.second] - corrections[difference.first])


def _groups(clocks: int, differences: Sequence[Difference], kept: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Clocks that are connected by kept differences, groups of at least two, the largest first."""
    label = list(range(clocks))
    for index, each in enumerate(differences):
        if kept[index]:
            old, new = sorted((label[each.first], label[each.second]), reverse=True)
            label = [new if name == old else name for name in label]
    members: dict[int, list[int]] = {}
    for clock, name in enumerate(label):
        members.setdefault(name, []).append(clock)
    return tuple(sorted((tuple(group) for group in members.values() if len(group) > 1), key=lambda g: (-len(g), g)))


def _least_absolute(group: tuple[int, ...], differences: Sequence[Difference]) -> dict[int, float]:
    """Least confidence-weighted absolute deviation, by reweighting least squares."""
    confidence = np.array([each.confidence for each in differences])
    weights = confidence
    fitted = np.zeros(len(group))
    for _ in range(ROUNDS):
        fitted, _ = _least_squares(group, differences, weights)
        by_clock = dict(zip(group, fitted.tolist(), strict=True))
        residuals = np.array([_residual(each, by_clock) for each in differences])
        weights = confidence / np.maximum(np.abs(residuals), _LEAST_S)
    return dict(zip(group, fitted.tolist(), strict=True))


def _least_squares(
    group: tuple[int, ...], differences: Sequence[Difference], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Corrections with mean zero, and their covariance; the pseudo-inverse takes the free shift out."""
    place = {clock: index for index, clock in enumerate(group)}
    rows = np.zeros((len(differences), len(group)))
    for row, each in zip(rows, differences, strict=True):
        row[place[each.first]], row[place[each.second]] = -1, 1
    scale = float(weights.max())
    normal = rows.T @ (rows * (weights / scale)[:, None])
    inverse = np.linalg.pinv(normal, hermitian=True)
    values = np.array([each.seconds for each in differences])
    return inverse @ rows.T @ (weights / scale * values), inverse / scale
