"""Which pixels of a photo to doubt: people in front of one phone, not what the field has yet to learn.

A single ray cannot tell a raised arm from a performer the field does not know yet: both leave a large residual. Their
patches can. What is in front covers a patch with one sign of the residual; unlearned detail swings around zero and
vanishes when a patch is averaged (patches as in RobustNeRF, Sabour et al. 2023, and NeRF On-the-go, Ren et al. 2024).
Residuals are log ratios of brightness, because a silhouette before a dark floor differs little but by half.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.scene import PosedScene

DARK = 0.015
"""sRGB value added before a logarithm: differences far below it are noise."""
ACTIVITY_FLOOR = 0.3
"""Log contrast of a patch below which its own detail excuses no residual."""


@dataclass(frozen=True)
class RobustSettings:
    """How rays are doubted while training.

    cells: patches along the longer side of a photo. memory: what is kept of a patch's mean at each visit. patch_scale:
    patch residual, in units of the crowd's typical one, at which a weight has fallen to a quarter. least: what is left
    of it at worst: other photos contradict what passes by; a neighbour who stays, nobody contradicts. ray_scale: the
    same for a ray's own RMS colour error (sRGB); the loss of Geman and McClure, by reweighting.
    """

    cells: int = 40
    memory: float = 0.9
    patch_scale: float = 4.0
    least: float = 0.1
    ray_scale: float = 0.4


class OutlierMaps:
    """A running mean residual for every patch of every photo, from the rays that training draws anyway.

    residual [photos rows columns 3]: decaying sum of log(photo) - log(render) by colour; mass [photos rows columns]:
    decaying number of rays in it. typical: the crowd's running median patch residual. The bits depend on the rays
    alone.
    """

    def __init__(self, cameras: Cameras, settings: RobustSettings) -> None:
        self.settings = settings
        self.cameras = cameras
        size = settings.cells
        self.residual = torch.zeros(len(cameras), size, size, 3)
        self.mass = torch.zeros(len(cameras), size, size)
        self.typical = torch.tensor(math.nan)
        longer = torch.maximum(cameras.width, cameras.height)
        self._cells_per_px = size / longer

    @classmethod
    def of(cls, scene: PosedScene, settings: RobustSettings | None = None) -> "OutlierMaps":
        """Empty maps for the photos of a scene; they hold for the scene shrunk, too."""
        return cls(scene.cameras, settings or RobustSettings())

    @torch.no_grad()
    def weigh(
        self,
        photo: Int[Tensor, "n"],
        plane: Float[Tensor, "n 2"],
        *,
        colour: Float[Tensor, "n 3"],
        truth: Float[Tensor, "n 3"],
    ) -> Float[Tensor, "n"]:
        """Remember the residuals of a step's rays and weigh them, in [0, 1].

        plane: points (x, y) of the rays on the planes z = 1 of the cameras `photo`. colour: rendered as the photo would
        show it; truth: what it shows; both sRGB.
        """
        patch = self._patch_of(photo, plane)
        self._remember(patch, torch.log(truth.clamp(min=0) + DARK) - torch.log(colour.clamp(min=0) + DARK))
        size = self.settings.cells
        # The eight patches around count half: what is in front is larger than a patch.
        row, column = patch // size % size, patch % size
        total, mass = torch.zeros(len(photo), 3), torch.zeros(len(photo))
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                inside = ((row + down) // size == 0) & ((column + right) // size == 0)
                share = inside * (1.0 if down == right == 0 else 0.5)
                near = torch.where(inside, patch + down * size + right, patch)
                total += share[:, None] * self.residual.view(-1, 3)[near]
                mass += share * self.mass.view(-1)[near]
        of_patch = torch.linalg.vector_norm(total / mass.clamp(min=1)[:, None], dim=-1)
        self._follow(of_patch)
        of_ray = ((colour - truth) ** 2).mean(-1)
        return self._trust(of_patch) / (1 + of_ray / self.settings.ray_scale**2) ** 2

    def map_of(self, photo: int) -> Float[Tensor, "h w"]:
        """How far the patches of a photo are trusted, 1 wholly, at the photo's size."""
        height, width = int(self.cameras.height[photo]), int(self.cameras.width[photo])
        across = self._cells_per_px[photo]
        rows, columns = math.ceil(height * float(across)), math.ceil(width * float(across))
        planes = torch.cat([self.residual[photo], self.mass[photo][..., None]], dim=-1).permute(2, 0, 1)[None]
        kernel = torch.full((4, 1, 3, 3), 0.5)
        kernel[:, :, 1, 1] = 1.0
        near = torch.nn.functional.conv2d(planes, kernel, padding=1, groups=4)[0, :, :rows, :columns]
        trust = self._trust(torch.linalg.vector_norm(near[:3] / near[3].clamp(min=1), dim=0))
        size = (height, width)
        return torch.nn.functional.interpolate(trust[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"residual": self.residual, "mass": self.mass, "typical": self.typical}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        self.residual, self.mass, self.typical = (tensors[name].clone() for name in ("residual", "mass", "typical"))

    def _patch_of(self, photo: Int[Tensor, "n"], plane: Float[Tensor, "n 2"]) -> Int[Tensor, "n"]:
        pixel = plane * self.cameras.focal[photo] + self.cameras.centre[photo]
        cell = (pixel * self._cells_per_px[photo][:, None]).long().clamp(0, self.settings.cells - 1)
        return (photo * self.settings.cells + cell[:, 1]) * self.settings.cells + cell[:, 0]

    def _remember(self, patch: Int[Tensor, "n"], residual: Float[Tensor, "n 3"]) -> None:
        visited = torch.unique(patch)
        self.residual.view(-1, 3)[visited] *= self.settings.memory
        self.mass.view(-1)[visited] *= self.settings.memory
        self.residual.view(-1, 3).index_add_(0, patch, residual)
        self.mass.view(-1).index_add_(0, patch, torch.ones(len(patch)))

    def _follow(self, of_patch: Float[Tensor, "n"]) -> None:
        now = of_patch.median()
        self.typical = now if bool(self.typical.isnan()) else torch.lerp(self.typical, now, 0.05)

    def _trust(self, of_patch: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        if bool(self.typical.isnan()):
            return torch.ones_like(of_patch)
        trust = 1 / (1 + (of_patch / (self.settings.patch_scale * self.typical.clamp(min=1e-3))) ** 2) ** 2
        return self.settings.least + (1 - self.settings.least) * trust


def doubt_map(
    photo: Float[Tensor, "h w 3"], seen: Float[Tensor, "_ _ 3"], *, window: float | None = None
) -> Float[Tensor, "h w"]:
    """How much a photo differs from the field in patches of its size, >= 0; about 1 is certain.

    seen: the field from the photo's own pose in the photo's own appearance, sRGB. window: standard deviation of a
    patch, px; by default a 53rd of the longer side. The RMS over colours of the mean log ratio, relative to the log
    contrast that the field itself shows around there (where there is detail, a small misfit of it is no person).
    """
    if photo.shape != seen.shape:
        raise ValueError(f"photo and render differ in size: {tuple(photo.shape)} and {tuple(seen.shape)}")
    window = window or max(photo.shape[:2]) / 53
    taken, known = (np.log(picture.clamp(min=0).numpy() + DARK) for picture in (photo, seen))
    residual = np.sqrt((smoothed(taken - known, window) ** 2).mean(-1))
    activity = np.sqrt(smoothed((known - smoothed(known, window)) ** 2, 1.33 * window).mean(-1))
    return torch.from_numpy(residual / (ACTIVITY_FLOOR + activity)).to(torch.float32)


def smoothed(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A picture [h w c] under a Gaussian of `sigma` px; edges repeat."""
    return gaussian_filter(picture, (sigma, sigma, 0), mode="nearest", truncate=3.0)


def average_precision(score: Float[Tensor, "*n"], occluded: Bool[Tensor, "*n"]) -> float:
    """Area under precision over recall when pixels are called occluded from the highest score down (Salton and McGill
    1983). Chance gives the occluded share. Raises ValueError when nothing is occluded."""
    order = torch.argsort(score.reshape(-1), descending=True, stable=True)
    hits = occluded.reshape(-1)[order].double()
    if not bool(hits.any()):
        raise ValueError("no pixel is occluded, so there is no recall to speak of; give masks that hold something")
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1, dtype=torch.float64)
    return float((precision * hits).sum() / hits.sum())
