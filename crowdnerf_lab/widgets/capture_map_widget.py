"""The capture map: where the photos of an event were taken and what came of them; a UE's photos on a click."""

import html
import io
import math
from collections.abc import Sequence
from typing import Any

import anywidget  # noqa: F401  what FigureWidget needs: missing here, it is missing with the remedy
import plotly.graph_objects as go
from ipywidgets import HTML, Button, Checkbox, Dropdown, FloatRangeSlider, HBox, Layout, VBox
from ipywidgets import Image as Picture
from PIL import Image

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.coverage import Coverage
from crowdnerf_lab.captures.poses.report import CalibrationReport
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.figures.style import KEPT, WIDTH
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.widgets.capture_figure import (
    MOST_STILL_THUMBNAILS,
    MOST_THUMBNAILS,
    background_traces,
    chosen_trace,
    map_layout,
    photo_traces,
    thumbnail,
    thumbnail_trace,
    usual_frustum,
)
from crowdnerf_lab.widgets.placed_photos import PlacedPhoto, placed_photos

PICTURE = 220
"""Pixels of the longer side of a UE's photo beside the map."""
MOST_PICTURES = 24
"""Photos of one UE that are shown; a UE with clips may have hundreds."""
NOBODY = "no UE"


def capture_map(
    captures: CaptureSet,
    *,
    scene: PosedScene | None = None,
    screening: ScreeningReport | None = None,
    calibration: CalibrationReport | None = None,
    covered: Coverage | None = None,
    frustum_m: float | None = None,
) -> "CaptureMap":
    """Where every photo was taken: frusta with the photos in them, and a UE's photos when it is clicked or chosen.

    scene, calibration: as `calibrate` gave them: calibrated poses against GPS, and the sparse points. screening: as
    `screen` gave it, of these captures: rejected photos with their reasons. covered: as `coverage` gave it: where
    matter is that no photo shows. Photos without a calibrated pose stand where their phone says. frustum_m: depth of
    the frusta, metres; by default a twentieth of the crowd's extent. Photos taken at different times get a slider.
    """
    photos = placed_photos(captures, scene=scene, screening=screening, calibration=calibration)
    if not photos:
        raise ValueError(f"'{captures.name}' has no photos to put on a map; select frames of its clips first")
    if all(photo.position is None for photo in photos):
        raise ValueError(f"no photo of '{captures.name}' has a place; calibrate it (poses='colmap') and give the scene")
    return CaptureMap(photos, background_traces(calibration, covered), frustum_m or usual_frustum(photos))


