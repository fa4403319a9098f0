"""Planes: the last one is exact, each before it the nearest coarser integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.planes import coarse, decode_planes, encode_planes

TENSORS = st.lists(hnp.arrays(np.int32, hnp.array_shapes(max_dims=3, max_side=20)), max_size=3)
SHIFTS = st.sets(st.integers(1, 16), max_size=4).map(lambda chosen: (*sorted(chosen, reverse=True), 0))


@given(TENSORS, SHIFTS)
@settings(max_examples=50, deadline=None)
def test_any_integers_are_exact_in_the_end_and_near_before(tensors, shifts):
    payloads, shapes = encode_planes(tensors, shifts=shifts), [tensor.shape for tensor in tensors]
    for held, shift in enumerate(shifts, 1):
        decoded = decode_planes(payloads[:held], shapes=shapes, shifts=shifts)
        for before, after in zip(tensors, decoded, strict=True):
            assert (np.abs(after - before) <= 1 << shift >> 1).all()


def test_knowing_the_coarse_plane_makes_the_fine_ones_cost_little_more():
    values = np.rint(np.random.default_rng(0).laplace(0, 6, (200, 200))).astype(np.int32)
    whole = len(encode_planes([values], shifts=(0,))[0])
    parts = [len(payload) for payload in encode_planes([values], shifts=(2, 1, 0))]
    assert whole <= sum(parts) < 1.15 * whole
    assert parts[0] < 0.65 * whole


def test_coarse_integers_are_the_nearest_and_lean_to_neither_side():
    values = np.array([-6, -5, -2, -1, 0, 1, 2, 5, 6])
    assert coarse(values, 2).tolist() == [-2, -1, 0, 0, 0, 0, 0, 1, 2]
    assert (coarse(-values, 2) == -coarse(values, 2)).all()


@pytest.mark.parametrize("shifts", [(), (1,), (17, 0), (0, 1), (2, 2, 0), (-1, 0), (True, 0)])
def test_planes_that_cannot_be_are_refused(shifts):
    with pytest.raises(CodedFileError, match="cannot be"):
        encode_planes([np.arange(4)], shifts=shifts)


def test_more_planes_than_were_told_are_refused():
    with pytest.raises(CodedFileError, match="3 planes where 2 were told"):
        decode_planes([b"", b"", b""], shapes=[(2,)], shifts=(1, 0))
