"""Steering a fit() that runs: stop it from another thread, and be told between its steps what it has reached.

    control = TrainingControl()
    control.watch(show, share=0.1)
    fit(scene, seconds=60, control=control)

Nothing here changes what is learned: watchers are called between two steps, outside the training clock.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crowdnerf_lab.fields.storage import Field

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitRecord:
    """One line of a training curve: seconds of training alone, loss since the last line, PSNR (dB) on held-out views
    or None."""

    step: int
    seconds: float
    loss: float
    held_out_psnr: float | None


@dataclass(frozen=True)
class TrainingReport:
    """What was measured when a line of the training curve was written.

    psnr_of_view: dB on a few pixels of each held-out view, by its row in the scene; empty without held-out views.
    """

    record: FitRecord
    psnr_of_view: Mapping[int, float]

    @property
    def worst_view(self) -> int | None:
        """Row of the held-out view with the lowest PSNR."""
        return min(self.psnr_of_view, key=self.psnr_of_view.__getitem__, default=None)


@dataclass(frozen=True)
class TrainingMoment:
    """Where a fit stands between two steps.

    step: steps done. seconds: of training. used: fraction of the budget. loss: of the last step. rays: drawn in all; a
    rate is the difference of two moments over that of their seconds. model: the field itself, which the next step
    changes: render it before returning, in the thread that trains, or keep a `snapshot`. report: None but for a few
    moments; a fit that was stopped tells its last step again, with one.
    """

    step: int
    seconds: float
    used: float
    loss: float
    rays: int
    model: Field
    report: TrainingReport | None = None

    def snapshot(self) -> Field:
        """A copy of the field that training leaves alone: it may be kept, and rendered in any thread."""
        return copy.deepcopy(self.model)


Watcher = Callable[[TrainingMoment], object]


class TrainingControl:
    """Stops one fit(), and tells its watchers of every step. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._watchers: tuple[_Watching, ...] = ()
        self._changing = threading.Lock()

    def stop(self) -> None:
        """Ask the fit to end after the step it is at, as Ctrl-C does: what it reached is returned and saved."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def watch(self, watcher: Watcher, *, share: float | None = None) -> None:
        """Call `watcher` with the moment after every step, in the thread that trains.

        share: call it only as long as all its calls together, with another one that takes as long as the last, take at
        most this fraction of the training time since it watches; the first call is free. With 0.1 training is slower
        by a tenth at most. A watcher that raises an exception is not called again; training goes on.
        """
        if share is not None and not share > 0:
            raise ValueError(f"share is a fraction of the training time and must be above 0, got {share}")
        with self._changing:
            self._watchers = (*self._watchers, _Watching(watcher, share))

    def unwatch(self, watcher: Watcher) -> None:
        """Do not call it any more; nothing happens if it does not watch."""
        with self._changing:
            self._watchers = tuple(watching for watching in self._watchers if watching.watcher != watcher)

    def tell(self, moment: TrainingMoment) -> None:
        """Tell the watchers of a moment; for the loop that trains."""
        for watching in self._watchers:
            try:
                watching.tell(moment)
            except Exception:
                log.exception("%r failed while it watched a training; it is not called again", watching.watcher)
                self.unwatch(watching.watcher)


class _Watching:
    """A watcher, and what it has cost."""

    def __init__(self, watcher: Watcher, share: float | None) -> None:
        self.watcher, self.share = watcher, share
        self.spent = self.last = 0.0
        """Seconds of all its calls, and of the last one."""
        self.since: float | None = None
        """Training clock at its first moment."""

    def tell(self, moment: TrainingMoment) -> None:
        if self.since is None:
            self.since = moment.seconds
        if self.share is not None and self.spent + self.last > self.share * (moment.seconds - self.since):
            return
        started = time.perf_counter()
        self.watcher(moment)
        self.last = time.perf_counter() - started
        self.spent += self.last
