"""Poses refined while the field trains: every photo's camera moves to where its pixels agree with the crowd's field.

The camera of photo i is turned by a rotation vector w_i and shifted by s_i, both in world axes and about its own
centre (BARF, Lin et al. 2021):

    R_i = exp(w_i) R_i0,   t_i = t_i0 + s_i,   twist_i = (w_i, s_i) in radians and metres.

What is optimised is not the twist but its whitened form, twist_i = P_i x_i with P_i = (J^T J)^(-1/2) of how points in
the photo's view move in the picture (CamP, Park et al. 2023): turning and shifting a camera look nearly alike, and
Adam, which sees one number at a time, cannot tell them apart. A step of |x| moves what the photo shows by about |x|
radians in its field of view, whatever the photo's resolution.

Moving, turning and scaling the whole world with all cameras changes no pixel. These seven directions are taken out of
the twists (the inner constraints of free networks; Triggs et al. 2000, section 9), so the world stays where the initial
poses put it.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras, pixel_grid, rotation_angle
from crowdnerf_lab.captures.poses.georegistration import similarity_between
from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.kernels.reference import contracted
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds


@dataclass(frozen=True)
class PoseSettings:
    """How poses are refined.

    start: fraction of the budget after which they move; before, the field is too coarse to tell. warm: fraction over
    which the rate rises from 0. rate: Adam's step size in radians of a photo's field of view, falling geometrically
    to rate_end of itself; betas: its memories. turn_sd (radians) and shift_sd (metres): how far off the initial poses
    may well be; pull: weight in the loss of the squared twists in these units.
    """

    start: float = 0.05
    warm: float = 0.05
    rate: float = 1.5e-3
    rate_end: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    turn_sd: float = math.radians(1.0)
    shift_sd: float = 0.3
    pull: float = 1e-4


class PoseRefinement(nn.Module):
    """Small motions of the cameras `photos` (rows of `cameras`; the others stay), learned with the field.

    region: what the crowd looks at; its distance from each camera tells how far away things are.
    """

    whitened: nn.Parameter
    unwhiten: Tensor
    gauge: Tensor
    photos: Tensor

    def __init__(
        self, cameras: Cameras, photos: Int[Tensor, "m"], *, region: Bounds, settings: PoseSettings | None = None
    ) -> None:
        super().__init__()
        self.settings = settings or PoseSettings()
        self.initial = cameras
        moving = cameras[photos]
        self.whitened = nn.Parameter(torch.zeros(len(photos), 6))
        self.register_buffer("photos", photos.clone(), persistent=False)
        self.register_buffer("unwhiten", _unwhitening(moving, _distances(moving, region)), persistent=False)
        self.register_buffer("gauge", _gauge_directions(moving.positions, self._units), persistent=False)

    @property
    def _units(self) -> Float[Tensor, "6"]:
        return torch.tensor([self.settings.turn_sd] * 3 + [self.settings.shift_sd] * 3)

    def twists(self) -> Float[Tensor, "m 6"]:
        """Rotation vectors (radians) and shifts (metres) of the moving cameras in world axes, without the motion that
        they have in common. Differentiable in the parameters."""
        relative = (torch.einsum("nij,nj->ni", self.unwhiten, self.whitened) / self._units).reshape(-1)
        relative = relative - self.gauge @ (self.gauge.T @ relative)
        return relative.reshape(-1, 6) * self._units

    def cameras(self) -> Cameras:
        """All cameras, the moving ones where they are now. Differentiable in the parameters."""
        twists = self.twists()
        start = self.initial.camera_to_world[self.photos]
        turned = rotations_of(twists[:, :3]) @ start[..., :3]
        moved = torch.cat([turned, (start[..., 3] + twists[:, 3:])[..., None]], dim=-1)
        return replace(self.initial, camera_to_world=self.initial.camera_to_world.index_copy(0, self.photos, moved))

    def pull(self) -> Float[Tensor, ""]:
        """The regulariser to add to a loss: the initial poses are roughly right."""
        return self.settings.pull * ((self.twists() / self._units) ** 2).mean()

    def optimizer(self) -> torch.optim.Adam:
        """Adam over the twists; set its rate with `rate`."""
        return torch.optim.Adam([self.whitened], lr=self.settings.rate, betas=self.settings.betas)

    def rate(self, used: float) -> float:
        """The step size when the fraction `used` of the budget is spent; 0 before the poses may move."""
        settings = self.settings
        if used <= settings.start:
            return 0.0
        rise = min(1.0, (used - settings.start) / max(settings.warm, 1e-9))
        return settings.rate * rise * settings.rate_end ** ((used - settings.start) / (1 - settings.start))


def with_ray_gradients(
    samples: PackedSamples, rays: Rays, *, centre: Float[Tensor, "3"], half_size: Float[Tensor, "3"]
) -> PackedSamples:
    """The same samples with unit-cube positions that are differentiable in the rays' origins and directions."""
    ray = torch.repeat_interleave(torch.arange(len(rays.near)), samples.offsets.diff())
    world = rays.origins[ray] + samples.t_mid[:, None] * rays.directions[ray]
    return replace(samples, positions=contracted(world, centre, half_size))


