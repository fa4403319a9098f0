"""What the crowd has seen, what it has not, and whether a render knows where it is wrong."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, look_at, pinhole
from crowdnerf_lab.captures.coverage import ASKED_VIEW, Coverage, Request
from crowdnerf_lab.figures.crowd import FROM_BEHIND_THE_CROWD, among_the_middle, columns_of, frustum_lines
from crowdnerf_lab.figures.style import COLOUR_OF, FAINT, GRID, INK, QUALITATIVE, TEMPLATE, WIDTH, colours_of
from crowdnerf_lab.scene import Bounds

SEEN_SCALE = "Viridis"
UNSEEN = QUALITATIVE[1]
MOST_POINTS = 12_000
"""Cells drawn in space, and scene points: more make a notebook heavy and show no more."""
MOST_CAMERAS = 3_000
"""Cameras drawn in space, evenly chosen."""


def coverage_map(
    covered: Coverage,
    *,
    cameras: Cameras,
    asked: Sequence[Request] = (),
    points: Float[Tensor, "n 3"] | None = None,
    stage: Bounds | None = None,
    frustum_m: float = 1.2,
    title: str = "",
) -> go.Figure:
    """Matter that borders on air that is seen, by the number of photos that show it; the crowd's cameras, and the views
    to ask for, in ENU metres.

    points: of the reconstruction, drawn faintly, the middle 98 % of each axis; stage: a box that is outlined. Below 3
    MB as JSON, whatever the size of the crowd.
    """
    figure, drawn = go.Figure(), covered.matter & covered.frontier
    centres, photos = covered.centres[drawn], covered.photos[drawn]
    step = max(1, math.ceil(len(centres) / MOST_POINTS))
    seen = photos[::step] > 0
    for name, chosen in (("matter that photos show", seen), ("matter that no photo shows", ~seen)):
        marker = {"size": 2.4, "color": UNSEEN}
        if name == "matter that photos show":
            colour_bar = {"title": "photos", "thickness": 12, "len": 0.6}
            marker |= {"color": photos[::step][chosen].numpy(), "colorscale": SEEN_SCALE, "colorbar": colour_bar}
        figure.add_trace(
            go.Scatter3d(**columns_of(centres[::step][chosen].numpy()), mode="markers", marker=marker, name=name)
        )
    if points is not None:
        usual = points[among_the_middle(points, 0.98)]
        thinned = usual[:: max(1, math.ceil(len(usual) / MOST_POINTS))].numpy()
        dots = {"size": 1.2, "color": FAINT}
        figure.add_trace(
            go.Scatter3d(**columns_of(thinned), mode="markers", marker=dots, name="scene points", hoverinfo="skip")
        )
    drawn_cameras = cameras[:: max(1, math.ceil(len(cameras) / MOST_CAMERAS))]
    lines = {f"the crowd ({len(cameras)})": (frustum_lines(drawn_cameras, frustum_m), FAINT)}
    if stage is not None:
        lines["the stage"] = (box_lines(stage), INK)
    if asked:
        lines["views to ask for"] = (frustum_lines(_cameras_of(asked), 2 * frustum_m), COLOUR_OF["phone"])
    for name, (rows, colour) in lines.items():
        line = {"color": colour, "width": 2 if colour == FAINT else 5}
        figure.add_trace(go.Scatter3d(**columns_of(rows), mode="lines", line=line, name=name, hoverinfo="skip"))
    if asked:
        figure.add_trace(
            go.Scatter3d(
                **columns_of(np.array([request.position for request in asked], np.float32)),
                mode="text",
                text=[str(rank) for rank in range(1, len(asked) + 1)],
                hovertext=[request.why for request in asked],
                hoverinfo="text",
                textfont={"size": 15, "color": INK},
                showlegend=False,
            )
        )
    axis = {"backgroundcolor": "white", "gridcolor": GRID, "zeroline": False, "showspikes": False, "color": FAINT}
    figure.update_layout(
        template=TEMPLATE,
        title=title,
        width=WIDTH,
        height=560,
        margin={"l": 0, "r": 0, "t": 40 if title else 0, "b": 0},
        legend={"x": 0.01, "y": 0.98, "itemsizing": "constant"},
        scene={
            "aspectmode": "data",
            "xaxis": {**axis, "title": "east, m"},
            "yaxis": {**axis, "title": "north, m"},
            "zaxis": {**axis, "title": "up, m"},
            "camera": FROM_BEHIND_THE_CROWD,
        },
    )
    return figure


def coverage_plan(covered: Coverage, *, cameras: Cameras, asked: Sequence[Request] = (), title: str = "") -> go.Figure:
    """From above: how much of each column of the scene is missing (m3 weighted by need), cameras, and requests."""
    missing = covered.need.sum(-1) * covered.cell_volume
    east, north = (covered.centres[:, 0, 0, 0], covered.centres[0, :, 0, 1])
    figure = go.Figure(
        go.Heatmap(
            x=east.numpy(),
            y=north.numpy(),
            z=missing.T.numpy(),
            colorscale="Magma",
            reversescale=True,
            colorbar={"title": "missing, m3", "thickness": 12},
            hovertemplate="%{x:.1f} m east, %{y:.1f} m north: %{z:.1f} m3<extra></extra>",
        )
    )
    places = cameras.positions.numpy()
    marker = {"size": 5, "color": FAINT}
    figure.add_trace(go.Scatter(x=places[:, 0], y=places[:, 1], mode="markers", marker=marker, name="the crowd"))
    for rank, request in enumerate(asked, start=1):
        (x, y, _), (to_x, to_y, _) = request.position, request.target
        reach = 0.35
        figure.add_annotation(
            x=x + reach * (to_x - x),
            y=y + reach * (to_y - y),
            ax=x,
            ay=y,
            axref="x",
            ayref="y",
            xref="x",
            yref="y",
            arrowhead=2,
            arrowwidth=2,
            arrowcolor=COLOUR_OF["phone"],
            text="",
        )
        figure.add_annotation(x=x, y=y, text=f"<b>{rank}</b>", showarrow=False, hovertext=request.why, yshift=9)
    figure.update_layout(template=TEMPLATE, title=title, width=WIDTH, height=520, showlegend=False)
    figure.update_xaxes(title="east, m")
    figure.update_yaxes(title="north, m", scaleanchor="x")
    return figure


def sparsification(curves: Mapping[str, NDArray[np.float64]], *, title: str = "") -> go.Figure:
    """Mean error of the pixels that stay as the most doubtful are taken away, by whose doubt they are ordered."""
    figure = go.Figure()
    for (name, curve), colour in zip(curves.items(), colours_of(curves), strict=True):
        removed = np.linspace(0, 100, len(curve), endpoint=False)
        figure.add_trace(go.Scatter(x=removed, y=curve, mode="lines", name=name, line={"color": colour, "width": 2.5}))
    figure.update_layout(template=TEMPLATE, title=title, width=WIDTH, height=360)
    figure.update_xaxes(title="most doubtful pixels taken away, %")
    figure.update_yaxes(title="mean error of the rest", rangemode="tozero")
    return figure


def box_lines(box: Bounds) -> NDArray[np.float32]:
    """The twelve edges of a box as one line with gaps (NaN)."""
    signs = np.array(list(itertools.product((-1, 1), repeat=3)), np.float32)
    corners = box.centre.numpy() + signs * box.half_size.numpy()
    pairs = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(signs[a] - signs[b]).sum() == 2]
    gap = np.full(3, np.nan, np.float32)
    return np.stack([row for a, b in pairs for row in (corners[a], corners[b], gap)]).astype(np.float32)


def _cameras_of(asked: Sequence[Request]) -> Cameras:
    eyes = torch.tensor([request.position for request in asked])
    targets = torch.tensor([request.target for request in asked])
    focal = torch.full((len(asked),), 32 / (2 * math.tan(ASKED_VIEW / 2)))
    return pinhole(look_at(eyes, targets), focal, width=32, height=24)
