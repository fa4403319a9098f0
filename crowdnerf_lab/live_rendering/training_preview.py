"""A live view of a field while fit() trains it, for a tenth of the time at most.

    control = TrainingControl()
    preview = TrainingPreview(view, on_frame=show)
    preview.watch(control)
    fit(scene, seconds=60, control=control)

Frames are drawn between two steps by the thread that trains: no half-updated field is ever seen, and nothing fights
for the cores. That works in a notebook's main thread, where frames go out but no camera can come in, as well as in a
thread of its own, where `look` steers.
"""

import time
from collections.abc import Callable

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.live_rendering.adaptive import AdaptiveResolution
from crowdnerf_lab.live_rendering.frame import Frame, Look
from crowdnerf_lab.live_rendering.modes import Mode
from crowdnerf_lab.live_rendering.painting import Painter
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.training_control import TrainingControl, TrainingMoment

SHARE = 0.08
"""Of the training time that may go into frames; the rest up to a tenth is for what they push out of the caches."""
FRAME_S = 0.04
"""Seconds that a frame may take: two a second then."""


class TrainingPreview:
    """A watcher of a fit() that draws what was last looked at. on_frame: called with every Frame, in the thread that
    trains. appearance: as it is being learned, for "as taken".

    Raises ViewError for a camera that nobody can render.
    """

    def __init__(
        self,
        view: ViewRequest,
        *,
        on_frame: Callable[[Frame], object],
        mode: Mode = "colour",
        appearance: Appearance | None = None,
    ) -> None:
        view.check()
        self._on_frame, self._appearance = on_frame, appearance
        self._look = Look(view, mode)
        self._painter: tuple[Field, Painter] | None = None

    def watch(self, control: TrainingControl) -> None:
        """Draw while the fit with this control runs."""
        control.watch(self, share=SHARE)

    def look(self, view: ViewRequest, *, mode: Mode = "colour", photo: int | None = None, number: int = 0) -> None:
        """Look at this from the next frame on. Callable from any thread. Raises ViewError as above."""
        view.check()
        self._look = Look(view, mode, photo, number=number)

    def __call__(self, moment: TrainingMoment) -> None:
        """Draw the field as it is between two steps. Raises LiveRenderingError for a mode that the field has not."""
        painter, look = self._painter_of(moment.model), self._look
        painter.check(look)
        frame = painter.soon(look, keep_going=lambda: True)
        assert frame is not None
        started = time.perf_counter()
        self._on_frame(frame)
        painter.resolution.delivered(time.perf_counter() - started)

    def _painter_of(self, field: Field) -> Painter:
        if self._painter is None or self._painter[0] is not field:
            resolution = AdaptiveResolution(1 / FRAME_S)
            self._painter = field, Painter(field, resolution=resolution, appearance=self._appearance)
        return self._painter[1]
