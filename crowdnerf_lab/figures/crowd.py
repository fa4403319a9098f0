"""Where the crowd stood, and what the screening found."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pinhole
from crowdnerf_lab.captures.bundle import CaptureSet, Photo
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.screening.report import Check, ScreeningReport, ScreeningRow
from crowdnerf_lab.figures.pictures import contact_sheet
from crowdnerf_lab.figures.style import (
    COLOUR_OF,
    FAINT,
    GRID,
    INK,
    KEPT,
    REASONS,
    TEMPLATE,
    WIDTH,
    colours_of,
)
from crowdnerf_lab.scene import area_resized

FROM_BEHIND_THE_CROWD = {"eye": {"x": -0.5, "y": -1.5, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.25}}
"""Where a map in space is looked at from: the stage is north."""
PANELS_IN_A_ROW = 4
MOST_PANELS = 10
"""More could no longer be read."""


class _Unit(NamedTuple):
    """How a check's margins are shown: the unit, and how many of it one of the report's makes."""

    name: str
    per: float = 1.0


_UNITS: dict[Check, _Unit] = {
    "small": _Unit("pixels"),
    "drawn": _Unit("% of it", 100.0),
    "framed": _Unit("% of it", 100.0),
    "display": _Unit("dB"),
    "time": _Unit("minutes", 1 / 60),
    "place": _Unit("m"),
    "direction": _Unit("degrees", math.degrees(1)),
    "dark": _Unit("stops"),
    "over": _Unit("% of it", 100.0),
    "blur": _Unit("stops"),
    "noise": _Unit("stops"),
    "copied": _Unit("UEs"),
    "speed": _Unit("m/s"),
    "frozen": _Unit("m"),
    "position": _Unit("m"),
    "attitude": _Unit("degrees", math.degrees(1)),
}
"""Consent, readability and copies are facts: they have no margin."""


def capture_map(
    groups: Mapping[str, Cameras],
    *,
    points: Float[Tensor, "n 3"] | None = None,
    point_colours: Float[Tensor, "n 3"] | None = None,
    frustum_m: float = 1.2,
    title: str = "",
) -> go.Figure:
    """Where the crowd stood and what it looked at: camera frusta in ENU metres, one colour a group, and scene points.

    groups: cameras by what they have in common ("kept", "blurred"); each becomes one line trace, whatever its size.
    frustum_m: depth to which a frustum is drawn. point_colours: sRGB in [0, 1]; grey when absent. Points beyond the
    middle 98 % of an axis are left out: a few mistaken ones lie so far away that they would shrink everything else.
    """
    figure = go.Figure()
    if points is not None:
        usual = among_the_middle(points, 0.98)
        points = points[usual]
        point_colours = None if point_colours is None else point_colours[usual]
        figure.add_trace(
            go.Scatter3d(
                **columns_of(points.numpy()),
                mode="markers",
                marker={"size": 1.6, "color": FAINT if point_colours is None else _css_colours(point_colours)},
                name="scene points",
                hoverinfo="skip",
            )
        )
    for (name, cameras), colour in zip(groups.items(), colours_of(groups), strict=True):
        figure.add_trace(
            go.Scatter3d(
                **columns_of(frustum_lines(cameras, frustum_m)),
                mode="lines",
                line={"color": colour, "width": 2.5},
                name=f"{name} ({len(cameras)})",
                hoverinfo="skip",
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


def crowd_map(captures: CaptureSet, report: ScreeningReport) -> go.Figure:
    """The crowd as its phones report themselves: the photos that were kept, and those rejected by reason."""
    found: dict[str, str] = {row.photo: REASONS[row.check] for row in report.rejected}
    posed = [photo for photo in captures.photos if photo.reported and photo.focal_px]
    names = [KEPT, *dict.fromkeys(found.values())]
    return capture_map(
        {name: _reported_cameras([photo for photo in posed if found.get(photo.file, KEPT) == name]) for name in names}
    )


def screening_margins(report: ScreeningReport) -> go.Figure:
    """How far every photo is inside (above 0) or outside the limit of each check, least first, in the check's unit.

    Shown are the checks that tell photos apart, at most `MOST_PANELS`: those that rejected something come before those
    that did not.
    """
    panels = _panels(report)
    columns = min(PANELS_IN_A_ROW, max(len(panels), 1))
    lines = max(1, math.ceil(len(panels) / columns))
    titles = [f"{REASONS[check]}, {_UNITS[check].name}" for check in panels]
    figure = make_subplots(
        rows=lines, cols=columns, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.16
    )
    for place, (check, rows) in enumerate(panels.items()):
        unit = _UNITS[check]
        ranked = sorted(rows, key=lambda row: row.margin)
        figure.add_trace(
            go.Scatter(
                y=[unit.per * row.margin for row in ranked],
                mode="markers",
                marker={"size": 5, "color": [COLOUR_OF[KEPT if row.kept else REASONS[check]] for row in ranked]},
                text=[row.photo for row in ranked],
                hovertemplate="%{text}: %{y:.2f} " + unit.name + "<extra></extra>",
                showlegend=False,
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(title="photos, by rank", row=lines)
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=90 + 220 * lines)
    return figure


def screening_sheet(captures: CaptureSet, report: ScreeningReport, *, columns: int = 12) -> go.Figure:
    """All photos of a screening at a glance, the rejected first, each with its reason; hovering gives the whole of it.

    Photos are read one after the other, and only their thumbnails are held; an unreadable one is a grey field.
    """
    failed = {row.photo: row for row in report.rejected}
    word_of = {file: REASONS[row.check] for file, row in failed.items()}
    files = [*failed, *report.kept]
    side = math.ceil(1.5 * WIDTH / columns)
    return contact_sheet(
        [_thumbnail(captures.path_of(file), side) for file in files],
        captions=[f"{file}: {failed[file].reason}" if file in failed else file for file in files],
        reasons=[word_of.get(file) for file in files],
        columns=columns,
        title=f"{len(failed)} rejected, {len(report.kept)} kept",
    )


def frustum_lines(cameras: Cameras, depth: float) -> NDArray[np.float32]:
    """The edges of all frusta as one polyline [m 3] whose pieces are separated by rows of NaN; depth in metres."""
    width, height = cameras.width.to(cameras.focal), cameras.height.to(cameras.focal)
    u = torch.stack([torch.zeros_like(width), width, width, torch.zeros_like(width)], dim=-1)
    v = torch.stack([torch.zeros_like(height), torch.zeros_like(height), height, height], dim=-1)
    plane = (torch.stack([u, v], dim=-1) - cameras.centre[:, None]) / cameras.focal[:, None]
    local = depth * torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
    pose = cameras.camera_to_world
    corners = torch.einsum("nij,nkj->nki", pose[..., :3], local) + pose[:, None, :, 3]
    a, b, c, d = corners.unbind(1)
    eye, gap = pose[..., 3], torch.full_like(pose[..., 3], torch.nan)
    return torch.stack([a, b, c, d, a, eye, b, gap, c, eye, d, gap], dim=1).reshape(-1, 3).numpy()


def among_the_middle(points: Float[Tensor, "n 3"], fraction: float) -> Bool[Tensor, "n"]:
    """Points that lie within the middle fraction of every axis: a few mistaken ones lie very far away."""
    tails = torch.tensor([(1 - fraction) / 2, (1 + fraction) / 2], dtype=points.dtype)
    low, high = torch.quantile(points, tails, dim=0) if len(points) else (points.new_zeros(3), points.new_zeros(3))
    return ((points >= low) & (points <= high)).all(-1)


def _panels(report: ScreeningReport) -> dict[Check, list[ScreeningRow]]:
    """The rows of each check that has something to show."""
    known: dict[Check, list[ScreeningRow]] = {}
    for row in report.rows:
        if row.check in _UNITS and math.isfinite(row.margin):
            known.setdefault(row.check, []).append(row)
    telling: list[Check] = [
        check
        for check, rows in known.items()
        if len(rows) == 1 or len({row.measured for row in rows}) > 1 or not all(row.kept for row in rows)
    ]
    failed: list[Check] = [check for check in telling if not all(row.kept for row in known[check])]
    passed: list[Check] = [check for check in telling if check not in failed]
    chosen = (failed + passed)[:MOST_PANELS]
    return {check: known[check] for check in sorted(chosen, key=list(_UNITS).index)}


def _thumbnail(path: Path, side: int) -> UInt8[Tensor, "_ _ 3"]:
    try:
        photo = read_photo(path)
    except PhotoError:
        return torch.full((side, side, 3), 200, dtype=torch.uint8)
    height, width = photo.shape[:2]
    shrink = min(1.0, side / max(height, width))
    return area_resized(photo, max(1, round(width * shrink)), max(1, round(height * shrink)))


def _reported_cameras(photos: Sequence[Photo]) -> Cameras:
    poses = [photo.reported.camera_to_world for photo in photos if photo.reported]
    return pinhole(
        torch.tensor(poses).reshape(-1, 3, 4),
        torch.tensor([photo.focal_px or 1.0 for photo in photos]),
        width=torch.tensor([photo.width for photo in photos]),
        height=torch.tensor([photo.height for photo in photos]),
    )


def columns_of(rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Points [n 3] as plotly takes them: x, y and z apart."""
    return {"x": rows[:, 0], "y": rows[:, 1], "z": rows[:, 2]}


def _css_colours(colours: Float[Tensor, "n 3"]) -> list[str]:
    return [f"rgb({r},{g},{b})" for r, g, b in (colours.clamp(0, 1) * 255).round().int().tolist()]