class CaptureMap(VBox):
    """The map, a field to choose a UE by keyboard, and the chosen one's photos beside it.

    photos: all of the event. chosen: the UE whose photos are shown, or None.
    """

    def __init__(self, photos: Sequence[PlacedPhoto], background: Sequence[go.Scatter3d], frustum_m: float) -> None:
        self.photos = tuple(photos)
        self.chosen: str | None = None
        self._frustum_m = frustum_m
        self._background = list(background)
        self._findings = sorted({photo.finding for photo in photos}, key=lambda finding: (finding != KEPT, finding))
        # Any: plotly's traces have their attributes at run time only.
        self.figure: Any = go.FigureWidget(self._traces(self.photos), map_layout(width=640, height=560))
        self._listen_to_clicks()
        ues = list(dict.fromkeys(photo.ue for photo in photos))
        self.ue = Dropdown(options=[NOBODY, *ues], description="UE", layout=Layout(width="14em"))
        self.ue.observe(lambda _: self.choose(None if self.ue.value == NOBODY else self.ue.value), names="value")
        self.next = Button(description="Next UE", tooltip="Show the next UE's photos", layout=Layout(width="7em"))
        self.next.on_click(lambda _: self._choose_next())
        self.shows_photos = Checkbox(value=True, description="photos in their frusta", indent=False)
        self.shows_photos.observe(lambda _: self._show_thumbnails(), names="value")
        self.time = self._slider()
        self.words = HTML(_told(self.photos))
        self.beside = VBox(layout=Layout(width="260px", max_height="560px", overflow="auto"))
        controls = [self.ue, self.next, self.shows_photos, *([self.time] if self.time else [])]
        super().__init__(
            [
                HBox(controls, layout=Layout(flex_flow="row wrap", align_items="center")),
                self.words,
                HBox([self.figure, self.beside], layout=Layout(flex_flow="row wrap")),
            ]
        )

    def choose(self, ue: str | None) -> None:
        """Show a UE's photos, with what was found of each; None: no UE's."""
        if ue is not None and all(photo.ue != ue for photo in self.photos):
            raise ValueError(f"there is no UE {ue!r} on this map; there are {', '.join(self.ue.options[1:])}")
        if ue == self.chosen:
            return
        self.chosen = ue
        self.ue.value = NOBODY if ue is None else ue
        own = [photo for photo in self.photos if photo.ue == ue]
        shown = [part for photo in own[:MOST_PICTURES] for part in _beside(photo)]
        heading = [] if ue is None else [HTML(f"<b>{html.escape(ue)}</b>, {len(own)} photos")]
        self.beside.children = (*heading, *shown)
        self.figure.data[-1].update(self._chosen(self._shown()).to_plotly_json())

    def _choose_next(self) -> None:
        """What the keyboard has in place of the list: JupyterLab keeps the arrow keys in lists for itself."""
        options = self.ue.options
        self.ue.value = options[(options.index(self.ue.value) + 1) % len(options)]

    def still(self) -> go.Figure:
        """The map as it is now, as a figure that stays; with photos in fewer of the frusta."""
        traces = self._traces(self._shown(), thumbnails=MOST_STILL_THUMBNAILS)
        return go.Figure(traces, map_layout(width=WIDTH, height=560))

    def __repr__(self) -> str:
        """What is left of the widget where there is no kernel: on GitHub, and after papermill."""
        return _counted(self._shown())

    def _traces(self, shown: Sequence[PlacedPhoto], *, thumbnails: int = MOST_THUMBNAILS) -> list[Any]:
        """Of these photos; their number and order are always the same."""
        depth = self._frustum_m
        return [
            *self._background,
            *photo_traces(shown, self._findings, frustum_m=depth),
            thumbnail_trace(shown, frustum_m=depth, most=thumbnails),
            self._chosen(shown),
        ]

    def _chosen(self, shown: Sequence[PlacedPhoto]) -> go.Scatter3d:
        own = [photo for photo in shown if photo.ue == self.chosen]
        return chosen_trace(own, frustum_m=self._frustum_m)

    def _shown(self) -> list[PlacedPhoto]:
        """The photos of the time that the slider leaves."""
        if self.time is None:
            return list(self.photos)
        low, high = self.time.value
        slack = 1e-6 * (1 + abs(high))
        return [photo for photo in self.photos if low - slack <= photo.time_s <= high + slack]

    def _redraw(self) -> None:
        shown = self._shown()
        first = len(self._background)
        with self.figure.batch_update():
            for drawn, fresh in zip(self.figure.data[first:], self._traces(shown)[first:], strict=True):
                drawn.update(fresh.to_plotly_json())
        self._show_thumbnails()
        self.words.value = _told(shown)

    def _show_thumbnails(self) -> None:
        self.figure.data[-2].visible = self.shows_photos.value

    def _listen_to_clicks(self) -> None:
        for trace in self.figure.data:
            if trace.type == "scatter3d" and trace.customdata is not None:
                trace.on_click(self._clicked)

    def _clicked(self, trace: Any, points: Any, _state: object) -> None:
        for index in points.point_inds[:1]:
            self.choose(str(trace.customdata[index]))

    def _slider(self) -> FloatRangeSlider | None:
        """None when all photos are of one moment."""
        times = [photo.time_s for photo in self.photos]
        if max(times) - min(times) < 1e-3:
            return None
        slider = FloatRangeSlider(
            value=(min(times), max(times)),
            min=min(times),
            max=max(times),
            step=(max(times) - min(times)) / 100,
            description="seconds",
            readout_format=".1f",
            continuous_update=False,
            layout=Layout(width="26em"),
        )
        slider.observe(lambda _: self._redraw(), names="value")
        return slider


def _told(photos: Sequence[PlacedPhoto]) -> str:
    """The line above the map, which is also read aloud when it changes."""
    return f'<span role="status">{_counted(photos)}</span>'


def _counted(photos: Sequence[PlacedPhoto]) -> str:
    """One line: how many photos, what was found, and how far GPS is from the calibrated places."""
    found = [photo.finding for photo in photos]
    counts = ", ".join(f"{found.count(each)} {each}" for each in dict.fromkeys(sorted(found, key=lambda f: f != KEPT)))
    errors = sorted(photo.gps_error_m for photo in photos if not math.isnan(photo.gps_error_m))
    gps = f"; phones say they were {errors[len(errors) // 2]:.1f} m away (median)" if errors else ""
    unplaced = sum(photo.position is None for photo in photos)
    lost = f"; {unplaced} have no place" if unplaced else ""
    ues = len({photo.ue for photo in photos})
    return f"{ues} {'UE' if ues == 1 else 'UEs'}, {len(photos)} photos: {counts}{lost}{gps}"


def _beside(photo: PlacedPhoto) -> list[Picture | HTML]:
    """A photo and its words."""
    pixels = thumbnail(photo, PICTURE)
    words = [HTML(f'<div style="line-height: 1.3; max-width: 230px">{photo.in_words()}</div>')]
    if pixels is None:
        return [*words]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=85)
    height, width = pixels.shape[:2]
    return [Picture(value=buffer.getvalue(), format="jpeg", width=width, height=height), *words]
