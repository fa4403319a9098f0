"""The figures of the notebooks, in one visual language: black ink, few colours, equal axes, nothing that says nothing.

Pictures are embedded whole, as files, so that a notebook keeps every pixel of them. Colours are those of Okabe and Ito
(2008), which colour-blind readers can tell apart; a class of devices has the same one through the whole series.
"""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb
from plotly.subplots import make_subplots
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pinhole
from crowdnerf_lab.captures.bundle import CaptureSet, Photo
from crowdnerf_lab.captures.screening import ScreeningReport, ScreeningRow
from crowdnerf_lab.metrics import psnr

Picture = Tensor | NDArray[np.uint8] | NDArray[np.float32]
"""An image [h w 3]: bytes, or floats in [0, 1]."""

WIDTH = 960
"""Width of every figure in pixels: a notebook's column, and GitHub's."""
GAP = 10
"""Pixels between pictures that stand side by side."""
INK, FAINT, GRID = "#1f2a36", "#6b7785", "#e6eaee"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
QUALITATIVE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#000000")
ERROR_AT_FULL = 0.5
"""Absolute error, of a range of 1, that is drawn brightest."""

REASONS = {
    "consent": "without consent",
    "readable": "unreadable",
    "direction": "wrong way",
    "dark": "dark",
    "over": "over-exposed",
    "blur": "blurred",
}
"""A reader's word for what each check of the screening finds."""
KEPT = "kept"
COLOUR_OF = dict(zip([KEPT, *REASONS.values()], [*QUALITATIVE[:1], *QUALITATIVE[6:], *QUALITATIVE[1:5]], strict=True))
"""What has the same colour in every figure."""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"x": 0.0, "xref": "paper", "xanchor": "left", "font": {"size": 15}},
        "colorway": list(QUALITATIVE),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "legend": {"bgcolor": "rgba(0,0,0,0)"},
        "xaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": FAINT, "ticks": "outside", "tickcolor": FAINT},
        "yaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": FAINT, "ticks": "outside", "tickcolor": FAINT},
        "hoverlabel": {"font": {"family": FONT}},
    }
)


