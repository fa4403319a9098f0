"""PosedScene: photos with cameras, ready to train on; and the bounds that fit what they see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, invalid_poses


class SceneError(ValueError):
    """A scene that cannot be trained on; the message names the photo and the remedy."""


@dataclass(frozen=True)
class Bounds:
    """The region of interest: an axis-aligned box, metres. What lies outside is kept, contracted (see kernels.cpu).

    closed: nothing lies outside, as around an object cut out of its photos; behind the box is white.
    """

    centre: Float[Tensor, "3"]
    half_size: Float[Tensor, "3"]
    closed: bool = False


@dataclass(frozen=True)
class PosedScene:
    """Photos of one event with their cameras.

    images: sRGB bytes, one [h w 3] tensor a photo (photos of a crowd differ in size and orientation).
    masks: True where a pixel may be trained on; one [h w] tensor a photo, or None when nothing is masked.
    capture_of_image: row in `captures` (the UEs' pseudonyms); appearance is shared within a capture.
    time_of_image: seconds since the event began.
    train, held_out: rows of photos; a photo in neither was read but is not used.
    origin_wgs84: latitude, longitude (degrees) and altitude (m) of the ENU origin, when georegistered.
    """

    name: str
    image_names: tuple[str, ...]
    cameras: Cameras
    images: tuple[UInt8[Tensor, "_ _ 3"], ...]
    masks: tuple[Bool[Tensor, "_ _"], ...] | None
    bounds: Bounds
    captures: tuple[str, ...]
    capture_of_image: Int[Tensor, "n"]
    time_of_image: Float[Tensor, "n"]
    train: Int[Tensor, "train"]
    held_out: Int[Tensor, "held_out"]
    origin_wgs84: tuple[float, float, float] | None

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Float[Tensor, "h w 3"]:
        """One photo as float32 in [0, 1]."""
        return self.images[index].to(torch.float32) / 255.0

    def downscaled(self, factor: int) -> "PosedScene":
        """The same scene with photos shrunk `factor` times by area averaging."""
        if factor == 1:
            return self
        cameras = self.cameras.downscaled(factor)
        if len(self) and int(torch.minimum(cameras.width, cameras.height).min()) == 0:
            raise SceneError(f"nothing is left of the photos of '{self.name}' shrunk {factor} times; shrink them less")
        images = tuple(
            area_resized(image, int(width), int(height))
            for image, width, height in zip(self.images, cameras.width, cameras.height, strict=True)
        )
        masks = self.masks and tuple(
            area_resized(mask[..., None].to(torch.uint8) * 255, int(width), int(height))[..., 0] == 255
            for mask, width, height in zip(self.masks, cameras.width, cameras.height, strict=True)
        )
        return replace(self, cameras=cameras, images=images, masks=masks)

    def with_split(self, train: Sequence[int], held_out: Sequence[int]) -> "PosedScene":
        """The same photos, split differently."""
        return replace(
            self,
            train=torch.tensor(list(train), dtype=torch.int64),
            held_out=torch.tensor(list(held_out), dtype=torch.int64),
        )

    def holding_out(self, every: int) -> "PosedScene":
        """The same photos with every `every`-th training photo by name held out, from the first on (0: none more)."""
        by_name = sorted(self.train.tolist(), key=lambda row: self.image_names[row])
        taken = set(by_name[::every] if every else ())
        return self.with_split(
            [row for row in self.train.tolist() if row not in taken], sorted({*self.held_out.tolist(), *taken})
        )


def area_resized(image: UInt8[Tensor, "_ _ c"], width: int, height: int) -> UInt8[Tensor, "_ _ c"]:
    """An image shrunk by averaging the pixels that fall together."""
    planes = image.permute(2, 0, 1)[None].to(torch.float32)
    small = torch.nn.functional.interpolate(planes, size=(height, width), mode="area")
    return small[0].permute(1, 2, 0).round().to(torch.uint8).contiguous()


def check_trainable(scene: PosedScene) -> None:
    """Raise SceneError unless the scene can be trained on: photos, finite poses, at least three training views."""
    if len(scene) == 0 or len(scene.train) == 0:
        raise SceneError(f"scene '{scene.name}' has no training photos; add photos or loosen the screening")
    if len(scene.train) < 3:
        raise SceneError(
            f"scene '{scene.name}' has {len(scene.train)} training photos; a radiance field needs at least 3 views "
            "of the same thing (10 or more give a usable picture)"
        )
    bad = invalid_poses(scene.cameras.camera_to_world).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(scene.image_names[i] for i in bad[:5])
        raise SceneError(
            f"{len(bad)} photos of scene '{scene.name}' have poses that are not finite or not rotations ({names}); "
            "calibrate them again or drop them"
        )
    for name, image, width, height in zip(
        scene.image_names, scene.images, scene.cameras.width, scene.cameras.height, strict=True
    ):
        if image.shape[:2] != (int(height), int(width)):
            raise SceneError(
                f"{name} is {image.shape[1]}x{image.shape[0]} but its camera says {int(width)}x{int(height)}"
            )


def focus_point(cameras: Cameras) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes (least squares); where the crowd looks."""
    axes, positions = cameras.forward.double(), cameras.positions.double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    # A weak pull to the mean camera keeps parallel axes solvable.
    pull = 1e-3 * torch.eye(3, dtype=torch.float64)
    left = across.sum(0) + pull
    right = torch.einsum("nij,nj->i", across, positions) + pull @ positions.mean(0)
    return torch.linalg.solve(left, right).to(cameras.focal)


def bounds_of(cameras: Cameras) -> Bounds:
    """A box around where the crowd looks that reaches to the cameras: the region given most of the field's
    resolution."""
    focus = focus_point(cameras)
    reach = torch.quantile((cameras.positions - focus).abs(), 0.9, dim=0)
    distance = torch.linalg.vector_norm(cameras.positions - focus, dim=-1).median()
    return Bounds(centre=focus, half_size=torch.maximum(reach, 0.5 * distance))
