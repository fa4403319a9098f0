"""Enhanced views: the field where the photo is spoiled, the photo where it is good."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from crowdnerf_lab.enhanced_views import enhanced_view, enhanced_views, exposure_against, noise_variance
from crowdnerf_lab.fields.appearance import exposed
from crowdnerf_lab.metrics import affine_fitted, psnr
from crowdnerf_lab.rendering import Rendered
from crowdnerf_lab.scene import PosedScene
from tests.toy_field import ToyField, toy_scene

HEIGHT, WIDTH = 96, 128


def clean_view() -> Float[Tensor, "h w 3"]:
    """Stripes fine and coarse over a slope of brightness."""
    v, u = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    stripes = [0.35 + 0.25 * u + 0.1 * torch.sin(40 * u + k) + 0.1 * torch.sin(14 * v + 2 * k) for k in range(3)]
    return torch.stack(stripes, dim=-1)


def blurred(picture: Float[Tensor, "h w 3"], sigma: float) -> Float[Tensor, "h w 3"]:
    return torch.from_numpy(gaussian_filter(picture.numpy(), (sigma, sigma, 0)))


def field_of(clean: Float[Tensor, "h w 3"]) -> Rendered:
    """What a field would know: the view without its finest detail."""
    return Rendered(colour=blurred(clean, 1.5), depth=torch.ones(HEIGHT, WIDTH), opacity=torch.ones(HEIGHT, WIDTH))


def noisy(picture: Float[Tensor, "h w 3"], deviation: float) -> Float[Tensor, "h w 3"]:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + deviation * noise).clamp(0, 1)


def fitted_psnr(picture: Float[Tensor, "h w 3"], clean: Float[Tensor, "h w 3"]) -> float:
    return psnr(affine_fitted(picture, clean), clean)


@pytest.mark.row("S13", "S24")
def test_people_in_front_give_way_to_the_field_and_the_rest_stays():
    clean = clean_view()
    photo = clean.clone()
    photo[40:, 30:60] = 0.03
    view = enhanced_view(photo, field_of(clean))
    assert fitted_psnr(view.image, clean) > fitted_psnr(photo, clean) + 8
    assert float(view.trust[48:, 36:54].max()) < 0.05
    assert float(view.trust[:30].min()) > 0.95
    torch.testing.assert_close(view.image[:24, 80:], clean[:24, 80:], atol=0.02, rtol=0)


def test_a_good_photo_keeps_the_detail_that_the_field_lacks():
    clean = clean_view()
    view = enhanced_view(clean, field_of(clean))
    assert fitted_psnr(view.image, clean) > fitted_psnr(view.field, clean) + 6
    assert fitted_psnr(view.image, clean) > 38


@pytest.mark.row("S14", "S18")
@pytest.mark.parametrize("deviation", [0.05, 0.12])
def test_noise_is_left_out(deviation: float):
    clean = clean_view()
    photo = noisy(clean, deviation)
    assert fitted_psnr(enhanced_view(photo, field_of(clean)).image, clean) > fitted_psnr(photo, clean) + 3


def test_a_blurred_photo_takes_the_field_s_detail():
    clean = clean_view()
    photo = blurred(clean, 4.0)
    sharper = Rendered(colour=blurred(clean, 0.7), depth=torch.ones(HEIGHT, WIDTH), opacity=torch.ones(HEIGHT, WIDTH))
    assert fitted_psnr(enhanced_view(photo, sharper).image, clean) > fitted_psnr(photo, clean) + 4


def test_exposure_is_lifted_through_the_tone_curve():
    clean = clean_view()
    log_gain = torch.tensor([-1.2, -1.0, -0.9])
    dark = exposed(clean, log_gain.expand(clean.shape), 0.8)
    torch.testing.assert_close(exposure_against(dark, clean, shoulder=0.8), log_gain, atol=1e-3, rtol=0)
    view = enhanced_view(dark, field_of(clean), shoulder=0.8)
    torch.testing.assert_close(view.log_gain, log_gain, atol=0.05, rtol=0)
    assert psnr(view.image, clean) > psnr(dark, clean) + 15


def test_a_tenth_of_the_picture_does_not_move_its_exposure():
    clean = clean_view()
    covered = clean.clone()
    covered[60:90, 20:60] = 0.05
    torch.testing.assert_close(exposure_against(covered, clean), torch.zeros(3), atol=0.02, rtol=0)


def test_what_is_cut_off_at_white_says_only_at_least_this_bright():
    clean = clean_view()
    over = exposed(clean, torch.full((HEIGHT, WIDTH, 3), 1.0), 0.0)
    cut = over.clamp(max=1)
    assert float((cut == 1).float().mean()) > 0.05
    view = enhanced_view(cut, field_of(clean))
    assert fitted_psnr(view.image, clean) > fitted_psnr(cut, clean) + 3


def test_noise_is_measured_at_its_level():
    flat = torch.full((HEIGHT, WIDTH, 3), 0.5)
    measured = noise_variance(noisy(flat, 0.05), quiet=0.5)
    assert float(measured.sqrt().mean()) == pytest.approx(0.05, rel=0.1)
    assert float(noise_variance(flat).max()) == pytest.approx(0, abs=1e-9)


def test_photo_and_render_must_have_one_size():
    clean = clean_view()
    with pytest.raises(ValueError, match="differ in size"):
        enhanced_view(clean[:-2], field_of(clean))


UE = [0, 4, 8]
"""Rows of the toy crowd that one UE took."""


def shots_with_a_pillar(covered: tuple[int, ...]) -> PosedScene:
    """The toy crowd whose first UE took the same view three times, with a dark pillar before some of them."""
    scene = toy_scene(12, width=96, height=80)
    poses, images = scene.cameras.camera_to_world.clone(), list(scene.images)
    poses[UE] = poses[UE[0]].clone()
    for row in UE:
        images[row] = scene.images[UE[0]].clone()
    for row in covered:
        images[row][:, 36:60] = 12
    return replace(scene, images=tuple(images), cameras=replace(scene.cameras, camera_to_world=poses))


@pytest.mark.row("S24")
@pytest.mark.parametrize(("covered", "stays"), [((0,), False), ((0, 4), False), ((0, 4, 8), True)])
def test_a_passer_by_goes_and_what_all_shots_of_a_ue_show_stays(covered: tuple[int, ...], stays: bool):
    trust = enhanced_views(ToyField(), shots_with_a_pillar(covered), UE)[0].trust[20:60, 44:52]
    assert float(trust.mean()) > 0.9 if stays else float(trust.mean()) < 0.2


def test_enhancing_is_the_same_every_time():
    clean = clean_view()
    photo = noisy(clean, 0.08)
    once, again = (enhanced_view(photo, field_of(clean)) for _ in range(2))
    assert torch.equal(once.image, again.image)
