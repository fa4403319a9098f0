"""The NeRF of 2020 as a radiance field: what it offers, where it samples, that it learns, and that its file brings it
back."""

import math
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.fields.frequency_mlp import (
    FrequencyMLP,
    FrequencyMLPShape,
    _drawn,
    _spread,
    encoded_frequencies,
)
from crowdnerf_lab.fields.storage import load_field, save_field
from crowdnerf_lab.pixels import pixel_table, rays_of_pixels
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds
from crowdnerf_lab.weights import WeightsError
from tests.toy_field import toy_scene

SHAPE = FrequencyMLPShape(width=24, depth=4, position_octaves=5, direction_octaves=2, coarse=12, fine=24)


@pytest.fixture
def field() -> FrequencyMLP:
    box = Bounds(centre=torch.tensor([0.1, -0.2, 0.3]), half_size=torch.tensor([1.0, 1.5, 0.7]))
    return FrequencyMLP(box, shape=SHAPE, seed=1)


def _rays(count: int) -> Rays:
    generator = torch.Generator().manual_seed(4)
    return Rays(
        origins=0.5 * torch.randn(count, 3, generator=generator),
        directions=torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1),
        near=torch.zeros(count),
        far=torch.full((count,), math.inf),
        camera_index=torch.zeros(count, dtype=torch.int64),
        time=torch.zeros(count),
    )


def test_the_paper_s_network_has_the_paper_s_sizes() -> None:
    field = FrequencyMLP(Bounds(centre=torch.zeros(3), half_size=torch.ones(3)))
    assert [(layer.in_features, layer.out_features) for layer in field.trunk] == [
        (63, 256),
        *[(256, 256)] * 3,
        (63 + 256, 256),
        *[(256, 256)] * 3,
    ]
    assert (field.view.in_features, field.view.out_features) == (256 + 27, 128)


def test_offers_what_a_radiance_field_must(field: FrequencyMLP) -> None:
    assert isinstance(field, RadianceField)
    rays = _rays(12)
    grid = Rays(**{name: getattr(rays, name).unflatten(0, (3, 4)) for name in rays.__dataclass_fields__})
    rendered = field.render(grid)
    assert rendered.colour.shape == (3, 4, 3)
    assert ((rendered.colour >= 0) & (rendered.colour <= 1)).all()
    torch.testing.assert_close(rendered.depth.flatten(), field.render(rays).depth)
    density, colour = field(torch.randn(2, 5, 3), rays.directions[:10].reshape(2, 5, 3))
    assert density.shape == (2, 5)
    assert colour.shape == (2, 5, 3)
    assert (density > 0).all()


def test_octaves_double_and_the_coordinate_itself_comes_first() -> None:
    x = torch.tensor([[0.3, -1.9]])
    expected = [0.3, -1.9, *(f(o * v) for f in (math.sin, math.cos) for o in (1, 2, 4) for v in (0.3, -1.9))]
    torch.testing.assert_close(encoded_frequencies(x, 3), torch.tensor([expected]))


