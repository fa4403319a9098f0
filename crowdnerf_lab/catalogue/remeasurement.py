"""What a receiver measures of a model: PSNR on the probe views, and the time of a frame. Needs what a UE needs."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crowdnerf_lab.network.ue import LocalModel

WARM_UP_FRAMES = 3


@dataclass(frozen=True)
class Timing:
    """Of one round of frames, in milliseconds: the clock's median and 95th percentile, and the median of what the
    processor spent on a frame, its threads added up: waiting for a busy processor adds to the clock alone."""

    median_ms: float
    p95_ms: float
    processor_ms: float
    frames: int


def timed(draw: Callable[[int], object], *, frames: int, rounds: int = 1) -> Timing:
    """Draw frame 0, 1, ... after WARM_UP_FRAMES, `frames` of them in each round, and keep the least disturbed round.

    Other work on the machine only ever adds to a frame's time: the round of the smallest median is nearest to the
    model's own.
    """
    for i in range(WARM_UP_FRAMES):
        draw(i)
    return min((_round_of(draw, frames) for _ in range(rounds)), key=lambda timing: timing.median_ms)


def _round_of(draw: Callable[[int], object], frames: int) -> Timing:
    clock, processor = [], []
    for i in range(frames):
        spent, started = time.process_time(), time.perf_counter()
        draw(i)
        clock.append(1e3 * (time.perf_counter() - started))
        processor.append(1e3 * (time.process_time() - spent))
    return Timing(
        median_ms=float(np.median(clock)),
        p95_ms=float(np.percentile(clock, 95)),
        processor_ms=float(np.median(processor)),
        frames=frames,
    )


def timed_on_probes(
    model: LocalModel, folder: Path, probes: Sequence[Mapping[str, Any]], *, frames: int = 20, rounds: int = 1
) -> Timing:
    """The time of a frame over an artefact's probe views in turn, drawn at the model's own size."""
    views = []
    for probe in probes:
        with Image.open(folder / probe["path"]) as image:
            scale = np.array([model.width, model.height]) / image.size
        pose = np.asarray(probe["camera_to_world"], np.float32)
        views.append((pose, np.asarray(probe["focal"]) * scale, np.asarray(probe["centre"]) * scale))
    return timed(lambda i: model.render(*views[i % len(views)]), frames=frames, rounds=rounds)


def probe_psnr(model: LocalModel, folder: Path, probes: Sequence[Mapping[str, Any]]) -> float:
    """PSNR, dB, of the model's pictures against an artefact's probe views: does its card tell the truth here?"""
    squared = []
    for probe in probes:
        with Image.open(folder / probe["path"]) as image:
            truth = np.asarray(image.convert("RGB"), np.float64)
        height, width = truth.shape[:2]
        pose = np.asarray(probe["camera_to_world"], np.float32)
        picture = model.render(pose, probe["focal"], probe["centre"], width=width, height=height)
        squared.append(np.mean((picture - truth) ** 2))
    return float(10 * np.log10(255**2 / max(np.mean(squared), 1e-5)))


def machine() -> str:
    """The processor this process runs on, with the number of its cores, as a card names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}"
