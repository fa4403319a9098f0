"""One trial: a scene, a budget and a seed to a field and its figures, in a fresh process.

A process of its own makes peak memory and warm-up honest: nothing is compiled or allocated before. The clock counts
training steps alone; kernels are compiled before, held-out views are rendered outside it.
"""

import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fit_settings import Quality
from crowdnerf_lab.metrics import quality
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.series import environment
from crowdnerf_lab.training import FitRecord, fit

FRAME = 256
"""Pixels a side of the frames that are timed."""
TIMED_FRAMES = 5
TIMED_SECONDS = 4.0
"""No more frames are timed after so long."""
MOST_DB = 99.0
"""PSNR written down for pictures without any difference."""


class BenchmarkError(ValueError):
    """A benchmark that cannot run; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Trial:
    """What is trained. tier: fit's quality. seconds: budget of training, or None for `steps` of them. appearance,
    robust: None leaves it to fit. device: cpu or cuda."""

    tier: Quality
    seconds: float | None
    seed: int
    threads: int
    steps: int | None = None
    appearance: bool | None = None
    robust: bool | None = None
    device: str = "cpu"


def run_trial(scene: PosedScene, trial: Trial, *, cold: bool = False) -> dict[str, Any]:
    """Train and judge in a fresh process. cold: with an empty cache of compiled kernels."""
    if trial.device != "cpu":
        raise BenchmarkError(f"fields train on the CPU in this version, not on {trial.device}; leave --device out")
    with tempfile.TemporaryDirectory(prefix="trial.") as folder:
        file = Path(folder) / "scene"
        with file.open("wb") as stream:
            pickle.dump(scene, stream)
        with environment({"NUMBA_CACHE_DIR": str(Path(folder) / "kernels")} if cold else {}):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                return pool.submit(_trial, file, trial).result()


def _trial(file: Path, trial: Trial) -> dict[str, Any]:
    with file.open("rb") as stream:
        scene: PosedScene = pickle.load(stream)
    result = fit(
        scene,
        seconds=trial.seconds,
        steps=trial.steps,
        quality=trial.tier,
        seed=trial.seed,
        threads=trial.threads,
        appearance=trial.appearance,
        robust=trial.robust,
        progress=sys.stderr.isatty(),
    )
    numba.set_num_threads(trial.threads)
    torch.set_num_threads(trial.threads)
    started = time.perf_counter()
    renders = [render_view(result.model, scene.cameras, index).colour.cpu() for index in scene.held_out.tolist()]
    seconds = time.perf_counter() - started
    return {
        "seed": trial.seed,
        **judged(scene, renders),
        "train_seconds": round(result.seconds, 2),
        "steps": result.history[-1].step,
        "samples_per_second": round(result.samples / max(result.seconds, 1e-9)),
        "warmup_seconds": round(result.warmup_seconds, 2),
        "render_seconds": round(seconds, 2),
        "fps_256": _frames_per_second(result.model, scene.cameras[scene.held_out]),
        "peak_mb": peak_mb(),
        "field": type(result.model).__name__,
        "appearance": result.appearance is not None,
        "curve": [_point(record) for record in result.history],
    }


def judged(scene: PosedScene, renders: Sequence[Float[Tensor, "_ _ 3"]]) -> dict[str, float]:
    """The agreement of renders of the held-out views with their photos, rounded."""
    reached = quality([render.clamp(0, 1) for render in renders], [scene.image(i) for i in scene.held_out.tolist()])
    return {
        "psnr": round(min(reached.psnr, MOST_DB), 3),
        "psnr_affine": round(min(reached.psnr_affine, MOST_DB), 3),
        "ssim": round(reached.ssim, 4),
        "flip": round(reached.flip, 4),
    }


def peak_mb() -> int:
    """Largest resident memory of this process so far, MB."""
    status = Path("/proc/self/status")
    # Linux hands ru_maxrss on from the parent through exec; the high-water mark is the process's own.
    lines = status.read_text().splitlines() if status.exists() else []
    marks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return round(marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def prepared(scene: PosedScene, *, split: str, views: int, every: int = 8) -> PosedScene:
    """The scene with the photos that a trial needs and no others.

    split: 'held-out' judges by the held-out views, 'validation' by every `every`-th training photo, which is then not
    trained on: for tuning. views: judge by that many of them, evenly chosen (0: all).
    """
    train, judges = scene.train.tolist(), scene.held_out.tolist()
    if split == "validation":
        by_name = sorted(train, key=lambda row: scene.image_names[row])
        judges = sorted(by_name[every // 2 :: every])
        train = [row for row in train if row not in set(judges)]
    if not judges:
        raise BenchmarkError(f"scene '{scene.name}' holds no photo out; give --held-out 8 or a scene with a test split")
    if 0 < views < len(judges):
        judges = [judges[round(i)] for i in torch.linspace(0, len(judges) - 1, views).tolist()]
    rows = sorted({*train, *judges})
    place = {row: i for i, row in enumerate(rows)}
    picked = torch.tensor(rows)
    return replace(
        scene,
        image_names=tuple(scene.image_names[row] for row in rows),
        cameras=scene.cameras[picked],
        images=tuple(scene.images[row] for row in rows),
        masks=scene.masks and tuple(scene.masks[row] for row in rows),
        capture_of_image=scene.capture_of_image[picked],
        time_of_image=scene.time_of_image[picked],
    ).with_split([place[row] for row in train], [place[row] for row in judges])


def _frames_per_second(field: Any, cameras: Cameras) -> float:
    """Frames of 256 x 256 a second from the trained field, over some held-out poses (views were rendered before)."""
    square = cameras.resized(FRAME, FRAME)
    started, frames = time.perf_counter(), 0
    while frames < TIMED_FRAMES and time.perf_counter() - started < TIMED_SECONDS:
        render_view(field, square, frames % len(cameras)).colour.cpu()
        frames += 1
    return float(f"{frames / (time.perf_counter() - started):.3g}")


def _point(record: FitRecord) -> dict[str, float | int | None]:
    held_out = record.held_out_psnr
    return {
        "step": record.step,
        "seconds": round(record.seconds, 2),
        "loss": round(record.loss, 6),
        "psnr": None if held_out is None else round(min(held_out, MOST_DB), 2),
    }
