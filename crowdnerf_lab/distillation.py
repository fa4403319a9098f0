"""distil: from a radiance field (the teacher) to a light field (the student), on a step or a seconds budget.

One loop: draw cells of pseudo views, ask the student for the cells' pixels with one ray each, compare, step. Any light
field can be the student. It can be interrupted, killed and resumed; with a step budget the bits depend on the seed and
the number of threads alone.
"""

import copy
import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.interrupts import interrupts
from crowdnerf_lab.light_fields.light_field import LightField, cell_rays, images_of, rays_through_plane
from crowdnerf_lab.light_fields.planes import planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.metrics import psnr_of_mse
from crowdnerf_lab.pseudo_views import (
    PseudoViews,
    poses_between,
    render_pseudo_views,
    viewing_cameras,
    windows_of,
)
from crowdnerf_lab.scene import PosedScene, check_trainable
from crowdnerf_lab.training import Budget, FitRecord
from crowdnerf_lab.weights import below, read_tensors, write_tensors

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "crowdnerf_lab.distillation/1"
LARGEST_CELL = 8
"""Pixels; windows hold whole cells of this size, so that students with other cells share the teacher's views."""
RECORDS = 12
"""Lines of the training curve, evenly over the budget; a checkpoint is written with each."""
HELD_OUT_WINDOWS = 96
"""Windows of held-out views, never trained on, that the training curve is measured with."""


class DistillationError(RuntimeError):
    """Distillation that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class DistilSettings:
    """How a student is distilled.

    window: side in pixels of a pseudo view's window, cut to a multiple of the student's cell. margin, angle: how far
    pseudo views stray from the captured poses, see poses_between. sparsity: the teacher renders one pixel of every
    block of so many squared. rays_per_step: rays asked of the student in a step, one a cell. rate: Adam's step size at
    its highest, after warm_steps; it falls along a cosine to rate_end of that.
    """

    window: int = 32
    margin: float = 0.1
    angle: float = 0.04
    sparsity: int = 2
    rays_per_step: int = 512
    rate: float = 3e-3
    rate_end: float = 0.02
    warm_steps: int = 50


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
    settings: DistilSettings | None = None,
    workspace: Path | None = None,
    checkpoint: Path | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Distillation:
    """Distil a student from the teacher within a budget of `seconds` of training or of `steps`.

    size: of a RayMLP with cells of 8; student: an untrained light field of any other kind (a copy is trained). views:
    how many views' worth of pixels the teacher renders, width x height each, as windows of many more poses. workspace:
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
    if student is None:
        planes = planes_through(teacher, scene.cameras[scene.train], scene.bounds, seed=seed)
        student = RayMLP(planes, size, view_size=(width, height), seed=seed)
    cameras = _pseudo_cameras(scene, views, width, height, seed, settings)
    train = render_pseudo_views(
        teacher, cameras, step=settings.sparsity, seed=seed, folder=workspace, progress=progress
    )
    held_out = _held_out_views(teacher, scene, width, height, seed, settings)
    render_seconds = time.perf_counter() - started
    state = _State(copy.deepcopy(student), settings.rate)
    identity = _identity(train, student, seed, settings)
    if checkpoint is not None and Path(checkpoint).exists():
        _load_checkpoint(state, Path(checkpoint), identity)
    budget = Budget(seconds=seconds, steps=steps)
    with _threads(threads), interrupts() as interrupted:
        for used in _training(state, train, budget, seed, settings, interrupted, progress):
            _record(state, held_out)
            if checkpoint is not None:
                _save_checkpoint(state, Path(checkpoint), identity)
            log.debug("distilling, %.0f %%: %s", 100 * used, state.history[-1])
    state.student.eval()
    result = Distillation(
        student=state.student,
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
    scene: PosedScene, views: int, width: int, height: int, seed: int, settings: DistilSettings
) -> Cameras:
    side = _side(width, height, settings)
    count = max(1, round(views * width * height * settings.sparsity**2 / side**2))
    captured = viewing_cameras(scene, scene.train, width=width, height=height)
    poses = poses_between(captured, count, margin=settings.margin, angle=settings.angle, seed=seed)
    return windows_of(poses, side, seed=seed)


