"""Enhanced views: every UE gets its own photo back better, because the crowd's field knows what it should show.

The photo is taken to the crowd's exposure, and the field is rendered from the photo's own pose. Where the photo is
occluded (robustness.doubt_map) or cut off at white, the field stands in. Elsewhere the field is the prior of a Wiener
filter: what the photo says beyond it is kept, in every band of detail, as far as it rises above the photo's own noise
(Wiener 1949; by bands as in Burt and Adelson 1983), and where the photo is softer than the field, the field's detail
stays. Photos that look where the field has nothing to show (the screening's "direction") gain nothing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter, grey_dilation, label, maximum_filter, uniform_filter
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, distorted, pixel_grid, plane_points
from crowdnerf_lab.fields.appearance import Appearance, centre_distance2, exposed, srgb_to_linear
from crowdnerf_lab.metrics import affine_fitted, psnr
from crowdnerf_lab.rendering import Rendered, render_view
from crowdnerf_lab.robustness import doubt_map, smoothed
from crowdnerf_lab.scene import PosedScene

if TYPE_CHECKING:
    from crowdnerf_lab.fields.field import RadianceField

Plane = NDArray[Any]
"""Numbers at every pixel, [h w] or [h w c]."""
CLIPPED = 0.97
"""sRGB from which a colour says only "at least this bright"."""
MIDTONES = (0.02, 0.97)
"""sRGB between which colours tell of the exposure."""
BANDS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Standard deviations (px) of the Gaussians between which bands of detail lie; the last keeps the rest."""
USUAL_DOUBT = 0.25
"""Median doubt of a photo that a good field explains; people in front cover less than half of a picture."""
_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.0, -0.5], [-0.25, 0.5, -0.25]], dtype=np.float32)
"""Brightness and two colour differences: noise of the colours is stronger than their detail."""
_NOISE_ONLY = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32) / 6
"""Passes white noise with its variance and removes planes (Immerkaer 1996)."""


@dataclass(frozen=True)
class EnhancementSettings:
    """doubt_from, doubt_to: doubts below the first leave the photo alone, above the second replace it.
    smallest: patches of doubt below this fraction of the picture are detail that the field has not learned, no person.
    noise: how many times the measured noise variance a detail must exceed. familiar_turn: how far (fraction of the
    longer side) a thing may move between shots of one UE and still be taken for the same.
    """

    doubt_from: float = 0.5
    doubt_to: float = 0.9
    smallest: float = 0.007
    noise: float = 1.5
    familiar_turn: float = 0.05


@dataclass(frozen=True)
class EnhancedView:
    """image: the photo, better, in the crowd's exposure and white balance (sRGB). field: the field from its pose.
    doubt: see robustness.doubt_map, relative to the picture's usual one. trust: 1 where the photo was used, 0 where the
    field stands in for it. log_gain: the photo's exposure and white balance against the crowd's, natural log of linear
    light."""

    image: Float[Tensor, "h w 3"]
    field: Float[Tensor, "h w 3"]
    doubt: Float[Tensor, "h w"]
    trust: Float[Tensor, "h w"]
    log_gain: Float[Tensor, "3"]


def enhanced_views(
    field: "RadianceField",
    scene: PosedScene,
    rows: Sequence[int],
    *,
    appearance: Appearance | None = None,
    settings: EnhancementSettings | None = None,
) -> tuple[EnhancedView, ...]:
    """The scene's photos `rows`, enhanced by a field trained on the crowd's photos (these among them or not).

    appearance: as trained with the field; gives the tone curve and each phone's vignette. What other shots of the same
    UE among `rows` show too, in place of what the field shows, belongs to that UE's scene and is left in.
    """
    settings = settings or EnhancementSettings()
    shots = [_shot(field, scene, row, appearance) for row in rows]
    views = []
    for shot in shots:
        siblings = [other for other in shots if other.capture == shot.capture and other is not shot]
        familiar = _ramp(_familiar(shot, siblings, settings), settings.doubt_from, settings.doubt_to)
        views.append(_fused(shot.lifted, shot.field, shot.lifted.doubt * (1 - familiar), settings))
    return tuple(views)


def enhanced_view(
    photo: Float[Tensor, "h w 3"],
    rendered: Rendered,
    *,
    shoulder: float = 0.0,
    vignette: float = 0.0,
    settings: EnhancementSettings | None = None,
) -> EnhancedView:
    """One photo (sRGB) enhanced by the field rendered from its pose in neutral colours.

    shoulder, vignette: of the phone, see fields.appearance. Deterministic; raises ValueError for sizes that differ.
    """
    lifted = _lifted(photo, rendered.colour, shoulder, vignette)
    return _fused(lifted, rendered.colour, lifted.doubt, settings or EnhancementSettings())


def gain_of(enhanced: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], *, clean: Float[Tensor, "h w 3"]) -> float:
    """By how many dB an enhanced view is nearer to the unspoiled photo than the photo was, colours fitted for both."""
    return psnr(affine_fitted(enhanced, clean), clean) - psnr(affine_fitted(photo, clean), clean)


