"""Integers: errors within half a step, zero exact, and grids that rounding again does not leave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdnerf_lab.devices.formats.integers import (
    activation_scale,
    closest_axis,
    quantized_per_block,
    quantized_per_channel,
)

NUMBERS = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (4, 3, 2, 2), elements=NUMBERS), st.sampled_from([0, 1]), st.sampled_from([2, 4, 7, 8]))
def test_the_error_is_at_most_half_a_step(weights: np.ndarray, axis: int, bits: int) -> None:
    integers, scales = quantized_per_channel(weights, axis, bits=bits)
    steps = np.expand_dims(scales, tuple(i for i in range(4) if i != axis))
    assert integers.dtype == np.int8
    assert np.abs(integers).max() <= 2 ** (bits - 1) - 1
    assert np.all(np.abs(integers * steps - weights) <= steps * 0.5 * (1 + 1e-5))


@given(arrays(np.float32, (3, 11), elements=st.floats(-4, 4, width=32)), st.integers(1, 12))
def test_blocks_share_a_scale_and_the_last_may_be_shorter(weights: np.ndarray, block: int) -> None:
    integers, scales = quantized_per_block(weights, 1, block=block)
    assert scales.shape == (3, -(-11 // block))
    assert np.abs(integers).max() <= 7
    steps = np.repeat(scales.astype(np.float32), block, axis=1)[:, :11]
    assert np.all(np.abs(integers * steps - weights) <= steps * 0.5 * (1 + 1e-3))


def test_smaller_blocks_lose_less() -> None:
    weights = np.random.default_rng(0).standard_t(3, (64, 256)).astype(np.float32)

    def error(block: int) -> float:
        integers, scales = quantized_per_block(weights, 1, block=block)
        return float(np.square(integers * np.repeat(scales.astype(np.float32), block, axis=1) - weights).mean())

    assert error(16) < 0.7 * error(64) < 0.6 * error(256)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.booleans())
def test_activations_keep_zero_exact_and_their_range(one: float, other: float, signed: bool) -> None:
    low, high = min(one, other), max(one, other)
    scale, zero = activation_scale(low, high, signed=signed)
    limits = np.iinfo(zero.dtype)
    assert limits.min <= zero <= limits.max
    reach = (np.array([limits.min, limits.max], np.float64) - float(zero)) * float(scale)
    half = 0.51 * float(scale)
    assert reach[0] <= min(low, 0) + half
    assert reach[1] >= max(high, 0) - half
    assert low < 0 or int(zero) == limits.min  # values that are never negative use every step


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_closest_axis_is_the_one_whose_sizes_differ(axis: int) -> None:
    weights = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    sizes = np.expand_dims(2.0 ** np.arange(weights.shape[axis]), tuple(i for i in range(3) if i != axis))
    assert closest_axis((weights * sizes).astype(np.float32)) == axis
