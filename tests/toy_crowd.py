"""A crowd in milliseconds: four UEs around the origin, three small photos each."""

import math
from pathlib import Path

import torch
from PIL import Image

from crowdnerf_lab.cameras import look_at
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, ReportedPose
from crowdnerf_lab.captures.screening.report import ScreeningReport, ScreeningRow

UES, EACH = 4, 3


def pose_of(number: int) -> tuple[tuple[float, float, float, float], ...]:
    angle = 2 * math.pi * number / (UES * EACH)
    eye = torch.tensor([6 * math.cos(angle), 6 * math.sin(angle), 1.5], dtype=torch.float64)
    return tuple(tuple(row) for row in look_at(eye, torch.zeros(3, dtype=torch.float64)).tolist())


def toy_captures(root: Path, *, seconds_apart: float = 0.0) -> CaptureSet:
    """Four UEs around the origin with three photos each, of one colour a UE."""
    captures = []
    for ue in range(UES):
        photos = []
        for shot in range(EACH):
            file = f"ue{ue}_{shot}.jpg"
            Image.new("RGB", (40, 30), (60 * ue, 120, 200)).save(root / file)
            number = EACH * ue + shot
            photos.append(
                Photo(
                    file=file,
                    width=40,
                    height=30,
                    focal_px=36.0,
                    time_s=seconds_apart * number,
                    reported=ReportedPose(camera_to_world=pose_of(number)),
                )
            )
        consent = Consent(train=True, publish=True)
        captures.append(Capture(ue=f"ue{ue}", device="phone", consent=consent, licence="CC0-1.0", photos=tuple(photos)))
    return CaptureSet(root, "toys", "CC0-1.0", None, tuple(captures))


def screening_of(captures: CaptureSet, rejected: dict[str, str]) -> ScreeningReport:
    rows = [
        ScreeningRow(
            ue=capture.ue,
            photo=photo.file,
            path=captures.path_of(photo.file),
            check="blur",
            kept=photo.file not in rejected,
            reason=rejected.get(photo.file, ""),
            measured=0.0,
            threshold=0.0,
        )
        for capture in captures.captures
        for photo in capture.photos
    ]
    return ScreeningReport(tuple(rows))
