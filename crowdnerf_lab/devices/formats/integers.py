"""Real numbers as integers: value ~ scale (integer - zero point), Jacob et al. (CVPR 2018), equation 1.

Weights are symmetric (zero point 0) with a scale a channel or a block; activations have one scale and zero point each.
"""

import numpy as np
from numpy.typing import NDArray


def quantized_per_channel(
    weights: NDArray[np.float32], axis: int, *, bits: int = 8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and a scale a channel, weights ~ integers * scales: the error is at most half a scale.

    With b bits the integers are in [1 - 2^(b-1), 2^(b-1) - 1]: [-127, 127] with 8.
    """
    most = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales = np.maximum(np.abs(weights).max(axis=others) / most, np.finfo(np.float32).tiny).astype(np.float32)
    steps = weights / np.expand_dims(scales, others)
    return np.clip(np.rint(steps), -most, most).astype(np.int8), scales


def quantized_per_block(
    weights: NDArray[np.float32], axis: int, *, block: int, bits: int = 4
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Integers and a half-precision scale for every `block` weights along an axis (the last block may be shorter).

    scales have the weights' shape but ceil(n / block) along the axis: what ONNX's blocked DequantizeLinear takes.
    """
    most = 2 ** (bits - 1) - 1
    length = weights.shape[axis]
    starts = np.arange(0, length, block)
    largest = np.maximum.reduceat(np.abs(weights), starts, axis=axis)
    # Of two neighbouring halves the larger: a scale rounded down would clip its block's largest weight.
    scales = (largest / most).astype(np.float16)
    scales = np.where(scales.astype(np.float32) * most < largest, np.nextafter(scales, np.float16(np.inf)), scales)
    scales = np.maximum(scales, np.finfo(np.float16).smallest_subnormal)
    spread = np.repeat(scales.astype(np.float32), block, axis=axis).take(np.arange(length), axis=axis)
    return np.clip(np.rint(weights / spread), -most, most).astype(np.int8), scales


def activation_scale(low: float, high: float, *, signed: bool) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Scale and zero point of 8-bit activations in [low, high], widened to hold 0, which stays exact."""
    dtype = np.int8 if signed else np.uint8
    least = int(np.iinfo(dtype).min)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    return np.array(scale, np.float32), np.array(np.clip(round(least - low / scale), least, least + 255), dtype)


def closest_axis(weights: NDArray[np.float32], *, bits: int = 8) -> int:
    """The axis along which a scale a channel loses least: for tables of features whose layout says nothing."""

    def error(axis: int) -> float:
        integers, scales = quantized_per_channel(weights, axis, bits=bits)
        others = tuple(i for i in range(weights.ndim) if i != axis)
        return float(np.square(integers * np.expand_dims(scales, others) - weights).sum())

    return min(range(weights.ndim), key=error)
