"""A concert's sound as phones hear it, made on purpose: travel, echo, noise, microphone and clock are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64
from scipy.ndimage import map_coordinates, uniform_filter1d
from scipy.signal import fftconvolve, firwin2

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, Consent, GpsFix
from crowdnerf_lab.captures.clocks.sound_alignment import SPEED_OF_SOUND
from crowdnerf_lab.captures.video.constructed_clips import write_clip


@dataclass(frozen=True)
class Hearing:
    """How one phone hears the stage.

    starts_s: event time of its first sample. distance_m: to the stage. drift: its clock runs fast by this fraction.
    snr_db: music over what only this phone hears. echo: energy of the reverberation over that of the direct sound.
    reverberation_s: time in which it falls by 60 dB. gain_control: whether loudness is levelled; clipped: fraction of
    the samples at the microphone's limit. seed: of its noise, room and microphone.
    """

    starts_s: float
    distance_m: float = 0.0
    drift: float = 0.0
    snr_db: float = 20.0
    echo: float = 0.0
    reverberation_s: float = 0.8
    gain_control: bool = False
    clipped: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Listener:
    """A UE at the event. clock_error_s: its device's clock is this far ahead; position_error_m: its GPS puts it this
    much further away; suffix: of its clip's file, which says the container; deaf: whether its clip has no sound;
    elsewhere: whether it heard another event.
    """

    hearing: Hearing
    clock_error_s: float = 0.0
    position_error_m: float = 0.0
    suffix: str = ".mp4"
    deaf: bool = False
    elsewhere: bool = False


def write_crowd(
    root: Path, listeners: Sequence[Listener], *, seconds: float, rate: int = 48_000, seed: int = 0
) -> CaptureSet:
    """One clip of so many seconds by each listener, as real files, with what its phone would say of time and place.

    The stage is the origin, metres; the listeners stand south of it. UEs are called ue00, ue01, ...
    """
    latest = max(listener.hearing.starts_s for listener in listeners)
    here, there = (music(latest + seconds + 1, rate=rate, seed=2 * seed + index) for index in (0, 1))
    captures = []
    for index, listener in enumerate(listeners):
        ue, hearing = f"ue{index:02d}", listener.hearing
        sound = heard(there if listener.elsewhere else here, hearing, seconds, rate=rate)
        file = f"{ue}/clip{listener.suffix}"
        (root / ue).mkdir(parents=True, exist_ok=True)
        write_clip(
            root / file,
            ((step / 5, np.full((32, 48, 3), 60 + 10 * (step % 10), np.uint8)) for step in range(int(5 * seconds) + 1)),
            sound=None if listener.deaf else sound,
            sound_rate=rate,
            sound_codec="libopus" if listener.suffix == ".mkv" else "aac",
        )
        clip = Clip(
            file=file,
            time_s=hearing.starts_s + listener.clock_error_s,
            gps=GpsFix(position=(0.0, -hearing.distance_m - listener.position_error_m, 0.0), accuracy_m=5.0),
            duration_s=seconds,
            audio=not listener.deaf,
        )
        consent = Consent(train=True, publish=True)
        captures.append(Capture(ue=ue, device="phone", consent=consent, licence="CC0-1.0", photos=(), clips=(clip,)))
    return CaptureSet(root=root, name="heard", licence="CC0-1.0", origin_wgs84=None, captures=tuple(captures))


def clock_errors_s(captures: CaptureSet, listeners: Sequence[Listener]) -> Float64[np.ndarray, "ues"]:
    """How far each clip's middle is from the truth on the captures' clock, seconds, without what all have in common."""
    errors = []
    for capture, listener in zip(captures.captures, listeners, strict=True):
        middle = (capture.clips[0].duration_s or 0.0) / 2
        truth = listener.hearing.starts_s + middle / (1 + listener.hearing.drift)
        errors.append(capture.clips[0].time_s + middle - truth)
    return np.array(errors) - np.median(errors)


def music(seconds: float, *, rate: int = 48_000, seed: int = 0) -> Float32[np.ndarray, "samples"]:
    """A beat of drums, a bass and chords whose notes are drawn anew: 120 beats a minute, deviations as players have."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * rate) + rate)
    for beat in range(int(seconds / 0.25)):
        at = round((beat * 0.25 + rng.normal(0, 0.006)) * rate)
        strike = rng.choice(["kick", "snare", "hat"], p=[0.3, 0.25, 0.45])
        _add(sound, at, _drum(strike, rate, rng))
        if beat % 2 == 0:
            for tone in rng.choice([0, 3, 5, 7, 10, 12, 15, 19], size=3, replace=False):
                _add(sound, at + round(rng.normal(0, 0.01) * rate), _note(110 * 2 ** (tone / 12), 0.5, rate, rng))
    sound = sound[: round(seconds * rate)]
    return (0.2 * sound / sound.std()).astype(np.float32)


