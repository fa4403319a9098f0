"""When two recordings heard the same sound: GCC-PHAT, coarse over everything, then fine in windows along the overlap.

Generalised cross-correlation with phase transform (Knapp and Carter 1976): r = F^-1[ conj(A) B / |A B| ] peaks at the
delay of b behind a, however the microphones colour, amplify or clip. Clocks that run at different speeds smear a long
correlation; hence windows: their delays lie on a line whose slope is the drift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32
from numpy.fft import irfft, rfft
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter1d
from scipy.signal import resample_poly

SPEED_OF_SOUND = 343.0
"""Metres a second at 20 degrees Celsius: 2.9 ms a metre."""
RATE = 16_000
"""Samples a second at which sound is compared."""
BAND_HZ = (150.0, 6000.0)
"""What all phones record; below there is handling noise and wind, above what codecs drop."""
COARSE_RATE = 8_000
COARSE_WINDOWS, COARSE_WINDOW_S = 6, 8.0
"""Pieces of a that are looked for in all of b."""
DRIFT_REACH_S = 0.004
"""Windows of one pair may differ by this because of drift: 100 ppm over 40 s."""
FINE_WINDOWS, FINE_WINDOW_S = 16, 4.0
RIVAL_S = 0.003
"""Peaks at least this far from the highest are other paths of the sound."""
FINE_REACH_S = 0.04
"""How far from the coarse delay a window is searched."""
AGREEMENT_S = 0.002
"""Windows within this of the line agree."""
SHORTEST_S = 1.5
"""Less common sound is not compared."""
ECHO_S = 0.25
"""A second peak this close to the highest is an echo of it, not another candidate."""
LARGEST_DRIFT = 200e-6
"""Two phones' quartz clocks differ by less."""
CLEAR = 8.0
"""Height of a peak, in units of noise, that is as likely right as wrong; the highest of noise alone is 5 to 7."""
RIVALLED = 0.85
"""Where another peak has this fraction of the highest's height there is no telling which is the direct sound."""
SPEEDS = (-50e-6, 50e-6, -100e-6, 100e-6)
"""Drifts that are tried when the sound is not surely found without: what slides past each other correlates less."""
SURE = 0.9
"""Confidence from which no other speed is tried."""


@dataclass(frozen=True)
class Offset:
    """How much later the same sound comes in b than in a, each measured from its own first sample.

    seconds: at the middle of the common sound; drift: its change a second (b's clock fast against a's: positive).
    confidence: in [0, 1], that the offset is right to 10 ms. error_s: one standard deviation, if it is right.
    overlap_s: common sound.
    """

    seconds: float
    drift: float
    confidence: float
    error_s: float
    overlap_s: float


