"""fit: from a posed scene to a radiance field, on a step or a seconds budget.

One loop: draw pixels, march their rays, composite the field, dress the colours as each photo's phone saw them, compare
robustly, step. It can be interrupted, killed and resumed; with a step budget the bits depend on the seed alone.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields import occupancy
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLPShape
from crowdnerf_lab.fields.grid_field import GridField, PackedSamples
from crowdnerf_lab.fields.hash_grid import HashGridShape
from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.fit_settings import FitSettings, Quality, Stage, settings_for
from crowdnerf_lab.held_out_glance import HeldOutGlance
from crowdnerf_lab.interrupts import interrupts
from crowdnerf_lab.pixels import PixelTable, pixel_table, rays_of_pixels
from crowdnerf_lab.pose_refinement import with_ray_gradients
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.robustness import OutlierMaps
from crowdnerf_lab.scene import Bounds, PosedScene, check_trainable
from crowdnerf_lab.training_control import FitRecord, TrainingControl, TrainingMoment, TrainingReport
from crowdnerf_lab.training_state import (
    MIN_RAYS_PER_STEP,
    Budget,
    Shape,
    Start,
    State,
    Task,
    TrainingError,
    branch,
    initial_state,
    resume,
    save_checkpoint,
)

log = logging.getLogger(__name__)

MAX_RAYS_PER_STEP = 8192


@dataclass(frozen=True)
class Fit:
    """A trained field and how it came about.

    cameras: those of the scene, the training photos' refined if that was asked for. trust: how far the patches of each
    training photo were believed, if training was robust. samples: trained samples in all; warmup_seconds: compiling or
    loading the kernels, not part of the training clock; interrupted: stopped early by the user (the model is what was
    reached).
    """

    model: Field
    appearance: Appearance | None
    cameras: Cameras
    trust: OutlierMaps | None
    history: tuple[FitRecord, ...]
    settings: FitSettings
    seed: int
    checkpoint: Path | None
    samples: int
    warmup_seconds: float
    interrupted: bool

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self.history[-1].seconds if self.history else 0.0


def fit(
    scene: PosedScene,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    quality: Quality = "fast",
    seed: int = 0,
    settings: FitSettings | None = None,
    start: Start | None = None,
    appearance: bool | None = None,
    robust: bool | None = None,
    refine_poses: bool = False,
    threads: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 30.0,
    branch_from: Path | None = None,
    control: TrainingControl | None = None,
    progress: bool = True,
) -> Fit:
    """Train a radiance field on the scene's training photos within a budget of `seconds` of training or of `steps`.

    quality: which kind of field, see `fit_settings`; settings: its numbers, in place of those behind the quality.
    start: a trained field to go on from, see `refinement`.
    appearance: learn exposure, white balance and vignette of every capture. robust: let what stands before one phone
    (occluders) count less. Both are for crowds: by default on when the scene has more than one capture.
    refine_poses: move the training cameras, too. threads: CPU threads (all by default; the bits do not depend on it).
    checkpoint: file that is written every `checkpoint_every` seconds and from which the same call goes on after a
    crash, with the same bits under a step budget. branch_from: the checkpoint of another call, from which this one goes
    on with its own seed, settings and budget, unless its own checkpoint is there already.
    control: stops it from elsewhere and watches it; the bits do not depend on it. Ctrl-C stops after the current step,
    too, and returns what is there; a second one raises KeyboardInterrupt.

    Raises SceneError for a scene that cannot be trained on, TrainingError for a checkpoint of something else and
    WeightsError for a damaged or missing one.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("give fit() either seconds or steps")
    if (seconds or steps or 0) <= 0:
        raise ValueError(f"the budget must be positive, got seconds={seconds}, steps={steps}")
    check_trainable(scene)
    crowd = len(scene.captures) > 1
    settings = settings or settings_for(quality, seconds=seconds, pixels=training_pixels(scene))
    if start is not None:
        settings = replace(settings, shape=start.model.shape)
        bounds = replace(scene.bounds, centre=start.model.centre.cpu(), half_size=start.model.half_size.cpu())
        scene = replace(scene, bounds=bounds)
    task = Task(
        scene=scene,
        budget=Budget(seconds=seconds, steps=steps),
        settings=settings,
        start=start,
        seed=seed,
        appearance=crowd if appearance is None else appearance,
        robust=crowd if robust is None else robust,
        refine_poses=refine_poses,
    )
    file = Path(checkpoint) if checkpoint is not None else None
    control = control or TrainingControl()
    with _threads(threads), interrupts() as interrupted:
        started = time.perf_counter()
        _warm_up(task)
        warmup = time.perf_counter() - started
        state = initial_state(task)
        if file is not None and file.exists():
            resume(state, file, task)
        elif branch_from is not None:
            branch(state, Path(branch_from), task)
        _train(task, state, _Saving(file, checkpoint_every), control, interrupted, progress)
    result = Fit(
        model=state.model,
        appearance=state.appearance,
        cameras=_without_gradient(state.cameras(scene)),
        trust=state.trust,
        history=tuple(state.history),
        settings=task.settings,
        seed=seed,
        checkpoint=file,
        samples=state.samples,
        warmup_seconds=warmup,
        interrupted=interrupted.is_set() or control.stopping,
    )
    log.info(_summary(scene, result))
    return result


