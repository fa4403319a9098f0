"""Gaussian splats from a PLY file to pictures: what a splat trainer reached, rendered for our metrics.

The method of 3D Gaussian splatting (Kerbl et al. 2023): a Gaussian's covariance R S S^T R^T is projected by the
Jacobian of the pinhole (EWA splatting, Zwicker et al. 2001), widened by 0.3 px^2, and blended front to back.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor

from benchmarks.peers.project import PeerError
from crowdnerf_lab.cameras import Cameras

WIDENING = 0.3
"""Added to the variance of every splat, px^2."""
MOST_ALPHA = 0.999
LEAST_ALPHA = 1 / 255
SIGMAS = 3.0
"""A splat ends at so many standard deviations along its longer axis."""
NEAREST = 1e-6
"""Depth below which a Gaussian is not drawn."""
MARGIN = 1.3
"""The Jacobian is taken at most this far out, in half fields of view."""

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


@dataclass(frozen=True)
class Splats:
    """Gaussians in the scene's frame. scales: standard deviations; rotations: unit quaternions w x y z; harmonics:
    coefficients of degrees 0 to 3; opacity in [0, 1]."""

    centres: Float[np.ndarray, "n 3"]
    scales: Float[np.ndarray, "n 3"]
    rotations: Float[np.ndarray, "n 4"]
    harmonics: Float[np.ndarray, "n 16 3"]
    opacity: Float[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.centres)


def read_splats(path: Path) -> Splats:
    """Read the PLY that splat trainers write: logits of opacity, logarithms of scales, harmonics channel by channel."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    counts = [int(line.split()[2]) for line in lines if line.startswith("element vertex")]
    if not lines or lines[0] != "ply" or len(counts) != 1 or len(body) != 4 * counts[0] * len(names):
        raise PeerError(f"{path} is no complete PLY of splats; run the peer again")
    rows = np.frombuffer(body, "<f4").reshape(counts[0], len(names))
    column = {name: i for i, name in enumerate(names)}

    def columns(prefix: str, count: int) -> np.ndarray:
        return np.stack([rows[:, column[f"{prefix}{i}"]] for i in range(count)], -1).astype(np.float64)

    rest = sum(name.startswith("f_rest_") for name in names)
    harmonics = np.zeros((counts[0], 16, 3))
    harmonics[:, 0] = columns("f_dc_", 3)
    if rest:
        harmonics[:, 1 : 1 + rest // 3] = columns("f_rest_", rest).reshape(-1, 3, rest // 3).transpose(0, 2, 1)
    rotations = columns("rot_", 4)
    return Splats(
        centres=np.stack([rows[:, column[axis]] for axis in "xyz"], -1).astype(np.float64),
        scales=np.exp(columns("scale_", 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=-1, keepdims=True),
        harmonics=harmonics,
        opacity=1 / (1 + np.exp(-rows[:, column["opacity"]].astype(np.float64))),
    )


def render_splats(
    splats: Splats,
    cameras: Cameras,
    index: int,
    *,
    background: tuple[float, float, float],
    keys: Float[np.ndarray, "n"] | None = None,
) -> Float[Tensor, "h w 3"]:
    """The picture of one camera with an ideal lens, in [0, 1]. keys: what to sort by, ascending, in place of depth."""
    pose = cameras.camera_to_world[index].double().numpy()
    width, height = int(cameras.width[index]), int(cameras.height[index])
    focal, middle = cameras.focal[index].double().numpy(), cameras.centre[index].double().numpy()
    local = (splats.centres - pose[:, 3]) @ pose[:, :3]
    seen = local[:, 2] > NEAREST
    order = np.flatnonzero(seen)[np.argsort((local[:, 2] if keys is None else keys)[seen], kind="stable")]
    local, offset = local[order], splats.centres[order] - pose[:, 3]
    directions = offset / np.linalg.norm(offset, axis=-1, keepdims=True)
    colours = np.maximum(_colours(splats.harmonics[order], directions), 0)
    covariance = _projected(splats, order, local, pose[:, :3], focal, np.array([width, height]))
    centres = local[:, :2] / local[:, 2:] * focal + middle
    canvas = _blended(centres, covariance, colours, splats.opacity[order], np.array(background), height, width)
    return torch.from_numpy(canvas.astype(np.float32)).clamp(0, 1)


def _colours(harmonics: np.ndarray, directions: np.ndarray) -> np.ndarray:
    x, y, z = directions.T
    basis = [np.full_like(x, C0), -C1 * y, C1 * z, -C1 * x]
    basis += [C2[0] * x * y, C2[1] * y * z, C2[2] * (2 * z * z - x * x - y * y), C2[3] * x * z, C2[4] * (x * x - y * y)]
    basis += [
        C3[0] * y * (3 * x * x - y * y),
        C3[1] * x * y * z,
        C3[2] * y * (4 * z * z - x * x - y * y),
        C3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y),
        C3[4] * x * (4 * z * z - x * x - y * y),
        C3[5] * z * (x * x - y * y),
        C3[6] * x * (x * x - 3 * y * y),
    ]
    return np.einsum("kn,nkc->nc", np.stack(basis), harmonics) + 0.5


def _projected(
    splats: Splats, order: np.ndarray, local: np.ndarray, rotation: np.ndarray, focal: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Covariances [n 2 2] on the picture, px^2."""
    w, x, y, z = splats.rotations[order].T
    axes = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )
    spread = rotation.T @ (axes * splats.scales[order][:, None, :])
    depth = local[:, 2]
    limit = MARGIN * size / (2 * focal)
    across = np.clip(local[:, :2] / depth[:, None], -limit, limit)
    zero = np.zeros_like(depth)
    jacobian = np.stack(
        [
            np.stack([focal[0] / depth, zero, -focal[0] * across[:, 0] / depth], -1),
            np.stack([zero, focal[1] / depth, -focal[1] * across[:, 1] / depth], -1),
        ],
        -2,
    )
    flat = jacobian @ spread
    return flat @ flat.transpose(0, 2, 1) + WIDENING * np.eye(2)


@njit(cache=True)
def _blended(centres, covariance, colours, opacity, background, height, width):  # pragma: no cover (compiled)
    """Splats, nearest first, over the background: C = sum_i T_i alpha_i c_i + T background."""
    canvas = np.zeros((height, width, 3))
    through = np.ones((height, width))
    for i in range(len(centres)):
        a, b, c = covariance[i, 0, 0], covariance[i, 0, 1], covariance[i, 1, 1]
        determinant = a * c - b * b
        if determinant <= 0:
            continue
        half = (a + c) / 2
        reach = SIGMAS * np.sqrt(half + np.sqrt(max(half * half - determinant, 0.1)))
        u, v = centres[i]
        for row in range(max(int(np.floor(v - reach)), 0), min(int(np.ceil(v + reach)) + 1, height)):
            for column in range(max(int(np.floor(u - reach)), 0), min(int(np.ceil(u + reach)) + 1, width)):
                if through[row, column] < 1e-4:
                    continue
                x, y = column + 0.5 - u, row + 0.5 - v
                power = -0.5 * (c * x * x - 2 * b * x * y + a * y * y) / determinant
                alpha = min(opacity[i] * np.exp(power), MOST_ALPHA)
                if alpha < LEAST_ALPHA:
                    continue
                canvas[row, column] += through[row, column] * alpha * colours[i]
                through[row, column] *= 1 - alpha
    return canvas + through[..., None] * background
