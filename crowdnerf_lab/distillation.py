"""distil: from a radiance field (the teacher) to a light field (the student), on a step or a seconds budget.

One loop: draw cells of pseudo views, ask the student for the cells' pixels with one ray each, compare, step. Any light
field can be the student. It can be interrupted, killed and resumed; with a step budget the bits depend on the seed and
the number of threads alone.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.distillation_state import (
    DistillationError,
    DistillationState,
    DistilSettings,
    identity_of,
    load_checkpoint,
    save_checkpoint,
)
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.interrupts import interrupts
from crowdnerf_lab.light_fields.light_field import LightField, images_of
from crowdnerf_lab.light_fields.planes import planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.metrics import psnr_of_mse
from crowdnerf_lab.pseudo_rays import HardWindows, Questions, answers, ask_cells, ask_windows, trust_in_windows
from crowdnerf_lab.pseudo_views import (
    PseudoViews,
    among,
    poses_between,
    render_pseudo_views,
    viewing_cameras,
    windows_of,
)
from crowdnerf_lab.scene import PosedScene, check_trainable
from crowdnerf_lab.training import Budget, FitRecord
from crowdnerf_lab.uncertainty import Evidence, MarchedField

log = logging.getLogger(__name__)

LARGEST_CELL = 8
"""Pixels; windows hold whole cells of this size, so that students with other cells share the teacher's views."""
RECORDS = 12
"""Lines of the training curve, evenly over the budget; a checkpoint is written with each."""
STEPS_AT_ONCE = 16
"""Steps whose questions are drawn together."""
HELD_OUT_WINDOWS = 96
"""Windows of held-out views, never trained on, that the training curve is measured with."""


@dataclass(frozen=True)
class Distillation:
    """A distilled student and how it came about.

    history: the loss is the mean squared error since the last line; held_out_psnr (dB) is against the *teacher*, in
    windows of the held-out views. views: how many views' worth of pixels the teacher rendered, width x height each, in
    render_seconds. interrupted: stopped early by the user (the student is what was reached).
    """

    student: LightField
    history: tuple[FitRecord, ...]
    settings: DistilSettings
    seed: int
    views: int
    width: int
    height: int
    render_seconds: float
    checkpoint: Path | None
    interrupted: bool


