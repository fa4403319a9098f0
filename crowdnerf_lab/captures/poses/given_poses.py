"""The scene of captures whose cameras another tool found: nothing is calibrated, the poses are taken as given."""

import logging
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, concatenated
from crowdnerf_lab.captures.bundle import CaptureSet, GivenCamera, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.photos import PhotoError, read_opacity, read_photo
from crowdnerf_lab.captures.privacy.trainable_pixels import trainable_pixels
from crowdnerf_lab.captures.silhouettes import bounds_of_silhouettes
from crowdnerf_lab.scene import Bounds, PosedScene, bounds_of, check_trainable

logger = logging.getLogger(__name__)


def scene_of_given(captures: CaptureSet, *, held_out_every: int = 8) -> PosedScene:
    """A scene to train on, in the frame and the unit of the tool that found the cameras (`captures.coordinates`).

    Photos are sorted by name; transparent ones are laid over white, and where all training photos are cut out, the
    bounds are the box of the object that they show. Held out are the photos of split 'test' (of 'val' where there is no
    test), else every `held_out_every`-th, from the first on (0: none). Photos without a camera, without consent to
    training or with a damaged picture are left out, with a warning. Raises CaptureError when no photo has a camera,
    SceneError for too few photos.
    """
    owners = [(ue, photo) for ue in captures.captures if ue.consent.train for photo in ue.photos]
    listed = sorted(owners, key=lambda owner: owner[1].file)
    images, silhouettes, cameras, found, problems = [], [], [], [], []
    for capture, photo in listed:
        if photo.camera is None:
            problems.append(f"{photo.file} has no camera; calibrate it, or drop it")
            continue
        try:
            path = captures.path_of(photo.file)
            images.append(_picture(path, photo))
            silhouettes.append(_silhouette(path))
        except PhotoError as error:
            problems.append(str(error))
            continue
        cameras.append(camera_of(photo.camera, width=photo.width, height=photo.height))
        found.append((capture.ue, photo))
    if not found:
        first = problems[0] if problems else "nobody consents to training"
        raise CaptureError(f"{captures.root}: none of the {len(listed)} photos has a camera that can be used; {first}")
    batch = concatenated(cameras)
    train, held_out = _split([photo.split for _, photo in found], held_out_every=held_out_every)
    ues = tuple(dict.fromkeys(ue for ue, _ in found))
    scene = PosedScene(
        name=captures.name,
        image_names=tuple(photo.file for _, photo in found),
        cameras=batch,
        images=tuple(images),
        masks=trainable_pixels([photo for _, photo in found], images),
        bounds=_bounds(batch, [silhouettes[row] for row in train], train),
        captures=ues,
        capture_of_image=torch.tensor([ues.index(ue) for ue, _ in found]),
        time_of_image=torch.tensor([photo.time_s for _, photo in found]),
        train=torch.tensor(train, dtype=torch.int64),
        held_out=torch.tensor(held_out, dtype=torch.int64),
        origin_wgs84=captures.origin_wgs84 if captures.coordinates == "enu" else None,
    )
    check_trainable(scene)
    if problems:
        logger.warning("%s: %d of %d photos are left out: %s", captures.root, len(problems), len(listed), problems[0])
    return scene


def camera_of(given: GivenCamera, *, width: int, height: int) -> Cameras:
    """A batch of one camera."""
    return Cameras(
        camera_to_world=torch.tensor([given.camera_to_world]),
        focal=torch.tensor([given.focal_px]),
        centre=torch.tensor([given.centre_px]),
        width=torch.tensor([width]),
        height=torch.tensor([height]),
        distortion=torch.tensor([given.distortion]),
    )


def _picture(path: Path, photo: Photo) -> UInt8[Tensor, "_ _ 3"]:
    image = read_photo(path)
    height, width = image.shape[:2]
    if (width, height) != (photo.width, photo.height):
        raise PhotoError(
            f"{path} is {width}x{height}, its camera is for {photo.width}x{photo.height}; read the captures again"
        )
    return image


def _silhouette(path: Path) -> Bool[Tensor, "h w"] | None:
    """Where a picture shows its object, or None for a picture without transparent pixels."""
    opacity = read_opacity(path)
    return opacity > 0 if opacity is not None and bool((opacity == 0).any()) else None


def _bounds(cameras: Cameras, silhouettes: list[Tensor | None], train: list[int]) -> Bounds:
    """The box of the object where every training photo is cut out, else the box that suits the cameras."""
    cut_out = [silhouette for silhouette in silhouettes if silhouette is not None]
    views = cameras[torch.tensor(train, dtype=torch.int64)]
    if len(cut_out) < max(len(train), 1) or bool(views.distortion.any()):
        return bounds_of(cameras)
    return bounds_of_silhouettes(views, cut_out) or bounds_of(cameras)


def _split(shares: list[str | None], *, held_out_every: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out: as the file says, else every `held_out_every`-th row held out."""
    rows = range(len(shares))
    if not any(shares):
        held_out = set(rows[::held_out_every]) if held_out_every else set()
        return [row for row in rows if row not in held_out], sorted(held_out)
    trained = "train" if "train" in shares else None
    tests = "test" if "test" in shares else "val"
    return [row for row in rows if shares[row] == trained], [row for row in rows if shares[row] == tests]
