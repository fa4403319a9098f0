"""What changes while a field is trained, what stays the same, and the checkpoint that holds it all.

A checkpoint belongs to a task: the same call goes on from it with the same bits. Another call may branch from it, with
other numbers or another seed from there on.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLP, FrequencyMLPShape
from crowdnerf_lab.fields.hash_grid import HashGrid, HashGridShape
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.pose_refinement import PoseRefinement
from crowdnerf_lab.robustness import OutlierMaps
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training_control import FitRecord
from crowdnerf_lab.weights import below, read_tensors, write_tensors

Shape = SHGridShape | HashGridShape | FrequencyMLPShape
"""Sizes of the kinds of field that can be trained here."""

CHECKPOINT_FORMAT = "crowdnerf_lab.fit/2"
MIN_RAYS_PER_STEP = 64
WHITE = 6.0
"""What a sigmoid makes 0.9975."""


class TrainingError(RuntimeError):
    """Training that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Budget:
    """Seconds of training or a number of steps."""

    seconds: float | None
    steps: int | None

    def used(self, step: int, seconds: float) -> float:
        """Fraction of the budget that is used up."""
        return step / self.steps if self.steps is not None else seconds / (self.seconds or math.inf)


@dataclass(frozen=True)
class Start:
    """What training goes on from, in place of an untrained field.

    model: a copy of it is trained, in its own bounds and sizes. appearance: of the scene's photos, if known (see
    `refinement`). often: for each photo of the scene how often its pixels are drawn, relative to one another.
    """

    model: Field
    appearance: Appearance | None = None
    often: Float[Tensor, "photos"] | None = None


