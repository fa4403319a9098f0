"""Painter: frames of one model, as soon or as sharp as is wanted, cancelled between two bands of rows.

While the camera moves, a frame is as large as the measured rays a second allow, drawn from the stand-in where one is
ready. At rest, frames become sharper step by step, the model's own at full size last.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.live_rendering.adaptive import AdaptiveResolution, RayRate, sharper_scale
from crowdnerf_lab.live_rendering.frame import Frame, Look
from crowdnerf_lab.live_rendering.modes import Legend, Mode, channel_of, legend_of, modes_of, picture_of
from crowdnerf_lab.live_rendering.sources import Channel, LiveRenderingError, Rows, Source
from crowdnerf_lab.live_rendering.stand_in import StandIn
from crowdnerf_lab.network.views.view_request import ViewRequest

BAND_S = 0.025
"""Seconds that a band of rows should take: how soon a drawing notices that it is not wanted any more."""
BAND_ROWS = 8
"""Larger bands are whole multiples of so many rows, which is how the baked march cuts its pictures."""

KeepGoing = Callable[[], bool]


class Painter:
    """See the module. resolution: of frames while moving. radius: of the scene, metres. appearance: for "as taken".
    stand_in: of the same scene, for moving views. Not for several threads at once."""

    def __init__(
        self,
        source: Source,
        *,
        resolution: AdaptiveResolution,
        radius: float,
        appearance: Appearance | None = None,
        stand_in: StandIn | None = None,
    ) -> None:
        self.resolution, self.stand_in = resolution, stand_in
        self._source, self._radius, self._appearance = source, radius, appearance
        self._rates: dict[tuple[Source, Channel], RayRate] = {}
        self._serials = itertools.count()

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which the model can be shown."""
        return modes_of(self._source, appearance=self._appearance)

    def legend(self, mode: Mode) -> Legend | None:
        """What the colours of a mode mean; None where they are the scene's own."""
        return legend_of(mode, radius=self._radius)

    def check(self, look: Look) -> None:
        """Raise ViewError for a camera that nobody can render, LiveRenderingError for a mode that the model has not."""
        look.view.check()
        if look.mode not in self.modes:
            raise LiveRenderingError(f"this model has no mode {look.mode!r}; choose one of {', '.join(self.modes)}")

    def soon(self, look: Look, *, keep_going: KeepGoing) -> Frame | None:
        """The frame of a moving view: small enough to be there in time."""
        source = self._quickest(look)
        return self._frame(look, source, self._moving_scale(look), moving=True, keep_going=keep_going)

    def ever_sharper(self, look: Look, *, keep_going: KeepGoing) -> Iterator[Frame]:
        """The frames of a view at rest; fewer when `keep_going` says no."""
        quickest, shown = self._quickest(look), self._moving_scale(look)
        if quickest is not self._source:
            if (frame := self._frame(look, quickest, 1.0, moving=False, keep_going=keep_going)) is None:
                return
            yield frame
            shown = 1.0
        elif not look.moving:
            shown /= 2  # that size has not been shown
        whole = _largest_scale(self._source, look.view)
        while True:
            shown = min(whole, sharper_scale(shown, rate=self._rate(self._source, look), view=look.view))
            if (frame := self._frame(look, self._source, shown, moving=False, keep_going=keep_going)) is None:
                return
            yield frame
            if frame.final:
                return

    def sharpest(self, look: Look) -> Frame:
        """The model's own frame at full size."""
        whole = _largest_scale(self._source, look.view)
        frame = self._frame(look, self._source, whole, moving=False, keep_going=lambda: True)
        assert frame is not None
        return frame

    def _quickest(self, look: Look) -> Source:
        ready = self.stand_in.ready if self.stand_in is not None else None
        return ready if ready is not None and channel_of(look.mode) in ready.channels else self._source

    def _moving_scale(self, look: Look) -> float:
        source = self._quickest(look)
        wanted = self.resolution.scale(look.view, self._rate(source, look))
        whole = _largest_scale(source, look.view)
        # What is drawn whole costs the same at any size.
        return whole if source.at_once else min(wanted, whole)

    def _rate(self, source: Source, look: Look) -> RayRate:
        key = source, channel_of(look.mode)
        if key not in self._rates:
            # What stands in is no slower than the model.
            self._rates[key] = (
                RayRate() if source is self._source else RayRate(self._rate(self._source, look).rays_per_second)
            )
        return self._rates[key]

    def _frame(self, look: Look, source: Source, scale: float, *, moving: bool, keep_going: KeepGoing) -> Frame | None:
        view, rate, channel = look.view.scaled(scale), self._rate(source, look), channel_of(look.mode)
        started = time.perf_counter()
        values = _drawn(source, view, channel, rate=rate, keep_going=keep_going)
        if values is None:
            return None
        picture = picture_of(values, look.mode, radius=self._radius, appearance=self._appearance, photo=look.photo)
        seconds = time.perf_counter() - started
        if self.stand_in is not None:
            self.stand_in.start()  # only now: the first picture needs all cores
        return Frame(
            picture=picture,
            look=look,
            serial=next(self._serials),
            final=source is self._source and scale == _largest_scale(source, look.view),
            moving=moving,
            stand_in=source is not self._source,
            seconds=seconds,
            rays_per_second=rate.rays_per_second,
            legend=self.legend(look.mode),
        )


def _largest_scale(source: Source, view: ViewRequest) -> float:
    """At which a source draws a view as sharply as it can."""
    return 1.0 if source.pixels is None else min(1.0, math.sqrt(source.pixels / (view.width * view.height)))


def _drawn(source: Source, view: ViewRequest, channel: Channel, *, rate: RayRate, keep_going: KeepGoing) -> Rows | None:
    """A channel of a view, drawn band by band; None when `keep_going` said no in between."""
    rows = view.height if source.at_once else _band_rows(view, rate)
    bands: list[Rows] = []
    started = time.perf_counter()
    for first in range(0, view.height, rows):
        if bands and not keep_going():
            break
        bands.append(source.rows(view, first, min(first + rows, view.height), channel))
    done = sum(map(len, bands))
    rate.drew(done * view.width, seconds=time.perf_counter() - started)
    return np.concatenate(bands) if done == view.height else None


def _band_rows(view: ViewRequest, rate: RayRate) -> int:
    rows = max(1, round(BAND_S * rate.rays_per_second / view.width))
    return rows // BAND_ROWS * BAND_ROWS if rows > BAND_ROWS else rows
