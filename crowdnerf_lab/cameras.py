"""Pinhole cameras with OpenCV axes, and the ways in and out of pixels.

Letters used here: R, t are the rotation and centre of camera-to-world; (u, v) is a pixel position with pixel centres
at +0.5; (x, y) = ((u - cx) / fx, (v - cy) / fy) lies on the plane z = 1 of the camera (x right, y down, z forward).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROTATION_TOLERANCE = 1e-3
"""Largest deviation of R R^T from the identity that is put down to rounding in a file."""


@dataclass(frozen=True)
class Cameras:
    """A batch of cameras, one per photo. Metres and pixels; OpenCV axes; camera-to-world.

    distortion holds k1, k2, p1, p2 of the OpenCV model (zeros for an ideal lens).
    """

    camera_to_world: Float[Tensor, "*n 3 4"]
    focal: Float[Tensor, "*n 2"]
    centre: Float[Tensor, "*n 2"]
    width: Int[Tensor, "*n"]
    height: Int[Tensor, "*n"]
    distortion: Float[Tensor, "*n 4"]

    def __len__(self) -> int:
        return self.focal.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> "Cameras":
        return Cameras(
            camera_to_world=self.camera_to_world[index],
            focal=self.focal[index],
            centre=self.centre[index],
            width=self.width[index],
            height=self.height[index],
            distortion=self.distortion[index],
        )

    @property
    def positions(self) -> Float[Tensor, "*n 3"]:
        """Camera centres in the world."""
        return self.camera_to_world[..., 3]

    @property
    def forward(self) -> Float[Tensor, "*n 3"]:
        """Unit viewing directions in the world."""
        return self.camera_to_world[..., 2]

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras with images of another size (the field of view is kept)."""
        scale = torch.stack([width / self.width, height / self.height], dim=-1).to(self.focal.dtype)
        return replace(
            self,
            focal=self.focal * scale,
            centre=self.centre * scale,
            width=torch.full_like(self.width, width),
            height=torch.full_like(self.height, height),
        )

    def downscaled(self, factor: int) -> "Cameras":
        """The same cameras for images shrunk `factor` times; sizes that do not divide are rounded down."""
        width, height = self.width // factor, self.height // factor
        scale = torch.stack([width / self.width, height / self.height], dim=-1).to(self.focal.dtype)
        return replace(self, focal=self.focal * scale, centre=self.centre * scale, width=width, height=height)


def pinhole(
    camera_to_world: Float[Tensor, "*n 3 4"],
    focal: Float[Tensor, "*n"],
    *,
    width: int | Int[Tensor, "*n"],
    height: int | Int[Tensor, "*n"],
) -> Cameras:
    """Ideal cameras with square pixels and the principal point in the middle of the image."""
    batch = camera_to_world.shape[:-2]
    width = torch.as_tensor(width).expand(batch).clone()
    height = torch.as_tensor(height).expand(batch).clone()
    dtype = camera_to_world.dtype
    return Cameras(
        camera_to_world=camera_to_world,
        focal=focal[..., None].expand(*batch, 2).clone(),
        centre=torch.stack([width, height], dim=-1).to(dtype) / 2,
        width=width,
        height=height,
        distortion=torch.zeros(*batch, 4, dtype=dtype),
    )


def concatenated(groups: list[Cameras]) -> Cameras:
    """Several batches of cameras as one."""
    return Cameras(
        **{
            name: torch.cat([getattr(group, name) for group in groups])
            for name in ("camera_to_world", "focal", "centre", "width", "height", "distortion")
        }
    )


def look_at(
    eye: Float[Tensor, "*n 3"], target: Float[Tensor, "*n 3"], *, up: tuple[float, float, float] = (0.0, 0.0, 1.0)
) -> Float[Tensor, "*n 3 4"]:
    """Camera-to-world of cameras at `eye` that look at `target`, upright with respect to `up` (ENU: z is up)."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.linalg.cross(forward, torch.tensor(up, dtype=eye.dtype).expand_as(forward))
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward, eye], dim=-1)


def distorted(plane: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 2"]:
    """Ideal (x, y) on the plane z = 1 to where the lens puts them (OpenCV's k1, k2, p1, p2)."""
    x, y = plane.unbind(-1)
    k1, k2, p1, p2 = distortion.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + k2 * r2)
    return torch.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)],
        dim=-1,
    )


def undistorted(
    observed: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 4"], *, steps: int = 12
) -> Float[Tensor, "*n 2"]:
    """Inverse of `distorted` by fixed-point iteration (OpenCV's method); exact to 1e-6 for phone lenses."""
    if not bool(distortion.any()):
        return observed
    plane = observed
    for _ in range(steps):
        plane = plane - (distorted(plane, distortion) - observed)
    return plane


def plane_points(
    cameras: Cameras, camera_index: Int[Tensor, "*n"], pixels: Float[Tensor, "*n 2"]
) -> Float[Tensor, "*n 2"]:
    """Pixel positions (u, v) of the given cameras to undistorted points (x, y) on the plane z = 1."""
    observed = (pixels - cameras.centre[camera_index]) / cameras.focal[camera_index]
    return undistorted(observed, cameras.distortion[camera_index])


def pixel_grid(width: int, height: int) -> Float[Tensor, "h w 2"]:
    """Positions (u, v) of all pixel centres of an image."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([u, v], dim=-1)


def project(cameras: Cameras, points: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n"]]:
    """World points to pixel positions and depths along z, one point per camera (broadcast over the batch).

    Depth <= 0 means behind the camera; its pixel position is meaningless then.
    """
    rotation, position = cameras.camera_to_world[..., :3], cameras.positions
    local = torch.einsum("...ji,...j->...i", rotation, points - position)
    depth = local[..., 2]
    plane = local[..., :2] / depth[..., None]
    return distorted(plane, cameras.distortion) * cameras.focal + cameras.centre, depth


def rotation_angle(a: Float[Tensor, "*n 3 3"], b: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n"]:
    """Angle between rotations, radians in [0, pi]."""
    trace = torch.einsum("...ij,...ij->...", a, b)
    return torch.arccos(((trace - 1) / 2).clamp(-1, 1))


def invalid_poses(camera_to_world: Float[Tensor, "n 3 4"]) -> Bool[Tensor, "n"]:
    """Which poses are no poses: not finite, or a rotation part that is no rotation."""
    finite = torch.isfinite(camera_to_world).all(dim=-1).all(dim=-1)
    rotation = torch.where(finite[:, None, None], camera_to_world[..., :3], torch.eye(3, dtype=camera_to_world.dtype))
    orthogonal = (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs().amax(dim=(-2, -1))
    right_handed = torch.linalg.det(rotation) > 0
    return ~(finite & (orthogonal < ROTATION_TOLERANCE) & right_handed)


def horizontal_field_of_view(cameras: Cameras) -> Float[Tensor, "*n"]:
    """Angle seen across the image's width, radians."""
    return 2 * torch.atan(cameras.width / (2 * cameras.focal[..., 0]))


def focal_from_35mm(focal_35mm: float, width: int, height: int) -> float:
    """EXIF's 35 mm equivalent focal length to pixels (36 mm are the longer side of the image)."""
    return focal_35mm / 36.0 * max(width, height)


def focal_from_angle(angle: float, length: int) -> float:
    """Focal length in pixels of a lens that sees `angle` radians over `length` pixels."""
    return length / (2 * math.tan(angle / 2))
