"""Which weights of a graph may lose bits, and how their importance is found: by name, and in the units of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.quantization import Importance, Quantized, quantized, uninformed
from crowdnerf_lab.coding.stored_tensors import (
    StoredTensor,
    floats_of,
    integers_of,
    is_coded_float,
    is_integer,
    matrix_shape,
)


@dataclass(frozen=True)
class Scales:
    """What integers are multiplied with to become weights: one number, or one along an axis."""

    values: NDArray[np.float64]
    axis: int


@dataclass(frozen=True)
class PartedGraph:
    """A graph without its weights, and the weights.

    multiplied: names of the float weights and biases of layers. scales: of integer weights, by their name.
    """

    model: bytes
    tensors: list[StoredTensor]
    multiplied: frozenset[str]
    scales: Mapping[str, Scales]


def quantized_layers(
    parts: PartedGraph,
    *,
    step: float,
    importances: Mapping[str, Importance] | None,
    slope: float,
    after: Mapping[str, Quantized] | None = None,
) -> dict[str, Quantized]:
    """Quantize the weights of layers; tensors that are missing in the answer must stay exact.

    importances None: every float weight relative to its own size, integers not at all. Else those tensors for which an
    importance is given, under their own name or that of the weight they were made of (its name and an ending).
    after: what the version before has under the same names; see quantization.quantized.
    """
    chosen: dict[str, Quantized] = {}
    for tensor in parts.tensors:
        integer = is_integer(tensor.onnx_type)
        if integer and (importances is None or tensor.name not in parts.scales):
            continue
        named = parts.multiplied if importances is None else importances
        if not integer and (not is_coded_float(tensor.onnx_type) or tensor.name not in named):
            continue
        weights: NDArray[Any] = integers_of(tensor) if integer else floats_of(tensor)
        weights = weights.reshape(matrix_shape(tensor.shape))
        importance = uninformed(weights) if importances is None else _importance(tensor, importances)
        if importance is None or not np.isfinite(weights).all():
            continue
        if integer:
            importance = in_units_of(importance, parts.scales[tensor.name], tensor)
        before = (after or {}).get(tensor.name)
        if before is not None and before.integers.shape != weights.shape:
            before = None
        chosen[tensor.name] = quantized(weights, importance, step=step, whole=integer, slope=slope, after=before)
    return chosen


def _importance(tensor: StoredTensor, importances: Mapping[str, Importance]) -> Importance | None:
    """The importance of the longest name that this tensor's begins with, if it fits the tensor's shape."""
    names = [name for name in importances if tensor.name == name or tensor.name.startswith(f"{name}_")]
    if not names:
        return None
    importance = importances[max(names, key=len)]
    fits = importance.outputs.size, importance.inputs.shape[0]
    if fits != matrix_shape(tensor.shape):
        raise CodedFileError(
            f"the importance of {tensor.name} is for {fits[0]} x {fits[1]} weights, not for {tensor.shape}; "
            "measure it on the student that was exported"
        )
    return importance


def in_units_of(importance: Importance, scales: Scales, tensor: StoredTensor) -> Importance:
    """The importance of integers whose weights are scales times them."""
    rows, columns = matrix_shape(tensor.shape)
    factors = np.abs(scales.values.reshape(-1))
    vector = len(tensor.shape) == 1
    if factors.size not in (1, columns if vector else tensor.shape[scales.axis]):
        raise CodedFileError(
            f"{tensor.name} has {factors.size} scales along axis {scales.axis}; code this graph exactly"
        )
    if not vector and (factors.size == 1 or scales.axis == 0):
        return Importance(importance.outputs * np.broadcast_to(factors, rows) ** 2, importance.inputs)
    if not vector:
        along = [factors.size if axis == scales.axis else 1 for axis in range(1, len(tensor.shape))]
        factors = np.broadcast_to(factors.reshape(along), tensor.shape[1:]).reshape(-1)
    factors = np.broadcast_to(factors, columns)
    together = factors[:, None] * factors if importance.inputs.ndim == 2 else factors**2
    return Importance(importance.outputs, importance.inputs * together)