def distil(
    teacher: RadianceField,
    scene: PosedScene,
    *,
    size: str = "S",
    student: LightField | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    views: int = 240,
    width: int = 320,
    height: int = 240,
    seed: int = 0,
    cameras: Cameras | None = None,
    evidence: Evidence | None = None,
    settings: DistilSettings | None = None,
    workspace: Path | None = None,
    checkpoint: Path | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Distillation:
    """Distil a student from the teacher within a budget of `seconds` of training or of `steps`.

    size: of a RayMLP with cells of 8; student: an untrained light field of any other kind (a copy is trained). views:
    how many views' worth of pixels the teacher renders, width x height each, as windows of many more poses. cameras:
    among which UEs will look, those of a seat block for instance; the scene's training photos if not given. evidence:
    of the teacher, see gather_evidence; what it doubts then weighs less, see trust_in_windows. workspace:
    folder that keeps the teacher's views for the next call. checkpoint: file from which the same call goes on after a
    crash. threads: CPU threads of torch. Ctrl-C stops after the current step and returns what is there.

    Raises SceneError for a scene without usable cameras, PseudoViewError for a teacher that renders no picture, and
    DistillationError for a loss that is not finite or a checkpoint of something else.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("give distil() either seconds or steps")
    check_trainable(scene)
    settings = settings or DistilSettings()
    started = time.perf_counter()
    looking = scene.cameras[scene.train] if cameras is None else cameras
    if student is None:
        planes = planes_through(teacher, looking, scene.bounds, seed=seed)
        student = RayMLP(planes, size, view_size=(width, height), seed=seed)
    train = render_pseudo_views(
        teacher,
        _pseudo_cameras(looking, views, width, height, seed, settings),
        step=settings.sparsity,
        seed=seed,
        folder=workspace,
        progress=progress,
    )
    judged = scene.cameras[scene.held_out]
    if cameras is not None:
        judged = judged[among(cameras, judged)]
    held_out = _held_out_views(teacher, judged, width, height, seed, settings)
    render_seconds = time.perf_counter() - started
    trust = None
    if evidence is not None:
        if not isinstance(teacher, MarchedField):
            raise DistillationError(f"a {type(teacher).__name__} has no evidence of its own; leave `evidence` out")
        trust = trust_in_windows(teacher, evidence, train.cameras)
    state = DistillationState(student, HardWindows(len(train), settings.hard_share, trust=trust), settings)
    identity = identity_of(train, student, state.hard.trust, seed, settings)
    if checkpoint is not None and Path(checkpoint).exists():
        load_checkpoint(state, Path(checkpoint), identity)
    budget = Budget(seconds=seconds, steps=steps)
    with _threads(threads), interrupts() as interrupted:
        for used in _training(state, train, budget, seed, settings, interrupted, progress):
            _record(state, held_out)
            if checkpoint is not None:
                save_checkpoint(state, Path(checkpoint), identity)
            log.debug("distilling, %.0f %%: %s", 100 * used, state.history[-1])
    state.averaged.eval()
    result = Distillation(
        student=state.averaged,
        history=tuple(state.history),
        settings=settings,
        seed=seed,
        views=views,
        width=width,
        height=height,
        render_seconds=render_seconds,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        interrupted=interrupted.is_set(),
    )
    log.info(_summary(scene, result))
    return result


def _pseudo_cameras(
    looking: Cameras, views: int, width: int, height: int, seed: int, settings: DistilSettings
) -> Cameras:
    side = _side(width, height, settings)
    count = max(1, round(views * width * height * settings.sparsity**2 / side**2))
    ideal = viewing_cameras(looking, width=width, height=height)
    poses = poses_between(ideal, count, margin=settings.margin, angle=settings.angle, seed=seed)
    return windows_of(poses, side, seed=seed)


def _held_out_views(
    teacher: RadianceField, judged: Cameras, width: int, height: int, seed: int, settings: DistilSettings
) -> PseudoViews | None:
    """Windows of the held-out views as the teacher shows them, or None when there are none."""
    if not len(judged):
        return None
    again = torch.arange(HELD_OUT_WINDOWS) % len(judged)
    windows = windows_of(
        viewing_cameras(judged[again], width=width, height=height), _side(width, height, settings), seed=seed
    )
    return render_pseudo_views(teacher, windows, progress=False)


def _side(width: int, height: int, settings: DistilSettings) -> int:
    """Side of a window: the setting's, or less when the views are smaller; a multiple of the blocks and of 8 pixels."""
    multiple = math.lcm(LARGEST_CELL, settings.sparsity)
    side = min(settings.window, width, height) // multiple * multiple
    if side == 0:
        raise DistillationError(
            f"views of {width} x {height} and windows of {settings.window} pixels are smaller than a cell of {multiple}"
        )
    return side


def _training(
    state: DistillationState,
    views: PseudoViews,
    budget: Budget,
    seed: int,
    settings: DistilSettings,
    interrupted: threading.Event,
    progress: bool,
) -> Iterator[float]:
    """Train until the budget is used up; yields the used fraction where the curve gets a line."""
    due = math.floor(RECORDS * budget.used(state.step, state.seconds)) + 1
    with tqdm(total=100, unit="%", desc=f"distil {state.student.size}", disable=not progress, leave=False) as bar:
        while (used := budget.used(state.step, state.seconds)) < 1 and not interrupted.is_set():
            started = time.perf_counter()
            for questions in _draw(state, views, seed, settings):
                _train_step(state, questions, used, settings)
                now = time.perf_counter()
                state.seconds, started = state.seconds + now - started, now
                used = budget.used(state.step, state.seconds)
                bar.update(min(int(100 * used), 100) - bar.n)
                if RECORDS * used >= due or used >= 1 or interrupted.is_set():
                    break
            if RECORDS * used >= due:
                due = math.floor(RECORDS * used) + 1
                # The rest of the draw is dropped, so that a resumed call goes on as this one does: with a new draw.
                yield used
    if state.losses:
        yield used


def _draw(state: DistillationState, views: PseudoViews, seed: int, settings: DistilSettings) -> Iterator[Questions]:
    """Questions of some steps. Every draw has streams of its own: resuming needs no generator state."""
    first, second = [seed, 2 * state.draws], [seed, 2 * state.draws + 1]
    state.draws += 1
    cell = state.student.cell
    if state.student.cells_are_independent:
        window, weight = state.hard.draw(STEPS_AT_ONCE * settings.rays_per_step, seed=first)
        return ask_cells(views, window, weight, cell=cell, seed=second).in_steps(settings.rays_per_step)
    cells = (views.images.shape[1] * views.step // cell) ** 2
    a_step = max(1, settings.rays_per_step // cells)
    window, weight = state.hard.draw(STEPS_AT_ONCE * a_step, seed=first)
    return ask_windows(views, window, weight, cell=cell).in_steps(a_step)


def _train_step(state: DistillationState, questions: Questions, used: float, settings: DistilSettings) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
        shown = answers(state.student, questions)
    error = (shown.float() - questions.colour).square().mean((1, 2, 3))
    loss = (questions.weight * error).mean()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.step += 1
    falling = settings.rate_end + (1 - settings.rate_end) * (1 + math.cos(math.pi * min(used, 1))) / 2
    for group in state.optimizer.param_groups:
        group["lr"] = settings.rate * falling * min(1, state.step / settings.warm_steps)
    state.optimizer.step()
    if settings.hard_share:
        state.hard.learn(questions.window, error.detach())
    if settings.averaging:
        state.average(settings.averaging)
    state.losses.append(float(loss.detach()))


@torch.no_grad()
def _record(state: DistillationState, held_out: PseudoViews | None) -> None:
    loss = float(np.mean(state.losses))
    state.losses.clear()
    if not math.isfinite(loss):
        raise DistillationError(
            f"the loss became {loss} at step {state.step}; lower DistilSettings.rate or check the teacher's views"
        )
    quality = None
    if held_out is not None:
        side = held_out.images.shape[1]
        shown = images_of(state.averaged, held_out.cameras, height=side, width=side)
        error = shown - torch.from_numpy(held_out.images) / 255
        quality = psnr_of_mse(float(error.square().mean()))
    state.history.append(FitRecord(state.step, state.seconds, loss, quality))


def _summary(scene: PosedScene, result: Distillation) -> str:
    last = result.history[-1] if result.history else FitRecord(0, 0.0, math.nan, None)
    quality = "" if last.held_out_psnr is None else f", {last.held_out_psnr:.1f} dB to the teacher on held-out views"
    stopped = " (stopped early)" if result.interrupted else ""
    return (
        f"distil {result.student.size} from {scene.name}: {last.step} steps in {last.seconds:.1f} s{stopped}, "
        f"teacher's views in {result.render_seconds:.1f} s{quality}"
    )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
