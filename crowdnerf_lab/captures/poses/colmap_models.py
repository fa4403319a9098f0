"""pycolmap's cameras and reconstructions, and what they are here. COLMAP's pixel centres lie at +0.5, as ours do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.poses.motion import Motion, Shot

PHOTOS_FOR_DISTORTION = 10
"""A camera with fewer photos gets no lens distortion: three photos cannot tell it from the scene."""


def camera_options(colmap: Any, shot: Shot, *, photos: int) -> Any:
    """The camera that this many photos share, with the focal length as a prior where one is known.

    A lens another tool found is taken over whole (OPENCV); else one radial term is sought where enough photos share it.
    """
    options = colmap.ImageReaderOptions()
    if shot.given is not None:
        options.camera_model = "OPENCV"
        lens = (*shot.given.focal_px, *shot.given.centre_px, *shot.given.distortion)
        options.camera_params = ",".join(map(repr, lens))
        return options
    distorted = photos >= PHOTOS_FOR_DISTORTION
    options.camera_model = "SIMPLE_RADIAL" if distorted else "SIMPLE_PINHOLE"
    if shot.focal_px is not None:
        height, width = shot.image.shape[:2]
        centre_x, centre_y = shot.centre_px or (width / 2, height / 2)
        options.camera_params = f"{shot.focal_px},{centre_x},{centre_y}" + (",0" if distorted else "")
    return options


def distortion_of(lens: Any) -> tuple[float, float, float, float]:
    """k1, k2, p1, p2 of the camera models that `camera_options` chooses."""
    values = list(lens.params)
    match lens.model.name:
        case "SIMPLE_RADIAL":
            return float(values[3]), 0.0, 0.0, 0.0
        case "OPENCV":
            k1, k2, p1, p2 = map(float, values[4:8])
            return k1, k2, p1, p2
        case _:
            return 0.0, 0.0, 0.0, 0.0


def motion_of(reconstruction: Any, names: Sequence[str]) -> Motion:
    """A reconstruction as tensors. names: the pictures' file names, in the order of the shots."""
    rows = {name: row for row, name in enumerate(names)}
    images = sorted((image for image in reconstruction.images.values() if image.has_pose), key=lambda i: rows[i.name])
    lenses = [reconstruction.cameras[image.camera_id] for image in images]
    points = reconstruction.points3D.values()
    poses = np.stack([image.cam_from_world().inverse().matrix() for image in images])
    residuals = [_residuals(reconstruction, image) for image in images]
    return Motion(
        rows=torch.tensor([rows[image.name] for image in images]),
        cameras=Cameras(
            camera_to_world=torch.tensor(poses, dtype=torch.float32),
            focal=torch.tensor([[lens.focal_length_x, lens.focal_length_y] for lens in lenses]),
            centre=torch.tensor([[lens.principal_point_x, lens.principal_point_y] for lens in lenses]),
            width=torch.tensor([lens.width for lens in lenses]),
            height=torch.tensor([lens.height for lens in lenses]),
            distortion=torch.tensor([distortion_of(lens) for lens in lenses]),
        ),
        points=torch.tensor(np.array([point.xyz for point in points], dtype=np.float32).reshape(-1, 3)),
        colours=torch.tensor(np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3)),
        reprojection_px=reconstruction.compute_mean_reprojection_error(),
        errors_px=torch.tensor([float(np.mean(found)) if len(found) else np.nan for found in residuals]),
        seen=torch.tensor([len(found) for found in residuals]),
    )


def _residuals(reconstruction: Any, image: Any) -> np.ndarray:
    """Pixels from where the photo saw each of its points to where the point projects."""
    seen = image.get_observation_points2D()
    if not seen:
        return np.zeros(0)
    points = np.array([reconstruction.points3D[point.point3D_id].xyz for point in seen])
    in_camera = image.cam_from_world() * points
    projected = reconstruction.cameras[image.camera_id].img_from_cam(in_camera, check_cheirality=False)
    return np.linalg.norm(projected - np.array([point.xy for point in seen]), axis=1)
