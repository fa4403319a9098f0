"""What changes while a student is distilled, what stays the same, and the checkpoint that holds it all."""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.pseudo_rays import HardWindows
from crowdnerf_lab.pseudo_views import PseudoViews
from crowdnerf_lab.training import FitRecord
from crowdnerf_lab.weights import below, read_tensors, write_tensors

CHECKPOINT_FORMAT = "crowdnerf_lab.distillation/2"


class DistillationError(RuntimeError):
    """Distillation that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class DistilSettings:
    """How a student is distilled.

    window: side in pixels of a pseudo view's window, cut to a multiple of the student's cell. margin, angle: how far
    pseudo views stray from the captured poses, see poses_between. sparsity: the teacher renders one pixel of every
    block of so many squared. rays_per_step: rays asked of the student in a step, one a cell. rate: Adam's step size at
    its highest, after warm_steps; it falls along a cosine to rate_end of that. hard_share: of the draws that go where
    the student is still far off, see HardWindows. averaging: decay a step of the running mean of the weights, which is
    what is returned (Polyak and Juditsky 1992); 0 returns the last weights. precision: 'bf16' computes convolutions in
    bfloat16, for processors that do so faster.
    """

    window: int = 32
    margin: float = 0.1
    angle: float = 0.04
    sparsity: int = 2
    rays_per_step: int = 512
    rate: float = 5e-3
    rate_end: float = 0.02
    warm_steps: int = 50
    hard_share: float = 0.5
    averaging: float = 0.99
    precision: Literal["float32", "bf16"] = "float32"


class DistillationState:
    """All that changes while training, and all that a checkpoint holds."""

    def __init__(self, untrained: LightField, hard: HardWindows, settings: DistilSettings) -> None:
        self.student = copy.deepcopy(untrained)
        self.averaged = copy.deepcopy(untrained) if settings.averaging else self.student
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=settings.rate, betas=(0.9, 0.99), fused=True)
        self.hard = hard
        self.step, self.draws, self.seconds = 0, 0, 0.0
        self.losses: list[float] = []
        self.history: list[FitRecord] = []

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the running mean towards the weights, faster while there are few steps to average over."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for mean, latest in zip(self.averaged.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(latest, 1 - decay)


def identity_of(
    views: PseudoViews, untrained: LightField, trust: NDArray[np.float64], seed: int, settings: DistilSettings
) -> str:
    """What a checkpoint must have in common with the call that resumes it: teacher's views, student and settings."""
    digest = hashlib.sha256(json.dumps([untrained.architecture, seed, asdict(settings)]).encode())
    for tensor in untrained.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    for array in (views.images, views.offsets, trust):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(views.cameras.camera_to_world.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(state: DistillationState, path: Path, identity: str) -> None:
    """Write a state, atomically."""
    moments = state.optimizer.state_dict()["state"]
    tensors = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    if state.averaged is not state.student:
        tensors |= {f"averaged.{name}": value for name, value in state.averaged.state_dict().items()}
    tensors["hard"] = state.hard.error
    tensors |= {f"adam.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
    counters = {
        "step": state.step,
        "draws": state.draws,
        "seconds": state.seconds,
        "history": [asdict(record) for record in state.history],
    }
    write_tensors(
        path, tensors, kind=CHECKPOINT_FORMAT, header={"identity": identity, "counters": json.dumps(counters)}
    )


def load_checkpoint(state: DistillationState, path: Path, identity: str) -> None:
    """Go on from a state that was written. DistillationError when it has another identity."""
    tensors, header = read_tensors(path, kind=CHECKPOINT_FORMAT)
    if header["identity"] != identity:
        raise DistillationError(
            f"checkpoint {path} belongs to another teacher, other settings or another seed; delete it or choose another"
        )
    counters = json.loads(header["counters"])
    state.student.load_state_dict(below("student.", tensors))
    if state.averaged is not state.student:
        state.averaged.load_state_dict(below("averaged.", tensors))
    state.hard.error = tensors["hard"]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in below("adam.", tensors).items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.step, state.draws, state.seconds = counters["step"], counters["draws"], counters["seconds"]
    state.history = [FitRecord(**record) for record in counters["history"]]
