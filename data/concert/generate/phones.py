"""What a phone does to a picture: motion blur, exposure, white balance, vignette, sensor noise and its tone curve.

Pictures are linear radiance [h w 3] until the tone curve, sRGB-like in [0, 1] after it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Fault = Literal["blur", "over", "dark", "wrong"]

CLEAN_EXPOSURE_EV = 0.6
"""Stops applied to every clean picture; a phone's own exposure comes on top."""
BLUR_SCALE_PX = 320
"""Longer side of the picture at which blur lengths are drawn; other sizes scale them."""
VIGNETTE = 0.28
"""Loss of light in the corners."""
NOISE_AT_ISO_800 = 0.0022
"""Variance of the noise per unit of signal at ISO 800."""


@dataclass(frozen=True)
class Spoiling:
    """Everything that makes one photo differ from the clean one.

    exposure_ev: stops on linear radiance (0.6 is the clean picture's). white_balance: gains in linear light.
    blur_px, blur_angle: length and direction (radians, from the right, downwards) of the motion.
    grain: variance of the noise per unit of signal. noise: a standard normal for every value of the picture.
    """

    spoiled_by: Fault | None
    exposure_ev: float
    white_balance: Float[np.ndarray, "3"]
    blur_px: float
    blur_angle: float
    grain: float
    noise: Float[np.ndarray, "h w 3"]


def drawn_spoiling(
    rng: np.random.Generator,
    *,
    spoiled_by: Fault | None,
    exposure_ev: float,
    white_balance: Float[np.ndarray, "3"],
    iso: int,
    width: int,
    height: int,
) -> Spoiling:
    """Draw a shot around its phone's habits: a shaky hand, 0.15 stops of exposure, noise that grows with the ISO value.

    A fault is far outside of what is usual: 'blur' 11 to 18 px, 'over' three stops, 'dark' five stops down and noisy.
    'wrong' (a wrong direction) changes nothing here.
    """
    blur_px = rng.uniform(11, 18) if spoiled_by == "blur" else abs(rng.normal(0, 1.6))
    exposure_ev = CLEAN_EXPOSURE_EV + exposure_ev + rng.normal(0, 0.15)
    exposure_ev += {"over": 3.0, "dark": -5.0}.get(spoiled_by or "", 0.0)
    return Spoiling(
        spoiled_by=spoiled_by,
        exposure_ev=float(exposure_ev),
        white_balance=white_balance,
        blur_px=float(blur_px) * (max(width, height) / BLUR_SCALE_PX),
        blur_angle=rng.uniform(0, np.pi),
        grain=iso / 800 * NOISE_AT_ISO_800 * (12 if spoiled_by == "dark" else 1),
        noise=rng.normal(size=(height, width, 3)),
    )


def spoiled(radiance: Float[np.ndarray, "h w 3"], spoiling: Spoiling) -> Float[np.ndarray, "h w 3"]:
    """The photo that the phone makes of this radiance, in [0, 1]."""
    exposed = exposed_by(radiance, exposure_ev=spoiling.exposure_ev, white_balance=spoiling.white_balance)
    moved = motion_blurred(exposed, length=spoiling.blur_px, angle=spoiling.blur_angle)
    return tone_curve(noisy(vignetted(moved), grain=spoiling.grain, noise=spoiling.noise))


def developed(
    radiance: Float[np.ndarray, "h w 3"],
    *,
    exposure_ev: float = CLEAN_EXPOSURE_EV,
    white_balance: Float[np.ndarray, "3"] | tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[np.ndarray, "h w 3"]:
    """A picture without blur, vignette and noise, in [0, 1]."""
    return tone_curve(exposed_by(radiance, exposure_ev=exposure_ev, white_balance=white_balance))


def exposed_by(
    radiance: Float[np.ndarray, "h w 3"],
    *,
    exposure_ev: float,
    white_balance: Float[np.ndarray, "3"] | tuple[float, float, float],
) -> Float[np.ndarray, "h w 3"]:
    """Radiance after the exposure (stops) and the gains of red, green and blue."""
    return radiance * 2.0**exposure_ev * np.asarray(white_balance)


def motion_blurred(picture: Float[np.ndarray, "h w 3"], *, length: float, angle: float) -> Float[np.ndarray, "h w 3"]:
    """Mean along a straight motion of `length` px; below 0.6 px the picture is returned as it is."""
    if length < 0.6:
        return picture
    reach = math.ceil(length / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for along in np.linspace(-length / 2, length / 2, 200):
        kernel[round(reach + along * np.sin(angle)), round(reach + along * np.cos(angle))] += 1
    kernel /= kernel.sum()
    return np.stack([ndimage.convolve(picture[..., c], kernel, mode="nearest") for c in range(3)], -1)


def vignetted(picture: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Darker towards the corners, by the square of the distance from the middle."""
    height, width, _ = picture.shape
    down, right = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return picture * (1 - VIGNETTE * (right**2 + down**2) / 2)[..., None]


def noisy(
    picture: Float[np.ndarray, "h w 3"], *, grain: float, noise: Float[np.ndarray, "h w 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Shot noise of variance grain times signal, and read noise of standard deviation 1.2 times grain."""
    return picture + noise * np.sqrt(grain * np.maximum(picture, 0) + (grain * 1.2) ** 2)


def tone_curve(radiance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """From linear light to a picture in [0, 1]: Reinhard's curve with a white point at 6, a lift, and gamma 2.2.

    Reinhard et al. 2002, equation 4: x (1 + x / 6^2) / (1 + x); rising for all x >= 0.
    """
    light = np.maximum(radiance, 0)
    return np.clip(light * (1 + light / 36.0) / (1 + light) * 1.25, 0, 1) ** (1 / 2.2)
