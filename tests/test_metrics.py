"""Picture quality against scikit-image and by its properties."""

import math

import pytest
import torch

from crowdnerf_lab.metrics import affine_fitted, flip_map, psnr, quality, ssim


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 7, 3, generator=generator).permute(2, 0, 1)[None]
    truth = torch.nn.functional.interpolate(truth, size=(40, 56), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1)
    return (truth + 0.1 * torch.randn(40, 56, 3, generator=generator)).clamp(0, 1), truth


@pytest.mark.row("S2")
def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    image, truth = pictures()
    _, expected = structural_similarity(
        image.double().numpy(),
        truth.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
        full=True,
    )
    # We average where the window fits; scikit-image pads.
    assert ssim(image, truth) == pytest.approx(expected[5:-5, 5:-5].mean(), abs=1e-4)
    assert ssim(truth, truth) == pytest.approx(1)


def test_psnr_agrees_with_its_definition() -> None:
    image = torch.full((4, 4, 3), 0.5)
    assert psnr(image, image + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(image, image) == math.inf


def test_affine_fit_undoes_exposure_and_white_balance_alone() -> None:
    image, truth = pictures()
    dimmed = 0.1 + 0.5 * truth * torch.tensor([1.0, 0.8, 0.9])
    torch.testing.assert_close(affine_fitted(dimmed, truth), truth, atol=1e-5, rtol=0)
    assert psnr(affine_fitted(image, truth), truth) < 25


def test_flip_is_zero_for_the_same_and_grows() -> None:
    image, truth = pictures()
    same, noisy = flip_map(truth, truth).mean(), flip_map(image, truth).mean()
    assert same < 1e-6 < noisy < 1
    assert flip_map(image, truth).shape == (40, 56)


def test_quality_pools_pixels_over_views_of_different_sizes() -> None:
    image, truth = pictures()
    both = quality([image, truth[:20, :20]], [truth, truth[:20, :20]])
    squared = float(((image - truth) ** 2).sum()) / (truth.numel() + 20 * 20 * 3)
    assert both.psnr == pytest.approx(-10 * math.log10(squared), abs=1e-3)
    with pytest.raises(ValueError, match="as many renders"):
        quality([image], [])
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(image[:10], truth[:10])
