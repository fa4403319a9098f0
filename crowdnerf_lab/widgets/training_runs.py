"""Trainings of one scene in a thread of their own, which can be stopped, resumed and branched. No screen is needed.

One run trains at a time. Each has a checkpoint, written when it stops: resuming goes on from it with the same bits, and
a branch goes on from it with another seed, other settings or another budget.
"""

import atexit
import logging
import math
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crowdnerf_lab.fit_settings import FitSettings, Quality, settings_for
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, fit, training_pixels
from crowdnerf_lab.training_control import TrainingControl, TrainingMoment, Watcher
from crowdnerf_lab.training_state import Budget

log = logging.getLogger(__name__)

JOINED_FOR = 0.5
"""Seconds; a thread that is waited for without an end would hear no Ctrl-C on some systems."""
Status = Literal["waiting", "training", "stopped", "done", "failed"]
POINTS = 100
"""Of a curve over a whole budget, at least."""
LIVE_EVERY = 2.0
"""Seconds of training after which there is a new point in any case."""
SAVED_EVERY = 30.0
"""Seconds between checkpoints in a folder that outlives the process."""


@dataclass(frozen=True)
class CurvePoint:
    """A point of the curves.

    loss, rays_per_second: mean since the point before (NaN where not known). held_out_psnr: dB, where it was measured.
    """

    step: int
    seconds: float
    loss: float
    rays_per_second: float
    held_out_psnr: float | None


@dataclass
class TrainingRun:
    """One training, and what is known of it so far.

    parent: the run it branched from. used: fraction of the budget. worst_view: row of the held-out view with the lowest
    PSNR, and psnr_of_view: that of each, dB. result: once it has ended; error: why it failed.
    """

    name: str
    parent: str | None
    seed: int
    settings: FitSettings
    budget: Budget
    checkpoint: Path
    status: Status = "waiting"
    used: float = 0.0
    points: list[CurvePoint] = field(default_factory=list)
    worst_view: int | None = None
    psnr_of_view: dict[int, float] = field(default_factory=dict)
    result: Fit | None = None
    error: str = ""

    @property
    def latest_psnr(self) -> float | None:
        """dB on the held-out views, when it was last measured."""
        return next((point.held_out_psnr for point in reversed(self.points) if point.held_out_psnr is not None), None)

    def in_words(self) -> str:
        """One line: what it is at, how far it is, how well and how fast."""
        words = [f"{self.name}: {self.status}"]
        if self.error:
            words.append(self.error)
        if self.points:
            last = self.points[-1]
            whole = f"{self.budget.steps} steps" if self.budget.steps is not None else f"{self.budget.seconds:g} s"
            words.append(f"{self.used:.0%} of {whole}, step {last.step}, {last.seconds:.1f} s, loss {last.loss:.4f}")
            if not math.isnan(last.rays_per_second):
                words.append(f"{last.rays_per_second / 1e3:.0f} k rays/s")
        if self.latest_psnr is not None:
            words.append(f"held-out {self.latest_psnr:.1f} dB")
        return ", ".join(words)


