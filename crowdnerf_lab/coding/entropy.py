"""Integers as few bytes: a range coder over one histogram a context, histograms inside; exact, and the same everywhere.

Small integers are tokens of their own; rare large ones are a token for their length in bits and then those bits (as
JPEG XL's hybrid integers, ISO/IEC 18181-1). A histogram is coded by the logarithm of each frequency in half-octaves:
a quarter of an octave off at most, it costs under 0.01 bit a symbol and takes about two bits a token.
The coder is constriction's (Bamler 2022), whose range coder follows Martin 1979.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from constriction import stream  # type: ignore[attr-defined]
from numpy.typing import NDArray

from crowdnerf_lab.coding.layered_file import CodedFileError

COUNT_LIMIT = 1 << 26
"""Integers in one payload, so that a hostile count cannot claim this machine's memory (256 MB decoded)."""
SPLITS = (2, 5, 9)
"""Choices for which integers are tokens of their own: those whose zigzag number is below 2 ** split."""
LEVELS = 64
"""Half-octaves a histogram knows: frequencies 2 ** 0 to 2 ** 31; level 0 stands for a token that never occurs."""
_FREQUENCY = np.array([0] + [2.0 ** (k // 2) * (1.0, 2.0**0.5)[k % 2] for k in range(LEVELS - 1)])
_STEPS = np.arange(-LEVELS + 1, LEVELS)
_STEP_WEIGHTS = (2.0 ** -np.minimum(np.abs(_STEPS), 12)).astype(np.float32)
"""How likely a level differs by so much from that of the token with the same sign and one magnitude less."""
_HEAD_SIZES = np.array([len(SPLITS), 1024], np.int32)
_CHUNK = 16
"""Bits that the coder takes as one symbol, all equally likely."""


def encode_integers(values: NDArray[np.integer], *, contexts: NDArray[np.uint8] | None = None) -> bytes:
    """Code integers of 32 bits, in C order; each context (0 to 255, one a value) has a histogram of its own.

    The decoder must know count and contexts. Raises CodedFileError for what `decode_integers` would refuse.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    _check_count(flat.size)
    if flat.size and (flat.min() < -(2**31) or flat.max() >= 2**31):
        raise CodedFileError(f"integers from {flat.min()} to {flat.max()} do not fit 32 bits; scale them first")
    encoder = stream.queue.RangeEncoder()
    for group in _groups(flat.size, contexts):
        numbers = _zigzag(flat[group])
        best = _best_histogram(numbers)
        _encode_histogram(encoder, best)
        tokens, lengths = _tokens(numbers, best.split)
        if np.count_nonzero(best.levels) > 1:
            encoder.encode(tokens, _model(best.levels))
        _encode_remainders(encoder, numbers[lengths > 0], lengths[lengths > 0])
    return encoder.get_compressed().astype("<u4").tobytes()


def decode_integers(payload: bytes, *, count: int, contexts: NDArray[np.uint8] | None = None) -> NDArray[np.int32]:
    """The `count` integers that `encode_integers` coded. Raises CodedFileError for a payload that was damaged.

    Not every damage shows: a range coder makes integers out of any bytes. LayeredFile's checksums do that.
    """
    _check_count(count)
    if len(payload) % 4:
        raise _damaged(f"{len(payload)} bytes are no whole number of words")
    decoder = stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    flat = np.empty(count, np.int32)
    for group in _groups(count, contexts):
        split, levels = _decode_histogram(decoder)
        (used,) = np.nonzero(levels)
        size = flat[group].size
        tokens = _decoded(decoder, _model(levels), size) if used.size > 1 else np.full(size, used[0], np.int64)
        flat[group] = _unzigzag(_decode_numbers(decoder, tokens, split))
    if not decoder.maybe_exhausted():
        raise _damaged("it is longer than its integers are")
    return flat


def bits_of(values: NDArray[np.integer], *, contexts: NDArray[np.uint8] | None = None) -> float:
    """Bits that `encode_integers` would take, to within a word; fast enough to choose by."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return sum(_best_histogram(_zigzag(flat[group])).bits for group in _groups(flat.size, contexts))


@dataclass(frozen=True)
class _Histogram:
    """Levels of the tokens under one split, and the bits that histogram and integers take with it."""

    split: int
    levels: NDArray[np.int64]
    bits: float


def _best_histogram(numbers: NDArray[np.int64]) -> _Histogram:
    return min((_histogram(numbers, split) for split in SPLITS), key=lambda histogram: histogram.bits)


def _histogram(numbers: NDArray[np.int64], split: int) -> _Histogram:
    tokens, lengths = _tokens(numbers, split)
    counts = np.bincount(tokens)
    levels = np.where(counts > 0, np.rint(2 * np.log2(np.maximum(counts, 1))).astype(np.int64) + 1, 0)
    frequency = _FREQUENCY[levels]
    seen = counts > 0
    coded = -(counts[seen] * np.log2(frequency[seen] / frequency.sum())).sum()
    steps = np.abs(_level_steps(levels))
    described = 4 + 10 + (np.minimum(steps, 12) + 1.6).sum()
    return _Histogram(split, levels, float(coded + described + lengths.sum()))


def _level_steps(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each level less that of the token two before: zigzag numbers two apart have the same sign."""
    return levels - np.concatenate([[0, 0], levels])[: levels.size]


def _encode_histogram(encoder: stream.queue.RangeEncoder, histogram: _Histogram) -> None:
    head = np.array([SPLITS.index(histogram.split), histogram.levels.size - 1], np.int32)
    encoder.encode(head, stream.model.Uniform(), _HEAD_SIZES)
    encoder.encode((_level_steps(histogram.levels) + LEVELS - 1).astype(np.int32), _step_model())


def _decode_histogram(decoder: stream.queue.RangeDecoder) -> tuple[int, NDArray[np.int64]]:
    choice, last = (int(number) for number in _decoded(decoder, stream.model.Uniform(), _HEAD_SIZES))
    split = SPLITS[choice]
    if last >= 2**split + 32 - split:
        raise _damaged(f"a histogram of {last + 1} tokens cannot be")
    steps = _decoded(decoder, _step_model(), last + 1) - (LEVELS - 1)
    levels = np.empty_like(steps)
    for parity in (0, 1):
        levels[parity::2] = np.cumsum(steps[parity::2])
    if levels.min() < 0 or levels.max() >= LEVELS or not levels.any():
        raise _damaged("a histogram has impossible frequencies")
    return split, levels


def _step_model() -> stream.model.Categorical:
    return stream.model.Categorical(_STEP_WEIGHTS, perfect=False)


def _model(levels: NDArray[np.int64]) -> stream.model.Categorical:
    frequency = _FREQUENCY[levels]
    return stream.model.Categorical((frequency / frequency.max()).astype(np.float32), perfect=False)


def _tokens(numbers: NDArray[np.int64], split: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token of each number, and the bits that follow it (0 for a number that is its own token)."""
    large = numbers >= 2**split
    tokens, lengths = numbers.copy(), np.zeros_like(numbers)
    if large.any():
        lengths[large] = np.frexp(numbers[large].astype(np.float64))[1] - 1
        tokens[large] = 2**split + lengths[large] - split
    return tokens.astype(np.int32), lengths


def _encode_remainders(
    encoder: stream.queue.RangeEncoder, numbers: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    """The bits below the leading one, 16 at most a symbol: first the low ones of all numbers, then the high ones."""
    rest = numbers - (np.int64(1) << lengths)
    for shift in (0, _CHUNK):
        width = np.clip(lengths - shift, 0, _CHUNK)
        some = width > 0
        if some.any():
            part = (rest[some] >> shift) & ((np.int64(1) << width[some]) - 1)
            encoder.encode(part.astype(np.int32), stream.model.Uniform(), (1 << width[some]).astype(np.int32))


def _decode_numbers(decoder: stream.queue.RangeDecoder, tokens: NDArray[np.int64], split: int) -> NDArray[np.int64]:
    large = tokens >= 2**split
    numbers = tokens
    if large.any():
        lengths = tokens[large] - 2**split + split
        rest = np.int64(1) << lengths
        for shift in (0, _CHUNK):
            width = np.clip(lengths - shift, 0, _CHUNK)
            some = width > 0
            if some.any():
                part = _decoded(decoder, stream.model.Uniform(), (1 << width[some]).astype(np.int32))
                rest[some] |= part << shift
        numbers[large] = rest
    return numbers


def _decoded(decoder: stream.queue.RangeDecoder, model: Any, amount: int | NDArray[np.int32]) -> NDArray[np.int64]:
    """`amount` symbols of one model, or one symbol for each of the model's parameters."""
    try:
        return np.asarray(decoder.decode(model, amount), np.int64)
    except AssertionError as error:  # constriction's for bytes that no encoder writes
        raise _damaged("no encoder writes such bytes") from error


def _zigzag(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """0, -1, 1, -2, ... -> 0, 1, 2, 3, ...: small magnitudes get small numbers."""
    wide = values.astype(np.int64)
    return np.where(wide < 0, -2 * wide - 1, 2 * wide)


def _unzigzag(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.where(numbers & 1, -(numbers >> 1) - 1, numbers >> 1).astype(np.int32)


def _groups(count: int, contexts: NDArray[np.uint8] | None) -> Iterator[slice | NDArray[np.intp]]:
    """Where the values of each context are, contexts in ascending order."""
    if contexts is None:
        if count:
            yield slice(None)
        return
    flat = np.ascontiguousarray(contexts, np.uint8).reshape(-1)
    if flat.size != count:
        raise CodedFileError(f"{flat.size} contexts do not fit {count} integers; give one for each")
    order = np.argsort(flat, kind="stable")
    sizes = np.bincount(flat, minlength=256)
    for begin, end in zip(np.cumsum(sizes) - sizes, np.cumsum(sizes), strict=True):
        if end > begin:
            yield order[begin:end]


def _check_count(count: int) -> None:
    if not 0 <= count <= COUNT_LIMIT:
        raise CodedFileError(f"{count} integers are not between 0 and {COUNT_LIMIT}; code them in parts")


def _damaged(problem: str) -> CodedFileError:
    return CodedFileError(f"coded integers are damaged: {problem}; fetch the file again")
