"""How well clips are put on one clock: crowds of four UEs, as real files, one difficulty after the other.

Conditions: H.264 with AAC in MP4 or MOV and with Opus in Matroska, 48 kHz, 12 s a clip (quick: 8 s and 24 kHz); music
of 120 beats a minute; device clocks up to 5.5 s apart; distances of 10 to 80 m, known to the phones. Errors are of the
middle of each clip against the truth, after what all clips of a crowd have in common is taken out.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from crowdnerf_lab.captures.clocks.constructed_sound import Hearing, Listener, clock_errors_s, write_crowd
from crowdnerf_lab.captures.clocks.synchronisation import synchronise

STARTS_S = (5.0, 6.2, 4.1, 5.6)
DISTANCES_M = (10.0, 80.0, 30.0, 55.0)
CLOCK_ERRORS_S = (0.0, 3.0, -2.5, 0.7)
SUFFIXES = (".mp4", ".mp4", ".mov", ".mkv")
CONDITIONS: dict[str, Hearing] = {
    "clear": Hearing(0.0),
    "snr_0_db": Hearing(0.0, snr_db=0.0),
    "snr_minus_6_db": Hearing(0.0, snr_db=-6.0),
    "snr_minus_12_db": Hearing(0.0, snr_db=-12.0),
    "echo": Hearing(0.0, snr_db=10.0, echo=1.0, reverberation_s=1.2),
    "strong_echo": Hearing(0.0, snr_db=10.0, echo=2.5, reverberation_s=2.0),
    "drift_50_ppm": Hearing(0.0, snr_db=10.0, drift=50e-6),
    "microphones": Hearing(0.0, snr_db=10.0, gain_control=True, clipped=0.05),
    "everything": Hearing(0.0, snr_db=0.0, echo=1.0, drift=50e-6, gain_control=True, clipped=0.02),
}
GPS_ERRORS_M = (4.0, -5.0, 3.0, -2.0)
QUICK = ("snr_0_db", "everything")
WRONG_S = 0.010
"""An offset further off than this is wrong."""


def measure(*, quick: bool) -> dict[str, float | int | str]:
    """sync_error_ms: 95th percentile over the UEs synchronised by sound, all conditions; sync_worst_ms; per condition
    the worst error and how many of four UEs were synchronised; sync_with_gps_errors_ms: the worst where phones are 2 to
    5 m wrong about their distance, in no condition's figure; sync_false_confidence: fraction of UEs moved by sound
    that are off by more than 10 ms; sync_strangers_believed: of UEs that heard another event.
    """
    seconds, rate = (8.0, 24_000) if quick else (12.0, 48_000)
    figures: dict[str, float | int | str] = {}
    errors: list[float] = []
    pairs, processor_s = 0, 0.0
    for number, name in enumerate(QUICK if quick else CONDITIONS):
        found, compared, spent_s = _errors(_crowd(CONDITIONS[name], number), seconds=seconds, rate=rate, seed=number)
        pairs, processor_s = pairs + compared, processor_s + spent_s
        errors += found
        if found:
            figures[f"sync_{name}_ms"] = round(1e3 * max(found), 3)
        figures[f"sync_{name}_synchronised"] = f"{len(found)} of {len(STARTS_S)}"
    misplaced = [
        replace(listener, position_error_m=error_m)
        for listener, error_m in zip(_crowd(CONDITIONS["snr_0_db"], 40), GPS_ERRORS_M, strict=True)
    ]
    believed, asked = _strangers(seconds=seconds, rate=rate, crowds=1 if quick else 4)
    return {
        "sync_error_ms": round(1e3 * float(np.quantile(errors, 0.95)), 3),
        "sync_worst_ms": round(1e3 * max(errors), 3),
        "sync_synchronised": len(errors),
        "sync_false_confidence": sum(error > WRONG_S for error in errors) / len(errors),
        "sync_strangers_believed": believed / asked,
        "sync_seconds_a_pair": round(processor_s / pairs, 3),
        "sync_with_gps_errors_ms": round(1e3 * max(_errors(misplaced, seconds=seconds, rate=rate, seed=40)[0]), 1),
        **figures,
    }


def _crowd(difficulty: Hearing, number: int) -> list[Listener]:
    """Four UEs in four places; every other clock drifts the other way."""
    return [
        Listener(
            replace(
                difficulty,
                starts_s=start,
                distance_m=distance,
                drift=difficulty.drift * (-1) ** index,
                seed=100 * number + index,
            ),
            clock_error_s=clock_error,
            suffix=suffix,
        )
        for index, (start, distance, clock_error, suffix) in enumerate(
            zip(STARTS_S, DISTANCES_M, CLOCK_ERRORS_S, SUFFIXES, strict=True)
        )
    ]


def _errors(listeners: list[Listener], *, seconds: float, rate: int, seed: int) -> tuple[list[float], int, float]:
    """Absolute errors (s) of the UEs that were synchronised by sound, how many pairs were compared, processor time."""
    with tempfile.TemporaryDirectory() as folder:
        crowd = write_crowd(Path(folder), listeners, seconds=seconds, rate=rate, seed=seed)
        begun = time.process_time()
        captures, report = synchronise(crowd, stage=(0.0, 0.0, 0.0), progress=False)
        spent_s = time.process_time() - begun
    heard = [index for index, row in enumerate(report.rows) if row.method == "audio"]
    among = replace(captures, captures=tuple(captures.captures[index] for index in heard))
    errors = clock_errors_s(among, [listeners[index] for index in heard]) if heard else np.zeros(0)
    return np.abs(errors).tolist(), len(report.pairs), spent_s


def _strangers(*, seconds: float, rate: int, crowds: int) -> tuple[int, int]:
    """How many UEs that heard another event were moved by sound, of how many."""
    believed = asked = 0
    for number in range(crowds):
        listeners = _crowd(CONDITIONS["snr_0_db"], 50 + number)
        listeners = [*listeners[:2], replace(listeners[2], elsewhere=True)]
        with tempfile.TemporaryDirectory() as folder:
            crowd = write_crowd(Path(folder), listeners, seconds=seconds, rate=rate, seed=50 + number)
            _, report = synchronise(crowd, stage=(0.0, 0.0, 0.0), progress=False)
        believed += report.rows[2].method == "audio"
        asked += 1
    return believed, asked