def exposure_against(
    photo: Float[Tensor, "h w 3"], neutral: Float[Tensor, "h w 3"], *, shoulder: float = 0.0
) -> Float[Tensor, "3"]:
    """Natural log of the gains (linear light) that take neutral colours to a photo's: medians over its midtones, so
    that people in front, a minority, hardly count."""
    taken, known = (srgb_to_linear(picture.reshape(-1, 3)) for picture in (photo, neutral))
    # The light that the tone curve made of these: its gains are plain products.
    taken, known = (light / (1 - shoulder * light).clamp(min=0.05) for light in (taken, known))
    ratios = torch.log(taken.clamp(min=1e-4)) - torch.log(known.clamp(min=1e-4))
    low, high = MIDTONES
    pictures = torch.stack([photo.reshape(-1, 3), neutral.reshape(-1, 3)])
    usable = ((pictures > low) & (pictures < high)).all(-1).all(0)
    # In a photo without midtones the rest must do.
    return (ratios[usable] if int(usable.sum()) > len(ratios) // 100 else ratios).median(0).values


def noise_variance(photo: Float[Tensor, "h w 3"], *, quiet: float = 0.3) -> Float[Tensor, "h w 3"]:
    """Variance of a photo's noise at every pixel, sRGB: for each level of brightness the `quiet` quantile of the
    energy of its finest detail (flat places show noise alone)."""
    picture = photo.numpy()
    energy = uniform_filter(convolve(picture, _NOISE_ONLY[..., None], mode="nearest") ** 2, 9, axes=(0, 1))
    level = uniform_filter(picture, 9, axes=(0, 1))
    channels = [_of_level(energy[..., channel], level[..., channel], quiet) for channel in range(3)]
    # A running mean in float32 may end a little below zero.
    return torch.from_numpy(np.stack(channels, axis=-1).astype(np.float32)).clamp(min=0)


def _of_level(energy: Plane, level: Plane, quiet: float) -> Plane:
    """The `quiet` quantile of the energy among the pixels of like level, between eight groups of levels."""
    edges = np.quantile(level, np.linspace(0, 1, 9))
    groups = [(level >= low) & (level <= high) for low, high in itertools.pairwise(edges)]
    centres = [float(level[group].mean()) for group in groups]
    return np.interp(level, centres, [float(np.quantile(energy[group], quiet)) for group in groups])


@dataclass(frozen=True)
class _Lifted:
    """A photo in the crowd's exposure and white balance, without its vignette; how much to doubt it; the standard
    deviation of its noise; whether a colour is cut off, so that it says only "at least this bright"."""

    photo: Float[Tensor, "h w 3"]
    doubt: Float[Tensor, "h w"]
    noise: Float[Tensor, "h w 3"]
    clipped: Bool[Tensor, "h w 3"]
    log_gain: Float[Tensor, "3"]


def _lifted(photo: Tensor, rendered: Tensor, shoulder: float, vignette: float) -> _Lifted:
    if photo.shape != rendered.shape:
        raise ValueError(f"photo and render differ in size: {tuple(photo.shape)} and {tuple(rendered.shape)}")
    dimming = -vignette * centre_distance2(*photo.shape[:2])[..., None].expand(photo.shape)
    dimmed = exposed(rendered, dimming, shoulder)
    log_gain = exposure_against(photo, dimmed, shoulder=shoulder)
    doubt = doubt_map(photo, exposed(dimmed, log_gain.expand(photo.shape), shoulder).clamp(0, 1))
    # A doubt that its surroundings do not share is detail that the field has not learned.
    around = torch.from_numpy(gaussian_filter(doubt.numpy(), max(doubt.shape) / 40, mode="nearest"))
    # A field that disagrees with most of a photo is the one to doubt.
    common = max(1.0, float(doubt.median()) / USUAL_DOUBT)

    def lift(taken: Tensor) -> Tensor:
        return exposed(taken, -(log_gain + dimming), shoulder).clamp(0, 1.2)

    slope = (lift(photo + 0.02) - lift((photo - 0.02).clamp(min=0))) / 0.04
    return _Lifted(
        photo=lift(photo),
        doubt=torch.minimum(doubt, 1.3 * around) / common,
        noise=noise_variance(photo).sqrt() * slope,
        clipped=photo >= CLIPPED,
        log_gain=log_gain,
    )


@dataclass(frozen=True)
class _Shot:
    """A photo of a scene with its render."""

    capture: int
    camera: Cameras
    lifted: _Lifted
    field: Float[Tensor, "h w 3"]


def _shot(field: "RadianceField", scene: PosedScene, row: int, appearance: Appearance | None) -> _Shot:
    capture = int(scene.capture_of_image[row])
    rendered = render_view(field, scene.cameras, row).colour
    shoulder = 0.0 if appearance is None else float(appearance.shoulder.detach())
    vignette = 0.0 if appearance is None else float(appearance.vignette[capture].detach())
    lifted = _lifted(scene.image(row), rendered, shoulder, vignette)
    return _Shot(capture, scene.cameras[row : row + 1], lifted, rendered)


def _familiar(shot: _Shot, others: Sequence[_Shot], settings: EnhancementSettings) -> Tensor:
    """The least doubt among the UE's other shots around the same direction; 0 with fewer than two of them there.

    Turned, not moved, from one shot to the other: what stands near moves a little, hence the window around it.
    """
    size = shot.lifted.doubt.shape
    if len(others) < 2:
        return torch.zeros(size)
    pixels = pixel_grid(size[1], size[0])
    plane = plane_points(shot.camera, torch.zeros(size, dtype=torch.int64), pixels)
    away = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1) @ shot.camera.camera_to_world[0, :, :3].mT
    least, seen = torch.full(size, torch.inf), torch.zeros(size)
    for other in others:
        height, width = other.lifted.doubt.shape
        window = 2 * round(settings.familiar_turn * max(height, width)) + 1
        widened = torch.from_numpy(maximum_filter(other.lifted.doubt.numpy(), window))
        local = away @ other.camera.camera_to_world[0, :, :3]
        lens = other.camera.distortion[0].expand(*size, 4)
        there = distorted(local[..., :2] / local[..., 2:].clamp(min=1e-6), lens)
        there = there * other.camera.focal[0] + other.camera.centre[0]
        inside = (local[..., 2] > 0) & (there >= 0).all(-1) & (there[..., 0] < width) & (there[..., 1] < height)
        column, row = (there[..., axis].long().clamp(0, last - 1) for axis, last in ((0, width), (1, height)))
        least = torch.where(inside, torch.minimum(least, widened[row, column]), least)
        seen += inside
    return torch.where(seen >= 2, least, 0.0)


