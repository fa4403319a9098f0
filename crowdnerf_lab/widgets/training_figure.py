"""The figure of a training: its curves above, a preview and the worst held-out view below."""

import base64
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from crowdnerf_lab.fields.storage import Field
from crowdnerf_lab.figures.pictures import ERRORS_AT_FULL, false_colour
from crowdnerf_lab.figures.style import QUALITATIVE, TEMPLATE, WIDTH, round_numbers
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene, area_resized
from crowdnerf_lab.widgets.training_runs import TrainingRun

CURVES = {"loss": "loss", "held_out_psnr": "held-out PSNR, dB", "rays_per_second": "thousand rays/s"}
"""Panels of the upper row."""
PICTURES = ("preview", "worst", "truth", "error")
"""Panels of the lower row."""
SIDE = 160
"""Pixels of the longer side of a picture."""
Pixels = UInt8[np.ndarray, "h w 3"]


def training_figure(runs: Sequence[TrainingRun], pictures: Mapping[str, Pixels], notes: Mapping[str, str]) -> go.Figure:
    """Loss, held-out PSNR and rays/s over seconds of training, a line a run; below them the pictures, by PICTURES.

    notes: the words above each picture.
    """
    figure = make_subplots(
        rows=2,
        cols=12,
        specs=[
            [{"colspan": 4}, None, None, None] * 3,
            [{"colspan": 3}, None, None] * 4,
        ],
        row_heights=[0.56, 0.44],
        vertical_spacing=0.2,
        horizontal_spacing=0.03,
        subplot_titles=[*CURVES.values(), *(notes[name] for name in PICTURES)],
    )
    for place, name in enumerate(PICTURES):
        trace = go.Image(source=encoded(pictures[name]), name=name, hoverinfo="skip")
        figure.add_trace(trace, row=2, col=1 + 3 * place)
        figure.update_xaxes(visible=False, fixedrange=True, row=2, col=1 + 3 * place)
        figure.update_yaxes(visible=False, fixedrange=True, row=2, col=1 + 3 * place)
    for number, run in enumerate(runs):
        for trace, column in zip(curve_traces(run, number), (1, 5, 9), strict=True):
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(
        title={"text": "seconds of training", "font": {"size": 12}, "standoff": 2}, rangemode="tozero", row=1
    )
    losses = [point.loss for run in runs for point in run.points]
    figure.update_yaxes(type="log", tickvals=round_numbers(losses), row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=9)
    figure.update_annotations(font={"size": 13})
    figure.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=480,
        margin={"l": 50, "r": 10, "t": 56, "b": 10},
        legend={"orientation": "h", "x": 0, "y": 1.09, "yanchor": "bottom"},
        showlegend=len(runs) > 1,
    )
    return figure


def curve_traces(run: TrainingRun, number: int) -> list[go.Scatter]:
    """A run's lines, one for each of CURVES; number: of the run, which gives its colour."""
    colour = QUALITATIVE[number % len(QUALITATIVE)]
    return [
        go.Scatter(
            **columns_of_curve(run, curve),
            mode="lines+markers" if curve == "held_out_psnr" else "lines",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            name=run.name,
            legendgroup=run.name,
            showlegend=curve == "loss",
            hovertemplate="%{x:.1f} s: %{y:.4g}<extra>" + run.name + "</extra>",
        )
        for curve in CURVES
    ]


def columns_of_curve(run: TrainingRun, curve: str) -> dict[str, list[float]]:
    """x and y of one of CURVES."""
    scale = 1e-3 if curve == "rays_per_second" else 1.0
    values = [(point.seconds, getattr(point, curve)) for point in run.points]
    known = [(seconds, scale * value) for seconds, value in values if value is not None and not math.isnan(value)]
    return {"x": [seconds for seconds, _ in known], "y": [value for _, value in known]}


def shown_view(model: Field, scene: PosedScene, row: int) -> Pixels:
    """A view of the scene as a field shows it, SIDE pixels long."""
    width, height = small_size(scene, row)
    colour = render_view(model, scene.cameras[row : row + 1].resized(width, height)).colour
    return (colour * 255).round().to(torch.uint8).numpy()


def compared_view(model: Field, scene: PosedScene, row: int) -> tuple[dict[str, Pixels], dict[str, str]]:
    """The worst view, its truth and where they differ, with their notes."""
    shown, truth = shown_view(model, scene, row), true_view(scene, row)
    render, photo = as_floats(shown), as_floats(truth)
    error = false_colour((render - photo).abs().mean(-1), low=0.0, high=ERRORS_AT_FULL[-1])
    notes = {
        "worst": f"worst view, {psnr(render, photo):.1f} dB",
        "truth": f"its truth, {scene.image_names[row].rpartition('/')[2]}",
        "error": f"|error|, brightest at {ERRORS_AT_FULL[-1]}",
    }
    return {"worst": shown, "truth": truth, "error": error}, notes


def blank_pictures(scene: PosedScene, row: int) -> tuple[dict[str, Pixels], dict[str, str]]:
    """What is shown before anything has been rendered."""
    width, height = small_size(scene, row)
    grey = np.full((height, width, 3), 230, np.uint8)
    notes = {"preview": "preview", "worst": "worst view", "truth": "its truth", "error": "|error|"}
    return dict.fromkeys(PICTURES, grey), notes


def true_view(scene: PosedScene, row: int) -> Pixels:
    """A photo of the scene, SIDE pixels long."""
    return area_resized(scene.images[row], *small_size(scene, row)).numpy()


def small_size(scene: PosedScene, row: int) -> tuple[int, int]:
    """Width and height of a view of at most SIDE pixels."""
    height, width = scene.images[row].shape[:2]
    shrink = min(1.0, SIDE / max(height, width))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def as_floats(pixels: Pixels) -> Float[Tensor, "h w 3"]:
    """Bytes to [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def encoded(pixels: Pixels) -> str:
    """A JPEG as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