def test_samples_ascend_from_near_to_far_and_their_stretches_fill_the_ray(field: FrequencyMLP) -> None:
    rays = _rays(7)
    samples = field.march(rays, jitter=torch.rand(7, generator=torch.Generator().manual_seed(0)), steps=30)
    assert samples.offsets.tolist() == [30 * i for i in range(8)]
    t, step = samples.t_mid.reshape(7, 30), samples.t_step.reshape(7, 30)
    assert (t.diff(dim=-1) >= 0).all()
    near, far = field.shape.near * field.radius, field.shape.far * field.radius
    assert ((t >= near * 0.999) & (t <= far * 1.001)).all()
    torch.testing.assert_close(step.sum(-1), torch.full((7,), far - near))
    assert ((samples.positions >= 0) & (samples.positions < 1)).all()


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor([[0.0, 3.0, 0.0, 1.0]]) + 1e-6
    levels = (torch.arange(400) + 0.5)[None] / 400
    drawn = _drawn(weights, levels)
    counts = torch.histc(drawn, bins=4, min=0, max=1)
    torch.testing.assert_close(counts, torch.tensor([0.0, 300.0, 0.0, 100.0]), atol=2, rtol=0)
    assert (drawn.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(_drawn(torch.ones(1, 5), levels), levels)


def test_fine_samples_gather_where_there_is_something(field: FrequencyMLP) -> None:
    wall = 1.2

    class Wall(FrequencyMLP):
        def relative_density(self, unit: torch.Tensor) -> torch.Tensor:
            x = (unit[:, 0] - 0.5) * 4
            return torch.where((x > wall - 0.1) & (x < wall + 0.1), 100.0, 0.0)

    seen = Wall(Bounds(centre=torch.zeros(3), half_size=torch.ones(3)), shape=SHAPE)
    one = Rays(
        origins=torch.zeros(1, 3),
        directions=torch.tensor([[1.0, 0.0, 0.0]]),
        near=torch.zeros(1),
        far=torch.full((1,), math.inf),
        camera_index=torch.zeros(1, dtype=torch.int64),
        time=torch.zeros(1),
    )
    x = (seen.march(one, jitter=torch.full((1,), 0.5), steps=90).positions[:, 0] - 0.5) * 4
    assert ((x - wall).abs() < 0.2).float().mean() > 0.6


def test_a_pixel_is_the_sum_of_its_samples(field: FrequencyMLP) -> None:
    rays = _rays(5)
    samples = field.march(rays, jitter=torch.full((5,), 0.3), steps=24)
    composited = field.composite(rays, samples, levels=1)
    t, step = samples.t_mid.reshape(5, 24), samples.t_step.reshape(5, 24)
    optical = composited.density.reshape(5, 24) * field.density_scale * step
    torch.testing.assert_close(composited.rendered.opacity, 1 - torch.exp(-optical.sum(-1)))
    w = torch.exp(optical - optical.cumsum(-1)) * (1 - torch.exp(-optical))
    s, ds = torch.log(t), step / t
    pairs = (w[:, :, None] * w[:, None, :] * (s[:, :, None] - s[:, None, :]).abs()).sum((1, 2))
    torch.testing.assert_close(composited.distortion, pairs + (w**2 * ds / 3).sum(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(_spread(w, s, ds), composited.distortion)


def test_gradients_reach_every_weight_and_the_positions(field: FrequencyMLP) -> None:
    positions = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    density, colour = field(positions, torch.nn.functional.normalize(torch.ones(6, 3), dim=-1))
    (density.sum() + colour.sum()).backward()
    assert positions.grad is not None
    assert positions.grad.abs().sum() > 0
    missing = [name for name, value in field.named_parameters() if value.grad is None or not value.grad.any()]
    assert missing == ["background"]


def test_learns_the_toy_scene() -> None:
    scene = toy_scene(width=24, height=20)
    pixels = pixel_table(scene)
    truth = pixels.colour.float() / 255
    rays = rays_of_pixels(scene.cameras, pixels.plane, pixels.photo.long(), scene.time_of_image)
    field = FrequencyMLP(scene.bounds, shape=SHAPE, seed=0)
    (optimizer,) = field.optimizers(3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        drawn = torch.randint(0, len(pixels), (128,), generator=generator)
        jitter = torch.rand(128, generator=generator)
        some = rays[drawn]
        colour = field.composite(some, field.march(some, jitter=jitter, steps=24), levels=1).rendered.colour
        loss = ((colour - truth[drawn]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    untrained = float(((0.5 - truth) ** 2).mean())
    assert sum(losses[-10:]) / 10 < 0.25 * untrained


def test_its_file_brings_it_back(field: FrequencyMLP, tmp_path: Path) -> None:
    path = save_field(field, tmp_path / "field.safetensors")
    back = load_field(path)
    assert back.shape == field.shape
    torch.testing.assert_close(back.render(_rays(3)).colour, field.render(_rays(3)).colour, atol=0, rtol=0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"field\.safetensors"):
        load_field(path)


def test_a_seed_is_a_network() -> None:
    box = Bounds(centre=torch.zeros(3), half_size=torch.ones(3))
    first, again, other = (FrequencyMLP(box, shape=SHAPE, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.view.weight, again.view.weight)
    assert not torch.equal(first.view.weight, other.view.weight)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 of 24"):
        FrequencyMLPShape(depth=1, width=24)
