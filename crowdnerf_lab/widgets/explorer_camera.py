"""The explorer's camera: as the browser steers it, as a view to draw, and as the package's Cameras.

In the browser a camera has the height of its field of view, whatever the size of the picture, and a pivot on its
optical axis that it orbits.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, distorted, pixel_grid
from crowdnerf_lab.network.views.view_request import ViewError, ViewRequest
from crowdnerf_lab.scene import PosedScene, focus_point

NEAREST_PIVOT = 0.5
"""Metres; nobody orbits something that is nearer."""


def camera_of(cameras: Cameras, index: int = 0, *, focus: Float[Tensor, "3"] | None = None) -> dict[str, Any]:
    """One camera as the browser steers it. focus: what the scene is about; the pivot is as far away as that is, or
    5 m if nobody knows."""
    pose, height = cameras.camera_to_world[index], float(cameras.height[index])
    ahead = 5.0 if focus is None else float((focus.to(pose) - pose[:, 3]) @ pose[:, 2])
    return {
        "camera_to_world": pose.flatten().tolist(),
        "field_of_view": 2 * math.atan(height / (2 * float(cameras.focal[index, 1]))),
        "distance": max(ahead, NEAREST_PIVOT),
    }


def view_of(camera: Mapping[str, Any], *, width: int, height: int) -> ViewRequest:
    """What a camera of the browser sees, in so many pixels. Raises ViewError for one that is none."""
    try:
        pose, angle = torch.tensor(camera["camera_to_world"]), float(camera["field_of_view"])
    except (KeyError, TypeError, ValueError) as error:
        raise ViewError(f"{camera} is no camera ({error!r}); give camera_to_world and field_of_view") from error
    if pose.numel() != 12 or not 0 < angle < math.pi:
        raise ViewError(
            f"a camera of {pose.numel()} numbers that sees {angle} radians; give 12 numbers, and an angle in (0, pi)"
        )
    focal = height / (2 * math.tan(angle / 2))
    view = ViewRequest(
        pose.reshape(3, 4), focal=(focal, focal), centre=(width / 2, height / 2), width=width, height=height
    )
    view.check()
    return view


def first_camera(scene: PosedScene) -> dict[str, Any]:
    """Where a reader begins: at the first held-out view, or else at the first photo that is trained on."""
    return camera_of(scene.cameras, int(judging_rows(scene)[0]), focus=focus_point(scene.cameras[scene.train]))


def judging_rows(scene: PosedScene) -> Int[Tensor, "rows"]:
    """The held-out photos of a scene; all that are trained on where there are none."""
    return scene.held_out if len(scene.held_out) else scene.train


def photos_of(scene: PosedScene) -> list[dict[str, Any]]:
    """What the browser has to know of a scene's photos to stand where they were taken; see PhotoOfUE in
    camera_trait.js."""
    focus = focus_point(scene.cameras[scene.train])
    return [
        camera_of(scene.cameras, row, focus=focus)
        | {
            "row": row,
            "name": scene.image_names[row],
            "ue": scene.captures[int(scene.capture_of_image[row])],
            "focal": float(scene.cameras.focal[row, 1]),
            "centre": scene.cameras.centre[row].tolist(),
            "width": int(scene.cameras.width[row]),
            "height": int(scene.cameras.height[row]),
        }
        for row in sorted({*scene.train.tolist(), *scene.held_out.tolist()})
    ]


def ideal_photo(scene: PosedScene, row: int) -> Float[Tensor, "h w 3"]:
    """A photo as an ideal lens in its place would have taken it, so that it fits a picture from there. In [0, 1]."""
    cameras, image = scene.cameras, scene.image(row)
    if not bool(cameras.distortion[row].any()):
        return image
    height, width = image.shape[:2]
    ideal = (pixel_grid(width, height) - cameras.centre[row]) / cameras.focal[row]
    bent = distorted(ideal, cameras.distortion[row].expand(height, width, 4)) * cameras.focal[row] + cameras.centre[row]
    grid = bent / torch.tensor([width, height]) * 2 - 1
    planes = image.permute(2, 0, 1)[None]
    sampled = torch.nn.functional.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0)
