"""fit: from a posed scene to a radiance field, on a step or a seconds budget.

One loop: draw pixels, march their rays, composite the field, dress the colours as each photo's phone saw them, compare
robustly, step. It can be interrupted, killed and resumed; with a step budget the bits depend on the seed alone.
"""

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields import occupancy
from crowdnerf_lab.fields.appearance import Appearance, AppearanceSettings
from crowdnerf_lab.fields.occupancy import OccupancySettings
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.interrupts import interrupts
from crowdnerf_lab.kernels.row_adam import RowAdam
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.pixels import PixelTable, pixel_table, rays_of_pixels
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds, PosedScene, check_trainable
from crowdnerf_lab.weights import below, read_tensors, write_tensors

log = logging.getLogger(__name__)

MAX_RAYS_PER_STEP = 8192
MIN_RAYS_PER_STEP = 64
CHECKPOINT_FORMAT = "crowdnerf_lab.fit/1"


class TrainingError(RuntimeError):
    """Training that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Stage:
    """From step `from_step` on, `ray_steps` marching steps a whole ray and the first `levels` levels of the grid."""

    from_step: int
    ray_steps: int
    levels: int


@dataclass(frozen=True)
class FitSettings:
    """How a field is trained.

    shape: sizes of the grid. stages: coarse to fine over levels and samples. pyramid: (fraction of the budget,
    downscale of the photos) pairs; small photos first let every part of the crowd's pixels count early.
    samples_per_step: samples of a step over all its rays; the number of rays follows.
    rate, appearance_rate: Adam's step sizes, falling geometrically to rate_end of themselves over the budget.
    distortion: weight in the loss of how far a ray's weight is spread over log t; clears fog and floaters.
    robust_scale: colour error (RMS over channels, sRGB) at which a ray's weight has fallen to a quarter.
    occupancy, appearance: see there.
    """

    shape: SHGridShape = field(default_factory=SHGridShape)
    stages: tuple[Stage, ...] = (
        Stage(0, 64, 2),
        Stage(120, 96, 3),
        Stage(350, 128, 4),
        Stage(1500, 160, 5),
    )
    pyramid: tuple[tuple[float, int], ...] = ((0.0, 2), (0.5, 1))
    samples_per_step: int = 12288
    rate: float = 0.04
    rate_end: float = 0.02
    warm_steps: int = 20
    appearance_rate: float = 0.01
    distortion: float = 0.005
    robust_scale: float = 0.4
    occupancy: OccupancySettings = field(default_factory=OccupancySettings)
    appearance: AppearanceSettings = field(default_factory=AppearanceSettings)


@dataclass(frozen=True)
class FitRecord:
    """One line of a training curve: seconds of training alone, loss since the last line, PSNR (dB) on held-out views
    or None."""

    step: int
    seconds: float
    loss: float
    held_out_psnr: float | None


@dataclass(frozen=True)
class Fit:
    """A trained field and how it came about.

    samples: trained samples in all; warmup_seconds: compiling or loading the kernels, not part of the training clock;
    interrupted: stopped early by the user (the model is what was reached).
    """

    model: SHGrid
    appearance: Appearance | None
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
    seed: int = 0,
    settings: FitSettings | None = None,
    appearance: bool = True,
    robust: bool = True,
    threads: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 30.0,
    progress: bool = True,
) -> Fit:
    """Train an SH grid on the scene's training photos within a budget of `seconds` of training or of `steps`.

    appearance: learn exposure, white balance and vignette of every capture. robust: let rays that disagree
    (occluders) count less. threads: CPU threads (all by default; the bits do not depend on it). checkpoint: file that
    is written every `checkpoint_every` seconds and from which the same call goes on after a crash, with the same bits
    under a step budget. Ctrl-C stops after the current step and returns what is there; a second one raises
    KeyboardInterrupt.

    Raises SceneError for a scene that cannot be trained on, TrainingError for a checkpoint of something else and
    WeightsError for a damaged one.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("give fit() either seconds or steps")
    if (seconds or steps or 0) <= 0:
        raise ValueError(f"the budget must be positive, got seconds={seconds}, steps={steps}")
    budget = Budget(seconds=seconds, steps=steps)
    settings = settings or FitSettings()
    check_trainable(scene)
    identity = _identity(scene, settings, seed, appearance, robust)
    with _threads(threads), interrupts() as interrupted:
        started = time.perf_counter()
        _warm_up(settings)
        warmup = time.perf_counter() - started
        state = _initial_state(scene, settings, appearance)
        if checkpoint is not None and Path(checkpoint).exists():
            _load_checkpoint(state, Path(checkpoint), identity)
        _train(
            scene, state, budget, settings, seed, robust, checkpoint, checkpoint_every, identity, interrupted, progress
        )
    result = Fit(
        model=state.model,
        appearance=state.appearance,
        history=tuple(state.history),
        settings=settings,
        seed=seed,
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        samples=state.samples,
        warmup_seconds=warmup,
        interrupted=interrupted.is_set(),
    )
    log.info(_summary(scene, result))
    return result


