"""Renders the concert and writes it as a folder of captures: pictures, manifest and checksums."""

import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from checksums import write_checksums
from exif import ORIGIN_WGS84, exif_of
from geometry import Mesh, MeshBuilder
from jaxtyping import Bool, Float, Shaped
from people import Crowd, add_person, crowd
from phones import CLEAN_EXPOSURE_EV, developed, spoiled
from PIL import Image
from rendering import ConcertStage, Frame, concert_stage, render_frame
from tqdm.auto import tqdm
from viewpoints import (
    PHOTOS_PER_PHONE,
    Bystander,
    ComparisonView,
    Moment,
    Phone,
    Shot,
    comparison_views,
    crowd_of_phones,
    moments,
    shots,
)

from crowdnerf_lab.captures.bundle import (
    MANIFEST,
    Capture,
    CaptureError,
    CaptureSet,
    Consent,
    Photo,
    ReferenceView,
    ReportedPose,
    Truth,
    write_captures,
)
from crowdnerf_lab.files import write_bytes

logger = logging.getLogger(__name__)

LICENCE = "CC0-1.0"
CROWD_SEED = 1
PHOTO_GRID, TEST_GRID = 2, 3
"""Rays a pixel along each side."""
OCCLUDER_GAP = 0.05
"""Metres that a bystander must be in front of the scene to count as occluding it."""
DEEPEST = 65.0
"""Metres at which depth is cut off, so that millimetres fit 16 bits."""
PHOTO_QUALITY, CLEAN_QUALITY = 88, 92
"""Of the JPEG files."""


@dataclass(frozen=True)
class Extent:
    """How much is made. size: longer side of photos and test views in px, a multiple of 20.

    first: stop after that many phones, test views and moments, or None for all of them; what is made is the same.
    """

    ues: int = 48
    size: int = 320
    seed: int = 2026
    first: int | None = None


