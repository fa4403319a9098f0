"""What a reader may look at, and how numbers become colours: the same number always the same colour, so that two views
side by side, or one view from two places, can be compared."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from plotly.colors import sample_colorscale, unlabel_rgb

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.grid_field import GridField
from crowdnerf_lab.live_rendering.sources import Channel, LiveRenderingError, Model, Rows, Source
from crowdnerf_lab.scene import PosedScene

Mode = Literal["colour", "depth", "opacity", "uncertainty", "occupancy", "as taken"]
"""A channel of `sources`, or "as taken": colours as the phone that took a certain photo would show them."""
Picture = NDArray[np.uint8]
NEAREST, FARTHEST = 0.25, 2.5
"""Distances in radii of the scene between which depth has colours."""
UNKNOWN_RADIUS = 10.0
"""Metres, for models that do not tell the scene's."""


@dataclass(frozen=True)
class Legend:
    """How to read a false colour picture: from `low`, in the first of `stops`, to `high`, in the last of them.

    stops: hex colours at equal steps, of the number or, if `logarithmic`, of its logarithm.
    """

    title: str
    unit: str
    low: float
    high: float
    logarithmic: bool
    stops: tuple[str, ...]


def channel_of(mode: Mode) -> Channel:
    """What has to be drawn for a mode."""
    return "colour" if mode == "as taken" else mode


def modes_of(source: Source, *, appearance: Appearance | None) -> tuple[Mode, ...]:
    """The modes in which a source can be shown."""
    return (*source.channels, *(("as taken",) if appearance is not None else ()))


def radius_of(model: Model, *, scene: PosedScene | None) -> float:
    """Mean half size of the scene's bounds in metres, as far as it is known."""
    if scene is not None:
        return float(scene.bounds.half_size.mean())
    if isinstance(model, GridField):
        return model.radius
    return float(model.half_size.mean()) if isinstance(model, BakedField) else UNKNOWN_RADIUS


def legend_of(mode: Mode, *, radius: float) -> Legend | None:
    """What the colours of a mode mean in a scene of this radius (metres); None where they are the scene's own."""
    if mode == "depth":
        return _legend("distance", "m", NEAREST * radius, FARTHEST * radius, scale="Viridis_r", logarithmic=True)
    if mode == "opacity":
        return _legend("opacity", "", 0.0, 1.0, scale="gray")
    if mode == "uncertainty":
        return _legend("doubt", "", 0.0, 0.3, scale="Magma")
    if mode == "occupancy":
        return _legend("samples a ray", "", 0.0, 64.0, scale="Cividis")
    return None


def picture_of(
    values: Rows, mode: Mode, *, radius: float, appearance: Appearance | None = None, photo: int | None = None
) -> Picture:
    """A channel's values [h w numbers] as sRGB bytes [h w 3]. radius: of the scene, metres; appearance and photo: whose
    phone "as taken" is about. Depth fades to black where little is opaque.

    Raises LiveRenderingError when there is no such photo.
    """
    if mode == "as taken":
        return _bytes(_as_taken(values, appearance, photo))
    legend = legend_of(mode, radius=radius)
    if legend is None:
        return _bytes(values)
    numbers, low, high = values[..., 0], legend.low, legend.high
    if legend.logarithmic:
        numbers, low, high = np.log(np.maximum(numbers, 1e-6)), np.log(low), np.log(high)
    index = np.clip((numbers - low) * np.float32(255 / (high - low)) + np.float32(0.5), 0, 255).astype(np.uint8)
    picture = colour_table(_SCALES[mode])[index]
    return (picture * values[..., 1:]).astype(np.uint8) if mode == "depth" else picture


def _as_taken(values: Rows, appearance: Appearance | None, photo: int | None) -> Rows:
    photos = 0 if appearance is None else len(appearance.log_shot)
    if appearance is None or photo is None or not 0 <= photo < photos:
        raise LiveRenderingError(
            f'"as taken" by photo {photo} of {photos}: give the appearance that was learned with the field '
            "(cn.fit(scene).appearance) and a row of its scene"
        )
    return appearance.as_taken(torch.from_numpy(values), photo).numpy()


@cache
def colour_table(scale: str) -> Picture:
    """A plotly colour scale as 256 colours [256 3]."""
    return np.array([unlabel_rgb(colour) for colour in sample_colorscale(scale, np.linspace(0, 1, 256))]).astype(
        np.uint8
    )


_SCALES = {"depth": "Viridis_r", "opacity": "gray", "uncertainty": "Magma", "occupancy": "Cividis"}


def _legend(title: str, unit: str, low: float, high: float, *, scale: str, logarithmic: bool = False) -> Legend:
    stops = tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in colour_table(scale)[::51])
    return Legend(title, unit, low, high, logarithmic, stops)


def _bytes(colour: Rows) -> Picture:
    return (np.clip(colour, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