class TrainingRuns:
    """The trainings of one scene, in the order in which they began. Every method may be called from any thread."""

    def __init__(
        self,
        scene: PosedScene,
        *,
        seconds: float | None = None,
        steps: int | None = None,
        quality: Quality = "fast",
        seed: int = 0,
        settings: FitSettings | None = None,
        folder: Path | None = None,
        threads: int | None = None,
    ) -> None:
        """The arguments are those of `fit`. folder: where checkpoints are kept; one that vanishes, if None."""
        if (seconds is None) == (steps is None):
            raise ValueError("give either seconds or steps")
        self.scene, self.threads = scene, threads
        self.folder = Path(tempfile.mkdtemp() if folder is None else folder)
        self._saved_every = SAVED_EVERY
        if folder is None:
            self._saved_every = math.inf
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        settings = settings or settings_for(quality, seconds=seconds, pixels=training_pixels(scene))
        self.runs: list[TrainingRun] = [self._run("trunk", None, seed, settings, Budget(seconds, steps))]
        self._thread: threading.Thread | None = None
        self._current = self.runs[0]
        self._control = TrainingControl()
        self._watchers: list[tuple[Watcher, float | None]] = []
        self._listeners: list[Callable[[TrainingRun], object]] = []
        self._changing = threading.RLock()

    @property
    def current(self) -> TrainingRun:
        """The run that trains, or did so last."""
        return self._current

    @property
    def busy(self) -> bool:
        """Whether something trains or waits to."""
        return self._thread is not None and self._thread.is_alive()

    def named(self, name: str | None) -> TrainingRun:
        """The run of a name; the current one for None. Raises ValueError when there is none."""
        if name is None:
            return self.current
        for run in self.runs:
            if run.name == name:
                return run
        raise ValueError(f"there is no run {name!r}; there are {', '.join(run.name for run in self.runs)}")

    def listen(self, listener: Callable[[TrainingRun], object]) -> None:
        """Call `listener` whenever a run has a new point or another status, in the thread where that happens."""
        self._listeners.append(listener)

    def watch(self, watcher: Watcher, *, share: float | None = None) -> None:
        """Watch this training and all that follow, see TrainingControl.watch."""
        with self._changing:
            self._watchers.append((watcher, share))
            self._control.watch(watcher, share=share)

    def start(self) -> None:
        """Begin with the first run."""
        self._launch(self.runs[0], branch_from=None)

    @property
    def stopping(self) -> bool:
        """Whether what trains was asked to stop."""
        return self._control.stopping

    def stop(self) -> None:
        """End what trains after its current step; it can be resumed."""
        self._control.stop()

    def resume(self, name: str | None = None, *, seconds: float | None = None, steps: int | None = None) -> TrainingRun:
        """Go on with a run where it stopped, up to its budget, or to another one. What else trains is stopped.

        Raises ValueError when the budget is used up already.
        """
        with self._changing:
            run = self.named(name)
            if run is self.current and self.busy and not self._control.stopping:
                raise ValueError(f"{run.name} is training already")
            run.budget = self._enough(run, _budget_of(run, seconds=seconds, steps=steps))
            self._launch(run, branch_from=None)
        return run

    def branch(
        self,
        name: str | None = None,
        *,
        seed: int | None = None,
        settings: FitSettings | None = None,
        seconds: float | None = None,
        steps: int | None = None,
    ) -> TrainingRun:
        """Go on from where a run is with another seed, other settings or another budget; the run itself stays there.

        settings: of the same field, in kind and size. What trains is stopped. Raises ValueError when the budget is used
        up already: give more.
        """
        with self._changing:
            trunk = self.named(name)
            budget = self._enough(trunk, _budget_of(trunk, seconds=seconds, steps=steps))
            seed = trunk.seed if seed is None else seed
            run = self._run(f"branch {len(self.runs)}", trunk, seed, settings or trunk.settings, budget)
            self.runs.append(run)
            self._launch(run, branch_from=trunk)
        return run

    def wait(self, seconds: float | None = None) -> TrainingRun:
        """Wait until nothing trains any more, `seconds` at most; returns the current run. Ctrl-C stops the training."""
        end = math.inf if seconds is None else time.monotonic() + seconds
        while self._thread is not None and self.busy and (left := end - time.monotonic()) > 0:
            try:
                self._thread.join(min(left, JOINED_FOR))
            except KeyboardInterrupt:
                self.stop()
        return self.current

    def close(self) -> None:
        """Stop, and wait for the end."""
        self.stop()
        self.wait(10)

    def _run(
        self, name: str, parent: TrainingRun | None, seed: int, settings: FitSettings, budget: Budget
    ) -> TrainingRun:
        file = self.folder / f"{name.replace(' ', '_')}.safetensors"
        return TrainingRun(name, parent and parent.name, seed, settings, budget, file)

    def _enough(self, run: TrainingRun, budget: Budget) -> Budget:
        last = run.points[-1] if run.points else None
        if last is not None and budget.used(last.step, last.seconds) >= 1:
            raise ValueError(
                f"{run.name} has used its budget ({last.step} steps, {last.seconds:.1f} s of training); "
                "give more seconds or steps"
            )
        return budget

    def _launch(self, run: TrainingRun, *, branch_from: TrainingRun | None) -> None:
        with self._changing:
            self.stop()
            control, before = TrainingControl(), self._thread
            control.watch(_Curve(run, self._changed).add)
            for watcher, share in self._watchers:
                control.watch(watcher, share=share)
            run.status, run.error = "waiting", ""
            self._control, self._current = control, run
            self._thread = threading.Thread(
                target=self._train, args=(run, branch_from, before, control), name=f"training {run.name}", daemon=True
            )
            atexit.register(self.close)
            self._thread.start()

    def _train(
        self,
        run: TrainingRun,
        branch_from: TrainingRun | None,
        before: threading.Thread | None,
        control: TrainingControl,
    ) -> None:
        if before is not None:
            before.join()
        if branch_from is not None:
            run.points = branch_from.points[-1:]
        run.status = "training"
        self._changed(run)
        try:
            run.result = fit(
                self.scene,
                seconds=run.budget.seconds,
                steps=run.budget.steps,
                seed=run.seed,
                settings=run.settings,
                threads=self.threads,
                checkpoint=run.checkpoint,
                checkpoint_every=self._saved_every,
                branch_from=branch_from and branch_from.checkpoint,
                control=control,
                progress=False,
            )
            self._take_in(run, run.result)
        except Exception as error:
            log.exception("%s failed", run.name)
            run.status, run.error = "failed", str(error)
        self._changed(run)
        if self._control is control:
            atexit.unregister(self.close)

    def _take_in(self, run: TrainingRun, result: Fit) -> None:
        last = result.history[-1]
        run.used = run.budget.used(last.step, last.seconds)
        run.status = "done" if run.used >= 1 else "stopped"
        # A checkpoint of before that had nothing left to train.
        run.points = run.points or [
            CurvePoint(record.step, record.seconds, record.loss, math.nan, record.held_out_psnr)
            for record in result.history
        ]

    def _changed(self, run: TrainingRun) -> None:
        for listener in self._listeners:
            listener(run)


