"""LiveRenderer: answers what is looked at now, in a thread of its own, and forgets what was looked at before.

The newest camera wins: looks never queue. A moving view gets a frame for the time it has; once no newer look has come
for a moment it becomes sharper and sharper, until one does. What is on its way to the reader never queues either: with
`LiveSettings.in_flight`, drawing waits until frames were reported `shown`.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.live_rendering.adaptive import AdaptiveResolution
from crowdnerf_lab.live_rendering.frame import Frame, Look
from crowdnerf_lab.live_rendering.modes import Legend, Mode, radius_of
from crowdnerf_lab.live_rendering.painting import Painter
from crowdnerf_lab.live_rendering.sources import Model, Training, source_of
from crowdnerf_lab.live_rendering.stand_in import stand_in_for
from crowdnerf_lab.live_rendering.training_source import FRAMES_PER_SECOND, QUIET_S, TrainingSource
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.scene import PosedScene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveSettings:
    """How live a view is.

    frames_per_second: to hold while moving. rest_s: seconds without a newer look after which a moving camera counts as
    resting. in_flight: frames that may be on their way, not yet reported `shown`, before drawing waits; None: any
    number, for those who cannot report. patience_s: seconds after which a report is no longer waited for. threads: of
    the baked march; None for all.
    """

    frames_per_second: float = 24.0
    rest_s: float = 0.15
    in_flight: int | None = None
    patience_s: float = 2.0
    threads: int | None = None


class LiveRenderer:
    """Answers looks at one model with frames.

    on_frame: called with every Frame, on_error with what went wrong in words, both in the renderer's thread. scene: the
    photos behind the model; with them there is uncertainty. appearance: as learned with the model; with it there is "as
    taken". stand_in: a baked field of the same scene to show while moving, or whether one is baked in the background
    (a few seconds, for an SH grid); until it is there the model itself is drawn.

    Given a TrainingControl or a training board, it shows what the fit has learned, a few times a second for a tenth of
    the training time at most, and sharply once that has ended. on_frame is then called in the thread that trains, too.

    Raises LiveRenderingError for a model that cannot be shown.
    """

    def __init__(
        self,
        model: Model,
        *,
        on_frame: Callable[[Frame], object],
        on_error: Callable[[str], object] | None = None,
        scene: PosedScene | None = None,
        appearance: Appearance | None = None,
        stand_in: BakedField | bool = True,
        settings: LiveSettings | None = None,
    ) -> None:
        self.settings = settings or LiveSettings()
        self._on_frame, self._on_error = on_frame, on_error
        self._changed = threading.Condition()
        self._painting = threading.Lock()
        self._look: Look | None = None
        self._last_look: Look | None = None
        self._on_its_way: set[int] = set()
        self._closed = False
        threads, frames_per_second = self.settings.threads, self.settings.frames_per_second
        if isinstance(model, Training):
            frames_per_second = min(frames_per_second, FRAMES_PER_SECOND)
        self._training = TrainingSource(model, draw=self._draw_between_steps) if isinstance(model, Training) else None
        self._painter = Painter(
            self._training or source_of(model, scene=scene, threads=threads),
            resolution=AdaptiveResolution(frames_per_second),
            radius=radius_of(model, scene=scene),
            appearance=appearance,
            stand_in=stand_in_for(model, stand_in, threads=threads),
        )
        self._thread = threading.Thread(target=self._run, name="live rendering", daemon=True)
        self._thread.start()

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which the model can be shown."""
        return self._painter.modes

    def legend(self, mode: Mode) -> Legend | None:
        """What the colours of a mode mean; None where they are the scene's own."""
        return self._painter.legend(mode)

    def look(
        self,
        view: ViewRequest,
        *,
        mode: Mode = "colour",
        photo: int | None = None,
        moving: bool = True,
        number: int = 0,
    ) -> None:
        """Look at this, whatever was looked at before; see Look. Returns at once; callable from any thread.

        Raises ViewError for a camera that nobody can render, LiveRenderingError for a mode that the model has not.
        """
        look = Look(view, mode, photo, moving, number)
        self._painter.check(look)
        with self._changed:
            self._look = self._last_look = look
            self._changed.notify_all()

    def shown(self, serial: int) -> None:
        """Report that a frame has arrived; see LiveSettings.in_flight. Callable from any thread."""
        with self._changed:
            self._on_its_way.discard(serial)
            self._changed.notify_all()

    def still(self, view: ViewRequest, *, mode: Mode = "colour", photo: int | None = None) -> Frame:
        """The sharpest frame of a view, drawn here and now in the caller's thread. Raises as `look`."""
        look = Look(view, mode, photo, moving=False)
        self._painter.check(look)
        with self._painting:
            return self._painter.sharpest(look)

    def wait_for_stand_in(self, timeout: float | None = None) -> bool:
        """Wait until the baked field for moving views is there; False when there is, or will be, none."""
        stand_in = self._painter.stand_in
        return stand_in is not None and stand_in.wait(timeout)

    def close(self) -> None:
        """End the thread after the band that it draws; no frame comes any more. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> "LiveRenderer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (look := self._next()) is not None:
            try:
                self._answer(look)
            except Exception as error:  # whatever a model raises must not end the thread
                log.exception("could not draw %s", look)
                if self._on_error is not None:
                    self._on_error(f"{type(error).__name__}: {error}")

    def _draw_between_steps(self) -> None:
        """In the thread that trains: the last look again, since the field has changed. What is shown is sharpened by
        the renderer's own thread once training is quiet."""
        with self._changed:
            self._look = look = self._last_look
        # Frames go out even if none is reported: no report arrives while a fit keeps the notebook's main thread.
        if look is None or self._closed or not self._painting.acquire(blocking=False):
            return
        try:
            frame = self._painter.soon(look, keep_going=lambda: not self._closed)
        finally:
            self._painting.release()
        if frame is not None:
            self._send(replace(frame, final=False))

    def _next(self) -> Look | None:
        """The newest look, once there is one, nothing trains, and a frame may be sent; None when closed."""
        with self._changed:
            while not self._closed and (self._look is None or self._trains):
                self._changed.wait(timeout=QUIET_S / 4 if self._trains else None)
        self._wait_to_send()
        with self._changed:
            look, self._look = self._look, None
            return None if self._closed else look

    def _answer(self, look: Look) -> None:
        if look.moving:
            # Drawn to its end even when a newer look is here: who moves on and on must see something.
            with self._painting:
                frame = self._painter.soon(look, keep_going=lambda: not self._closed)
            if frame is None:
                return
            self._send(frame)
            if frame.final or not self._rests():
                return
        frames = self._painter.ever_sharper(look, keep_going=self._still_wanted)
        while True:
            self._wait_to_send()
            with self._painting:
                frame = next(frames, None)
            if frame is None or not self._still_wanted():
                return
            self._send(frame)

    @property
    def _trains(self) -> bool:
        return self._training is not None and not self._training.quiet

    def _still_wanted(self) -> bool:
        return self._look is None and not self._closed

    def _rests(self) -> bool:
        """Wait a moment for a newer look; whether none came."""
        with self._changed:
            return not self._changed.wait_for(lambda: not self._still_wanted(), timeout=self.settings.rest_s)

    def _send(self, frame: Frame) -> None:
        with self._changed:
            self._on_its_way.add(frame.serial)
        started = time.perf_counter()
        self._on_frame(frame)
        if frame.moving:
            self._painter.resolution.delivered(time.perf_counter() - started)

    def _wait_to_send(self) -> None:
        """Until few enough frames are on their way; those not reported for too long count as lost."""
        most = self.settings.in_flight
        if most is None:
            self._on_its_way.clear()
            return
        with self._changed:
            waited = self._changed.wait_for(
                lambda: self._closed or len(self._on_its_way) < most, timeout=self.settings.patience_s
            )
            if not waited:
                self._on_its_way.clear()
