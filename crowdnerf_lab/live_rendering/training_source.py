"""A field while a fit() trains it, as something that can be drawn.

It is drawn between two steps by the thread that trains: no half-updated field is ever seen, and nothing fights for the
cores. That works in a notebook's main thread, where pictures go out but no camera can come in, as well as when training
has a thread of its own.
"""

import time
from collections.abc import Callable

from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.live_rendering.sources import Channel, FieldSource, LiveRenderingError, Rows, Training
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.training_control import TrainingMoment

SHARE = 0.08
"""Of the training time that may go into pictures; the rest, up to a tenth, is for what they push out of the caches."""
FRAMES_PER_SECOND = 15.0
"""A picture may take a fifteenth of a second: one or two a second then."""
QUIET_S = 1.0
"""Seconds without a step after which a fit is taken to have ended, or to wait."""


class TrainingSource:
    """What a fit has learned so far. draw: called between steps, for SHARE of the training time at most."""

    channels: tuple[Channel, ...] = ("colour", "depth", "opacity")
    pixels, at_once = None, False

    def __init__(self, training: Training, *, draw: Callable[[], object]) -> None:
        self._draw = draw
        self._field: Field | None = None
        self._stepped_at = 0.0
        training.watch(self._notice)
        training.watch(lambda _: self._draw(), share=SHARE)

    @property
    def quiet(self) -> bool:
        """Whether there is a field that nothing trains at the moment."""
        return self._field is not None and time.monotonic() - self._stepped_at > QUIET_S

    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        """See Source. Raises LiveRenderingError before the first step."""
        if self._field is None:
            raise LiveRenderingError("nothing has been trained yet; call fit() with this control")
        return FieldSource(self._field).rows(view, first, last, channel)

    def _notice(self, moment: TrainingMoment) -> None:
        self._field, self._stepped_at = moment.model, time.monotonic()
