"""What can be drawn live, all behind one question: some rows of a view, in one channel.

Rows, because a drawing that can be stopped after any of them can be cancelled; and a band of rows of an ideal camera
is itself the view of an ideal camera, whose principal point lies higher (`band`), so every renderer of the package
draws bands without knowing it.

Channels, float32 [rows, width, numbers]:

    colour       3  sRGB in [0, 1]
    depth        2  mean distance along the ray in metres, and opacity
    opacity      1  in [0, 1]
    uncertainty  1  the doubt of `uncertainty`, 0 or more
    occupancy    1  samples that the ray takes in occupied cells
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.fields.grid_field import GridField
from crowdnerf_lab.fields.hash_grid import HashGrid
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.rays import Rays, image_rays
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training_control import Watcher
from crowdnerf_lab.uncertainty import Evidence, EvidenceSettings, gather_evidence, uncertainty_of

Channel = Literal["colour", "depth", "opacity", "uncertainty", "occupancy"]
Rows = NDArray[np.float32]
EVIDENCE_RAYS = 60_000
"""Training rays asked before the first picture of uncertainty: a second or two, for the order of its pixels."""


class LiveRenderingError(ValueError):
    """A model, a mode or a path that cannot be shown; the message says why and what to do."""


@runtime_checkable
class Source(Protocol):
    """Something that a view can be drawn from.

    channels: those it knows. pixels: at most so many are worth drawing of a view (a light field draws cells of one
    angular size); None: as many as are asked for. at_once: whether a view cannot be drawn in bands.
    """

    @property
    def channels(self) -> tuple[Channel, ...]: ...
    @property
    def pixels(self) -> int | None: ...
    @property
    def at_once(self) -> bool: ...

    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        """Rows [first, last) of a view in one of the channels."""
        ...


def band(view: ViewRequest, first: int, last: int) -> ViewRequest:
    """Rows [first, last) of a view, as a view of their own."""
    return replace(view, centre=(view.centre[0], view.centre[1] - first), height=last - first)


class FieldSource:
    """A radiance field, marched ray by ray. scene: whose photos judge its uncertainty."""

    pixels, at_once = None, False

    def __init__(self, field: RadianceField, *, scene: PosedScene | None = None) -> None:
        self.field, self._scene = field, scene

    @property
    def channels(self) -> tuple[Channel, ...]:
        known: list[Channel] = ["colour", "depth", "opacity"]
        if isinstance(self.field, SHGrid | HashGrid) and self._scene is not None:
            known.append("uncertainty")
        if isinstance(self.field, GridField):
            known.append("occupancy")
        return tuple(known)

    @cached_property
    def evidence(self) -> Evidence:
        """What the training rays told: gathered when uncertainty is first asked for, then kept."""
        assert isinstance(self.field, SHGrid | HashGrid)
        assert self._scene is not None
        return gather_evidence(self.field, self._scene, settings=EvidenceSettings(rays=EVIDENCE_RAYS))

    @torch.no_grad()
    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        rays = image_rays(band(view, first, last).cameras(), 0).flattened()
        return self._values(rays, channel).reshape(last - first, view.width, -1).numpy()

    def _values(self, rays: Rays, channel: Channel) -> Float[Tensor, "rays numbers"]:
        if channel == "uncertainty":
            assert isinstance(self.field, SHGrid | HashGrid)
            return uncertainty_of(self.field, self.evidence, rays)[1].doubt[:, None]
        if channel == "occupancy":
            return self._samples(rays)[:, None]
        rendered = self.field.render(rays)
        if channel == "colour":
            return rendered.colour.clamp(0, 1)
        if channel == "depth":
            return torch.stack([rendered.depth, rendered.opacity], dim=-1)
        return rendered.opacity[:, None]

    def _samples(self, rays: Rays) -> Float[Tensor, "rays"]:
        assert isinstance(self.field, SHGrid | HashGrid)
        jitter = torch.full_like(rays.near, 0.5)
        return self.field.march(rays, jitter=jitter, steps=self.field.shape.steps).offsets.diff().float()


class BakedSource:
    """A baked field, marched by threads of its own. threads: None for all."""

    channels: tuple[Channel, ...] = ("colour", "depth", "opacity")
    pixels, at_once = None, False

    def __init__(self, field: BakedField, *, threads: int | None = None) -> None:
        self.field, self._threads = field, threads

    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        part = band(view, first, last)
        image = self.field.render_image(
            part.pose, part.focal, centre=part.centre, width=part.width, height=part.height, threads=self._threads
        )
        if channel == "colour":
            return image.colour
        if channel == "depth":
            return np.stack([image.depth, image.opacity], axis=-1)
        return image.opacity[..., None]


class LightFieldSource:
    """A light field in torch: colours alone, of the angular size of pixel that it was distilled for."""

    channels: tuple[Channel, ...] = ("colour",)
    at_once = True

    def __init__(self, light_field: LightField) -> None:
        light_field.eval()
        self._light_field = light_field
        self.pixels = light_field.view_size[0] * light_field.view_size[1]

    @torch.no_grad()
    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        image = self._light_field(view.cameras(), view.height, view.width)[0, first:last]
        return image.clamp(0, 1).contiguous().numpy()


class LocalModelSource:
    """A model as a UE runs it: colours alone, at its own size."""

    channels: tuple[Channel, ...] = ("colour",)
    at_once = True

    def __init__(self, model: LocalModel) -> None:
        self._model, self.pixels = model, model.width * model.height

    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        picture = self._model.render(view.pose, view.focal, view.centre, width=view.width, height=view.height)
        return picture[first:last].astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class FixedPictures:
    """Pictures that were taken, not rendered: photos, or the truth. cameras: theirs; images: sRGB bytes."""

    cameras: Cameras
    images: Sequence[NDArray[np.uint8]]

    def __post_init__(self) -> None:
        if len(self.cameras) != len(self.images) or not self.images:
            raise LiveRenderingError(
                f"{len(self.images)} pictures of {len(self.cameras)} cameras; give one picture a camera, one at least"
            )

    @staticmethod
    def of(scene: PosedScene, rows: Sequence[int] | Tensor) -> "FixedPictures":
        """Some photos of a scene, `scene.held_out` for the truth that no field was trained on."""
        chosen = [int(row) for row in rows]
        return FixedPictures(scene.cameras[torch.tensor(chosen)], [scene.images[row].numpy() for row in chosen])

    def nearest(self, view: ViewRequest) -> int:
        """The picture that shows most of what a view shows: nearest in place and direction, a radian counting like the
        median distance between the cameras and their middle."""
        positions = self.cameras.positions.numpy()
        reach = float(np.median(np.linalg.norm(positions - positions.mean(0), axis=1))) or 1.0
        apart = np.linalg.norm(positions - view.pose[:, 3], axis=1) / reach
        turned = np.arccos(np.clip(self.cameras.forward.numpy() @ view.pose[:, 2], -1, 1))
        return int(np.argmin(apart + turned))


class PictureSource:
    """Fixed pictures: the nearest one fills the view, whatever its camera."""

    channels: tuple[Channel, ...] = ("colour",)
    pixels, at_once = None, True

    def __init__(self, pictures: FixedPictures) -> None:
        self._pictures = pictures

    def rows(self, view: ViewRequest, first: int, last: int, channel: Channel) -> Rows:
        picture = Image.fromarray(self._pictures.images[self._pictures.nearest(view)])
        scale = max(view.width / picture.width, view.height / picture.height)
        across, down = view.width / scale, view.height / scale
        left, top = (picture.width - across) / 2, (picture.height - down) / 2
        shown = picture.resize(
            (view.width, view.height), Image.Resampling.BICUBIC, box=(left, top, left + across, top + down)
        )
        return np.asarray(shown, np.float32)[first:last] / np.float32(255)


@runtime_checkable
class Training(Protocol):
    """A fit() that runs, or will: a TrainingControl, or a training board."""

    def watch(self, watcher: Watcher, *, share: float | None = None) -> None:
        """See TrainingControl.watch."""
        ...


Model = RadianceField | BakedField | LightField | LocalModel | FixedPictures | Training
"""What can be shown live."""


def source_of(model: object, *, scene: PosedScene | None = None, threads: int | None = None) -> Source:
    """How a model is drawn. Raises LiveRenderingError for one that is none."""
    if isinstance(model, BakedField):
        return BakedSource(model, threads=threads)
    if isinstance(model, FixedPictures):
        return PictureSource(model)
    if isinstance(model, LocalModel):
        return LocalModelSource(model)
    if isinstance(model, LightField):
        return LightFieldSource(model)
    if isinstance(model, RadianceField):
        return FieldSource(model, scene=scene)
    raise LiveRenderingError(
        f"a {type(model).__name__} cannot be shown; give a radiance field, a baked field, a light field, a model that "
        "load_artefact returned, FixedPictures, or (live) the control of a fit"
    )
