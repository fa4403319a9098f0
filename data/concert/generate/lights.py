"""The spotlights of the show: washes, beams over the crowd, back light and front-of-house keys, moving with time."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MAGENTA, CYAN, AMBER, BLUE = (1, 0.08, 0.75), (0.05, 0.75, 1), (1, 0.45, 0.08), (0.10, 0.16, 1)
WHITE, GREEN, RED, VIOLET = (1, 0.92, 0.8), (0.1, 1, 0.3), (1, 0.05, 0.06), (0.5, 0.1, 1)
HAZE_SCATTERING = 0.0042
"""Part of a lamp's intensity that a metre of haze scatters towards the viewer, before the lamp's own haze weight."""
HAZE_EXTINCTION = 0.05
"""Loss of light per metre of haze between the lamp and the point it lights."""


@dataclass(frozen=True)
class Spotlight:
    """A lamp at a point. Metres, ENU; linear colour; intensity in radiance units times square metres.

    half_angle: radians, from the axis to darkness; full brightness within 0.6 of it. haze: weight of the visible beam.
    """

    position: Float[np.ndarray, "3"]
    target: Float[np.ndarray, "3"]
    colour: tuple[float, float, float]
    intensity: float
    half_angle: float
    haze: float

    @property
    def axis(self) -> Float[np.ndarray, "3"]:
        """Unit vector along the middle of the beam."""
        along = self.target - self.position
        return along / np.linalg.norm(along)


def spotlights(time: float) -> tuple[Spotlight, ...]:
    """All lamps at a moment of the show (s)."""
    return (
        *_front_washes(time),
        *_beams_over_the_crowd(time),
        *_floor_beams(time),
        *_back_lights(),
        *_front_of_house(),
        _light((0.0, 5.9, 7.4), (0, -12.0, 0.0), colour=(0.75, 0.35, 1.0), intensity=1100, degrees=34, haze=0.03),
    )


def _light(position, target, *, colour, intensity: float, degrees: float, haze: float) -> Spotlight:
    position, target = np.array(position, float), np.array(target, float)
    return Spotlight(position, target, colour, intensity, float(np.radians(degrees)), haze)


def _front_washes(time: float) -> list[Spotlight]:
    """Six lamps on the front truss that follow the band."""
    washes = []
    for i, x in enumerate(np.linspace(-5, 5, 6)):
        colour = (MAGENTA, CYAN, WHITE, WHITE, BLUE, RED)[i]
        target, intensity = (x * 0.55 + 0.6 * np.sin(0.9 * time + i), 2.6, 1.9), 560 if colour == WHITE else 520
        washes.append(_light((x, -1.2, 6.9), target, colour=colour, intensity=intensity, degrees=21, haze=0.05))
    return washes


def _beams_over_the_crowd(time: float) -> list[Spotlight]:
    """Seven narrow beams from the rear truss."""
    colours = (CYAN, MAGENTA, BLUE, AMBER, VIOLET, CYAN, MAGENTA)
    beams = []
    for i, (x, colour) in enumerate(zip(np.linspace(-5.2, 5.2, 7), colours, strict=True)):
        target = (x * 1.5 + 2.2 * np.sin(1.1 * time + i * 0.9), -9 + 2 * np.cos(time + i), 0.6)
        beams.append(_light((x, 5.6, 7.2), target, colour=colour, intensity=420, degrees=5.5, haze=1.0))
    return beams


def _floor_beams(time: float) -> list[Spotlight]:
    """One beam rising from the floor on either side."""
    return [
        _light(
            (x, 5.5, 1.5), (x * 0.2 + 1.5 * np.sin(time), 1.5, 7.0), colour=colour, intensity=120, degrees=8, haze=0.9
        )
        for x, colour in ((-5.6, RED), (5.6, GREEN))
    ]


def _back_lights() -> list[Spotlight]:
    """Four still lamps behind the band that give it rims."""
    return [
        _light((x, 5.4, 7.2), (x * 0.8, 2.2, 1.3), colour=colour, intensity=420, degrees=20, haze=0.10)
        for x, colour in ((-4.5, VIOLET), (-1.5, AMBER), (1.5, AMBER), (4.5, CYAN))
    ]


def _front_of_house() -> list[Spotlight]:
    """Two strong keys from behind the crowd."""
    return [
        _light((x, -16.0, 9.5), (-x * 0.15, 3.2, 3.2), colour=(1.0, 0.93, 0.82), intensity=1500, degrees=15, haze=0.012)
        for x in (-9.0, 9.0)
    ]
