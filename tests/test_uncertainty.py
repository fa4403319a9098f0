"""A render that knows where it is wrong: weights as the renderer's, and doubt that orders the errors."""

import numpy as np
import pytest
import torch

from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.rays import image_rays
from crowdnerf_lab.rendering import render_view, weights
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, FitSettings, Stage, fit
from crowdnerf_lab.uncertainty import (
    Evidence,
    EvidenceSettings,
    gather_evidence,
    sample_weights,
    sparsification,
    uncertainty_of,
    uncertainty_of_view,
)
from tests.toy_field import toy_scene

SETTINGS = EvidenceSettings(cells=32, rays=20_000)


@pytest.fixture(scope="module")
def half_seen() -> tuple[PosedScene, Fit]:
    """A field trained on photos from one side of the crowd; the other side is held out."""
    scene = toy_scene(12).with_split(range(0, 7), range(7, 12))
    settings = FitSettings(
        shape=SHGridShape(resolutions=(16, 32, 64), log2_rows=13, occupancy_cells=32, steps=64),
        stages=(Stage(0, 48, 2), Stage(60, 64, 3)),
        pyramid=((0.0, 1),),
        samples_per_step=8192,
    )
    return scene, fit(scene, steps=220, settings=settings, appearance=False, threads=1, progress=False)


@pytest.fixture(scope="module")
def evidence(half_seen: tuple[PosedScene, Fit]) -> Evidence:
    scene, result = half_seen
    return gather_evidence(result.model, scene, settings=SETTINGS)


def test_weights_of_packed_samples_are_those_of_the_renderer():
    generator = torch.Generator().manual_seed(0)
    density, edges = torch.rand(3, 8, generator=generator) * 4, torch.rand(3, 9, generator=generator).cumsum(-1)
    step = edges.diff(dim=-1)
    samples = PackedSamples(
        positions=torch.zeros(24, 3),
        t_mid=((edges[:, 1:] + edges[:, :-1]) / 2).flatten(),
        t_step=step.flatten(),
        offsets=torch.tensor([0, 8, 16, 24]),
    )
    found, ray = sample_weights(density.flatten(), samples)
    torch.testing.assert_close(found.reshape(3, 8), weights(density, edges))
    assert ray.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_a_cell_that_no_ray_met_is_as_doubtful_as_the_prior_and_evidence_takes_over():
    settings = EvidenceSettings(cells=1, prior_rays=2.0, prior_error=0.5)

    def variance(rays: float, error: float) -> float:
        one = torch.ones(1)
        return Evidence(weight=rays * one, squared=rays * error**2 * one, settings=settings).variance.item()

    assert variance(0, 0.0) == 0.25
    assert 0.01 < variance(2, 0.1) < variance(1, 0.1) < 0.25
    assert variance(1e6, 0.1) == pytest.approx(0.01, rel=1e-3)


def test_every_ray_is_evidence_of_something(half_seen: tuple[PosedScene, Fit], evidence: Evidence):
    assert float(evidence.weight.sum()) == pytest.approx(SETTINGS.rays, rel=1e-4)
    assert bool((evidence.squared <= evidence.weight + 1e-5).all())


def test_the_picture_is_the_one_that_is_rendered_anyway(half_seen: tuple[PosedScene, Fit], evidence: Evidence):
    scene, result = half_seen
    picture, doubt = uncertainty_of_view(result.model, evidence, scene.cameras, 7)
    torch.testing.assert_close(picture.colour, render_view(result.model, scene.cameras, 7).colour)
    assert doubt.error.shape == picture.depth.shape
    assert bool((doubt.error >= 0).all())
    assert float(doubt.error.max()) <= SETTINGS.prior_error + 1e-3


def test_rays_to_where_nobody_looked_are_as_doubtful_as_the_prior(
    half_seen: tuple[PosedScene, Fit], evidence: Evidence
):
    scene, result = half_seen
    rays = image_rays(scene.cameras, 0).flattened()[:4]
    away = type(rays)(
        origins=rays.origins * 50,
        directions=-rays.directions,
        near=rays.near + 1e6,
        far=rays.far,
        camera_index=rays.camera_index,
        time=rays.time,
    )
    _, doubt = uncertainty_of(result.model, evidence, away)
    torch.testing.assert_close(doubt.error, torch.full((4,), SETTINGS.prior_error))


def test_doubt_orders_the_errors_of_held_out_views(half_seen: tuple[PosedScene, Fit], evidence: Evidence):
    scene, result = half_seen
    doubts, errors = [], []
    for index in scene.held_out.tolist():
        picture, doubt = uncertainty_of_view(result.model, evidence, scene.cameras, index)
        doubts.append(doubt.doubt.flatten())
        errors.append((picture.colour - scene.image(index)).square().mean(-1).sqrt().flatten())
    judged = sparsification(torch.cat(doubts), torch.cat(errors))
    assert judged.spearman > 0.15
    assert judged.ause < 0.85


def test_the_true_error_is_a_perfect_order_and_chance_is_none():
    error = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    assert sparsification(error, error).ause == pytest.approx(0, abs=1e-9)
    assert sparsification(error, error).spearman == pytest.approx(1)
    by_chance = sparsification(torch.rand(5000, generator=torch.Generator().manual_seed(1)), error)
    assert by_chance.ause == pytest.approx(1, abs=0.1)
    assert abs(by_chance.spearman) < 0.05
    assert sparsification(-error, error).ause > 1.5
    assert np.all(np.diff(sparsification(error, error).by_error) <= 1e-12)


def test_one_pixel_has_no_order():
    with pytest.raises(ValueError, match="at least two pixels, got 1"):
        sparsification(torch.ones(1), torch.ones(1))
