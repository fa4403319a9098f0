"""Tensors as bytes, exactly: integers in the context of their row and column, floats as exponents and the rest.

Exponents of trained weights take two or three bits instead of eight; signs and mantissas do not compress.
"""

import struct
from collections.abc import Sequence
from math import prod

import numpy as np
import zstandard
from numpy.typing import NDArray

from crowdnerf_lab.coding.entropy import COUNT_LIMIT, decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError

ZSTD_LEVEL = 19
SMALLEST = -16
"""Half-octaves of the smallest magnitude a row or column is told to have: rms 2 ** -8, next to nothing."""
CLASSES = 64
MATRIX = 16
"""Rows and columns from which telling the magnitude of each pays."""
_LENGTH = struct.Struct("<I")
Shape = tuple[int, ...]


def encode_integer_tensors(tensors: Sequence[NDArray[np.integer]]) -> bytes:
    """Integer tensors of 32 bits as one stream.

    The context of an integer is its expected magnitude in half-octaves: that of its row times that of its column (first
    dimension and the others). Tensors share the contexts, so that small ones need no histograms of their own.
    """
    magnitudes = [_magnitudes(_as_matrix(tensor)) for tensor in tensors]
    side = encode_integers(_joined([np.concatenate(pair) for pair in magnitudes]), contexts=_sides(magnitudes))
    contexts = _joined([_contexts(*pair, shape=t.shape) for pair, t in zip(magnitudes, tensors, strict=True)])
    payload = encode_integers(_joined(tensors), contexts=contexts.astype(np.uint8))
    return _LENGTH.pack(len(side)) + side + payload


def decode_integer_tensors(payload: bytes, *, shapes: Sequence[Shape]) -> list[NDArray[np.int32]]:
    """The tensors that `encode_integer_tensors` coded. Raises CodedFileError for a damaged payload."""
    counts = counts_of(shapes)
    side, payload = _split_off(payload)
    sizes = [_magnitude_sizes(shape) for shape in shapes]
    blank = [(np.zeros(rows, np.int32), np.zeros(columns, np.int32)) for rows, columns in sizes]
    told = decode_integers(side, count=sum(map(sum, sizes)), contexts=_sides(blank))
    magnitudes, at = [], 0
    for rows, columns in sizes:
        magnitudes.append((told[at : at + rows], told[at + rows : at + rows + columns]))
        at += rows + columns
    contexts = _joined([_contexts(*pair, shape=shape) for pair, shape in zip(magnitudes, shapes, strict=True)])
    flat = decode_integers(payload, count=sum(counts), contexts=contexts.astype(np.uint8))
    ends = np.cumsum(counts)
    return [flat[end - n : end].reshape(shape) for end, n, shape in zip(ends, counts, shapes, strict=True)]


def encode_float_tensors(tensors: Sequence[NDArray[np.floating]]) -> bytes:
    """Float32 or float16 tensors (all alike), bit by bit, as one stream."""
    exponents = encode_integer_tensors([_exponents(_bits(t), t.dtype).reshape(t.shape) for t in tensors])
    rest = b"".join(_rest(_bits(tensor), tensor.dtype) for tensor in tensors)
    return _LENGTH.pack(len(exponents)) + exponents + rest


def decode_float_tensors(payload: bytes, *, shapes: Sequence[Shape], dtype: str | type) -> list[NDArray[np.floating]]:
    """The tensors that `encode_float_tensors` coded."""
    counts = counts_of(shapes)
    exponents, rest = _split_off(payload)
    width = np.dtype(dtype).itemsize - 1
    if len(rest) != width * sum(counts):
        raise CodedFileError(f"coded floats are damaged: {len(rest)} bytes for {sum(counts)} of them; fetch again")
    tensors, at = [], 0
    for high, count in zip(decode_integer_tensors(exponents, shapes=shapes), counts, strict=True):
        low = np.frombuffer(rest, np.uint8, width * count, at).reshape(count, width)
        tensors.append(_from_parts(high, low, np.dtype(dtype)).reshape(high.shape))
        at += width * count
    return tensors


