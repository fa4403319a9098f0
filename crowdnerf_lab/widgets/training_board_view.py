"""The training board in JupyterLab: a live figure under native buttons and fields, which the keyboard reaches."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from ipywidgets import HTML, BoundedFloatText, Button, Dropdown, HBox, IntText, Layout, ToggleButtons, VBox

from crowdnerf_lab.widgets.training_figure import (
    CURVES,
    PICTURES,
    Pixels,
    columns_of_curve,
    curve_traces,
    encoded,
    training_figure,
)
from crowdnerf_lab.widgets.training_runs import TrainingRun

if TYPE_CHECKING:
    from crowdnerf_lab.widgets.training_board_widget import TrainingBoard

NARROW = {"description_width": "auto"}


class TrainingBoardView(VBox):
    """Buttons, fields, a line of words and the figure. board: whose trainings they steer and show."""

    def __init__(self, board: "TrainingBoard") -> None:
        self.board, self.runs = board, board.runs
        first = self.runs.runs[0]
        whole = first.budget.seconds if first.budget.steps is None else first.budget.steps
        unit = "seconds" if first.budget.steps is None else "steps"
        self.stop = self._button("Stop", "End after the current step; what was reached is kept", self._stop)
        self.resume = self._button("Resume", "Go on where the chosen run stopped", self._resume)
        self.branch = self._button("Branch", "Go on from the chosen run with this seed and step size", self._branch)
        self.run = ToggleButtons(options=[first.name], description="of run", style={**NARROW, "button_width": "auto"})
        self.budget = BoundedFloatText(
            whole, min=0, max=1e9, description=f"up to, {unit}", style=NARROW, layout=Layout(width="13em")
        )
        self.seed = IntText(first.seed, description="seed", style=NARROW, layout=Layout(width="8em"))
        self.rate = BoundedFloatText(
            1.0, min=0.01, max=100, step=0.1, description="step size ×", style=NARROW, layout=Layout(width="11em")
        )
        self.preview = Dropdown(
            options=_views_of(board), value=board.view, description="preview", style=NARROW, layout=Layout(width="16em")
        )
        self.next = self._button("Next view", "Look through the next view's camera", self._look_next)
        self.next.layout.width = "7em"
        self.words = HTML(layout=Layout(min_height="1.6em"))
        # Any: plotly's traces have their attributes at run time only.
        self.figure: Any = go.FigureWidget(training_figure(self.runs.runs, board.pictures, board.notes))
        self._drawn = [first.name]
        self.preview.observe(self._look_through, names="value")
        self.run.observe(self._choose, names="value")
        steering = HBox(
            [self.stop, self.resume, self.branch, self.run, self.budget, self.seed, self.rate],
            layout=Layout(flex_flow="row wrap", align_items="center"),
        )
        super().__init__([steering, HBox([self.preview, self.next]), self.words, self.figure])
        self.runs.listen(self.show_run)
        self.show_run(self.runs.current)

    def __repr__(self) -> str:
        """What is left of the widget where there is no kernel: on GitHub, and after papermill."""
        return repr(self.board)

    def show_run(self, run: TrainingRun) -> None:
        """Bring curves, words and buttons up to date with a run."""
        with self.figure.batch_update():
            if run.name not in self._drawn:
                self._add(run)
            first = len(PICTURES) + len(CURVES) * self._drawn.index(run.name)
            for trace, curve in zip(self.figure.data[first:], CURVES, strict=False):
                trace.update(columns_of_curve(run, curve))
        self._say(run.in_words(), bad=run.status == "failed")
        training = self.runs.current.status in ("waiting", "training")
        self.stop.disabled = not training
        self.resume.disabled = training and self.run.value == self.runs.current.name

    def show_pictures(self, pictures: Mapping[str, Pixels], notes: Mapping[str, str]) -> None:
        """Put these pictures, by PICTURES, and the words above them in place of the ones before."""
        with self.figure.batch_update():
            for trace, name in zip(self.figure.data, PICTURES, strict=False):
                source = encoded(pictures[name])
                if trace.source != source:
                    trace.source = source
            titles = self.figure.layout.annotations[len(CURVES) :]
            for title, name in zip(titles, PICTURES, strict=True):
                title.text = notes[name]

    def _add(self, run: TrainingRun) -> None:
        number = len(self._drawn)
        self.figure.add_traces(curve_traces(run, number), rows=[1] * len(CURVES), cols=[1, 5, 9])
        self.figure.layout.showlegend = True
        self._drawn.append(run.name)
        self.run.options = self._drawn
        self.run.value = run.name

    def _button(self, name: str, tooltip: str, act: Callable[[], object]) -> Button:
        button = Button(description=name, tooltip=tooltip, layout=Layout(width="6em"))
        button.on_click(lambda _: self._told(act))
        return button

    def _told(self, act: Callable[[], object]) -> None:
        """Do it; what cannot be done is said."""
        try:
            act()
        except ValueError as error:
            self._say(str(error), bad=True)

    def _stop(self) -> None:
        self.stop.disabled = True
        self.board.stop()

    def _resume(self) -> None:
        self.board.resume(self.run.value, **self._budget())

    def _branch(self) -> None:
        trunk = self.runs.named(self.run.value)
        settings = replace(trunk.settings, rate=trunk.settings.rate * self.rate.value)
        self.board.branch(trunk.name, seed=self.seed.value, settings=settings, **self._budget())

    def _budget(self) -> dict[str, Any]:
        by_time = self.runs.runs[0].budget.steps is None
        return {"seconds": self.budget.value} if by_time else {"steps": round(self.budget.value)}

    def _choose(self, _: object) -> None:
        self.show_run(self.runs.named(self.run.value))

    def _look_next(self) -> None:
        """What the keyboard has in place of the list: JupyterLab keeps the arrow keys in lists for itself."""
        rows = [row for _, row in self.preview.options]
        self.preview.value = rows[(rows.index(self.preview.value) + 1) % len(rows)]

    def _look_through(self, _: object) -> None:
        self.board.view = self.preview.value or 0

    def _say(self, words: str, *, bad: bool = False) -> None:
        colour = "var(--jp-error-color1, #a4262c)" if bad else "inherit"
        self.words.value = f'<span role="status" style="color: {colour}">{_escaped(words)}</span>'


def _views_of(board: "TrainingBoard") -> list[tuple[str, int]]:
    """Held-out views by name, then the training photos."""
    scene = board.runs.scene
    rows = [*scene.held_out.tolist(), *scene.train.tolist()]
    return [(scene.image_names[row].rpartition("/")[2], row) for row in dict.fromkeys([board.view, *rows])]


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")