def _held_out_views(
    teacher: RadianceField, scene: PosedScene, width: int, height: int, seed: int, settings: DistilSettings
) -> PseudoViews | None:
    """Windows of the held-out views as the teacher shows them, or None when there are none."""
    if not len(scene.held_out):
        return None
    rows = scene.held_out.repeat(-(-HELD_OUT_WINDOWS // len(scene.held_out)))[:HELD_OUT_WINDOWS]
    cameras = viewing_cameras(scene, rows, width=width, height=height)
    return render_pseudo_views(teacher, windows_of(cameras, _side(width, height, settings), seed=seed), progress=False)


def _side(width: int, height: int, settings: DistilSettings) -> int:
    """Side of a window: the setting's, or less when the views are smaller; a multiple of the blocks and of 8 pixels."""
    multiple = math.lcm(LARGEST_CELL, settings.sparsity)
    side = min(settings.window, width, height) // multiple * multiple
    if side == 0:
        raise DistillationError(
            f"views of {width} x {height} and windows of {settings.window} pixels are smaller than a cell of {multiple}"
        )
    return side


class _State:
    """All that changes while training, and all that a checkpoint holds."""

    def __init__(self, student: LightField, rate: float) -> None:
        self.student = student
        self.optimizer = torch.optim.Adam(student.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.history: list[FitRecord] = []


def _training(
    state: _State,
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
            _train_step(state, views, used, seed, settings)
            state.seconds += time.perf_counter() - started
            used = budget.used(state.step, state.seconds)
            bar.update(min(int(100 * used), 100) - bar.n)
            if RECORDS * used >= due:
                due = math.floor(RECORDS * used) + 1
                yield used
    if state.losses:
        yield used


def _train_step(state: _State, views: PseudoViews, used: float, seed: int, settings: DistilSettings) -> None:
    # A stream of its own for every step: resuming needs no generator state.
    generator = np.random.Generator(np.random.Philox(key=[seed, state.step]))
    draw = _drawn_cells if state.student.cells_are_independent else _drawn_windows
    colour, truth = draw(state.student, views, settings.rays_per_step, generator)
    loss = torch.nn.functional.mse_loss(colour, truth)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.step += 1
    falling = settings.rate_end + (1 - settings.rate_end) * (1 + math.cos(math.pi * min(used, 1))) / 2
    for group in state.optimizer.param_groups:
        group["lr"] = settings.rate * falling * min(1, state.step / settings.warm_steps)
    state.optimizer.step()
    state.losses.append(float(loss.detach()))


def _drawn_cells(
    student: LightField, views: PseudoViews, count: int, generator: np.random.Generator
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"]]:
    """The student's and the teacher's colours at the rendered pixels of cells from anywhere in the views.

    Of a student with cells smaller than the views' blocks, the cell with the block's rendered pixel is asked.
    """
    cell, side = student.cell, max(1, student.cell // views.step)
    across = views.images.shape[1] // side
    view = generator.integers(0, len(views), count)
    row, column = generator.integers(0, across, (2, count))
    images, offsets = (
        part.reshape(len(views), across, side, across, side, -1)[view, row, :, column]
        for part in (views.images, views.offsets)
    )
    corner = max(cell, views.step) * np.stack([column, row], axis=-1)
    if cell < views.step:
        corner = corner + offsets[:, 0, 0] // cell * cell
        offsets = offsets % cell
    cameras = views.cameras[torch.from_numpy(view)]
    plane = (torch.from_numpy(corner + cell / 2).to(cameras.focal) - cameras.centre) / cameras.focal
    origins, directions = rays_through_plane(cameras.camera_to_world, plane[:, None, None])
    # Cells side by side are one image to 1x1 convolutions, which are quicker on it than on a batch of single cells.
    strip = student.from_rays(*(rays[:, :, 0, 0].T[None, :, None] for rays in (origins, directions)))
    cells = strip.reshape(3, cell, count, cell).permute(2, 0, 1, 3)
    return _at(cells, offsets, min(cell, views.step)), _as_colour(images)


def _drawn_windows(
    student: LightField, views: PseudoViews, count: int, generator: np.random.Generator
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"]]:
    """The same for whole windows of about `count` cells in all: for students that see neighbouring cells."""
    across = views.images.shape[1] * views.step // student.cell
    drawn = np.sort(generator.integers(0, len(views), max(1, count // across**2)))
    rays = cell_rays(views.cameras[torch.from_numpy(drawn)], across, across, cell=student.cell)
    return _at(student.from_rays(*rays), views.offsets[drawn], views.step), _as_colour(views.images[drawn])


def _at(images: Float[Tensor, "n 3 h w"], offsets: UInt8[np.ndarray, "n r c 2"], step: int) -> Float[Tensor, "n 3 r c"]:
    """The pixel at (u, v) = offsets of every block of step x step."""
    if step == 1:
        return images
    n, rows, columns, _ = offsets.shape
    u, v = torch.from_numpy(offsets.astype(np.int64)).unbind(-1)
    index = (step * torch.arange(rows)[:, None] + v) * images.shape[-1] + step * torch.arange(columns) + u
    index = index.reshape(n, 1, -1).expand(n, 3, -1)
    return images.flatten(2).gather(2, index).reshape(n, 3, rows, columns)


def _as_colour(images: UInt8[np.ndarray, "n r c 3"]) -> Float[Tensor, "n 3 r c"]:
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255


@torch.no_grad()
def _record(state: _State, held_out: PseudoViews | None) -> None:
    loss = float(np.mean(state.losses))
    state.losses.clear()
    if not math.isfinite(loss):
        raise DistillationError(
            f"the loss became {loss} at step {state.step}; lower DistilSettings.rate or check the teacher's views"
        )
    quality = None
    if held_out is not None:
        side = held_out.images.shape[1]
        shown = images_of(state.student, held_out.cameras, height=side, width=side)
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


def _identity(views: PseudoViews, untrained: LightField, seed: int, settings: DistilSettings) -> str:
    """What a checkpoint must have in common with the call that resumes it: teacher's views, student and settings."""
    digest = hashlib.sha256(json.dumps([untrained.architecture, seed, asdict(settings)]).encode())
    for tensor in untrained.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    for array in (views.images, views.offsets):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(views.cameras.camera_to_world.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_checkpoint(state: _State, path: Path, identity: str) -> None:
    moments = state.optimizer.state_dict()["state"]
    tensors = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    tensors |= {f"adam.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
    counters = {
        "step": state.step,
        "seconds": state.seconds,
        "history": [asdict(record) for record in state.history],
    }
    write_tensors(
        path, tensors, kind=CHECKPOINT_FORMAT, header={"identity": identity, "counters": json.dumps(counters)}
    )


def _load_checkpoint(state: _State, path: Path, identity: str) -> None:
    tensors, header = read_tensors(path, kind=CHECKPOINT_FORMAT)
    if header["identity"] != identity:
        raise DistillationError(
            f"checkpoint {path} belongs to another teacher, other settings or another seed; delete it or choose another"
        )
    counters = json.loads(header["counters"])
    state.student.load_state_dict(below("student.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in below("adam.", tensors).items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.step, state.seconds = counters["step"], counters["seconds"]
    state.history = [FitRecord(**record) for record in counters["history"]]


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
