"""High dynamic range video (HLG, PQ) to sRGB bytes, so that it looks like the same shot without it.

Signal -> light of the display in units of reference white (203 cd/m2, ITU-R BT.2408) -> Rec. 709 primaries ->
highlights rolled off above a knee -> sRGB. What is darker than the knee keeps its brightness; hues keep their ratios.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

PQ, HLG = 16, 18
"""Transfer characteristics as numbered by ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""
REC2020 = 9
"""Colour primaries of ITU-R BT.2020 in H.273."""
REFERENCE_WHITE = 203.0
"""Luminance of white paper in HDR, cd/m2 (BT.2408)."""
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2
"""Nominal display of HLG, cd/m2, and its system gamma (BT.2100)."""
KNEE = 0.8
"""Light, in units of reference white, above which highlights are compressed towards 1."""
_TO_REC709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
"""Linear Rec. 2020 to linear Rec. 709 (BT.2087)."""
_REC2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)


def tone_mapped(signal: UInt16[np.ndarray, "h w 3"], *, transfer: int, primaries: int) -> UInt8[np.ndarray, "h w 3"]:
    """sRGB bytes of a full-range 16-bit R'G'B' signal. transfer: PQ or HLG; primaries as in H.273."""
    light = _light_of_signal(transfer)[signal]
    if transfer == HLG:
        luminance = np.maximum(light @ _REC2020_LUMINANCE, 1e-6)
        light *= (HLG_PEAK / REFERENCE_WHITE * luminance ** (HLG_GAMMA - 1))[..., None]
    if primaries == REC2020:
        light = np.maximum(light @ _TO_REC709.T, 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= rolled_off(brightest) / np.maximum(brightest, 1e-6)
    return _srgb_of_light()[(light * (len(_srgb_of_light()) - 1) + 0.5).astype(np.int32)]


def rolled_off(light: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Identity up to the knee k, then k + (1 - k) (1 - exp(-(x - k) / (1 - k))): smooth, rising, below 1."""
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    return np.minimum(light, KNEE) + (1 - KNEE) * -np.expm1(-over)


@cache
def _light_of_signal(transfer: int) -> Float32[np.ndarray, "65536"]:
    """PQ: light in units of reference white (SMPTE ST 2084); HLG: scene light in [0, 1] (BT.2100)."""
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = 10000 / REFERENCE_WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _srgb_of_light() -> UInt8[np.ndarray, "16384"]:
    light = np.linspace(0, 1, 16384)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
