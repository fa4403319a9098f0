"""Delays between recordings of one sound, made by phones that all hear it differently."""

import math
from dataclasses import replace

import numpy as np
import pytest

from crowdnerf_lab.captures.clocks import sound_alignment
from crowdnerf_lab.captures.clocks.constructed_sound import Hearing, heard, music
from crowdnerf_lab.captures.clocks.sound_alignment import Offset, Sound, offset_between, offset_of_sounds, phat

RATE = 16_000


@pytest.fixture(scope="module")
def stage() -> np.ndarray:
    return music(30.0, rate=RATE)


def compared(stage: np.ndarray, a: Hearing, b: Hearing, seconds: float = 10.0) -> tuple[Offset, float]:
    """What is found, and what is true at the middle of the common sound."""
    offset = offset_between(*(heard(stage, hearing, seconds, rate=RATE) for hearing in (a, b)), RATE, within_s=10.0)
    middle = (max(0.0, -offset.seconds) + min(seconds, seconds - offset.seconds)) / 2
    emitted = a.starts_s + middle / (1 + a.drift) - a.distance_m / 343
    return offset, (emitted + b.distance_m / 343 - b.starts_s) * (1 + b.drift) - middle


def test_phat_finds_a_whole_number_of_samples_exactly() -> None:
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    assert int(phat(noise[500:4500], noise[:4500], RATE).argmax()) == 500
    values = phat(noise[:4000], noise[4000:], RATE)
    assert float(values.std()) == pytest.approx(1.0, rel=0.1), "unrelated sounds have unit noise"


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.8])
def test_delays_are_found_between_samples(fraction: float) -> None:
    rng = np.random.default_rng(1)
    spectrum = np.fft.rfft(rng.normal(size=4 * RATE))
    shift = np.exp(-2j * math.pi * np.fft.rfftfreq(4 * RATE) * (40 + fraction))
    a, b = np.fft.irfft(spectrum).astype(np.float32), np.fft.irfft(spectrum * shift).astype(np.float32)
    assert offset_between(a, b, RATE).seconds * RATE == pytest.approx(40 + fraction, abs=0.12)


@pytest.mark.parametrize(
    "change",
    [
        {"snr_db": 0.0},
        {"snr_db": -6.0},
        {"echo": 1.0, "snr_db": 10.0},
        {"drift": 50e-6, "snr_db": 10.0},
        {"gain_control": True, "clipped": 0.05},
        {"gain_control": True, "clipped": 0.02, "echo": 0.5, "snr_db": 0.0, "drift": -30e-6},
    ],
    ids=str,
)
def test_noise_echo_drift_and_microphones_cost_less_than_a_millisecond(stage: np.ndarray, change: dict) -> None:
    a = replace(Hearing(starts_s=5.0, distance_m=10.0, seed=1), **{**change, "drift": 0.0})
    b = replace(Hearing(starts_s=6.3, distance_m=70.0, seed=2), **change)
    offset, truth = compared(stage, a, b)
    assert offset.seconds == pytest.approx(truth, abs=1e-3)
    assert offset.confidence > 0.5


def test_clocks_that_run_apart_are_compared_at_another_speed(
    stage: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 ppm between two clocks, echo, and noise of four times the music's energy: too much for one speed."""
    hard = Hearing(starts_s=4.0, snr_db=-6.0, echo=1.0, gain_control=True)
    a, b = replace(hard, drift=50e-6, seed=8), replace(hard, starts_s=5.5, distance_m=60.0, drift=-50e-6, seed=9)
    offset, truth = compared(stage, a, b)
    assert offset.seconds == pytest.approx(truth, abs=1e-3)
    assert offset.confidence > 0.9
    assert offset.drift == pytest.approx(-100e-6, abs=40e-6)
    monkeypatch.setattr(sound_alignment, "SPEEDS", ())
    assert compared(stage, a, b)[0].confidence < 0.5


def test_drift_is_measured(stage: np.ndarray) -> None:
    a, b = Hearing(starts_s=1.0, seed=1), Hearing(starts_s=2.0, seed=2, drift=80e-6)
    offset, truth = compared(stage, a, b, seconds=26.0)
    assert offset.drift == pytest.approx(80e-6, abs=1.5e-5)
    assert offset.seconds == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_wrong_is_not_believed(stage: np.ndarray, seed: int) -> None:
    """Another event's music with the same beat, and music that drowns in noise."""
    other = music(30.0, rate=RATE, seed=10 + seed)
    a = heard(stage, Hearing(starts_s=3.0, seed=seed), 8.0, rate=RATE)
    b = heard(other, Hearing(starts_s=4.0, seed=seed + 50), 8.0, rate=RATE)
    drowned = heard(stage, Hearing(starts_s=4.0, snr_db=-45.0, seed=seed + 90), 8.0, rate=RATE)
    assert offset_between(a, b, RATE).confidence < 0.2
    assert offset_between(a, drowned, RATE).confidence < 0.2


def test_a_loop_that_repeats_is_not_believed() -> None:
    """Bars that are copies of one another fit at every bar."""
    bar = music(2.0, rate=RATE)
    a = heard(np.tile(bar, 9), Hearing(starts_s=1.0, seed=1), 10.0, rate=RATE)
    b = heard(np.tile(bar, 9), Hearing(starts_s=5.5, seed=2), 10.0, rate=RATE)
    assert offset_between(a, b, RATE).confidence < 0.2
    narrow = offset_between(a, b, RATE, expected_s=-4.2, within_s=0.9)
    assert narrow.confidence > 0.8, "unless the device's clocks are good to less than a bar"
    assert narrow.seconds == pytest.approx(-4.5, abs=1e-3)


def test_a_wall_as_loud_as_the_stage_is_not_believed(stage: np.ndarray) -> None:
    a = heard(stage, Hearing(starts_s=5.0, seed=1), 8.0, rate=RATE)
    b = heard(stage, Hearing(starts_s=5.5, seed=2), 8.0, rate=RATE)
    wall = np.pad(b, (800, 0))[: len(b)]
    assert offset_between(a, b, RATE).confidence > 0.9
    assert offset_between(a, (b + wall).astype(np.float32), RATE).confidence < 0.5


def test_silence_and_snippets_have_no_confidence() -> None:
    noise = np.random.default_rng(0).normal(size=4 * RATE).astype(np.float32)
    assert offset_between(noise, np.zeros_like(noise), RATE).confidence == 0
    assert offset_between(noise, noise[: RATE // 2], RATE).confidence == 0
    assert offset_of_sounds(Sound(noise), Sound(noise), expected_s=60.0, within_s=1.0).confidence == 0
