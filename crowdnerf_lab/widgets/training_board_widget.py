"""The training board: a fit while it runs, with its curves, a preview, the worst held-out view, and buttons.

Without ipywidgets and anywidget the same board shows itself as text.
"""

from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go

from crowdnerf_lab.fit_settings import FitSettings, Quality
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit
from crowdnerf_lab.training_control import TrainingMoment, Watcher
from crowdnerf_lab.widgets.training_figure import blank_pictures, compared_view, shown_view, training_figure
from crowdnerf_lab.widgets.training_runs import TrainingRun, TrainingRuns

RENDER_SHARE = 0.08
"""Of the training time that pictures may take: with all else below a tenth."""


def training_board(
    scene: PosedScene,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    quality: Quality = "fast",
    seed: int = 0,
    settings: FitSettings | None = None,
    view: int | None = None,
    folder: Path | None = None,
    threads: int | None = None,
) -> "TrainingBoard":
    """Begin to train, and show how it goes; the cell is free again at once.

    view: row of the scene whose camera the preview looks through, the first held-out one unless said. folder: where
    checkpoints are kept, to be found again by a later board with the same arguments; else they vanish with the board.
    The rest as in `fit`, whose bits it gives.

        board = cn.widgets.training_board(scene, seconds=60)      # a cell: the live board
        board.wait()                                              # the next: until it ends, or is stopped
        board.still()                                             # a figure that stays
    """
    rows = [*scene.held_out.tolist(), *scene.train.tolist()]
    view = rows[0] if view is None else view
    if not 0 <= view < len(scene):
        raise ValueError(f"view {view} is no row of scene '{scene.name}', which has {len(scene)} photos")
    runs = TrainingRuns(
        scene,
        seconds=seconds,
        steps=steps,
        quality=quality,
        seed=seed,
        settings=settings,
        folder=folder,
        threads=threads,
    )
    board = TrainingBoard(runs, view=view)
    runs.start()
    return board


class TrainingBoard:
    """Trainings of one scene and how they go. Shows itself in Jupyter: live with widgets, else as text."""

    def __init__(self, runs: TrainingRuns, *, view: int) -> None:
        self.runs = runs
        self.view = view
        """Row of the scene whose camera the preview looks through; may be changed while it trains."""
        self.pictures, self.notes = blank_pictures(runs.scene, view)
        self._live = None
        self._worst: int | None = None
        runs.watch(self._render, share=RENDER_SHARE)
        runs.watch(self._notice)

    def stop(self) -> None:
        """End the training after its current step."""
        self.runs.stop()

    def resume(self, name: str | None = None, *, seconds: float | None = None, steps: int | None = None) -> TrainingRun:
        """See TrainingRuns.resume."""
        return self.runs.resume(name, seconds=seconds, steps=steps)

    def branch(
        self,
        name: str | None = None,
        *,
        seed: int | None = None,
        settings: FitSettings | None = None,
        seconds: float | None = None,
        steps: int | None = None,
    ) -> TrainingRun:
        """See TrainingRuns.branch."""
        return self.runs.branch(name, seed=seed, settings=settings, seconds=seconds, steps=steps)

    def watch(self, watcher: Watcher, *, share: float | None = None) -> None:
        """Watch what trains, as an explorer does; see TrainingControl.watch."""
        self.runs.watch(watcher, share=share)

    def wait(self, seconds: float | None = None) -> Fit | None:
        """Wait until nothing trains any more, `seconds` at most; returns what the current run has come to, None if
        nothing yet. Interrupting the kernel stops the training."""
        return self.runs.wait(seconds).result

    def still(self) -> go.Figure:
        """The curves of all runs so far, the preview and the worst held-out view, as a figure that stays."""
        return training_figure(self.runs.runs, self.pictures, self.notes)

    def __repr__(self) -> str:
        return "\n".join(run.in_words() for run in self.runs.runs)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if find_spec("ipywidgets") is None or find_spec("anywidget") is None:
            text = display({"text/plain": repr(self)}, raw=True, display_id=True)
            self.runs.listen(lambda run: text and text.update({"text/plain": repr(self)}, raw=True))
            return
        from crowdnerf_lab.widgets.training_board_view import TrainingBoardView

        if self._live is None:
            self._live = TrainingBoardView(self)
        display(self._live)

    def _notice(self, moment: TrainingMoment) -> None:
        """Which view is the worst now; when training ends, every picture as it is then."""
        if moment.report is None:
            return
        self._worst = moment.report.worst_view
        if moment.used >= 1 or self.runs.stopping:
            self._preview(moment)
            self._compare(moment)

    def _render(self, moment: TrainingMoment) -> None:
        """One picture: the worst view if it is another or has been measured again, else the preview."""
        if self._worst is None:
            self._preview(moment)
        else:
            self._compare(moment)

    def _preview(self, moment: TrainingMoment) -> None:
        shown = shown_view(moment.model, self.runs.scene, self.view)
        name = self.runs.scene.image_names[self.view].rpartition("/")[2]
        self._show({"preview": shown}, {"preview": f"step {moment.step}, {name}"})

    def _compare(self, moment: TrainingMoment) -> None:
        if self._worst is not None:
            self._show(*compared_view(moment.model, self.runs.scene, self._worst))
            self._worst = None

    def _show(self, pictures: dict, notes: dict) -> None:
        self.pictures, self.notes = self.pictures | pictures, self.notes | notes
        if self._live is not None:
            self._live.show_pictures(self.pictures, self.notes)