@dataclass(frozen=True)
class Task:
    """What is to be trained, and how."""

    scene: PosedScene
    budget: Budget
    settings: FitSettings
    start: Start | None
    seed: int
    appearance: bool
    robust: bool
    refine_poses: bool

    @cached_property
    def identity(self) -> str:
        """What a checkpoint must have in common with the call that resumes it: photos, cameras, split, settings and
        start."""
        scene, digest = self.scene, hashlib.sha256()
        choices = {name: getattr(self, name) for name in ("seed", "appearance", "robust", "refine_poses")}
        document = [asdict(self.settings), choices, scene.name, scene.image_names]
        digest.update(json.dumps(document, sort_keys=True).encode())
        for tensor in (scene.cameras.camera_to_world, scene.cameras.focal, scene.train, *scene.images):
            digest.update(tensor.contiguous().numpy().tobytes())
        if self.start is not None:
            parts = [self.start.model.state_dict(), self.start.appearance and self.start.appearance.state_dict()]
            for tensor in (*(tensor for part in parts if part for tensor in part.values()), self.start.often):
                digest.update(b"" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def trunk(self) -> str:
        """What a checkpoint must have in common with a call that branches from it: all of that but the seed and the
        settings, of which the field's kind and sizes and those of the robust loss must stay."""
        kept = FitSettings(shape=self.settings.shape, robust=self.settings.robust)
        return replace(self, seed=0, settings=kept).identity


@dataclass
class State:
    """All that changes while training, and all that a checkpoint holds."""

    model: Field
    appearance: Appearance | None
    poses: PoseRefinement | None
    trust: OutlierMaps | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    rates: tuple[float, ...]
    """Step size of each optimizer before schedule."""
    rays_per_step: int
    step: int = 0
    seconds: float = 0.0
    samples: int = 0
    rays: int = 0
    history: list[FitRecord] = field(default_factory=list)

    def cameras(self, scene: PosedScene) -> Cameras:
        """The scene's cameras where they are now."""
        return scene.cameras if self.poses is None else self.poses.cameras()

    def parts(self) -> dict[str, nn.Module | OutlierMaps]:
        """What has a state of its own, by name."""
        named = {"field": self.model, "appearance": self.appearance, "poses": self.poses, "trust": self.trust}
        return {name: part for name, part in named.items() if part is not None}


def initial_state(task: Task) -> State:
    """Where training begins: an untrained field, or a copy of what it starts from."""
    scene, settings = task.scene, task.settings
    start = copy.deepcopy(task.start)
    model = _field(scene, settings.shape, task.seed) if start is None else start.model
    appearance = None
    if task.appearance:
        appearance = start and start.appearance
        appearance = appearance or Appearance(scene.capture_of_image, len(scene.captures))
    poses = None
    if task.refine_poses:
        poses = PoseRefinement(scene.cameras, scene.train, region=scene.bounds, settings=settings.poses)
    optimizers = list(model.optimizers(settings.rate))
    if appearance is not None:
        optimizers.append(torch.optim.Adam(appearance.parameters(), lr=settings.appearance_rate, betas=(0.9, 0.99)))
    return State(
        model=model,
        appearance=appearance,
        poses=poses,
        trust=OutlierMaps.of(scene, settings.robust) if task.robust else None,
        optimizers=tuple(optimizers) + ((poses.optimizer(),) if poses is not None else ()),
        rates=tuple(optimizer.param_groups[0]["lr"] for optimizer in optimizers),
        rays_per_step=max(settings.samples_per_step // 64, MIN_RAYS_PER_STEP),
    )


def _field(scene: PosedScene, shape: Shape, seed: int) -> Field:
    """An untrained field of the kind that a shape describes."""
    if scene.bounds.closed:
        shape = _around_object(shape, scene)
    if isinstance(shape, FrequencyMLPShape):
        field = FrequencyMLP(scene.bounds, shape=shape, seed=seed)
    elif isinstance(shape, HashGridShape):
        field = HashGrid(scene.bounds, shape=shape, seed=seed)
    else:
        field = SHGrid(scene.bounds, shape=shape)
    if scene.bounds.closed:
        field.background.data.fill_(WHITE)
    return field


def _around_object(shape: Shape, scene: PosedScene) -> Shape:
    """The shape with rays that begin and end where closed bounds do, seen from any training camera."""
    away = (scene.cameras.positions[scene.train] - scene.bounds.centre).abs()
    nearest = torch.linalg.vector_norm((away - scene.bounds.half_size).clamp(min=0), dim=-1).min()
    farthest = torch.linalg.vector_norm(away + scene.bounds.half_size, dim=-1).max()
    radius = float(scene.bounds.half_size.mean())
    return replace(shape, near=max(0.98 * float(nearest) / radius, 0.05), far=1.02 * float(farthest) / radius)


def save_checkpoint(state: State, path: Path, task: Task) -> None:
    """Write a state, atomically."""
    states = {name: part.state_dict() for name, part in state.parts().items()}
    tensors = {f"{name}.{key}": value for name, found in states.items() for key, value in found.items()}
    for parameter, name, moments in _moments(state):
        tensors |= {f"{name}.{key}": torch.as_tensor(value) for key, value in moments.get(parameter, {}).items()}
    counters = {
        "step": state.step,
        "rays_per_step": state.rays_per_step,
        "seconds": state.seconds,
        "samples": state.samples,
        "rays": state.rays,
        "history": [asdict(record) for record in state.history],
    }
    header = {"identity": task.identity, "trunk": task.trunk, "counters": json.dumps(counters)}
    write_tensors(path, tensors, kind=CHECKPOINT_FORMAT, header=header)


def resume(state: State, path: Path, task: Task) -> None:
    """Go on from a state that the same task wrote. Raises TrainingError when it was another one."""
    tensors, header = read_tensors(path, kind=CHECKPOINT_FORMAT)
    if header["identity"] != task.identity:
        raise TrainingError(
            f"checkpoint {path} belongs to other photos, settings or another seed; delete it or choose another file, "
            "or branch from it (branch_from)"
        )
    _restore(state, tensors, header)


def branch(state: State, path: Path, task: Task) -> None:
    """Go on from a state that another task wrote, with this one's seed and settings. Raises TrainingError when more
    than those differ."""
    tensors, header = read_tensors(path, kind=CHECKPOINT_FORMAT)
    if header.get("trunk") != task.trunk:
        raise TrainingError(
            f"no branch from {path}: it has other photos, a field of another kind or size, or learns something else "
            "(appearance, robust and its settings, refine_poses, start); "
            "a branch may change the seed, the budget and the other settings"
        )
    _restore(state, tensors, header)


def _restore(state: State, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    counters = json.loads(header["counters"])
    for name, part in state.parts().items():
        part.load_state_dict(below(f"{name}.", tensors))
    for parameter, name, moments in _moments(state):
        if found := below(f"{name}.", tensors):
            moments[parameter] = found
    state.step, state.seconds, state.samples = counters["step"], counters["seconds"], counters["samples"]
    state.rays_per_step = counters["rays_per_step"]
    # Files written before rays were counted say nothing of them.
    state.rays = counters.get("rays", 0)
    state.history = [FitRecord(**record) for record in counters["history"]]


def _moments(state: State) -> Iterator[tuple[nn.Parameter, str, dict]]:
    """Every optimized parameter, the name of its moments in a checkpoint, and the state of its optimizer."""
    for i, optimizer in enumerate(state.optimizers):
        for j, parameter in enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]):
            yield parameter, f"optimizer.{i}.{j}", optimizer.state
