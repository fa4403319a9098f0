"""Fine-tuning for few bits: what is stored afterwards is closer to the teacher than rounding what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.formats.fine_tuning import (
    INT4_WEIGHTS,
    INT8_THROUGHOUT,
    FineTuneSettings,
    RoundedActivations,
    RoundedWeights,
    Rounding,
    fine_tune_quantized,
)
from crowdnerf_lab.devices.formats.graphs import QuantizationError, pictures
from crowdnerf_lab.devices.formats.integers import quantized_per_block, quantized_per_channel
from crowdnerf_lab.devices.formats.sensitivity import psnr_between
from crowdnerf_lab.devices.quantize import convert
from crowdnerf_lab.pseudo_views import PseudoViews
from tests.devices.tiny_light_field import CAMERAS, FEEDS, HEIGHT, WIDTH, TinyLightField, pictures_by_torch

TEACHER = TinyLightField(planes=True)
SETTINGS = FineTuneSettings(rays_per_step=256, rate=3e-3)


def views_of_teacher() -> PseudoViews:
    """Every pixel of its pictures, cut to whole cells."""
    images = (255 * pictures_by_torch(TEACHER)).round().astype(np.uint8)[:, :20, :20]
    return PseudoViews(CAMERAS, 1, np.zeros((*images.shape[:3], 2), np.uint8), np.ascontiguousarray(images))


@pytest.mark.parametrize("axis", [0, 1])
def test_rounded_weights_are_those_that_are_stored(axis: int) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 70)).astype(np.float32)
    integers, scales = quantized_per_channel(weights, axis, bits=4)
    shown = RoundedWeights(bits=4, axis=axis, block=None)(torch.from_numpy(weights))
    np.testing.assert_allclose(shown, integers * np.expand_dims(scales, 1 - axis), atol=1e-6)
    integers, scales = quantized_per_block(weights, 1, block=32)
    shown = RoundedWeights(bits=4, axis=1, block=32)(torch.from_numpy(weights))
    np.testing.assert_allclose(shown, integers * np.repeat(scales, 32, axis=1)[:, :70], atol=2e-3)


def test_gradients_pass_the_rounding() -> None:
    weights = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    RoundedWeights(bits=4, axis=0, block=None)(weights).sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.ones(4, 8))


def test_activations_are_rounded_to_the_range_that_was_seen() -> None:
    activation = RoundedActivations()
    values = torch.linspace(-1, 3, 4001)
    assert activation(nn.Identity(), (values,)) is None
    activation.watching = False
    (rounded,) = activation(nn.Identity(), (torch.cat([values, torch.tensor([9.0])]),)) or (values,)
    assert len(rounded.unique()) == 256
    assert float((rounded[:-1] - values).abs().max()) <= 0.5 * 4 / 255 + 1e-6
    assert float(rounded[-1]) == pytest.approx(3)


def stored_psnr(student: nn.Module, folder: Path) -> float:
    graph = export_onnx(student, folder / "float32.onnx", width=WIDTH, height=HEIGHT)
    stored = convert(graph, folder / "int4.onnx", stored_as="onnx_int4_weights")
    return psnr_between(pictures(stored.path, FEEDS), list(pictures_by_torch(TEACHER)[:, None]))


def test_int4_loses_less_after_fine_tuning(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in TEACHER.state_dict().items()}
    tuned = fine_tune_quantized(TEACHER, views_of_teacher(), rounding=INT4_WEIGHTS, steps=120, settings=SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in TEACHER.state_dict().items())
    assert tuned.state_dict().keys() == before.keys()
    plain, stored = stored_psnr(TEACHER, tmp_path), stored_psnr(tuned, tmp_path)
    assert stored > plain + 1
    # Its weights lie on the grid already, so storing them costs nothing more.
    drawn = psnr_between(list(pictures_by_torch(tuned)), list(pictures_by_torch(TEACHER)))
    assert stored == pytest.approx(drawn, abs=0.2)


def test_the_same_seed_gives_the_same_weights() -> None:
    views = views_of_teacher()
    one, same, other = (
        fine_tune_quantized(TEACHER, views, rounding=INT8_THROUGHOUT, steps=3, seed=seed, settings=SETTINGS)
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.state_dict()["plane"], other.state_dict()["plane"])


def test_students_without_layers_and_budgets_that_are_none_are_refused() -> None:
    flat = TinyLightField()
    flat.first = flat.second = nn.Identity()
    with pytest.raises(QuantizationError, match="a TinyLightField has no convolutions to round"):
        fine_tune_quantized(flat, views_of_teacher(), rounding=Rounding(8), steps=1)
    with pytest.raises(ValueError, match="either seconds or steps"):
        fine_tune_quantized(TEACHER, views_of_teacher())
