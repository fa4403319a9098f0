"""Quantization-aware fine-tuning: the student learns with the rounding that its stored form will have.

Weights are rounded where layers use them, and what enters a layer is rounded to its range, as the device will;
gradients pass the rounding as if it were not there (straight-through, Bengio et al. 2013; Jacob et al., CVPR 2018).
Worth it where quantizing after training loses more than 0.3 dB: 4-bit weights, small students.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crowdnerf_lab.devices.formats.graphs import QuantizationError
from crowdnerf_lab.devices.formats.integers import closest_axis
from crowdnerf_lab.devices.formats.weight_only import BLOCK, FEW
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.pseudo_rays import Questions, answers, ask_cells, ask_windows
from crowdnerf_lab.pseudo_views import PseudoViews
from crowdnerf_lab.training import Budget

LAYERS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class FineTuneSettings:
    """How a student learns to be rounded.

    rays_per_step: rays asked of the student in a step. rate: Adam's step size at first; it falls to zero along a
    cosine. calibration_steps: steps before the first that only look at the ranges of what enters the layers.
    """

    rays_per_step: int = 512
    rate: float = 3e-4
    calibration_steps: int = 8


@dataclass(frozen=True)
class Rounding:
    """What a stored form rounds. block: weights that share a scale along what a layer sums; None: a scale a channel.

    activations: whether what enters a layer is rounded to 8 bits, too.
    """

    weight_bits: int
    block: int | None = None
    activations: bool = False


INT8_THROUGHOUT = Rounding(weight_bits=8, activations=True)
"""onnx_int8_qdq, and ExecuTorch's int8."""
INT8_WEIGHTS = Rounding(weight_bits=8)
INT4_WEIGHTS = Rounding(weight_bits=4, block=BLOCK)