def training_pixels(scene: PosedScene) -> int:
    """How many pixels the training photos have."""
    return sum(scene.images[row].shape[0] * scene.images[row].shape[1] for row in scene.train.tolist())


@dataclass(frozen=True)
class _Saving:
    """Where and how often (seconds) a checkpoint is written."""

    file: Path | None
    every: float


def _train(
    task: Task,
    state: State,
    saving: _Saving,
    control: TrainingControl,
    interrupted: threading.Event,
    progress: bool,
) -> None:
    scene, budget, settings = task.scene, task.budget, task.settings
    if state.step == 0 and isinstance(state.model, GridField):
        occupancy.keep_to_view(state.model, scene.cameras[scene.train], settings.occupancy)
        if scene.bounds.closed:
            occupancy.keep_to_box(state.model)
    tables = {scale: pixel_table(scene.downscaled(scale)) for scale in {scale for _, scale in settings.pyramid}}
    reports = [fraction for fraction in REPORT_AT if fraction > budget.used(state.step, state.seconds)]
    glance = HeldOutGlance.of(scene)
    losses: list[float] = []
    saved = time.perf_counter()
    with tqdm(total=100, unit="%", desc=f"fit {scene.name}", disable=not progress, leave=False) as bar:
        while (used := budget.used(state.step, state.seconds)) < 1:
            if state.step and (interrupted.is_set() or control.stopping):
                break
            started = time.perf_counter()
            scale = _current(settings.pyramid, used)
            loss = _train_step(task, state, tables[scale], used)
            losses.append(loss)
            state.seconds += time.perf_counter() - started
            used = budget.used(state.step, state.seconds)
            report = None
            if reports and used >= reports[0]:
                reports = [fraction for fraction in reports if fraction > used]
                report = _report(scene, state, losses, glance)
                bar.set_postfix_str(_held_out_text(report.record))
            control.tell(_moment(budget, state, loss, report))
            bar.update(min(int(100 * used), 100) - bar.n)
            if saving.file is not None and time.perf_counter() - saved > saving.every:
                save_checkpoint(state, saving.file, task)
                saved = time.perf_counter()
    if losses:
        loss = losses[-1]
        control.tell(_moment(budget, state, loss, _report(scene, state, losses, glance)))
    if saving.file is not None:
        save_checkpoint(state, saving.file, task)


def _moment(budget: Budget, state: State, loss: float, report: TrainingReport | None) -> TrainingMoment:
    return TrainingMoment(
        step=state.step,
        seconds=state.seconds,
        used=budget.used(state.step, state.seconds),
        loss=loss,
        rays=state.rays,
        model=state.model,
        report=report,
    )


