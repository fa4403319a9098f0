"""Weights as an ONNX graph stores them: named, typed bytes, and what they are as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.layered_file import CodedFileError

WEIGHTS_FILE = "weights"
"""Where the graph says that its weights are; never a file on disk."""
ALIGNMENT = 16
ONNX_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    6: ("int32", 32),
    7: ("int64", 64),
    10: ("float16", 16),
    11: ("float64", 64),
    16: ("bfloat16", 16),
    21: ("uint4", 4),
    22: ("int4", 4),
}
"""TensorProto.DataType: its name, and bits an element."""
FLOATS = ("float32", "float16")
"""Floats that the range coder takes."""
BYTES_LIMIT = 1 << 29
"""Bytes of weights that a decoder makes room for."""


@dataclass(frozen=True)
class StoredTensor:
    """One initializer: `content` is what ONNX calls raw_data (little-endian; 4-bit types two a byte, low first)."""

    name: str
    onnx_type: int
    shape: tuple[int, ...]
    content: bytes


def stored_bytes(onnx_type: int, shape: Sequence[int]) -> int:
    """Bytes of a tensor's content."""
    return -(-prod(shape) * ONNX_TYPES[onnx_type][1] // 8)


def type_name(onnx_type: int) -> str:
    """numpy's name of a type, where numpy has it."""
    return ONNX_TYPES[onnx_type][0]


def is_coded_float(onnx_type: int) -> bool:
    """Whether a type's elements are floats that the range coder takes."""
    return type_name(onnx_type) in FLOATS


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """A tensor as rows (its first dimension) and columns (all others); one of one dimension is one row."""
    rows = shape[0] if len(shape) > 1 and prod(shape) else 1
    return rows, prod(shape) // rows


def is_integer(onnx_type: int) -> bool:
    """Whether a type's elements are integers that the range coder takes."""
    return type_name(onnx_type) in ("uint8", "int8", "int32", "uint4", "int4")


def integers_of(tensor: StoredTensor) -> NDArray[np.int32]:
    """A stored tensor's integers; unsigned ones less half their range, so that all lie around zero."""
    kind, bits = ONNX_TYPES[tensor.onnx_type]
    if bits == 4:
        packed = np.frombuffer(tensor.content, np.uint8)
        values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)[: prod(tensor.shape)].astype(np.int32)
        values = values - 8 if kind == "uint4" else (values ^ 8) - 8
    else:
        values = np.frombuffer(tensor.content, f"<{np.dtype(kind).str[1:]}").astype(np.int32)
        values = values - 128 if kind == "uint8" else values
    return values.reshape(tensor.shape)


def integer_content(values: NDArray[np.integer], onnx_type: int) -> bytes:
    """The inverse of `integers_of`; values beyond the type's range are clipped to it."""
    kind, bits = ONNX_TYPES[onnx_type]
    flat = values.reshape(-1)
    if bits < 32:
        flat = np.clip(flat, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if kind in ("uint8", "uint4"):
        flat = flat + 2 ** (bits - 1)
    if bits == 4:
        nibbles = np.append(flat & 15, np.zeros(flat.size % 2, flat.dtype)).astype(np.uint8)
        return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    return flat.astype(f"<{np.dtype(kind).str[1:]}").tobytes()


def floats_of(tensor: StoredTensor) -> NDArray[np.floating]:
    """A stored float32 or float16 tensor."""
    kind = np.dtype(ONNX_TYPES[tensor.onnx_type][0])
    return np.frombuffer(tensor.content, kind.newbyteorder("<")).astype(kind).reshape(tensor.shape)


def ordinals(content: bytes, kind: str) -> NDArray[np.int64]:
    """Floats as integers in the floats' order: neighbours differ by one; negative ones run downwards from -1."""
    bits = np.frombuffer(content, "<u2" if kind == "float16" else "<u4").astype(np.int64)
    sign = 1 << (15 if kind == "float16" else 31)
    return np.where(bits & sign, sign - 1 - bits, bits)


def from_ordinals(places: NDArray[np.int64], kind: str) -> bytes:
    """Inverse of `ordinals`; those beyond the largest float begin again at the smallest."""
    sign = 1 << (15 if kind == "float16" else 31)
    wrapped = (places + sign) % (2 * sign) - sign
    bits = np.where(wrapped < 0, sign - 1 - wrapped, wrapped)
    return bits.astype("<u2" if kind == "float16" else "<u4").tobytes()


def as_array(tensor: StoredTensor) -> NDArray[np.generic]:
    """The array that ONNX Runtime takes for a tensor; 4-bit and bfloat16 ones stay packed bytes and 16-bit words."""
    kind, bits = ONNX_TYPES[tensor.onnx_type]
    if bits == 4:
        return np.frombuffer(tensor.content, np.uint8)
    plain = "uint16" if kind == "bfloat16" else kind
    return np.frombuffer(tensor.content, plain).reshape(tensor.shape)


def weights_file(tensors: Sequence[StoredTensor]) -> bytes:
    """Contents of WEIGHTS_FILE: the tensors one after the other, each on an aligned offset."""
    parts: list[bytes] = []
    for tensor in tensors:
        parts += [tensor.content, bytes(-len(tensor.content) % ALIGNMENT)]
    return b"".join(parts)


def described(tensor: StoredTensor) -> list:
    """JSON of everything about a tensor but its content."""
    return [tensor.name, tensor.onnx_type, list(tensor.shape)]


def from_description(row: Sequence, content: bytes = b"") -> StoredTensor:
    """A tensor from `described`. Raises TypeError, KeyError, ValueError or CodedFileError for what is none."""
    name, onnx_type, shape = row
    if not isinstance(name, str) or type(onnx_type) is not int or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError(f"tensor {str(row)[:60]} is malformed")
    if stored_bytes(onnx_type, shape) > BYTES_LIMIT:
        raise CodedFileError(f"tensor {name!r} of shape {shape} is larger than a model's; fetch the file again")
    return StoredTensor(name, onnx_type, tuple(shape), content)