def heard(
    stage: Float32[np.ndarray, "stage_samples"], hearing: Hearing, seconds: float, *, rate: int = 48_000
) -> Float32[np.ndarray, "samples"]:
    """What a phone records of the stage's sound (event time 0 is its first sample) for so many seconds."""
    rng = np.random.default_rng(hearing.seed)
    local = np.arange(round(seconds * rate)) / rate
    event = hearing.starts_s + local / (1 + hearing.drift) - hearing.distance_m / SPEED_OF_SOUND
    direct = map_coordinates(stage, [event * rate], order=3, mode="constant")
    sound = direct + _reverberation(direct, hearing, rate, rng)
    sound = fftconvolve(sound, _microphone(rng, rate), mode="same")
    noise = _murmur(len(sound), rate, rng)
    sound = sound + noise * (sound.std() / max(noise.std(), 1e-9)) * 10 ** (-hearing.snr_db / 20)
    if hearing.gain_control:
        loudness = np.sqrt(uniform_filter1d(sound**2, round(0.3 * rate))) + 0.05 * sound.std()
        sound = sound / loudness
    limit = float(np.quantile(np.abs(sound), 1 - hearing.clipped)) if hearing.clipped else float(np.abs(sound).max())
    return (0.7 * np.clip(sound, -limit, limit) / max(limit, 1e-9)).astype(np.float32)


def _add(sound: np.ndarray, at: int, piece: np.ndarray) -> None:
    at = max(0, at)
    piece = piece[: max(0, len(sound) - at)]
    sound[at : at + len(piece)] += piece


def _drum(strike: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.2 * rate)) / rate
    if strike == "kick":
        return 1.5 * np.sin(2 * math.pi * 60 * time + 12 * np.exp(-time * 40)) * np.exp(-time * 18)
    return rng.normal(size=len(time)) * np.exp(-time * (25 if strike == "snare" else 70)) * 0.6


def _note(frequency: float, seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    phases, vibrato = rng.uniform(0, 2 * math.pi, 6), 0.004 * np.sin(2 * math.pi * 5.5 * time)
    tones = [np.sin(2 * math.pi * k * frequency * (time + vibrato / 35) + phases[k - 1]) / k for k in range(1, 7)]
    return 0.25 * sum(tones) * np.minimum(1, time * 60) * np.exp(-time * 4)


def _reverberation(direct: np.ndarray, hearing: Hearing, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that fades by 60 dB in `reverberation_s`, beginning 15 ms late, and one distinct echo of a wall."""
    if hearing.echo == 0:
        return np.zeros_like(direct)
    length = round(hearing.reverberation_s * rate)
    room = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length)
    room[: round(0.015 * rate)] = 0
    room[round(rng.uniform(0.03, 0.12) * rate)] += 0.5 * math.sqrt(float((room**2).sum()))
    tail = fftconvolve(direct, room)[: len(direct)]
    return tail * math.sqrt(hearing.echo) * direct.std() / max(float(tail.std()), 1e-9)


def _microphone(rng: np.random.Generator, rate: int) -> np.ndarray:
    """A response of its own: gains of up to 9 dB either way that change from octave to octave, no bass."""
    octaves = 80.0 * 2 ** np.arange(8)
    frequency = np.array([0, *octaves[octaves < 0.9 * rate / 2], rate / 2])
    gain = 10 ** (rng.uniform(-9, 9, len(frequency)) / 20)
    gain[0], gain[1], gain[-1] = 0, 0.3 * gain[1], 0
    return np.asarray(firwin2(1023, frequency, gain, fs=rate))


def _murmur(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """People nearby: pink noise from 100 Hz on, in bursts of a fifth of a second."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    frequency = np.fft.rfftfreq(length, 1 / rate)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 100.0)), length)
    bursts = np.repeat(rng.gamma(0.7, size=length // (rate // 5) + 1), rate // 5)[:length]
    return noise * (0.3 + uniform_filter1d(bursts, rate // 10))