REPORT_AT = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Fractions of the budget at which the held-out views are rendered (outside the training clock)."""


def _train_step(task: Task, state: State, pixels: PixelTable, used: float) -> float:
    """One step; returns the loss."""
    settings, model = task.settings, state.model
    # A stream of its own for every step: resuming needs no generator state.
    generator = np.random.Generator(np.random.Philox(key=[task.seed, state.step]))
    drawn = pixels.drawn(state.rays_per_step, generator=generator, often=task.start and task.start.often)
    jitter = torch.from_numpy(generator.random(state.rays_per_step, dtype=np.float32))
    stage = [stage for stage in settings.stages if state.step >= stage.from_step][-1]
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)

    photo = pixels.photo[drawn].long()
    rays, samples = _marched(task.scene, state, pixels.plane[drawn], photo, jitter, stage, used)
    composited = model.composite(rays, samples, levels=stage.levels)
    colour = composited.rendered.colour
    if state.appearance is not None:
        colour = state.appearance(colour, photo, pixels.radius2[drawn])
    # Clipped highlights in a photo say only "at least this bright".
    colour, truth = colour.clamp(max=1), pixels.colour[drawn].to(torch.float32) / 255
    loss = ((colour - truth) ** 2).mean(-1)
    if state.trust is not None:
        loss = state.trust.weigh(photo, pixels.plane[drawn], colour=colour.detach(), truth=truth) * loss
    loss = loss.mean() + settings.distortion * composited.distortion.mean()
    if state.appearance is not None:
        loss = loss + state.appearance.pull(settings.appearance)
    if state.poses is not None:
        loss = loss + state.poses.pull()

    loss.backward()
    state.step += 1
    _take_step(state, settings, used)
    if isinstance(model, GridField):
        occupancy.visit(model, samples, composited.density.detach(), settings.occupancy)
        if state.step % settings.occupancy.refresh_every == 0:
            occupancy.refresh(model, levels=stage.levels, settings=settings.occupancy, generator=generator)
    state.samples += len(samples)
    state.rays += state.rays_per_step
    wanted = state.rays_per_step * settings.samples_per_step // max(len(samples), 1)
    state.rays_per_step = min(max(wanted, MIN_RAYS_PER_STEP), MAX_RAYS_PER_STEP)
    return float(loss.detach())


def _marched(
    scene: PosedScene,
    state: State,
    plane: Float[Tensor, "n 2"],
    photo: Int[Tensor, "n"],
    jitter: Float[Tensor, "n"],
    stage: Stage,
    used: float,
) -> tuple[Rays, PackedSamples]:
    """Rays through pixels, and their samples; both differentiable in the poses once those may move."""
    if state.poses is None or not state.poses.rate(used):
        with torch.no_grad():
            rays = rays_of_pixels(state.cameras(scene), plane, photo, scene.time_of_image)
        return rays, state.model.march(rays, jitter=jitter, steps=stage.ray_steps)
    rays = rays_of_pixels(state.poses.cameras(), plane, photo, scene.time_of_image)
    still = replace(rays, origins=rays.origins.detach(), directions=rays.directions.detach())
    samples = state.model.march(still, jitter=jitter, steps=stage.ray_steps)
    return rays, with_ray_gradients(samples, rays, centre=scene.bounds.centre, half_size=scene.bounds.half_size)


def _take_step(state: State, settings: FitSettings, used: float) -> None:
    factor = settings.rate_end**used * min(1, state.step / settings.warm_steps)
    rates = [rate * factor for rate in state.rates]
    if state.poses is not None:
        rates.append(state.poses.rate(used))
    for optimizer, rate in zip(state.optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        optimizer.step()


def _without_gradient(cameras: Cameras) -> Cameras:
    return replace(cameras, camera_to_world=cameras.camera_to_world.detach())


def _current(pyramid: tuple[tuple[float, int], ...], used: float) -> int:
    return [scale for fraction, scale in pyramid if used >= fraction][-1]


def _report(scene: PosedScene, state: State, losses: list[float], glance: HeldOutGlance | None) -> TrainingReport:
    """Add a line to the training curve."""
    loss = float(np.mean(losses))
    losses.clear()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} at step {state.step} of scene '{scene.name}'; "
            "lower FitSettings.rate or check the photos"
        )
    held_out, of_view = (None, {}) if glance is None else glance.psnr(state.model)
    state.history.append(FitRecord(state.step, state.seconds, loss, held_out))
    return TrainingReport(record=state.history[-1], psnr_of_view=of_view)


def _held_out_text(record: FitRecord) -> str:
    return "" if record.held_out_psnr is None else f"held-out {record.held_out_psnr:.1f} dB"


def _summary(scene: PosedScene, result: Fit) -> str:
    last = result.history[-1]
    stopped = " (stopped early)" if result.interrupted else ""
    rate = result.samples / max(last.seconds, 1e-9) / 1e6
    return (
        f"fit {scene.name}: {last.step} steps in {last.seconds:.1f} s{stopped}, {rate:.2f} M samples/s, "
        f"{_held_out_text(last)}"
    )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Numba gets the threads; torch, whose tensors are small here, keeps to one so that sums do not depend on the
    number."""
    before = numba.get_num_threads(), torch.get_num_threads()
    available = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if threads is not None and not 1 <= threads <= available:
        raise ValueError(f"threads must be between 1 and {available} on this machine, got {threads}")
    numba.set_num_threads(threads or available)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def _warm_up(task: Task) -> None:
    """Compile the kernels (or load them from numba's cache) on a scene of a few pixels, outside the training clock."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.eye(3, 4).repeat(4, 1, 1)
    pose[:, 2, 3] = torch.tensor([-3.0, -3.1, -3.2, -3.3])
    size = torch.full((4,), 8)
    scene = PosedScene(
        name="warm-up",
        image_names=("a", "b", "c", "d"),
        cameras=Cameras(pose, torch.full((4, 2), 8.0), torch.full((4, 2), 4.0), size, size, torch.zeros(4, 4)),
        images=tuple(torch.randint(0, 255, (8, 8, 3), generator=generator).to(torch.uint8) for _ in range(4)),
        masks=None,
        bounds=Bounds(centre=torch.zeros(3), half_size=torch.ones(3)),
        captures=("a",),
        capture_of_image=torch.zeros(4, dtype=torch.int64),
        time_of_image=torch.zeros(4),
        train=torch.arange(4),
        held_out=torch.zeros(0, dtype=torch.int64),
        origin_wgs84=None,
    )
    settings = replace(
        task.settings,
        shape=_smallest(task.settings.shape),
        stages=(Stage(0, 8, 2),),
        poses=replace(task.settings.poses, start=-1.0, warm=0.0),
        occupancy=replace(task.settings.occupancy, refresh_every=1, probes=8),
    )
    small = replace(task, scene=scene, settings=settings, start=None)
    state = initial_state(small)
    _train_step(small, state, pixel_table(scene), 0.0)


def _smallest(shape: Shape) -> Shape:
    """A field of the same kind that costs nothing to train."""
    if isinstance(shape, FrequencyMLPShape):
        return replace(shape, width=8, depth=2, coarse=4, fine=4)
    if isinstance(shape, HashGridShape):
        return replace(shape, resolutions=(4, 8), log2_lines=6, occupancy_cells=8, steps=8)
    return replace(shape, resolutions=(4, 8), log2_rows=6, occupancy_cells=8, steps=8)
