"""The capture map as a figure: frusta with the photos in them, sparse points, gaps of coverage, GPS against poses."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.coverage import Coverage
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.poses.report import CalibrationReport
from crowdnerf_lab.figures.crowd import among_the_middle, columns_of, frustum_lines
from crowdnerf_lab.figures.style import FAINT, GRID, INK, QUALITATIVE, TEMPLATE, colours_of
from crowdnerf_lab.widgets.placed_photos import NOT_POSED, PlacedPhoto, cameras_of

MOST_POINTS = 12_000
"""Of sparse points and of gaps; more make the page heavy and show no more."""
MOST_THUMBNAILS = 240
"""Photos that are drawn in their frusta, evenly chosen."""
MOST_STILL_THUMBNAILS = 48
"""Of a still map, which is kept with every copy of a notebook."""
THUMBNAIL = 14
"""Colours along the longer side of a photo in its frustum."""
FROM_BEHIND_THE_CROWD_AND_NEAR = {"eye": {"x": -0.35, "y": -1.1, "z": 0.7}, "center": {"x": 0, "y": 0, "z": -0.15}}
"""Near enough for the photos in the frusta to be made out."""
UNSEEN = QUALITATIVE[1]
Rows = NDArray[np.float32]


def background_traces(calibration: CalibrationReport | None, covered: Coverage | None) -> list[go.Scatter3d]:
    """What does not depend on which photos are shown: sparse points, and matter that no photo shows."""
    traces = []
    if calibration is not None and len(calibration.points):
        usual = among_the_middle(calibration.points, 0.98)
        points, colours = calibration.points[usual], calibration.colours[usual]
        step = max(1, -(-len(points) // MOST_POINTS))
        marker = {"size": 1.6, "color": [f"rgb({r},{g},{b})" for r, g, b in colours[::step].tolist()]}
        traces.append(_dots(points[::step].numpy(), marker, f"scene points ({len(points)})"))
    if covered is not None:
        gaps = covered.centres[covered.matter & covered.frontier & covered.unseen]
        step = max(1, -(-len(gaps) // MOST_POINTS))
        marker = {"size": 3, "color": UNSEEN, "symbol": "square", "opacity": 0.7}
        name = f"no photo shows it ({len(gaps) * covered.cell_volume:.0f} m³)"
        traces.append(_dots(gaps[::step].numpy(), marker, name))
    return traces


def photo_traces(photos: Sequence[PlacedPhoto], findings: Sequence[str], *, frustum_m: float) -> list[go.Scatter3d]:
    """Two traces for each finding, frusta and the places to hover over and click, and two of GPS against poses.

    Their number and order depend on `findings` alone, so that photos can come and go. A place's customdata is its UE.
    """
    traces = []
    for finding, colour in zip(findings, colours_of_findings(findings), strict=True):
        own = [photo for photo in photos if photo.finding == finding]
        cameras, _ = cameras_of(own)
        seen = [photo for photo in own if photo.position is not None]
        rows = frustum_lines(cameras, frustum_m)
        traces.append(_lines(rows, {"color": colour, "width": 2.5}, finding, shown=False))
        traces.append(
            go.Scatter3d(
                **columns_of(_rows([photo.position for photo in seen])),
                mode="markers",
                marker={"size": 4, "color": colour},
                name=f"{finding} ({len(own)})",
                legendgroup=finding,
                customdata=[photo.ue for photo in seen],
                text=[photo.in_words() for photo in seen],
                hoverinfo="text",
            )
        )
    told = [photo for photo in photos if photo.calibrated and photo.gps is not None]
    ends = [(photo.position, photo.gps, (np.nan,) * 3) for photo in told]
    apart = _rows([row for rows in ends for row in rows])
    traces.append(_lines(apart, {"color": FAINT, "width": 1.5}, GPS, shown=False))
    traces.append(
        go.Scatter3d(
            **columns_of(_rows([photo.gps for photo in told])),
            mode="markers",
            marker={"size": 2.5, "color": FAINT},
            name=f"{GPS} ({len(told)})",
            legendgroup=GPS,
            customdata=[photo.ue for photo in told],
            text=[f"{photo.ue}: GPS {photo.gps_error_m:.1f} m from the calibrated place" for photo in told],
            hoverinfo="text",
        )
    )
    return traces


GPS = "where phones say they were"


def thumbnail_trace(photos: Sequence[PlacedPhoto], *, frustum_m: float, most: int = MOST_THUMBNAILS) -> go.Mesh3d:
    """The photos, coarsely, at the far ends of their frusta: one mesh with a colour for each corner.

    most: photos that are drawn, evenly chosen.
    """
    cameras, posed = cameras_of(photos)
    step = max(1, -(-len(posed) // most))
    places, faces, colours, count = [], [], [], 0
    for index in range(0, len(posed), step):
        pixels = _coarse(posed[index])
        if pixels is not None:
            height, width = pixels.shape[:2]
            places.append(_plane_of(cameras[index : index + 1], width, height, frustum_m))
            faces.append(_faces(width, height) + count)
            colours += [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in pixels.reshape(-1, 3).tolist()]
            count += width * height
    corners = np.concatenate(faces) if faces else np.zeros((0, 3), np.int32)
    return go.Mesh3d(
        **columns_of(np.concatenate(places) if places else np.zeros((0, 3), np.float32)),
        i=corners[:, 0],
        j=corners[:, 1],
        k=corners[:, 2],
        vertexcolor=colours,
        lighting={"ambient": 1, "diffuse": 0, "specular": 0, "fresnel": 0},
        hoverinfo="skip",
        name="photos",
        showlegend=True,
    )


def chosen_trace(photos: Sequence[PlacedPhoto], *, frustum_m: float) -> go.Scatter3d:
    """The frusta of the UE that is looked at, drawn thick."""
    rows = frustum_lines(cameras_of(photos)[0], 1.15 * frustum_m)
    trace = _lines(rows, {"color": INK, "width": 8}, "chosen UE", shown=True)
    return trace.update(visible=bool(len(rows)))


def map_layout(*, width: int, height: int) -> go.Layout:
    """Axes in metres with equal scales, seen from behind the crowd."""
    axis = {"backgroundcolor": "white", "gridcolor": GRID, "zeroline": False, "showspikes": False, "color": FAINT}
    return go.Layout(
        template=TEMPLATE,
        width=width,
        height=height,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"x": 0.01, "y": 0.99, "itemsizing": "constant", "bgcolor": "rgba(255,255,255,0.8)"},
        uirevision="kept",
        scene={
            "aspectmode": "data",
            "xaxis": {**axis, "title": "east, m"},
            "yaxis": {**axis, "title": "north, m"},
            "zaxis": {**axis, "title": "up, m"},
            "camera": FROM_BEHIND_THE_CROWD_AND_NEAR,
        },
    )


def usual_frustum(photos: Sequence[PlacedPhoto]) -> float:
    """A depth of frusta, metres, at which they neither vanish nor hide one another: a twentieth of the crowd's
    extent."""
    places = _rows([photo.position for photo in photos if photo.position is not None])
    if len(places) < 2:
        return 1.0
    low, high = np.quantile(places, [0.05, 0.95], axis=0)
    return max(0.05 * float((high - low).max()), 0.05)


def colours_of_findings(findings: Sequence[str]) -> list[str]:
    """The colour that each finding has in every figure."""
    return [
        FAINT if finding == NOT_POSED else colour
        for finding, colour in zip(findings, colours_of(findings), strict=True)
    ]


def thumbnail(photo: PlacedPhoto, side: int) -> UInt8[np.ndarray, "_ _ 3"] | None:
    """A photo at most `side` pixels long; None when its file cannot be read."""
    try:
        image = Image.fromarray(read_photo(photo.path).numpy())
    except PhotoError:
        return None
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image)


def _coarse(photo: PlacedPhoto) -> UInt8[np.ndarray, "_ _ 3"] | None:
    pixels = thumbnail(photo, THUMBNAIL)
    return pixels if pixels is not None and min(pixels.shape[:2]) > 1 else None


def _plane_of(camera: Cameras, width: int, height: int, depth: float) -> Rows:
    """A grid of width x height points over the picture, `depth` metres before the camera, row by row."""
    across = torch.linspace(0, 1, width) * float(camera.width)
    down = torch.linspace(0, 1, height) * float(camera.height)
    v, u = torch.meshgrid(down, across, indexing="ij")
    plane = (torch.stack([u, v], dim=-1).reshape(-1, 2) - camera.centre) / camera.focal
    local: Float[Tensor, "n 3"] = depth * torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)
    pose = camera.camera_to_world[0]
    return (local @ pose[:, :3].T + pose[:, 3]).float().numpy()


def _faces(width: int, height: int) -> NDArray[np.int32]:
    """Two triangles for each square of a grid of points."""
    index = np.arange(width * height, dtype=np.int32).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (b, d, c))])


def _rows(places: Sequence[tuple[float, ...] | None]) -> Rows:
    return np.array([place for place in places if place is not None], np.float32).reshape(-1, 3)


def _dots(rows: Rows, marker: dict, name: str) -> go.Scatter3d:
    return go.Scatter3d(**columns_of(rows), mode="markers", marker=marker, name=name, hoverinfo="skip")


def _lines(rows: Rows, line: dict, name: str, *, shown: bool) -> go.Scatter3d:
    """Lines of a group; shown: with an entry of their own in the legend."""
    return go.Scatter3d(
        **columns_of(rows), mode="lines", line=line, name=name, legendgroup=name, showlegend=shown, hoverinfo="skip"
    )
