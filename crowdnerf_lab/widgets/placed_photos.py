"""The photos of an event as a map shows them: where each was taken, when, by whom, and what came of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pinhole
from crowdnerf_lab.captures.bundle import CaptureSet, Photo
from crowdnerf_lab.captures.poses.report import CalibrationReport
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.figures.style import KEPT, REASONS
from crowdnerf_lab.scene import PosedScene

USUAL_FOCAL = 0.8
"""Focal length over the photo's longer side, where nothing is known of it: a phone's main camera."""


@dataclass(frozen=True)
class PlacedPhoto:
    """One photo of the map.

    finding: 'kept', or the word for why it was rejected; reason: the sentence. camera_to_world: where it was taken and
    how it was held, calibrated if `calibrated`, else as the phone reports it; None when nobody knows. gps: where the
    phone says it was, ENU metres; None when it does not, or when the map is not in metres. focal: pixels.
    """

    ue: str
    file: str
    path: Path
    width: int
    height: int
    time_s: float
    finding: str
    reason: str
    calibrated: bool
    camera_to_world: Float[Tensor, "3 4"] | None
    gps: tuple[float, float, float] | None
    focal: float

    @property
    def position(self) -> tuple[float, float, float] | None:
        """Where it was taken, metres; where GPS says, if no pose is known."""
        if self.camera_to_world is None:
            return self.gps
        east, north, up = self.camera_to_world[:, 3].tolist()
        return east, north, up

    @property
    def gps_error_m(self) -> float:
        """Metres from its calibrated place to where the phone says it was; NaN when either is unknown."""
        if not self.calibrated or self.gps is None or self.position is None:
            return math.nan
        return math.dist(self.position, self.gps)

    def in_words(self) -> str:
        """What hovering over it shows."""
        lines = [f"<b>{self.ue}</b> {self.file.rpartition('/')[2]}, at {self.time_s:.1f} s"]
        lines.append("kept" if self.finding == KEPT else f"<b>{self.finding}</b>: {self.reason}")
        if not self.calibrated:
            lines.append("place as the phone reports it")
        elif not math.isnan(self.gps_error_m):
            lines.append(f"{self.gps_error_m:.1f} m from where its phone says")
        return "<br>".join(lines)


def placed_photos(
    captures: CaptureSet,
    *,
    scene: PosedScene | None = None,
    screening: ScreeningReport | None = None,
    calibration: CalibrationReport | None = None,
) -> tuple[PlacedPhoto, ...]:
    """Every photo of the captures, in their order: posed as in the scene, or else as its phone reports.

    Photos that the screening kept and the calibration could not pose are 'not posed'. In a scene of arbitrary
    coordinates phones' reports mean nothing and are left out.
    """
    rows = {} if scene is None else {name: row for row, name in enumerate(scene.image_names)}
    rejected = {} if screening is None else {row.photo: row for row in screening.rejected}
    lost = {} if calibration is None else {row.photo: row.problem for row in calibration.rows if not row.registered}
    coordinates = captures.coordinates if calibration is None else calibration.coordinates
    placed = []
    for capture in captures.captures:
        for photo in capture.photos:
            finding, reason = KEPT, ""
            if photo.file in rejected:
                finding, reason = REASONS[rejected[photo.file].check], rejected[photo.file].reason
            elif photo.file in lost:
                finding, reason = NOT_POSED, lost[photo.file]
            row = rows.get(photo.file)
            pose = None if scene is None or row is None else scene.cameras.camera_to_world[row]
            told = coordinates != "arbitrary"
            if pose is None and told and photo.reported is not None:
                pose = torch.tensor(photo.reported.camera_to_world)
            placed.append(
                PlacedPhoto(
                    ue=capture.ue,
                    file=photo.file,
                    path=captures.path_of(photo.file),
                    width=photo.width,
                    height=photo.height,
                    time_s=photo.time_s,
                    finding=finding,
                    reason=reason,
                    calibrated=row is not None,
                    camera_to_world=pose,
                    gps=_gps_of(photo) if told else None,
                    focal=photo.focal_px or USUAL_FOCAL * max(photo.width, photo.height),
                )
            )
    return tuple(placed)


NOT_POSED = "not posed"
"""A photo that calibration found no place for."""


def cameras_of(photos: Sequence[PlacedPhoto]) -> tuple[Cameras, list[PlacedPhoto]]:
    """Cameras of the photos that have a pose, and those photos."""
    posed = [photo for photo in photos if photo.camera_to_world is not None]
    poses = [photo.camera_to_world for photo in posed if photo.camera_to_world is not None]
    cameras = pinhole(
        torch.stack(poses).float() if poses else torch.zeros(0, 3, 4),
        torch.tensor([photo.focal for photo in posed]),
        width=torch.tensor([photo.width for photo in posed], dtype=torch.int64),
        height=torch.tensor([photo.height for photo in posed], dtype=torch.int64),
    )
    return cameras, posed


def _gps_of(photo: Photo) -> tuple[float, float, float] | None:
    if photo.gps is not None:
        return photo.gps.position
    if photo.reported is not None:
        east, north, up = (row[3] for row in photo.reported.camera_to_world)
        return east, north, up
    return None