@dataclass(frozen=True)
class Table:
    """Rows of named cells, all with the same names, shown as a table by Jupyter and GitHub; numbers to 4 digits."""

    rows: tuple[Mapping[str, Any], ...]

    def _repr_markdown_(self) -> str:
        names = list(self.rows[0]) if self.rows else []
        numeric = [all(isinstance(row[name], int | float) for row in self.rows) for name in names]
        lines = [names, ["---:" if right else ":---" for right in numeric]]
        lines += [[_cell_text(row[name]) for name in names] for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __repr__(self) -> str:
        return self._repr_markdown_()


@runtime_checkable
class Progress(Protocol):
    """A moment of a training: seconds since it began, and PSNR in dB on held-out views where it was measured then."""

    @property
    def seconds(self) -> float: ...

    @property
    def held_out_psnr(self) -> float | None: ...


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
    frustum_m: depth to which a frustum is drawn. point_colours: sRGB in [0, 1]; grey when absent.
    """
    figure = go.Figure()
    if points is not None:
        figure.add_trace(
            go.Scatter3d(
                **_columns(points.numpy()),
                mode="markers",
                marker={"size": 1.6, "color": FAINT if point_colours is None else _css_colours(point_colours)},
                name="scene points",
                hoverinfo="skip",
            )
        )
    for (name, cameras), colour in zip(groups.items(), _colours(groups), strict=True):
        figure.add_trace(
            go.Scatter3d(
                **_columns(frustum_lines(cameras, frustum_m)),
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
            "camera": {"eye": {"x": -0.5, "y": -1.5, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.25}},
        },
    )
    return figure


def crowd_map(captures: CaptureSet, report: ScreeningReport) -> go.Figure:
    """The crowd as its phones report themselves: the photos that were kept, and those rejected by reason."""
    found = {row.photo: REASONS[row.check] for row in report.rejected}
    posed = [photo for photo in captures.photos if photo.reported and photo.focal_px]
    names = [KEPT, *dict.fromkeys(found.values())]
    return capture_map(
        {name: _reported_cameras([photo for photo in posed if found.get(photo.file, KEPT) == name]) for name in names}
    )


def screening_margins(report: ScreeningReport) -> go.Figure:
    """How far every photo is inside (above 0) or outside the limit of each check, least first, in the check's unit."""
    units = {"direction": "degrees", "dark": "stops", "over": "% of the picture", "blur": "stops"}
    figure = make_subplots(cols=len(units), subplot_titles=[REASONS[check] for check in units], horizontal_spacing=0.07)
    for column, (check, unit) in enumerate(units.items(), start=1):
        rows = sorted((row for row in report.rows if row.check == check), key=_margin)
        figure.add_trace(
            go.Scatter(
                y=[_margin(row) for row in rows],
                mode="markers",
                marker={"size": 5, "color": [COLOUR_OF[KEPT if row.kept else REASONS[check]] for row in rows]},
                text=[row.photo for row in rows],
                hovertemplate="%{text}: %{y:.2f} " + unit + "<extra></extra>",
                showlegend=False,
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(title={"text": unit, "standoff": 2}, row=1, col=column)
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title="photos, by rank")
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=320)
    return figure


def _margin(row: ScreeningRow) -> float:
    if row.check == "direction":
        return math.degrees(row.threshold - row.measured)
    if row.check == "over":
        return 100 * (row.threshold - row.measured)
    return row.measured - row.threshold


def _reported_cameras(photos: Sequence[Photo]) -> Cameras:
    poses = [photo.reported.camera_to_world for photo in photos if photo.reported]
    return pinhole(
        torch.tensor(poses).reshape(-1, 3, 4),
        torch.tensor([photo.focal_px or 1.0 for photo in photos]),
        width=torch.tensor([photo.width for photo in photos]),
        height=torch.tensor([photo.height for photo in photos]),
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


def contact_sheet(
    pictures: Sequence[Picture],
    *,
    captions: Sequence[str],
    reasons: Sequence[str | None] | None = None,
    columns: int = 12,
    title: str = "",
) -> go.Figure:
    """All photos at a glance; those with a reason to reject them carry it, with a frame of the reason's colour.

    captions: what hovering over a photo shows. reasons: None for a photo that is kept.
    """
    reasons = reasons or [None] * len(pictures)
    given = list(dict.fromkeys(reason for reason in reasons if reason))
    colours = dict(zip(given, _colours(given), strict=True))
    cell = (WIDTH - GAP) / columns
    rows = math.ceil(len(pictures) / columns)
    figure = _canvas(WIDTH - GAP, rows * cell, title=title)
    for position, (picture, reason) in enumerate(zip(pictures, reasons, strict=True)):
        x, y = position % columns * cell, position // columns * cell
        thumbnail = Image.fromarray(_as_bytes(picture))
        thumbnail.thumbnail((int(1.5 * cell), int(1.5 * cell)), Image.Resampling.LANCZOS)
        inner = cell - 6
        shrink = inner / max(thumbnail.size)
        width, height = thumbnail.width * shrink, thumbnail.height * shrink
        left, top = x + (cell - width) / 2, y + (cell - height) / 2
        _place(figure, _encoded(thumbnail, "JPEG"), left, top, width, height)
        if reason:
            colour = colours[reason]
            figure.add_shape(
                type="rect", x0=left, y0=top, x1=left + width, y1=top + height, line={"color": colour, "width": 3}
            )
            _label(figure, reason, left, top + height, background=colour, size=10)
    centres = [(position % columns + 0.5, position // columns + 0.5) for position in range(len(pictures))]
    figure.add_trace(
        go.Scatter(
            x=[cell * across for across, _ in centres],
            y=[cell * down for _, down in centres],
            mode="markers",
            marker={"size": cell * 0.8, "opacity": 0},
            text=[
                f"{caption}: {reason}" if reason else caption for caption, reason in zip(captions, reasons, strict=True)
            ],
            hoverinfo="text",
            showlegend=False,
        )
    )
    return figure


def image_strip(
    pictures: Mapping[str, Picture],
    *,
    truth: Picture | None = None,
    notes: Mapping[str, str] | None = None,
    columns: int = 4,
    title: str = "",
) -> go.Figure:
    """Pictures side by side under their names, equally wide.

    truth: when given, each picture of its size that is not the truth itself carries its PSNR against it.
    notes: further words for a picture's corner, by name.
    """
    columns = min(columns, len(pictures))
    corner = dict(notes or {})
    if truth is not None:
        for name, picture in pictures.items():
            if picture is not truth and picture.shape == truth.shape:
                value = f"{psnr(_as_float(picture), _as_float(truth)):.1f} dB"
                corner[name] = f"{value} · {corner[name]}" if name in corner else value
    width = (WIDTH - GAP * (columns + 1)) / columns
    aspect = max(picture.shape[0] / picture.shape[1] for picture in pictures.values())
    row_height = width * aspect + 26
    figure = _canvas(WIDTH - 2 * GAP, math.ceil(len(pictures) / columns) * row_height, title=title)
    for position, (name, picture) in enumerate(pictures.items()):
        left, top = position % columns * (width + GAP), position // columns * row_height
        height = width * picture.shape[0] / picture.shape[1]
        figure.add_annotation(
            text=name, x=left, y=top, xanchor="left", yanchor="top", showarrow=False, xshift=-4, font={"size": 13}
        )
        _place(figure, _encoded(Image.fromarray(_as_bytes(picture)), "PNG"), left, top + 22, width, height)
        if name in corner:
            _label(figure, corner[name], left, top + 22 + height, background="rgba(0,0,0,0.62)")
    return figure


def triptych(truth: Picture, render: Picture, *, name: str = "render", title: str = "") -> go.Figure:
    """Truth, render with its PSNR in dB, and their absolute difference (mean over colours; brightest at 0.5)."""
    error = (_as_float(render) - _as_float(truth)).abs().mean(-1)
    difference = f"|error|, brightest at {ERROR_AT_FULL}"
    return image_strip(
        {"truth": truth, name: render, difference: false_colour(error, low=0.0, high=ERROR_AT_FULL)},
        notes={name: f"{psnr(_as_float(render), _as_float(truth)):.1f} dB"},
        columns=3,
        title=title,
    )


def side_by_side(pictures: Sequence[Picture], *, enlarge: int = 1) -> Image.Image:
    """Pictures of one height as one image file, for pages that hold no figures; each pixel `enlarge` pixels wide."""
    images = [Image.fromarray(_as_bytes(picture)) for picture in pictures]
    sizes = [(image.width * enlarge, image.height * enlarge) for image in images]
    sheet = Image.new(
        "RGB", (sum(width + GAP for width, _ in sizes) - GAP, max(height for _, height in sizes)), "white"
    )
    left = 0
    for image, size in zip(images, sizes, strict=True):
        sheet.paste(image.resize(size, Image.Resampling.BICUBIC), (left, 0))
        left += size[0] + GAP
    return sheet


def false_colour(values: Float[Tensor, "h w"], *, low: float, high: float, scale: str = "Magma") -> NDArray[np.uint8]:
    """Numbers as a picture: `low` is the dark end of the plotly colour scale and `high` the bright one."""
    table = np.array([unlabel_rgb(colour) for colour in sample_colorscale(scale, np.linspace(0, 1, 256))])
    index = ((values - low) / (high - low) * 255).clamp(0, 255).nan_to_num().round().long().numpy()
    return table[index].round().astype(np.uint8)


def training_curve(histories: Mapping[str, Sequence[Progress]], *, title: str = "") -> go.Figure:
    """Held-out PSNR, dB, over seconds of training; one line a training, named at its end."""
    figure = go.Figure()
    for (name, history), colour in zip(histories.items(), _colours(histories), strict=True):
        measured = [(record.seconds, record.held_out_psnr) for record in history if record.held_out_psnr is not None]
        figure.add_trace(
            go.Scatter(
                x=[seconds for seconds, _ in measured],
                y=[value for _, value in measured],
                mode="lines+markers+text",
                line={"color": colour, "width": 2},
                marker={"size": 5},
                text=[""] * (len(measured) - 1) + [f"  {name} {measured[-1][1]:.1f} dB" if measured else ""],
                textposition="middle right",
                textfont={"color": colour},
                cliponaxis=False,
                name=name,
                hovertemplate="%{x:.1f} s: %{y:.2f} dB<extra>" + name + "</extra>",
                showlegend=False,
            )
        )
    figure.update_layout(template=TEMPLATE, title=title, width=WIDTH, height=360, margin={"r": 220})
    figure.update_xaxes(title="seconds of training", rangemode="tozero")
    figure.update_yaxes(title="held-out PSNR, dB")
    return figure


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows with the same names as a table."""
    return Table(tuple(rows))


def _cell_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def _canvas(width: float, height: float, *, title: str) -> go.Figure:
    """An empty figure whose coordinates are pixels, x to the right and y down."""
    top = 40 if title else 6
    figure = go.Figure()
    figure.update_layout(
        template=TEMPLATE,
        title=title,
        width=WIDTH,
        height=round(height) + top + 6,
        margin={"l": (WIDTH - width) / 2, "r": (WIDTH - width) / 2, "t": top, "b": 6},
    )
    figure.update_xaxes(visible=False, range=[0, width], fixedrange=True)
    figure.update_yaxes(visible=False, range=[height, 0], fixedrange=True)
    return figure


def _place(figure: go.Figure, source: str, left: float, top: float, width: float, height: float) -> None:
    figure.add_layout_image(
        source=source, xref="x", yref="y", x=left, y=top, sizex=width, sizey=height, sizing="stretch", layer="below"
    )


def _label(figure: go.Figure, text: str, left: float, bottom: float, *, background: str, size: int = 12) -> None:
    figure.add_annotation(
        text=text,
        x=left,
        y=bottom,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        bgcolor=background,
        borderpad=2,
        font={"color": "white", "size": size},
    )


def _as_float(picture: Picture) -> Float[Tensor, "h w 3"]:
    pixels = _as_array(picture)
    return torch.from_numpy(pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels.copy())


def _as_bytes(picture: Picture) -> NDArray[np.uint8]:
    pixels = _as_array(picture)
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def _as_array(picture: Picture) -> NDArray[Any]:
    return picture.detach().numpy() if isinstance(picture, Tensor) else picture


def _encoded(image: Image.Image, format: str) -> str:
    """A data URI: PNG keeps every pixel; JPEG is for thumbnails."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **({"quality": 85} if format == "JPEG" else {"optimize": True}))
    return f"data:image/{format.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def _columns(rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {"x": rows[:, 0], "y": rows[:, 1], "z": rows[:, 2]}


def _css_colours(colours: Float[Tensor, "n 3"]) -> list[str]:
    return [f"rgb({r},{g},{b})" for r, g, b in (colours.clamp(0, 1) * 255).round().int().tolist()]


def _colours(names: Iterable[str]) -> list[str]:
    """A colour for each name: its own where it has one in every figure, else the next of the palette."""
    return [COLOUR_OF.get(name, QUALITATIVE[position % len(QUALITATIVE)]) for position, name in enumerate(names)]
