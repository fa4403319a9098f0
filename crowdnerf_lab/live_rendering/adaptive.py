"""How many pixels a moving view may have: from measured rays a second, so many that it holds its frames a second.

A frame costs a fixed part (encoding, sending) and a part that goes with its rays. Both are averaged over the last
frames. Sizes lie on a ladder of steps of 2^(1/4), and a larger one is taken only when it fits with room to spare: a
picture that changes its size with every frame flickers.
"""

import math

from crowdnerf_lab.network.views.view_request import ViewRequest

RUNG = 2**-0.25
"""Width of a rung of the ladder over that of the one before."""
LEAST_PIXELS = 300
"""20 x 15: with fewer, nobody knows where they are."""
SPARE = 0.85
"""Part of a frame's time that a larger picture must fit into."""
REMEMBERED = 0.7
"""Weight of what was known when a new frame is measured."""
UNMEASURED_RAYS_PER_SECOND = 5e3
"""Assumed of whatever has not drawn yet, so little that even the slowest soon shows something."""
FIXED_SHARE = 0.7
"""Most of a frame's time that its fixed part can claim: however slow the sending, something is drawn."""
AT_ONCE_S = 0.15
"""Seconds that a sharper picture may take without a coarser one before it."""
LAST_BEFORE_WHOLE = 0.7
"""A picture this large is so nearly the whole one that it would only delay it."""


class RayRate:
    """Rays a second of one way to draw, averaged over the last frames; `assumed` before the first."""

    def __init__(self, assumed: float = UNMEASURED_RAYS_PER_SECOND) -> None:
        self._assumed = assumed
        self._seconds_per_ray: float | None = None

    @property
    def rays_per_second(self) -> float:
        """What is expected of the next frame."""
        return 1 / self._seconds_per_ray if self._seconds_per_ray else self._assumed

    def seconds(self, rays: int) -> float:
        """How long so many rays will take."""
        return rays / self.rays_per_second

    def drew(self, rays: int, *, seconds: float) -> None:
        """Learn from a frame."""
        now, before = max(seconds, 1e-9) / rays, self._seconds_per_ray
        self._seconds_per_ray = now if before is None else REMEMBERED * before + (1 - REMEMBERED) * now


class AdaptiveResolution:
    """The scale, in width and height, at which a moving view holds `frames_per_second`."""

    def __init__(self, frames_per_second: float) -> None:
        if not frames_per_second > 0:
            raise ValueError(f"frames_per_second must be above 0, got {frames_per_second}")
        self._frame_s = 1 / frames_per_second
        self._fixed_s = 0.0
        self._rung: int | None = None

    def delivered(self, seconds: float) -> None:
        """Learn what encoding and sending a frame took."""
        self._fixed_s = REMEMBERED * self._fixed_s + (1 - REMEMBERED) * seconds

    def scale(self, view: ViewRequest, rate: RayRate) -> float:
        """The scale, at most 1, for the next frame of a moving view that is drawn at `rate`."""
        time_left = self._frame_s - min(self._fixed_s, FIXED_SHARE * self._frame_s)
        pixels = view.width * view.height
        coarsest = max(0, math.floor(math.log(min(LEAST_PIXELS / pixels, 1)) / (2 * math.log(RUNG))))

        def rung_within(seconds: float) -> int:
            share = seconds * rate.rays_per_second / pixels
            return min(coarsest, max(0, math.ceil(math.log(min(share, 1)) / (2 * math.log(RUNG)) - 1e-9)))

        fits, fits_easily = rung_within(time_left), rung_within(SPARE * time_left)
        # Coarser at once, finer only with room to spare.
        self._rung = fits if self._rung is None else max(fits, min(self._rung, fits_easily))
        return RUNG**self._rung


def sharper_scale(shown: float, *, rate: RayRate, view: ViewRequest) -> float:
    """The scale of the picture of a view at rest that follows one of scale `shown`: twice as wide at least, and as
    large as AT_ONCE_S allows; 1 at most, and once it is nearly reached."""

    def seconds(scale: float) -> float:
        return rate.seconds(round(scale * scale * view.width * view.height))

    scale = 2 * shown
    while scale < LAST_BEFORE_WHOLE and seconds(min(2 * scale, 1.0)) <= AT_ONCE_S:
        scale *= 2
    return scale if scale < LAST_BEFORE_WHOLE else 1.0