@dataclass(frozen=True)
class Sound:
    """A recording of RATE samples a second, ready to be compared."""

    samples: Float32[np.ndarray, "n"]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / RATE

    @cached_property
    def coarse(self) -> Float32[np.ndarray, "m"]:
        """The same with COARSE_RATE samples a second."""
        return resample_poly(self.samples, 1, RATE // COARSE_RATE).astype(np.float32)

    def slowed(self, drift: float) -> "Sound":
        """As a clock hears it that is slower by this fraction."""
        times = np.arange(int(len(self.samples) / (1 + drift))) * (1 + drift)
        return Sound(np.interp(times, np.arange(len(self.samples)), self.samples).astype(np.float32))


def offset_between(
    a: Float32[np.ndarray, "n"],
    b: Float32[np.ndarray, "m"],
    rate: int,
    *,
    expected_s: float = 0.0,
    within_s: float = math.inf,
) -> Offset:
    """How much later the sound of `a` comes in `b`; both mono, `rate` samples a second.

    expected_s, within_s: where to look, when clocks are roughly known. Confidence is 0 where there is nothing to
    compare: silence, or less than SHORTEST_S in common.
    """
    sounds = [Sound(x if rate == RATE else resample_poly(x, RATE, rate).astype(np.float32)) for x in (a, b)]
    return offset_of_sounds(sounds[0], sounds[1], expected_s=expected_s, within_s=within_s)


def offset_of_sounds(a: Sound, b: Sound, *, expected_s: float = 0.0, within_s: float = math.inf) -> Offset:
    """`offset_between` for recordings that are compared with several others."""
    best, ambiguous = _offset_at_one_speed(a, b, expected_s=expected_s, within_s=within_s)
    for drift in SPEEDS:
        if ambiguous or best.confidence >= SURE or best.overlap_s == 0:
            break
        found, ambiguous = _offset_at_one_speed(a, b.slowed(drift), expected_s=expected_s, within_s=within_s)
        if found.confidence > best.confidence:
            begin, end = _common(a, b, found.seconds)
            middle = (begin + end) / 2
            seconds = (middle + found.seconds) * (1 + drift) - middle
            best = replace(found, seconds=seconds, drift=(1 + found.drift) * (1 + drift) - 1)
    return best


def _offset_at_one_speed(a: Sound, b: Sound, *, expected_s: float, within_s: float) -> tuple[Offset, bool]:
    """The offset if clocks run alike, and whether it is clear but not the only one."""
    nothing = Offset(seconds=expected_s, drift=0.0, confidence=0.0, error_s=math.inf, overlap_s=0.0)
    if min(a.duration_s, b.duration_s) < SHORTEST_S or not (a.samples.any() and b.samples.any()):
        return nothing, False
    coarse_s, distinctness, second_s = _coarse(a, b, expected_s=expected_s, within_s=within_s)
    begin, end = _common(a, b, coarse_s)
    if end - begin < SHORTEST_S:
        return nothing, False
    windows = _fine(a, b, coarse_s, most=FINE_WINDOWS)
    times, delays, heights = (np.array([getattr(w, name) for w in windows]) for name in ("time_s", "delay_s", "height"))
    middle = (begin + end) / 2
    level, drift, agreeing = _line(times - middle, delays, heights)
    height = max(float(np.median(heights[agreeing])), 1e-9)
    rival = max(
        _rival([window for window, agrees in zip(windows, agreeing, strict=True) if agrees]),
        float(np.median([window.height for window in _fine(a, b, second_s, most=4)])) / height,
    )
    confidence = _confidence(distinctness, height, float(agreeing.mean()), rival=rival)
    spread = float(np.std((delays - level - drift * (times - middle))[agreeing])) if agreeing.sum() > 1 else AGREEMENT_S
    error_s = max(spread / math.sqrt(max(1, int(agreeing.sum()))), 0.5 / RATE)
    offset = Offset(seconds=level, drift=drift, confidence=confidence, error_s=error_s, overlap_s=end - begin)
    return offset, height > CLEAR and rival > RIVALLED


def phat(a: Float32[np.ndarray, "n"], b: Float32[np.ndarray, "m"], rate: int) -> Float[np.ndarray, "lags"]:
    """GCC-PHAT for lags 0 .. n_fft - 1 samples of b behind a (negative ones from the end), of unit noise.

    Unrelated sounds give values with standard deviation 1; equal ones a peak of sqrt(bins).
    """
    length = _fft_length(len(a) + len(b))
    cross = np.conj(rfft(a, length)) * rfft(b, length)
    return _phat_of(cross, length, rate)


def _phat_of(cross: np.ndarray, length: int, rate: int) -> np.ndarray:
    frequency = np.arange(len(cross)) * (rate / length)
    band = (frequency >= BAND_HZ[0]) & (frequency <= min(BAND_HZ[1], 0.45 * rate))
    magnitude = np.abs(cross)
    phase = np.where(band & (magnitude > 1e-12 * magnitude.max()), cross / np.maximum(magnitude, 1e-30), 0)
    return irfft(phase, length) * (length / math.sqrt(2 * max(1, int(band.sum()))))


def _fft_length(least: int) -> int:
    return int(next_fast_len(least, real=True) or least)


def _coarse(a: Sound, b: Sound, *, expected_s: float, within_s: float) -> tuple[float, float, float]:
    """The likeliest delay, how far its peak stands out (1 as the highest of noise would), and the next likely delay.

    The correlations of pieces of a with all of b, each at its place, are added up; drift may shift them a little. The
    next likely one is no echo of the first; music that repeats has one.
    """
    x, y = a.coarse, b.coarse
    size = min(len(x), round(COARSE_WINDOW_S * COARSE_RATE))
    starts = np.unique(np.linspace(0, len(x) - size, COARSE_WINDOWS if len(x) > size else 1).astype(int))
    length = _fft_length(size + len(y))
    spectrum = rfft(y, length)
    total = np.zeros(len(x) + len(y))
    reach = 2 * round(DRIFT_REACH_S * COARSE_RATE / 2) + 1
    for start in starts:
        values = _phat_of(np.conj(rfft(x[start : start + size], length)) * spectrum, length, COARSE_RATE)
        lags = np.concatenate([values[-size:], values[: len(y)]])
        lags = maximum_filter1d(lags, reach) if len(starts) > 1 else lags
        first = len(x) - size - start
        total[first : first + len(lags)] += np.maximum(lags, 0) ** 2
    lag_s = (np.arange(len(total)) - len(x)) / COARSE_RATE
    common = np.minimum(len(x) / COARSE_RATE, len(y) / COARSE_RATE - lag_s) - np.maximum(0, -lag_s)
    allowed = (np.abs(lag_s - expected_s) <= within_s) & (common >= SHORTEST_S)
    if not allowed.any():
        return expected_s, 0.0, expected_s
    total[~allowed] = 0
    peak = int(total.argmax())
    elsewhere = np.where(np.abs(lag_s - lag_s[peak]) > ECHO_S, total, 0)
    second = int(elsewhere.argmax())
    distinctness = math.sqrt(total[peak] / max(float(elsewhere[second]), 1e-9))
    return float(lag_s[peak]), distinctness, float(lag_s[second]) if allowed[second] else float(lag_s[peak])


@dataclass(frozen=True)
class _Window:
    """A piece of the common sound. time_s: its middle, in a; delay_s: of b behind a; height: of its peak, in units of
    noise; around: the correlation ECHO_S to either side of the peak.
    """

    time_s: float
    delay_s: float
    height: float
    around: Float[np.ndarray, "lags"]


def _common(a: Sound, b: Sound, delay_s: float) -> tuple[float, float]:
    """From when to when, in a, both sound if b comes so much later."""
    return max(0.0, -delay_s), min(a.duration_s, b.duration_s - delay_s)


def _fine(a: Sound, b: Sound, coarse_s: float, *, most: int) -> list[_Window]:
    """Windows along the common sound, half overlapping, at most so many."""
    begin, end = _common(a, b, coarse_s)
    size = min(end - begin, FINE_WINDOW_S)
    count = int(np.clip(round(2 * (end - begin) / size) - 1, 1, most))
    return [_window(a, b, start, coarse_s, size) for start in np.linspace(begin, end - size, count)]


def _window(a: Sound, b: Sound, start: float, coarse_s: float, size: float) -> _Window:
    first, samples = round(start * RATE), round(size * RATE)
    second = max(0, round((start + coarse_s) * RATE))
    values = phat(a.samples[first : first + samples], b.samples[second : second + samples], RATE)
    reach, echo = round(FINE_REACH_S * RATE), round(ECHO_S * RATE)
    values = np.concatenate([values[-reach - echo :], values[: reach + echo + 1]])
    peak = echo + int(values[echo : echo + 2 * reach + 1].argmax())
    shift = peak - reach - echo + _subsample(values, peak)
    return _Window(
        time_s=float(start + size / 2),
        delay_s=(shift + second - first) / RATE,
        height=float(values[peak]),
        around=values[peak - echo : peak + echo + 1],
    )


def _rival(windows: Sequence[_Window]) -> float:
    """Height of the second peak, such as a wall's echo, over that of the chosen one, all windows taken together."""
    around = np.mean([window.around for window in windows], axis=0)
    middle, near = len(around) // 2, round(RIVAL_S * RATE)
    others = np.concatenate([around[: middle - near], around[middle + near :]])
    return float(others.max() / max(around[middle], 1e-9))


def _subsample(values: np.ndarray, peak: int) -> float:
    """Where a parabola through the peak and its neighbours is highest, in samples from the peak."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    left, middle, right = values[peak - 1 : peak + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend < 0 else 0.0


def _line(times: np.ndarray, delays: np.ndarray, heights: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Delay at time 0 and drift that most windows agree with, and which these are.

    Every pair of windows proposes a line; the one with the greatest weight within AGREEMENT_S wins and is fitted.
    """
    weights = np.maximum(heights, 0.1) ** 2
    first, second = np.triu_indices(len(times), k=1)
    far = times[second] - times[first] > 2 * FINE_WINDOW_S
    first, second = first[far], second[far]
    slopes = (delays[second] - delays[first]) / (times[second] - times[first])
    believable = np.abs(slopes) <= LARGEST_DRIFT
    slopes, first = slopes[believable], first[believable]
    levels = np.concatenate([delays, delays[first] - slopes * times[first]])
    slopes = np.concatenate([np.zeros(len(times)), slopes])
    residuals = np.abs(delays - levels[:, None] - slopes[:, None] * times)
    best = int(((residuals < AGREEMENT_S) * weights).sum(axis=1).argmax())
    agreeing = residuals[best] < AGREEMENT_S
    drift = 0.0
    span = float(np.ptp(times[agreeing]))
    if agreeing.sum() >= 4 and span > 2 * FINE_WINDOW_S:
        drift, level = np.polyfit(times[agreeing], delays[agreeing], 1, w=np.sqrt(weights[agreeing]))
    else:
        level = float(np.average(delays[agreeing], weights=weights[agreeing]))
    return float(level), float(np.clip(drift, -LARGEST_DRIFT, LARGEST_DRIFT)), agreeing


def _confidence(distinctness: float, height: float, agreeing: float, *, rival: float) -> float:
    """From how far the coarse peak stands out, how high the windows' peaks are, the fraction of windows that agree, and
    whether the peak is unrivalled.

    On constructed clips wrong offsets had a distinctness up to 1.24, heights up to 7 and 40 % agreement, right ones
    rarely less than 1.2, 10 and 75 %; all must speak for an offset. Where an echo is as loud as the direct sound, or
    music repeats itself, which of two was found cannot be told.
    """
    agreement = float(np.clip((agreeing - 0.4) / 0.3, 0, 1))
    alone = float(np.clip((RIVALLED - rival) / 0.15, 0, 1))
    return _logistic((height - CLEAR) / 0.8) * _logistic((distinctness - 1.15) / 0.03) * agreement * alone


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-min(max(value, -50.0), 50.0)))
