"""Tensors come back bit by bit, and trained weights take fewer bytes than zstd needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crowdnerf_lab.coding.entropy import encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.tensors import (
    compress,
    decode_float_tensors,
    decode_integer_tensors,
    decompress,
    encode_float_tensors,
    encode_integer_tensors,
)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=20)


def weights(rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    """Weights whose rows and columns differ in size, as those of trained networks do."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 1, (rows, 1))) * np.exp(rng.normal(0, 1, columns))
    return (rng.normal(0, 0.05, (rows, columns)) * size).astype(np.float32)


@given(st.lists(hnp.arrays(st.sampled_from([np.int8, np.uint8, np.int32]), SHAPES), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_integer_tensors_come_back(tensors):
    decoded = decode_integer_tensors(encode_integer_tensors(tensors), shapes=[t.shape for t in tensors])
    for before, after in zip(tensors, decoded, strict=True):
        assert np.array_equal(before, after)


@given(st.data(), st.sampled_from([np.float32, np.float16]))
@settings(max_examples=60, deadline=None)
def test_any_floats_come_back_bit_by_bit_not_a_number_and_signed_zero_included(data, dtype):
    bits = np.uint32 if dtype == np.float32 else np.uint16
    tensors = [a.view(dtype) for a in data.draw(st.lists(hnp.arrays(bits, hnp.array_shapes(max_side=20)), max_size=3))]
    decoded = decode_float_tensors(encode_float_tensors(tensors), shapes=[t.shape for t in tensors], dtype=dtype)
    for before, after in zip(tensors, decoded, strict=True):
        assert before.tobytes() == after.tobytes()


def test_knowing_rows_and_columns_saves_a_tenth():
    integers = np.rint(weights(128, 128) * 40).astype(np.int32)
    assert len(encode_integer_tensors([integers])) < 0.9 * len(encode_integers(integers))


def test_small_tensors_share_their_histograms():
    tensors = [np.rint(weights(16, 16, seed=seed) * 40).astype(np.int32) for seed in range(12)]
    assert len(encode_integer_tensors(tensors)) < 0.8 * sum(len(encode_integer_tensors([t])) for t in tensors)


@pytest.mark.parametrize(("dtype", "share"), [(np.float32, 0.87), (np.float16, 0.95)])
def test_floats_take_less_than_zstd_needs(dtype, share):
    tensors = [weights(128, 128).astype(dtype)]
    coded = len(encode_float_tensors(tensors))
    assert coded < share * tensors[0].nbytes
    assert coded < len(compress(tensors[0].tobytes()))


@pytest.mark.parametrize("shapes", [[(2**20, 2**20)], [(-1, 4)], [(2**26, 1), (2, 2)]])
def test_hostile_shapes_are_refused_before_memory_is_claimed(shapes):
    with pytest.raises(CodedFileError, match="are no model's"):
        decode_integer_tensors(bytes(8), shapes=shapes)
    with pytest.raises(CodedFileError, match="are no model's"):
        decode_float_tensors(bytes(8), shapes=shapes, dtype=np.float32)


def test_truncated_tensors_are_refused():
    payload = encode_float_tensors([weights(20, 20)])
    for length in (0, 3, 20, len(payload) - 1):
        with pytest.raises(CodedFileError, match="fetch"):
            decode_float_tensors(payload[:length], shapes=[(20, 20)], dtype=np.float32)


def test_a_zstd_bomb_is_refused():
    bomb = compress(bytes(10_000_000))
    with pytest.raises(CodedFileError, match="claim more than 1000"):
        decompress(bomb, limit=1000)
    with pytest.raises(CodedFileError, match=r"damaged|claim more"):
        decompress(b"no zstd", limit=1000)
    assert decompress(compress(b"abc"), limit=3) == b"abc"