def write_concert(out: Path, extent: Extent) -> Path:
    """Render the concert into an empty folder and return the manifest's path. About 3 s a photo on one core.

    The same extent gives the same pixels on the same machine and versions. Raises CaptureError when the folder already
    holds captures; FileError when it cannot be written.
    """
    if (out / MANIFEST).exists():
        raise CaptureError(f"{out / MANIFEST} exists; choose an empty folder")
    rng = np.random.default_rng(extent.seed)
    phones = crowd_of_phones(extent.ues, rng)
    spectators = crowd(CROWD_SEED, lenses=np.array([phone.eye for phone in phones]))
    still, chosen = concert_stage(spectators, time=0.0), phones[: extent.first]
    to_take = tqdm(shots(chosen, rng, size=extent.size), total=len(chosen) * PHOTOS_PER_PHONE, desc="photos")
    photos = _written_photos(out, to_take, still)
    between_and_beyond = tuple(comparison_views(phones, size=extent.size))[: extent.first]
    tests = _written_test_views(out, between_and_beyond, still)
    moving = tuple(moments(phones, size=extent.size * 4 // 5))[: extent.first]
    moved = _written_moments(out, moving, spectators)
    captures = CaptureSet(
        root=out,
        name="concert",
        licence=LICENCE,
        origin_wgs84=ORIGIN_WGS84,
        captures=tuple(_capture(phone, photos) for phone in chosen),
        views=(*tests, *moved),
    )
    manifest = write_captures(captures, out)
    write_checksums(out)
    logger.info("%d photos and %d views of the concert in %s", len(photos), len(captures.views), out)
    return manifest


def _written_photos(out: Path, to_take: Iterable[Shot], still: ConcertStage) -> dict[str, Photo]:
    scene = still.scene()
    written = {}
    for shot in to_take:
        clean = render_frame(scene, shot.viewpoint, time=still.time, grid=PHOTO_GRID)
        seen = clean
        if shot.bystanders:
            crowded = still.scene(_mesh_of(shot.bystanders))
            seen = render_frame(crowded, shot.viewpoint, time=still.time, grid=PHOTO_GRID)
        photo, occluded = spoiled(seen.radiance, shot.spoiling), occluder_mask(seen, clean)
        write_bytes(out / f"train/{shot.name}.jpg", _jpeg(photo, PHOTO_QUALITY, exif=exif_of(shot)))
        write_bytes(out / f"train_clean/{shot.name}.jpg", _jpeg(developed(clean.radiance), CLEAN_QUALITY))
        write_bytes(out / f"mask/{shot.name}.png", _png((occluded * 255).astype(np.uint8)))
        written[shot.name] = _photo(shot, float(occluded.mean()))
    return written


def _written_test_views(out: Path, views: Sequence[ComparisonView], still: ConcertStage) -> list[ReferenceView]:
    scene = still.scene()
    written = []
    for view in tqdm(views, desc="test views"):
        frame = render_frame(scene, view.viewpoint, time=still.time, grid=TEST_GRID)
        file, depth_file = f"test/{view.name}.png", f"depth/{view.name}.png"
        write_bytes(out / file, _png(_eight_bits(developed(frame.radiance))))
        write_bytes(out / depth_file, _png((np.clip(frame.depth, 0, DEEPEST) * 1000).astype(np.uint16)))
        written.append(_reference_view(view, file, depth_file))
    return written


def _written_moments(out: Path, views: Sequence[Moment], spectators: Crowd) -> list[ReferenceView]:
    written = []
    progress = tqdm(total=len(views), desc="moments")
    for time, at_once in groupby(views, key=lambda view: view.time):
        scene = concert_stage(spectators, time=time).scene()
        for view in at_once:
            frame = render_frame(scene, view.viewpoint, time=time, grid=PHOTO_GRID)
            exposure_ev = CLEAN_EXPOSURE_EV + view.phone.exposure_ev
            picture = developed(frame.radiance, exposure_ev=exposure_ev, white_balance=view.phone.white_balance)
            file = f"dyn/{view.name}.jpg"
            write_bytes(out / file, _jpeg(picture, PHOTO_QUALITY))
            written.append(_reference_view(view, file, None))
            progress.update()
    progress.close()
    return written


def occluder_mask(seen: Frame, clean: Frame) -> Bool[np.ndarray, "h w"]:
    """Pixels where somebody stands in front of the scene."""
    nearer = (seen.depth < clean.depth - OCCLUDER_GAP) | (clean.depth == 0)
    return (seen.depth > 0) & nearer


def _mesh_of(bystanders: tuple[Bystander, ...]) -> Mesh:
    builder = MeshBuilder()
    for person in bystanders:
        rng = np.random.default_rng(person.seed)
        add_person(builder, person.feet, yaw=person.yaw, gesture=person.gesture, rng=rng, sides=16)
    return builder.mesh()


def _capture(phone: Phone, photos: dict[str, Photo]) -> Capture:
    own = tuple(photos[f"{phone.ue}_{index}"] for index in range(PHOTOS_PER_PHONE))
    consent = Consent(train=True, publish=True)
    return Capture(ue=phone.ue, device=phone.device, consent=consent, licence=LICENCE, photos=own)


def _photo(shot: Shot, occluded: float) -> Photo:
    viewpoint, spoiling = shot.viewpoint, shot.spoiling
    truth = Truth(
        camera_to_world=_rows(viewpoint.camera_to_world),
        exposure_ev=spoiling.exposure_ev,
        white_balance=tuple(spoiling.white_balance.tolist()),
        blur_px=spoiling.blur_px,
        spoiled_by=spoiling.spoiled_by,
        occluded=occluded,
        clean_file=f"train_clean/{shot.name}.jpg",
        occluder_mask_file=f"mask/{shot.name}.png",
    )
    return Photo(
        file=f"train/{shot.name}.jpg",
        width=viewpoint.width,
        height=viewpoint.height,
        focal_px=viewpoint.focal_px,
        time_s=0.0,
        reported=ReportedPose(camera_to_world=_rows(shot.reported_camera_to_world)),
        truth=truth,
    )


def _reference_view(view: ComparisonView | Moment, file: str, depth_file: str | None) -> ReferenceView:
    viewpoint, is_moment = view.viewpoint, isinstance(view, Moment)
    return ReferenceView(
        file=file,
        split="moment" if is_moment else view.split,
        width=viewpoint.width,
        height=viewpoint.height,
        focal_px=viewpoint.focal_px,
        camera_to_world=_rows(viewpoint.camera_to_world),
        depth_file=depth_file,
        time_s=view.time if is_moment else 0.0,
        ue=view.phone.ue if is_moment else None,
    )


def _rows(camera_to_world: Float[np.ndarray, "3 4"]) -> tuple:
    return tuple(tuple(row) for row in camera_to_world.tolist())


def _eight_bits(picture: Float[np.ndarray, "h w 3"]) -> Shaped[np.ndarray, "h w 3"]:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _jpeg(picture: Float[np.ndarray, "h w 3"], quality: int, *, exif: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_eight_bits(picture)).save(buffer, format="JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _png(pixels: Shaped[np.ndarray, "h w ..."]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