def compress(content: bytes) -> bytes:
    """zstd, single-threaded: the same bytes on every machine."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)


def decompress(content: bytes, *, limit: int) -> bytes:
    """What `compress` compressed, `limit` bytes at most. Raises CodedFileError for anything else."""
    try:
        if not 0 <= zstandard.frame_content_size(content) <= limit:
            raise CodedFileError(f"zstd'd bytes claim more than {limit}; fetch the file again")
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=limit)
    except zstandard.ZstdError as error:
        raise CodedFileError(f"zstd'd bytes are damaged ({error}); fetch the file again") from error


def counts_of(shapes: Sequence[Shape]) -> list[int]:
    """Elements of each shape; CodedFileError when they are too many to be meant."""
    counts = [prod(shape) for shape in shapes]
    if any(side < 0 for shape in shapes for side in shape) or sum(counts) > COUNT_LIMIT:
        raise CodedFileError(f"tensors of {sum(counts)} elements are no model's (limit {COUNT_LIMIT}); fetch again")
    return counts


def _as_matrix(tensor: NDArray[np.integer]) -> NDArray[np.integer]:
    return tensor.reshape(tensor.shape[0], -1) if tensor.ndim > 1 and tensor.size else tensor.reshape(1, -1)


def _magnitude_sizes(shape: Shape) -> tuple[int, int]:
    """How many rows and columns of a tensor are told a magnitude; (1, 0): the tensor has one."""
    size = prod(shape)
    rows = shape[0] if len(shape) > 1 and size else 1
    columns = size // rows
    return (rows, columns) if rows >= MATRIX and columns >= MATRIX else (1, 0)


def _magnitudes(matrix: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Root mean squares of rows, and of columns once the rows are divided by theirs; half-octaves."""
    _, columns = _magnitude_sizes(matrix.shape)
    squares = matrix.astype(np.float64) ** 2
    if columns == 0:
        return _half_octaves(squares.mean(keepdims=True).reshape(1) if matrix.size else np.zeros(1)), np.zeros(
            0, np.int32
        )
    row = _half_octaves(squares.mean(1))
    return row, _half_octaves((squares / 2.0 ** row[:, None]).mean(0))


def _half_octaves(squares: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(np.log2(np.maximum(squares, 2.0**SMALLEST))).astype(np.int32)


def _contexts(rows: NDArray[np.int32], columns: NDArray[np.int32], *, shape: Shape) -> NDArray[np.int32]:
    expected = rows[:, None] + columns if columns.size else np.broadcast_to(rows, (1, prod(shape)))
    return np.clip(expected - SMALLEST, 0, CLASSES - 1).reshape(shape)


def _sides(magnitudes: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> NDArray[np.uint8]:
    """Contexts of magnitudes: rows, columns, and those of whole tensors."""
    return _joined(
        [
            np.repeat([0, 1], [rows.size, columns.size]) if columns.size else np.full(rows.size, 2)
            for rows, columns in magnitudes
        ]
    ).astype(np.uint8)


def _joined(tensors: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    return np.concatenate([np.zeros(0, np.int32), *(tensor.reshape(-1) for tensor in tensors)])


def _split_off(payload: bytes) -> tuple[bytes, bytes]:
    """A part that is preceded by its length, and what follows it."""
    end = _LENGTH.size + (_LENGTH.unpack_from(payload)[0] if len(payload) >= _LENGTH.size else len(payload))
    if end > len(payload):
        raise CodedFileError(f"coded tensors are damaged: {len(payload)} bytes are too few; fetch the file again")
    return payload[_LENGTH.size : end], payload[end:]


def _bits(tensor: NDArray[np.floating]) -> NDArray[np.uint32]:
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return flat.view(np.uint32) if flat.dtype == np.float32 else flat.view(np.uint16).astype(np.uint32)


def _exponents(bits: NDArray[np.uint32], dtype: np.dtype) -> NDArray[np.int32]:
    """What of a float is worth coding: of float32 the exponent; of float16 the upper byte, sign and exponent in it."""
    high = (bits >> 23) & 255 if dtype == np.float32 else bits >> 8
    return high.astype(np.int32) - (127 if dtype == np.float32 else 128)


def _rest(bits: NDArray[np.uint32], dtype: np.dtype) -> bytes:
    """The bytes of each float that its exponent leaves: sign and mantissa."""
    low = (bits & 0x7FFFFF) | (bits >> 31 << 23) if dtype == np.float32 else bits & 255
    return low.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : dtype.itemsize - 1].tobytes()


def _from_parts(exponents: NDArray[np.int32], rest: NDArray[np.uint8], dtype: np.dtype) -> NDArray[np.floating]:
    low = np.zeros((len(rest), 4), np.uint8)
    low[:, : rest.shape[1]] = rest
    bits = low.view("<u4").reshape(-1).astype(np.uint32)
    if dtype == np.float32:
        high = (exponents.reshape(-1) + 127).astype(np.uint32) & 255
        return ((bits & 0x7FFFFF) | (high << 23) | (bits >> 23 << 31)).view(np.float32)
    return (bits | ((exponents.reshape(-1) + 128).astype(np.uint32) & 255) << 8).astype(np.uint16).view(np.float16)
