"""From other tools' axes to the package's and back: OpenCV cameras (x right, y down, z forward), worlds with z up.

Poses are camera-to-world [R | t]. Quaternions are x, y, z, w unless a function says otherwise.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

QUATERNION_TOLERANCE = 0.01
"""Largest deviation of a quaternion's length from 1 that is put down to rounding in a file."""


def opengl_to_opencv(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Camera-to-world with OpenGL axes to OpenCV axes: the y and z columns change sign, the position stays."""
    return camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])


def opencv_to_opengl(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Inverse of `opengl_to_opencv`."""
    return camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])


def llff_to_opencv(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """LLFF's columns are down, right, backward: reorder them and turn the last round."""
    down, right, backward, position = camera_to_world.unbind(-1)
    return torch.stack([right, down, -backward, position], dim=-1)


def y_up_to_z_up(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Turn a world whose y is up (ARKit, ARCore) so that z is: (x, y, z) becomes (z, x, y), as nerfstudio does."""
    x, y, z = camera_to_world.unbind(-2)
    return torch.stack([z, x, y], dim=-2)


def inverse(pose: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """World-to-camera of camera-to-world, and the other way round."""
    rotation = pose[..., :3].mT
    return torch.cat([rotation, -rotation @ pose[..., 3:]], dim=-1)


def pose_of_quaternion(quaternion: Sequence[float], position: Sequence[float]) -> Float[Tensor, "3 4"]:
    """[R | t] of a quaternion (x, y, z, w) and a position, in double precision.

    Raises ValueError for a quaternion that is not of unit length, or not finite.
    """
    numbers = torch.tensor([float(number) for number in quaternion], dtype=torch.float64)
    length = torch.linalg.vector_norm(numbers)
    if not bool((length - 1).abs() < QUATERNION_TOLERANCE):
        raise ValueError(f"quaternion {tuple(quaternion)} has length {float(length):.4g} instead of 1")
    x, y, z, w = (numbers / length).tolist()
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor([[*row, float(t)] for row, t in zip(rotation, position, strict=True)], dtype=torch.float64)


def pose_of_rotation_vector(vector: Sequence[float], position: Sequence[float]) -> Float[Tensor, "3 4"]:
    """[R | t] of a rotation vector (its axis times its angle in radians; Rodrigues) and a position."""
    if len(vector) != 3 or len(position) != 3:
        raise ValueError(f"a rotation vector and a position have 3 numbers each, not {len(vector)} and {len(position)}")
    x, y, z = (float(number) for number in vector)
    across = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    column = torch.tensor([[float(number)] for number in position], dtype=torch.float64)
    return torch.cat([torch.linalg.matrix_exp(across), column], dim=-1)


def pose_of_sixteen(values: Sequence[float]) -> Float[Tensor, "3 4"]:
    """[R | t] of a 4x4 matrix whose 16 numbers go row by row, or column by column as in ARKit's simd_float4x4.

    Which it is shows in the numbers 0, 0, 0, 1 of the last row. Raises ValueError where they stand in neither place.
    """
    if len(values) != 16:
        raise ValueError(f"a 4x4 matrix has 16 numbers, not {len(values)}")
    matrix = torch.tensor([float(value) for value in values], dtype=torch.float64).reshape(4, 4)
    last = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    for candidate in (matrix, matrix.T):
        if torch.allclose(candidate[3], last, atol=1e-6):
            return candidate[:3].contiguous()
    raise ValueError("a 4x4 pose ends in the row 0, 0, 0, 1; here neither the last row nor the last column does")


def quaternion_of(rotation: Float[Tensor, "3 3"]) -> tuple[float, float, float, float]:
    """The quaternion (x, y, z, w), w >= 0, of a rotation, by Bar-Itzhack's eigenvector (2000)."""
    m = rotation.to(torch.float64)
    symmetric = torch.tensor(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ],
        dtype=torch.float64,
    )
    x, y, z, w = torch.linalg.eigh(symmetric / 3).eigenvectors[:, -1].tolist()
    sign = -1.0 if w < 0 else 1.0
    return sign * x, sign * y, sign * z, sign * w
