"""A smooth flight through a few key views: cubic splines through places, rotations and lenses.

Places follow a cubic spline, rotations one whose angular acceleration is continuous (scipy's RotationSpline), lenses
one of the focal length's logarithm. The time between two keys goes with how far apart they are, in metres and in
radians, so that the camera flies evenly.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from crowdnerf_lab.live_rendering.sources import LiveRenderingError
from crowdnerf_lab.network.views.view_request import ViewRequest

NO_MOTION = 1e-6
"""Of the whole path: keys nearer to each other than that are one."""


def camera_path(
    keys: Sequence[ViewRequest], *, seconds: float, frames_per_second: float = 24.0
) -> tuple[ViewRequest, ...]:
    """The views of a flight through all key views, in their order, of the size of the first one.

    Raises LiveRenderingError for fewer than two different keys or a time without two frames, ViewError for a key that
    nobody can render.
    """
    for key in keys:
        key.check()
    count = round(seconds * frames_per_second) + 1
    if count < 2:
        raise LiveRenderingError(f"{seconds} s at {frames_per_second} frames/s hold no flight; give more time")
    moments, kept = _moments(keys)
    if len(kept) < 2:
        raise LiveRenderingError(f"a path needs two different key views, got {len(kept)}; move the camera in between")
    chosen = [keys[i] for i in kept]
    poses = np.stack([key.pose for key in chosen]).astype(np.float64)
    at = np.linspace(0, moments[-1], count)
    places = CubicSpline(moments, poses[:, :, 3])(at)
    turns = RotationSpline(moments, Rotation.from_matrix(poses[:, :, :3]))(at).as_matrix()
    lenses = np.exp(CubicSpline(moments, np.log([_relative_focal(key) for key in chosen]))(at))
    first, pairs = keys[0], np.concatenate([turns, places[..., None]], axis=2).astype(np.float32)
    size = np.array([first.width, first.height])
    return tuple(
        replace(first, camera_to_world=pose, focal=(float(focal[0]), float(focal[1])))
        for pose, focal in zip(pairs, lenses * size, strict=True)
    )


def _moments(keys: Sequence[ViewRequest]) -> tuple[NDArray[np.float64], list[int]]:
    """When each key is passed, in arbitrary units, and which keys differ from the one before."""
    poses = np.stack([key.pose for key in keys]).astype(np.float64) if keys else np.zeros((0, 3, 4))
    steps = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1)
    turns = Rotation.from_matrix(poses[:, :, :3])
    angles = (turns[:-1].inv() * turns[1:]).magnitude()
    apart = steps / (steps.sum() or 1) + angles / np.pi
    kept = [0] if len(keys) else []
    kept += [i + 1 for i, step in enumerate(apart) if step > NO_MOTION]
    return np.concatenate([[0.0], np.cumsum(apart[[i - 1 for i in kept[1:]]])]), kept


def _relative_focal(key: ViewRequest) -> tuple[float, float]:
    """Focal length in widths and heights of the picture."""
    return key.focal[0] / key.width, key.focal[1] / key.height