def rotations_of(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation vectors (radians) to matrices by Rodrigues: exp(w) = I + sin(a)/a W + (1 - cos(a))/a^2 W^2, a = |w|.

    Smooth at 0.
    """
    squared = (vectors * vectors).sum(-1)[:, None, None]
    small = squared < 1e-6
    angle = torch.where(small, 1.0, squared).sqrt()
    first = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - torch.cos(angle)) / angle**2)
    cross = cross_matrices(vectors)
    return torch.eye(3).to(vectors) + first * cross + second * (cross @ cross)


def cross_matrices(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """[v] with [v] u = v x u."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


@dataclass(frozen=True)
class PoseErrors:
    """How far poses are from the truth: positions in metres, angles in radians."""

    position: Float[Tensor, "n"]
    rotation: Float[Tensor, "n"]


def pose_errors(
    estimated: Float[Tensor, "n 3 4"], truth: Float[Tensor, "n 3 4"], *, aligned: bool = False
) -> PoseErrors:
    """Differences of camera-to-world poses, as they are or after the similarity that fits the cameras best."""
    if aligned:
        estimated = similarity_between(estimated, truth).of_poses(estimated.double())
    estimated, truth = estimated.double(), truth.double()
    return PoseErrors(
        position=torch.linalg.vector_norm(estimated[..., 3] - truth[..., 3], dim=-1),
        rotation=rotation_angle(estimated[..., :3], truth[..., :3]),
    )


def perturbed(cameras: Cameras, photos: Int[Tensor, "m"], *, turn: float, shift: float, seed: int) -> Cameras:
    """Cameras of which `photos` are turned by `turn` radians and shifted by `shift` metres, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(len(photos), 2, 3, generator=generator), dim=-1)
    pose = cameras.camera_to_world[photos]
    turned = rotations_of(turn * axes[:, 0]) @ pose[..., :3]
    moved = torch.cat([turned, (pose[..., 3] + shift * axes[:, 1])[..., None]], dim=-1)
    return replace(cameras, camera_to_world=cameras.camera_to_world.index_copy(0, photos, moved))


DEPTHS = (0.4, 0.7, 1.0, 1.6)
"""Depths of the points that stand for a photo's view, in units of the distance to the region."""
DAMPING = 1e-2
"""Part of the mean square motion that is added to every direction, so that none is stretched beyond use."""


def _distances(cameras: Cameras, region: Bounds) -> Float[Tensor, "n"]:
    """From each camera to the middle of the region along its axis, at least half the region's size."""
    along = ((region.centre - cameras.positions) * cameras.forward).sum(-1)
    return along.clamp(min=0.5 * float(region.half_size.mean()))


def _unwhitening(cameras: Cameras, distance: Float[Tensor, "n"]) -> Float[Tensor, "n 6 6"]:
    """P_i = (mean J^T J + damping)^(-1/2), J the motion on the plane z = 1 of points in view by radians and metres."""
    grid = (pixel_grid(4, 4).reshape(-1, 2) / 4)[None]
    size = torch.stack([cameras.width, cameras.height], dim=-1).to(cameras.focal)
    plane = (grid * size[:, None] - cameras.centre[:, None]) / cameras.focal[:, None]
    depth = distance[:, None] * torch.tensor(DEPTHS)
    local = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)[:, :, None] * depth[:, None, :, None]
    local = local.flatten(1, 2)
    # A point (x, y, z) = R^T (X - t) of the camera moves by d = R^T ((X - t) x w - s), its image x / z by
    # (dx - x / z dz) / z.
    rotation = cameras.camera_to_world[..., :3]
    apart = torch.einsum("nij,nkj->nki", rotation, local)
    by_turn = torch.einsum("nji,nkjl->nkil", rotation, cross_matrices(apart))
    by_shift = -rotation.mT[:, None].expand(-1, local.shape[1], -1, -1)
    motion = torch.cat([by_turn, by_shift], dim=-1)
    slope = local[..., :2] / local[..., 2:]
    seen = (motion[..., :2, :] - slope[..., None] * motion[..., 2:, :]) / local[..., 2:, None]
    # Both kinds of columns are about alike once shifts count in distances.
    units = torch.ones(len(cameras), 6)
    units[:, 3:] = distance[:, None]
    jacobian = (seen * units[:, None, None]).double()
    square = torch.einsum("nkpi,nkpj->nij", jacobian, jacobian) / local.shape[1]
    damping = DAMPING * square.diagonal(dim1=-2, dim2=-1).mean(-1)
    values, vectors = torch.linalg.eigh(square + damping[:, None, None] * torch.eye(6, dtype=square.dtype))
    root = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    return (units[:, :, None] * root).to(cameras.focal)


def _gauge_directions(positions: Float[Tensor, "n 3"], units: Float[Tensor, "6"]) -> Float[Tensor, "n6 7"]:
    """Orthonormal basis of the twists (in `units`) by which a small similarity of the world moves all cameras."""
    apart = positions - positions.mean(0)
    common = torch.zeros(len(positions), 6, 7)
    common[:, :3, :3] = torch.eye(3)
    common[:, 3:, :3] = -cross_matrices(apart)
    common[:, 3:, 3:6] = torch.eye(3)
    common[:, 3:, 6] = apart
    basis, _ = torch.linalg.qr((common / units[:, None]).reshape(-1, 7).double())
    return basis.to(positions)