def _budget_of(run: TrainingRun, *, seconds: float | None, steps: int | None) -> Budget:
    """The budget that is asked for, or else the run's."""
    if seconds is not None and steps is not None:
        raise ValueError("give either seconds or steps")
    return run.budget if seconds is None and steps is None else Budget(seconds, steps)


class _Curve:
    """Makes points of a run's curve from the moments of its training."""

    def __init__(self, run: TrainingRun, changed: Callable[[TrainingRun], object]) -> None:
        self.run, self.changed = run, changed
        self.losses: list[float] = []
        self.since: TrainingMoment | None = None

    def add(self, moment: TrainingMoment) -> None:
        """Take a moment in; a few of them make a point."""
        self.losses.append(moment.loss)
        since = self.since or moment
        if self.since is None:
            self.since = moment
        self.run.used = moment.used
        elapsed = moment.seconds - since.seconds
        due = elapsed >= LIVE_EVERY or math.floor(POINTS * moment.used) > math.floor(POINTS * since.used)
        if moment.report is None and not due:
            return
        rate = (moment.rays - since.rays) / elapsed if elapsed > 0 else math.nan
        if not due and self.run.points:  # a few steps only, between a point and a report
            rate = self.run.points[-1].rays_per_second
        self.run.points.append(
            CurvePoint(
                step=moment.step,
                seconds=moment.seconds,
                loss=sum(self.losses) / len(self.losses),
                rays_per_second=rate,
                held_out_psnr=moment.report and moment.report.record.held_out_psnr,
            )
        )
        if moment.report is not None:
            self.run.worst_view = moment.report.worst_view
            self.run.psnr_of_view = dict(moment.report.psnr_of_view)
        self.since, self.losses = moment, []
        self.changed(self.run)
