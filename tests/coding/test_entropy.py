"""The entropy coder: exact for any integers, close to their entropy, calm about damaged payloads."""

import contextlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crowdnerf_lab.coding.entropy import COUNT_LIMIT, bits_of, decode_integers, encode_integers
from crowdnerf_lab.coding.layered_file import CodedFileError

INTEGERS = st.one_of(
    hnp.arrays(np.int8, st.integers(0, 300)),
    hnp.arrays(np.uint8, st.integers(0, 300)),
    hnp.arrays(np.int32, st.integers(0, 300)),
    hnp.arrays(np.int16, st.integers(0, 300), elements=st.integers(-3, 3)),
)


def laplace(count: int, scale: float, seed: int = 0) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, count)).astype(np.int32)


@given(INTEGERS)
@settings(max_examples=200, deadline=None)
def test_any_integers_come_back_exactly(values):
    payload = encode_integers(values)
    assert np.array_equal(decode_integers(payload, count=values.size), values.astype(np.int32))
    assert abs(8 * len(payload) - bits_of(values)) <= 64


@given(INTEGERS, st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_any_contexts_bring_back_the_same_integers(values, seed):
    contexts = np.random.default_rng(seed).integers(0, 256, values.size).astype(np.uint8)
    payload = encode_integers(values, contexts=contexts)
    assert np.array_equal(decode_integers(payload, count=values.size, contexts=contexts), values.astype(np.int32))


@pytest.mark.parametrize("extreme", [-(2**31), 2**31 - 1, 511, 512, -256, -257, 65535, 65536])
def test_the_borders_of_tokens_and_of_32_bits_are_exact(extreme):
    values = np.array([0, extreme, 0, extreme, 1], np.int64)
    assert np.array_equal(decode_integers(encode_integers(values), count=5), values)


@pytest.mark.parametrize("scale", [0.2, 3, 30, 3000])
def test_takes_within_one_per_cent_of_the_entropy(scale):
    values = laplace(100_000, scale)
    counts = np.unique(values, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / values.size)).sum()
    coded = 8 * len(encode_integers(values))
    assert entropy * 0.999 < coded < entropy * (1.01 if scale < 3000 else 1.06)


def test_a_context_that_tells_much_saves_much():
    contexts = (np.arange(40_000) % 2).astype(np.uint8)
    values = np.where(contexts, laplace(40_000, 40), laplace(40_000, 0.3))
    assert len(encode_integers(values, contexts=contexts)) < 0.9 * len(encode_integers(values))


def test_equal_values_take_next_to_nothing():
    assert len(encode_integers(np.full(1_000_000, -7))) <= 8


def test_the_same_integers_give_the_same_bytes():
    assert encode_integers(laplace(5000, 9)) == encode_integers(laplace(5000, 9).astype(np.int64))


def test_codes_millions_of_integers_a_second():
    values = laplace(2_000_000, 6)
    started = time.process_time()
    payload = encode_integers(values)
    decode_integers(payload, count=values.size)
    assert time.process_time() - started < 4, "0.4 s on an idle core; ten times that is a loop in Python"


def test_damaged_payloads_are_refused_or_decoded_but_never_crash():
    rng, contexts = np.random.default_rng(0), (np.arange(3000) % 3).astype(np.uint8)
    payload = encode_integers(laplace(3000, 900), contexts=contexts)
    refused = 0
    for _ in range(400):
        damaged = bytearray(payload)
        for position in rng.integers(0, len(payload), rng.integers(1, 9)):
            damaged[position] = rng.integers(0, 256)
        damaged = bytes(damaged[: rng.integers(0, len(damaged) + 1)])
        try:
            assert decode_integers(damaged, count=3000, contexts=contexts).shape == (3000,)
        except CodedFileError:
            refused += 1
    assert refused > 100


def test_random_bytes_never_crash_the_decoder():
    rng = np.random.default_rng(1)
    for _ in range(300):
        with contextlib.suppress(CodedFileError):
            decode_integers(rng.bytes(4 * int(rng.integers(0, 60))), count=int(rng.integers(0, 500)))


@pytest.mark.parametrize("count", [-1, COUNT_LIMIT + 1, 2**62])
def test_hostile_counts_are_refused_before_memory_is_claimed(count):
    with pytest.raises(CodedFileError, match="not between 0 and"):
        decode_integers(b"", count=count)


def test_surplus_bytes_are_refused():
    with pytest.raises(CodedFileError, match="longer than its integers"):
        decode_integers(encode_integers(laplace(500, 5)) + bytes(range(16)), count=500)


def test_what_does_not_fit_is_said_so():
    with pytest.raises(CodedFileError, match="do not fit 32 bits"):
        encode_integers(np.array([2**31]))
    with pytest.raises(CodedFileError, match="3 contexts do not fit 2 integers"):
        encode_integers(np.zeros(2, int), contexts=np.zeros(3, np.uint8))
