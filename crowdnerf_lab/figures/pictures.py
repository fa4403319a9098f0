"""Pictures beside pictures: embedded whole, as files, so that a notebook keeps every pixel of them."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb
from torch import Tensor

from crowdnerf_lab.figures.contrast import words_on
from crowdnerf_lab.figures.style import GAP, SHADE, TEMPLATE, WIDTH, colours_of
from crowdnerf_lab.metrics import psnr

Picture = Tensor | NDArray[np.uint8] | NDArray[np.float32]
"""An image [h w 3]: bytes, or floats in [0, 1]."""
ERRORS_AT_FULL = (0.05, 0.5)
"""Absolute errors, of a range of 1, that may be drawn brightest: two, so that error panels can be compared."""


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
    colours = dict(zip(given, colours_of(given), strict=True))
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
        _place(figure, _encoded(thumbnail, every_pixel=False), left, top, width, height)
        if reason:
            colour = colours[reason]
            figure.add_shape(
                type="rect", x0=left, y0=top, x1=left + width, y1=top + height, line={"color": colour, "width": 3}
            )
            # From the cell's edge: a word is wider than an upright picture, and must not reach the next.
            _label(figure, reason, x + (cell - inner) / 2, top + height, background=colour, size=10)
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
    heights = [width * picture.shape[0] / picture.shape[1] for picture in pictures.values()]
    rows = [max(heights[first : first + columns]) + 26 for first in range(0, len(heights), columns)]
    figure = _canvas(WIDTH - 2 * GAP, sum(rows), title=title)
    for position, ((name, picture), height) in enumerate(zip(pictures.items(), heights, strict=True)):
        left, top = position % columns * (width + GAP), sum(rows[: position // columns])
        figure.add_annotation(
            text=name, x=left, y=top, xanchor="left", yanchor="top", showarrow=False, xshift=-4, font={"size": 13}
        )
        _place(figure, _encoded(Image.fromarray(_as_bytes(picture)), every_pixel=True), left, top + 22, width, height)
        if name in corner:
            _label(figure, corner[name], left, top + 22 + height, background=SHADE)
    return figure


def triptych(truth: Picture, render: Picture, *, name: str = "render", title: str = "") -> go.Figure:
    """Truth, render with its PSNR in dB, and their absolute difference, the mean over colours.

    The brightest error is 0.5; or 0.05, and so it says, when all but a thousandth of the pixels are nearer than that.
    """
    error = (_as_float(render) - _as_float(truth)).abs().mean(-1)
    nearly_all = float(np.quantile(error.numpy(), 0.999))
    at_full = next((each for each in ERRORS_AT_FULL if nearly_all <= each), ERRORS_AT_FULL[-1])
    difference = f"|error|, brightest at {at_full}"
    return image_strip(
        {"truth": truth, name: render, difference: false_colour(error, low=0.0, high=at_full)},
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
        font={"color": "white" if background == SHADE else words_on(background), "size": size},
    )


def _as_float(picture: Picture) -> Float[Tensor, "h w 3"]:
    pixels = _as_array(picture)
    return torch.from_numpy(pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels.copy())


def _as_bytes(picture: Picture) -> NDArray[np.uint8]:
    pixels = _as_array(picture)
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def _as_array(picture: Picture) -> NDArray[Any]:
    return picture.detach().numpy() if isinstance(picture, Tensor) else picture


def _encoded(image: Image.Image, *, every_pixel: bool) -> str:
    """A data URI: lossless WebP keeps every pixel at two thirds of a PNG's size; JPEG is for thumbnails."""
    buffer = io.BytesIO()
    if every_pixel:
        image.save(buffer, format="WEBP", lossless=True)
    else:
        image.save(buffer, format="JPEG", quality=85)
    kind = "webp" if every_pixel else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
