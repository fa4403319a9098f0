"""Turn, scale and shift a model whose frame is arbitrary into the world's: x_world = s R x_model + t.

Rotation comes from the cameras' attitudes and only scale and shift from their positions: phones know which way is down
within a degree, but stand on an arc and metres from where GPS says, which leaves the tilt of a fit by positions alone
open (1 degree against 11 for 16 UEs).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.poses.motion import FEWEST, Motion, MotionError

ROUNDS = 30
"""Rounds of reweighting; both fits settle to rounding in about ten."""
ORDINARY = 3.0
"""Robust standard deviations up to which a residual counts in full: the noise of phones is averaged, not medianed."""
ROUNDING = 1e-9
"""Residuals (radians, metres) below this are none."""


@dataclass(frozen=True)
class Similarity:
    """x_world = scale * rotation @ x_model + translation."""

    scale: float
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]

    def of_points(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points of the model in the world."""
        return self.scale * points @ self.rotation.to(points).T + self.translation.to(points)

    def of_poses(self, camera_to_world: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Cameras of the model in the world; rotations stay rotations."""
        positions = self.of_points(camera_to_world[..., 3])
        return torch.cat([self.rotation.to(positions) @ camera_to_world[..., :3], positions[..., None]], dim=-1)


def similarity_between(model: Float[Tensor, "n 3 4"], world: Float[Tensor, "n 3 4"]) -> Similarity:
    """The similarity that takes a model's cameras to the same cameras' places in the world, robust to outliers.

    Both are camera-to-world. Least squares of the angles for the rotation, then of the distances for scale and
    translation, both with Huber's weights, so that a few wrong cameras do not pull the world. Needs two cameras at
    different places.
    """
    model, world = model.double(), world.double()
    rotation = mean_rotation(world[..., :3] @ model[..., :3].mT)
    turned, target = model[..., 3] @ rotation.T, world[..., 3]
    weights = torch.ones(len(model), 1, dtype=torch.float64)
    scale, translation = torch.ones((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(ROUNDS):
        total = weights.sum()
        turned_centre, target_centre = (weights * turned).sum(0) / total, (weights * target).sum(0) / total
        spread, reach = turned - turned_centre, target - target_centre
        scale = (weights * spread * reach).sum() / (weights * spread * spread).sum()
        translation = target_centre - scale * turned_centre
        weights = huber_weights(torch.linalg.vector_norm(scale * turned + translation - target, dim=-1))[:, None]
    return Similarity(scale=float(scale), rotation=rotation, translation=translation)


def georegistered(motion: Motion, targets: Sequence[Sequence[Sequence[float]] | None]) -> Motion:
    """Structure from motion moved into the frame of `targets`: camera-to-world of its cameras, None where unknown.

    Raises MotionError when fewer than three are known or when they contradict the model.
    """
    known = [index for index, target in enumerate(targets) if target is not None]
    if len(known) < FEWEST:
        raise MotionError(
            f"{len(known)} of {len(targets)} posed photos have a pose to fit the world to, {FEWEST} are needed"
        )
    world = torch.tensor([targets[index] for index in known])
    similarity = similarity_between(motion.cameras.camera_to_world[known], world)
    if not similarity.scale > 0:
        raise MotionError("the poses to fit the world to contradict what the pictures show; check their axes")
    cameras = replace(motion.cameras, camera_to_world=similarity.of_poses(motion.cameras.camera_to_world))
    return replace(motion, cameras=cameras, points=similarity.of_points(motion.points))


def mean_rotation(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3 3"]:
    """The chordal mean of rotations (Hartley et al. 2013, Rotation averaging, section 5.1), with Huber's weights."""
    centre = nearest_rotation(rotations.sum(0))
    for _ in range(ROUNDS):
        weights = huber_weights(rotation_angle(rotations, centre.expand_as(rotations)))
        centre = nearest_rotation((weights[:, None, None] * rotations).sum(0))
    return centre


def huber_weights(residuals: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Weights that keep ordinary residuals (>= 0) whole and bound the pull of large ones (Huber 1964): min(1, k s / r).

    s is their robust standard deviation, 1.4826 of the median; k is `ORDINARY`.
    """
    ordinary = (ORDINARY * 1.4826 * residuals.median()).clamp(min=ROUNDING)
    return (ordinary / residuals.clamp(min=ROUNDING)).clamp(max=1.0)


def nearest_rotation(matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to a matrix in the Frobenius norm: U diag(1, 1, det(U V^T)) V^T of its SVD."""
    left, _, right = torch.linalg.svd(matrix)
    flip = torch.ones(3, dtype=matrix.dtype)
    flip[2] = torch.sign(torch.linalg.det(left @ right))
    return left @ torch.diag(flip) @ right
