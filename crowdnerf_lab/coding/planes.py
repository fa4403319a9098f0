"""Integers coarse first: the leading bits of all, then what each further plane adds, in the light of those before."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.entropy import decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.tensors import Shape, counts_of, decode_integer_tensors, encode_integer_tensors

_KNOWN = 16
"""Magnitudes of what is known so far that tell planes apart."""


def encode_planes(tensors: Sequence[NDArray[np.integer]], *, shifts: Sequence[int]) -> list[bytes]:
    """One payload a plane. Plane k leaves out the lowest shifts[k] bits; shifts fall, and the last is 0: exact."""
    check_shifts(shifts)
    known = [coarse(tensor, shifts[0]) for tensor in tensors]
    payloads = [encode_integer_tensors(known)]
    for before, shift in pairwise(shifts):
        finer = [coarse(tensor, shift) for tensor in tensors]
        added = [new - (old << (before - shift)) for new, old in zip(finer, known, strict=True)]
        payloads.append(encode_integers(_flat(added), contexts=_contexts(known)))
        known = finer
    return payloads


def decode_planes(payloads: Sequence[bytes], *, shapes: Sequence[Shape], shifts: Sequence[int]) -> list[NDArray]:
    """Tensors from the first planes, one at least; bits that are not here yet are zero (values rounded, not cut)."""
    check_shifts(shifts)
    if not 0 < len(payloads) <= len(shifts):
        raise CodedFileError(f"{len(payloads)} planes where {len(shifts)} were told; fetch the file again")
    known = [tensor.astype(np.int64) for tensor in decode_integer_tensors(payloads[0], shapes=shapes)]
    for payload, before, shift in zip(payloads[1:], shifts, shifts[1:], strict=False):
        added = decode_integers(payload, count=sum(counts_of(shapes)), contexts=_contexts(known))
        ends = np.cumsum([tensor.size for tensor in known])
        known = [
            (tensor << (before - shift)) + added[end - tensor.size : end].reshape(tensor.shape)
            for tensor, end in zip(known, ends, strict=True)
        ]
    return [tensor << shifts[len(payloads) - 1] for tensor in known]


def coarse(values: NDArray[np.integer], shift: int) -> NDArray[np.int64]:
    """The nearest multiples of 2 ** shift, divided by it; halves to even, for small weights all rounded up add up."""
    return np.rint(values / 2.0**shift).astype(np.int64)


def check_shifts(shifts: Sequence[int]) -> None:
    """Raise CodedFileError unless shifts fall from at most 16 to 0."""
    falling = all(a > b for a, b in pairwise(shifts))
    if not shifts or any(type(s) is not int for s in shifts) or shifts[0] > 16 or shifts[-1] != 0 or not falling:
        raise CodedFileError(f"planes that leave out {list(shifts)} bits cannot be; they fall from 16 at most to 0")


def _contexts(known: Sequence[NDArray[np.integer]]) -> NDArray[np.uint8]:
    return np.minimum(np.abs(_flat(known)), _KNOWN - 1).astype(np.uint8)


def _flat(tensors: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    return np.concatenate([np.zeros(0, np.int64), *(tensor.reshape(-1) for tensor in tensors)])