def fine_tune_quantized(
    student: LightField,
    views: PseudoViews,
    *,
    rounding: Rounding = INT8_THROUGHOUT,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    settings: FineTuneSettings | None = None,
) -> LightField:
    """A copy of a distilled student that loses less when it is stored with this rounding.

    Within a budget of `seconds` or `steps` of training on pseudo views. The copy's weights lie on the grid that
    converting it rounds to. Raises QuantizationError for a student without layers to round, or a loss that is not
    finite.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("give fine_tune_quantized() either seconds or steps")
    settings, budget = settings or FineTuneSettings(), Budget(seconds=seconds, steps=steps)
    tuned = copy.deepcopy(student)
    if not isinstance(tuned, nn.Module):
        raise QuantizationError(f"a {type(student).__name__} is no nn.Module; give a student that can be trained")
    step, spent = 0, 0.0
    with _rounded(tuned, rounding) as activations:
        for questions in _drawn(tuned, views, settings.calibration_steps, [seed, 0], settings):
            with torch.no_grad():
                answers(tuned, questions)
        for activation in activations:
            activation.watching = False
        optimizer = torch.optim.Adam(tuned.parameters(), lr=settings.rate, betas=(0.9, 0.99))
        while (used := budget.used(step, spent)) < 1:
            started = time.perf_counter()
            (questions,) = _drawn(tuned, views, 1, [seed, step + 1], settings)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * (1 + np.cos(np.pi * used)) / 2
            loss = nn.functional.mse_loss(answers(tuned, questions), questions.colour)
            if not torch.isfinite(loss):
                raise QuantizationError(f"the loss became {float(loss)} at step {step}; lower FineTuneSettings.rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step, spent = step + 1, spent + time.perf_counter() - started
    tuned.eval()
    return cast(LightField, tuned)


class RoundedWeights(nn.Module):
    """A parametrization that shows a layer its weights as they will be stored; the gradient passes as if they were not.

    Symmetric, with the largest weight of a channel or block on the last step, as `formats.integers` rounds.
    """

    def __init__(self, *, bits: int, axis: int, block: int | None) -> None:
        super().__init__()
        self.most, self.axis, self.block = 2 ** (bits - 1) - 1, axis, block

    def forward(self, weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        scale = self._scale(weights.detach())
        rounded = (weights.detach() / scale).round().clamp(-self.most, self.most) * scale
        return weights + (rounded - weights).detach()

    def _scale(self, weights: Tensor) -> Tensor:
        """Of each weight."""
        least = torch.finfo(torch.float32).tiny
        if self.block is None:
            others = [i for i in range(weights.ndim) if i != self.axis]
            return (weights.abs().amax(others, keepdim=True) / self.most).clamp(min=least)
        length = weights.shape[self.axis]
        blocks = weights.abs().transpose(self.axis, -1).split(self.block, dim=-1)
        largest = [part.amax(-1, keepdim=True).expand_as(part) for part in blocks]
        scale = (torch.cat(largest, -1)[..., :length] / self.most).clamp(min=least)
        return scale.transpose(self.axis, -1)


class RoundedActivations:
    """Rounds what enters a layer to 256 steps of the range that it saw while watching."""

    def __init__(self) -> None:
        self.low, self.high, self.watching = 0.0, 0.0, True

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        (values,) = inputs
        if self.watching:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            return None
        scale = max((self.high - self.low) / 255, 1e-12)
        rounded = values.detach().clamp(self.low, self.high)
        rounded = ((rounded - self.low) / scale).round() * scale + self.low
        return (values + (rounded - values).detach(),)


@contextmanager
def _rounded(student: nn.Module, rounding: Rounding) -> Iterator[list[RoundedActivations]]:
    """Round weights (and activations) while inside; on leaving, the weights stay where they were rounded to."""
    layers = [layer for layer in student.modules() if isinstance(layer, LAYERS)]
    if not layers:
        raise QuantizationError(f"a {type(student).__name__} has no convolutions to round; use another format for it")
    activations, hooks = [], []
    tables = _tables(student)
    for table in tables:
        rounded = RoundedWeights(
            bits=rounding.weight_bits,
            axis=table.channels if rounding.block is None else table.summed,
            block=rounding.block,
        )
        parametrize.register_parametrization(table.owner, table.name, rounded)
    if rounding.activations:
        for layer in layers:
            activations.append(RoundedActivations())
            hooks.append(layer.register_forward_pre_hook(activations[-1]))
    try:
        yield activations
    finally:
        for hook in hooks:
            hook.remove()
        for table in tables:
            parametrize.remove_parametrizations(table.owner, table.name, leave_parametrized=True)


@dataclass(frozen=True)
class _Table:
    """A parameter that is stored in few bits, the axis of its channels, and the one that a layer sums over."""

    owner: nn.Module
    name: str
    channels: int
    summed: int


def _tables(student: nn.Module) -> list[_Table]:
    """Kernels of convolutions, and pictures of features, whose rows share scales when stored in blocks."""
    tables = []
    for owner in student.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.ndim < 2 or parameter.numel() < FEW:
                continue
            if isinstance(owner, nn.Conv2d):
                tables.append(_Table(owner, name, 0, 1))
            elif isinstance(owner, nn.ConvTranspose2d):
                tables.append(_Table(owner, name, 1, 0))
            else:
                tables.append(_Table(owner, name, closest_axis(parameter.detach().numpy()), parameter.ndim - 1))
    return tables


def _drawn(
    student: LightField, views: PseudoViews, steps: int, seed: list[int], settings: FineTuneSettings
) -> Iterator[Questions]:
    """Questions of some steps, from windows drawn evenly."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    if student.cells_are_independent:
        window = generator.integers(0, len(views), steps * settings.rays_per_step)
        asked = ask_cells(views, window, np.ones(len(window)), cell=student.cell, seed=seed)
        return asked.in_steps(settings.rays_per_step)
    a_step = max(1, settings.rays_per_step // (views.images.shape[1] * views.step // student.cell) ** 2)
    window = generator.integers(0, len(views), steps * a_step)
    return ask_windows(views, window, np.ones(len(window)), cell=student.cell).in_steps(a_step)