def _fused(lifted: _Lifted, field: Tensor, doubt: Tensor, settings: EnhancementSettings) -> EnhancedView:
    doubt = _of_people(doubt, settings)
    doubted = grey_dilation(_ramp(doubt, settings.doubt_from, settings.doubt_to).numpy(), 5)
    trust = (1 - torch.from_numpy(gaussian_filter(doubted, 2))).clamp(0, 1)
    beyond = (lifted.photo - field) * trust[..., None]
    beyond = torch.where(lifted.clipped, beyond.clamp(min=0), beyond)
    noise = (lifted.noise * trust[..., None]).numpy() ** 2 @ (_OPPONENT.T**2)
    kept = _beyond_noise(beyond.numpy() @ _OPPONENT.T, field.numpy() @ _OPPONENT.T, settings.noise * noise)
    image = field + torch.from_numpy(kept @ np.linalg.inv(_OPPONENT).T.astype(np.float32))
    return EnhancedView(image=image.clamp(0, 1), field=field, doubt=lifted.doubt, trust=trust, log_gain=lifted.log_gain)


def _of_people(doubt: Tensor, settings: EnhancementSettings) -> Tensor:
    """The doubt in patches large enough to be somebody in front; 0 in smaller ones."""
    patches = np.zeros(doubt.shape, dtype=np.int32)
    label(doubt.numpy() > settings.doubt_from, output=patches)
    certain = doubt.numpy() > (settings.doubt_from + settings.doubt_to) / 2
    areas = np.bincount(patches[certain], minlength=int(patches.max()) + 1)
    large = areas >= settings.smallest * doubt.numel()
    large[0] = True
    return torch.where(torch.from_numpy(large[patches]), doubt, 0.0)


def _beyond_noise(residual: Plane, field: Plane, noise: Plane) -> Plane:
    """What a photo says beyond the field, [h w c], less what may be noise of the given variance: each band times
    1 - noise / energy. Of a band in which the photo has less detail than the field, because it is blurred, as much
    less is kept."""
    kept = np.zeros_like(residual)
    for sigma, coarser in zip(BANDS, (*BANDS[1:], None), strict=True):
        band, known = _band(residual, sigma, coarser), _band(field, sigma, coarser)
        share = noise * _noise_share(sigma, coarser)
        energy = smoothed(band**2, max(2.0, 2 * (coarser or sigma)))
        detail = float(((band + known)[..., 0] ** 2 - share[..., 0]).mean())
        sharp = 1.0 if coarser is None else _ramp_to_one(detail / max(float((known[..., 0] ** 2).mean()), 1e-9))
        kept += sharp * band * np.clip(1 - share / np.maximum(energy, 1e-9), 0, 1)
    return kept


def _band(picture: Plane, sigma: float, coarser: float | None) -> Plane:
    fine = smoothed(picture, sigma) if sigma else picture
    return fine if coarser is None else fine - smoothed(picture, coarser)


def _ramp_to_one(ratio: float) -> float:
    """0 for a band with a quarter of the expected energy or less, 1 with four fifths or more."""
    return float(_ramp(torch.tensor(ratio), 0.25, 0.8))


def _noise_share(sigma: float, coarser: float | None) -> float:
    """Fraction of white noise's variance in the band between two Gaussians: the energy of their kernels' difference."""
    impulse = np.zeros((97, 97, 1), dtype=np.float64)
    impulse[48, 48] = 1
    fine = smoothed(impulse, sigma) if sigma else impulse
    return float(((fine - (0 if coarser is None else smoothed(impulse, coarser))) ** 2).sum())


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    """0 below low, 1 above high, smooth in between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
