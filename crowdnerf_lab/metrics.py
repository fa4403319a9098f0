"""Picture quality: PSNR, SSIM and FLIP, and the colour fit that sets exposure differences aside."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SSIM_WINDOW_SIGMA = 1.5
SSIM_WINDOW_SIZE = 11


@dataclass(frozen=True)
class Quality:
    """Agreement of renders with the truth. psnr and psnr_affine in dB (after the per-image colour fit), pooled over all
    pixels; ssim in [-1, 1] and flip in [0, 1] (0 is identical) averaged over images."""

    psnr: float
    psnr_affine: float
    ssim: float
    flip: float


def psnr(image: Float[Tensor, "*n 3"], truth: Float[Tensor, "*n 3"]) -> float:
    """Peak signal-to-noise ratio, dB, for values in [0, 1]: -10 log10(mean squared error). Infinite when identical."""
    return psnr_of_mse(float(torch.mean((image - truth) ** 2)))


def psnr_of_mse(mse: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def affine_fitted(image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """The image after the best per-channel gain and offset towards the truth: what is left is not exposure or white
    balance.

    Only for reporting (NeRF in the Wild evaluates so, Martin-Brualla et al. 2021); never part of a render.
    """
    x, y = image.reshape(-1, 3).double(), truth.reshape(-1, 3).double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    gain = ((x - x_mean) * (y - y_mean)).sum(0) / ((x - x_mean) ** 2).sum(0).clamp(min=1e-9)
    return ((image - x_mean) * gain + y_mean).to(image.dtype).clamp(0, 1)


def ssim(image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5, values in [0, 1], mean over pixels and
    channels.

    Images must be at least 11 pixels in each direction (the window).
    """
    if min(image.shape[:2]) < SSIM_WINDOW_SIZE:
        raise ValueError(
            f"SSIM needs images of at least {SSIM_WINDOW_SIZE} pixels a side, got {tuple(image.shape[:2])}"
        )
    x, y = (picture.permute(2, 0, 1)[:, None].double() for picture in (image, truth))
    mean_x, mean_y = _blurred(x), _blurred(y)
    # Population covariance under the window, as in the paper and in scikit-image with gaussian_weights.
    var_x = _blurred(x * x) - mean_x**2
    var_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(value.mean())


def _blurred(planes: Float[Tensor, "c 1 h w"]) -> Float[Tensor, "c 1 h2 w2"]:
    offsets = torch.arange(SSIM_WINDOW_SIZE, dtype=planes.dtype) - SSIM_WINDOW_SIZE // 2
    window = torch.exp(-(offsets**2) / (2 * SSIM_WINDOW_SIGMA**2))
    window = window / window.sum()
    rows = torch.nn.functional.conv2d(planes, window.reshape(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, window.reshape(1, 1, 1, -1))


def flip_map(image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w"]:
    """Perceived difference per pixel in [0, 1] (FLIP, Andersson et al. 2020), at 67 pixels per degree."""
    import flip_evaluator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        difference, _, _ = flip_evaluator.evaluate(
            np.ascontiguousarray(truth.numpy(), dtype=np.float32),
            np.ascontiguousarray(image.numpy(), dtype=np.float32),
            "LDR",
            applyMagma=False,
        )
    return torch.from_numpy(np.asarray(difference, dtype=np.float32)).reshape(image.shape[:2])


def quality(images: list[Float[Tensor, "_ _ 3"]], truths: list[Float[Tensor, "_ _ 3"]]) -> Quality:
    """Compare renders with their true images; PSNR is pooled over all pixels of all images."""
    if len(images) != len(truths) or not images:
        raise ValueError(f"need as many renders as true images and at least one, got {len(images)} and {len(truths)}")
    fitted = [affine_fitted(image, truth) for image, truth in zip(images, truths, strict=True)]
    return Quality(
        psnr=_pooled_psnr(images, truths),
        psnr_affine=_pooled_psnr(fitted, truths),
        ssim=float(np.mean([ssim(image, truth) for image, truth in zip(images, truths, strict=True)])),
        flip=float(np.mean([flip_map(image, truth).mean() for image, truth in zip(images, truths, strict=True)])),
    )


def _pooled_psnr(images: list[Tensor], truths: list[Tensor]) -> float:
    squared = sum(float(((image - truth).double() ** 2).sum()) for image, truth in zip(images, truths, strict=True))
    return psnr_of_mse(squared / sum(truth.numel() for truth in truths))