@dataclass(frozen=True)
class Budget:
    """Seconds of training or a number of steps."""

    seconds: float | None
    steps: int | None

    def used(self, step: int, seconds: float) -> float:
        """Fraction of the budget that is used up."""
        return step / self.steps if self.steps is not None else seconds / (self.seconds or math.inf)


@dataclass
class _State:
    """All that changes while training, and all that a checkpoint holds."""

    model: SHGrid
    appearance: Appearance | None
    rows_optimizer: RowAdam
    optimizer: torch.optim.Adam
    rays_per_step: int
    step: int = 0
    seconds: float = 0.0
    samples: int = 0
    history: list[FitRecord] = field(default_factory=list)


def _initial_state(scene: PosedScene, settings: FitSettings, appearance: bool) -> _State:
    model = SHGrid(scene.bounds, shape=settings.shape)
    dress = Appearance(scene.capture_of_image, len(scene.captures)) if appearance else None
    groups = [{"params": [model.background], "lr": settings.appearance_rate}]
    if dress is not None:
        groups.append({"params": list(dress.parameters()), "lr": settings.appearance_rate})
    return _State(
        model=model,
        appearance=dress,
        rows_optimizer=RowAdam([model.table], rate=settings.rate),
        optimizer=torch.optim.Adam(groups, betas=(0.9, 0.99)),
        rays_per_step=max(settings.samples_per_step // 64, MIN_RAYS_PER_STEP),
    )


def _train(
    scene: PosedScene,
    state: _State,
    budget: Budget,
    settings: FitSettings,
    seed: int,
    robust: bool,
    checkpoint: Path | None,
    checkpoint_every: float,
    identity: str,
    interrupted: threading.Event,
    progress: bool,
) -> None:
    tables = {scale: pixel_table(scene.downscaled(scale)) for scale in {scale for _, scale in settings.pyramid}}
    reports = [fraction for fraction in REPORT_AT if fraction > budget.used(state.step, state.seconds)]
    glance = _held_out_glance(scene)
    losses: list[float] = []
    saved = time.perf_counter()
    with tqdm(total=100, unit="%", desc=f"fit {scene.name}", disable=not progress, leave=False) as bar:
        while (used := budget.used(state.step, state.seconds)) < 1 and not (interrupted.is_set() and state.step):
            started = time.perf_counter()
            scale = _current(settings.pyramid, used)
            losses.append(_train_step(scene, state, tables[scale], used, settings, seed, robust))
            state.seconds += time.perf_counter() - started
            used = budget.used(state.step, state.seconds)
            if reports and used >= reports[0]:
                reports = [fraction for fraction in reports if fraction > used]
                _report(scene, state, losses, glance)
                bar.set_postfix_str(_held_out_text(state.history[-1]))
            bar.update(min(int(100 * used), 100) - bar.n)
            if checkpoint is not None and time.perf_counter() - saved > checkpoint_every:
                _save_checkpoint(state, checkpoint, identity)
                saved = time.perf_counter()
    if losses:
        _report(scene, state, losses, glance)
    if checkpoint is not None:
        _save_checkpoint(state, checkpoint, identity)


REPORT_AT = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Fractions of the budget at which the held-out views are rendered (outside the training clock)."""

HELD_OUT_PIXELS = 4096
"""Pixels of held-out views looked at for a line of the training curve."""


def _train_step(
    scene: PosedScene, state: _State, pixels: PixelTable, used: float, settings: FitSettings, seed: int, robust: bool
) -> float:
    """One step; returns the loss."""
    # A stream of its own for every step: resuming needs no generator state.
    generator = np.random.Generator(np.random.Philox(key=[seed, state.step]))
    drawn = torch.from_numpy(generator.integers(0, len(pixels), state.rays_per_step))
    jitter = torch.from_numpy(generator.random(state.rays_per_step, dtype=np.float32))
    stage = [stage for stage in settings.stages if state.step >= stage.from_step][-1]

    photo = pixels.photo[drawn].long()
    rays = rays_of_pixels(scene.cameras, pixels.plane[drawn], photo, scene.time_of_image)
    samples = state.model.march(rays, jitter=jitter, steps=stage.ray_steps)
    composited = state.model.composite(rays, samples, levels=stage.levels)
    colour = composited.rendered.colour
    if state.appearance is not None:
        colour = state.appearance(colour, photo, pixels.radius2[drawn])
    truth = pixels.colour[drawn].to(torch.float32) / 255
    # Clipped highlights in a photo say only "at least this bright".
    loss = photo_loss(colour.clamp(max=1), truth, scale=settings.robust_scale if robust else math.inf)
    loss = loss + settings.distortion * composited.distortion.mean()
    if state.appearance is not None:
        loss = loss + state.appearance.pull(settings.appearance)

    state.rows_optimizer.zero_grad(set_to_none=True)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.step += 1
    rate = settings.rate_end**used
    state.rows_optimizer.param_groups[0]["lr"] = settings.rate * rate * min(1, state.step / settings.warm_steps)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.appearance_rate * rate
    state.rows_optimizer.step()
    state.optimizer.step()

    occupancy.visit(state.model, samples, composited.density.detach(), settings.occupancy)
    if state.step % settings.occupancy.refresh_every == 0:
        occupancy.refresh(state.model, levels=stage.levels, settings=settings.occupancy, generator=generator)
    state.samples += len(samples)
    wanted = state.rays_per_step * settings.samples_per_step // max(len(samples), 1)
    state.rays_per_step = min(max(wanted, MIN_RAYS_PER_STEP), MAX_RAYS_PER_STEP)
    return float(loss.detach())


def photo_loss(
    colour: Float[Tensor, "n 3"], truth: Float[Tensor, "n 3"], *, scale: float = math.inf
) -> Float[Tensor, ""]:
    """Mean squared error, each ray weighted by 1 / (1 + e^2 / scale^2)^2 with e its RMS error: Geman and McClure's
    robust loss by reweighting, so that people who pass in front of one phone do not enter the scene (the idea of
    RobustNeRF, Sabour et al. 2023). scale = inf weighs all rays alike.
    """
    squared = (colour - truth) ** 2
    weight = 1 / (1 + squared.detach().mean(-1) / scale**2) ** 2
    return (weight[:, None] * squared).mean()


def _current(pyramid: tuple[tuple[float, int], ...], used: float) -> int:
    return [scale for fraction, scale in pyramid if used >= fraction][-1]


@dataclass(frozen=True)
class _Glance:
    """A few held-out pixels, always the same: enough to draw a training curve, and quick to render."""

    rays: Rays
    truth: Float[Tensor, "n 3"]


def _report(scene: PosedScene, state: _State, losses: list[float], glance: _Glance | None) -> None:
    loss = float(np.mean(losses))
    losses.clear()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} at step {state.step} of scene '{scene.name}'; "
            "lower FitSettings.rate or check the photos"
        )
    held_out = _held_out_psnr(glance, state.model) if glance is not None else None
    state.history.append(FitRecord(state.step, state.seconds, loss, held_out))


def _held_out_glance(scene: PosedScene) -> _Glance | None:
    if len(scene.held_out) == 0:
        return None
    pixels = pixel_table(replace(scene, train=scene.held_out))
    drawn = torch.from_numpy(np.random.default_rng(0).integers(0, len(pixels), HELD_OUT_PIXELS))
    rays = rays_of_pixels(scene.cameras, pixels.plane[drawn], pixels.photo[drawn].long(), scene.time_of_image)
    return _Glance(rays=rays, truth=pixels.colour[drawn].to(torch.float32) / 255)


@torch.no_grad()
def _held_out_psnr(glance: _Glance, model: SHGrid) -> float:
    return psnr(model.render(glance.rays).colour.clamp(0, 1), glance.truth)


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


def _identity(scene: PosedScene, settings: FitSettings, seed: int, appearance: bool, robust: bool) -> str:
    """What a checkpoint must have in common with the call that resumes it: photos, cameras, split and settings."""
    digest = hashlib.sha256()
    document = {"settings": asdict(settings), "seed": seed, "appearance": appearance, "robust": robust}
    digest.update(json.dumps([document, scene.name, scene.image_names], sort_keys=True).encode())
    for tensor in (scene.cameras.camera_to_world, scene.cameras.focal, scene.train):
        digest.update(tensor.contiguous().numpy().tobytes())
    for image in scene.images:
        digest.update(image.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_checkpoint(state: _State, path: Path, identity: str) -> None:
    tensors = {f"field.{name}": value for name, value in state.model.state_dict().items()}
    if state.appearance is not None:
        tensors |= {f"appearance.{name}": value for name, value in state.appearance.state_dict().items()}
    rows = state.rows_optimizer.state[state.model.table]
    tensors |= {f"rows.{name}": rows[name] for name in ("mean", "square")}
    moments = state.optimizer.state_dict()["state"]
    tensors |= {f"adam.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
    counters = {
        "step": state.step,
        "row_steps": rows["step"],
        "rays_per_step": state.rays_per_step,
        "seconds": state.seconds,
        "samples": state.samples,
        "history": [asdict(record) for record in state.history],
    }
    header = {"identity": identity, "counters": json.dumps(counters)}
    write_tensors(path, tensors, kind=CHECKPOINT_FORMAT, header=header)


def _load_checkpoint(state: _State, path: Path, identity: str) -> None:
    tensors, header = read_tensors(path, kind=CHECKPOINT_FORMAT)
    if header["identity"] != identity:
        raise TrainingError(
            f"checkpoint {path} belongs to other photos, settings or another seed; delete it or choose another file"
        )
    counters = json.loads(header["counters"])
    state.model.load_state_dict(below("field.", tensors))
    if state.appearance is not None:
        state.appearance.load_state_dict(below("appearance.", tensors))
    state.rows_optimizer.state[state.model.table] = {"step": counters["row_steps"], **below("rows.", tensors)}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in below("adam.", tensors).items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.step, state.seconds, state.samples = counters["step"], counters["seconds"], counters["samples"]
    state.rays_per_step = counters["rays_per_step"]
    state.history = [FitRecord(**record) for record in counters["history"]]


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


def _warm_up(settings: FitSettings) -> None:
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
    small = replace(settings, shape=SHGridShape(resolutions=(4, 8), log2_rows=6, occupancy_cells=8, steps=8))
    small = replace(small, stages=(Stage(0, 8, 2),), occupancy=replace(settings.occupancy, refresh_every=1, probes=8))
    state = _initial_state(scene, small, True)
    _train_step(scene, state, pixel_table(scene), 0.0, small, 0, True)
