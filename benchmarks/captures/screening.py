"""What screening finds: the concert's bad shots, attacks made up of every kind, and what it takes good photos for.

Each attack is sent by a UE of its own into the concert, a few at a time, and counts as found when it is rejected,
for whatever reason, and as named when for its own. Photos that scikit-image carries, the concert's moments and, where
CROWDNERF_LUND and CROWDNERF_FOX name folders, real photos of a walk and of a room are screened by themselves: every
rejection there is a false alarm. Spoofs of position are screened against the true poses.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, ReportedPose, concert
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.screening import constructed_attacks as attacks
from crowdnerf_lab.captures.screening.authenticity import grid_strength
from crowdnerf_lab.captures.screening.checks import USUAL_LIMITS
from crowdnerf_lab.captures.screening.consistency import screen_poses
from crowdnerf_lab.captures.screening.measures import PhotoMeasures, measure_one, measures_of
from crowdnerf_lab.captures.screening.report import Check
from crowdnerf_lab.captures.screening.screen import judge, screen
from crowdnerf_lab.scene import PosedScene

REAL_PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")
AT_A_TIME = 12
"""Attackers among the 48 UEs of the concert."""
PITCHES = (1.0, 1.4, 1.8, 2.2, 2.7, 3.3, 4.0, 5.0)
"""Camera pixels for a pixel of the display that is photographed."""
BLURS = (0.5, 0.8, 1.1)
"""Standard deviations of the lens, camera pixels."""
SPOOFS_M = (20.0, 30.0, 50.0, 100.0)
YES = Consent(train=True, publish=False)


@dataclass(frozen=True)
class Attack:
    """One upload. check: what should find it; fields: what its record says otherwise than that of an honest photo;
    others: honest pictures that its UE sends with it.
    """

    check: Check
    picture: attacks.Picture
    fields: dict[str, Any] = field(default_factory=dict)
    others: tuple[attacks.Picture, ...] = ()


def measure(*, quick: bool) -> dict[str, float | int | str]:
    """bad_found, good_lost of the concert; attacks found and named by kind; false alarms; spoofs of position found."""
    captures = concert()
    begin = time.perf_counter()
    _, report = screen(captures, progress=False)
    seconds = (time.perf_counter() - begin) / len(captures.photos)
    bad = {photo.file for photo in captures.photos if photo.truth and photo.truth.spoiled_by}
    rejected = {row.photo for row in report.rejected}
    return {
        "bad_found": len(rejected & bad),
        "good_lost": len(rejected - bad),
        "screening_seconds_a_photo": round(seconds, 4),
        **_attacked(captures, list(_attacks(captures, quick=quick))),
        **_displays(quick=quick),
        **_false_alarms(captures, quick=quick),
        **_spoofed(captures),
    }


def _attacks(captures: CaptureSet, *, quick: bool) -> Iterator[Attack]:
    honest = [photo for photo in captures.photos if photo.truth and not photo.truth.spoiled_by]
    chosen = [read_photo(captures.path_of(photo.file)).numpy() for photo in honest[:: 60 if quick else 20]]
    moments = [read_photo(captures.path_of(view.file)).numpy() for view in captures.views if view.split == "moment"]
    for quality in (95,) if quick else (95, 85, 70):
        for drawing in _drawings():
            yield Attack("drawn", attacks.as_jpeg(drawing, quality=quality))
    for photo in chosen:
        for value, fraction in ((0, 0.12), (0, 0.25), (255, 0.3)):
            yield Attack("framed", attacks.as_jpeg(attacks.letterboxed(photo, fraction=fraction, value=value)))
        for copy in (photo, attacks.cropped(photo), attacks.resized(photo, longer_side=240)):
            yield Attack("duplicate", attacks.as_jpeg(copy, quality=70))
        yield Attack("small", attacks.resized(photo, longer_side=120))
        yield Attack("display", attacks.as_jpeg(attacks.shown_on_display(photo, pitch=3.3), quality=90))
    for start in range(0, len(moments), 32 if quick else 8):
        photo, *others = moments[start : start + 3]
        yield Attack("noise", attacks.noisy(photo, deviation=40), others=tuple(others))
        for off in (3600.0, -86400.0, 365.25 * 86400):
            yield Attack("time", photo, {"time_s": 1000.0 + off})
        for metres in (300.0, 20_000.0):
            yield Attack("place", photo, {"reported": _moved(honest[0], metres)})


def _drawings() -> list[attacks.Picture]:
    return [
        attacks.screenshot(),
        attacks.screenshot(dark=True),
        attacks.text_page(),
        attacks.chart(),
        attacks.gradient(),
        attacks.code(),
        attacks.colour_bars(),
        attacks.cartoon(),
        *(attacks.plain(value) for value in (0, 90, 255)),
    ]


def _attacked(captures: CaptureSet, sent: Sequence[Attack]) -> dict[str, str | int]:
    """Of the attacks of each kind, how many were rejected and how many for their own reason."""
    timed = replace(captures, captures=tuple(_timed(place, one) for place, one in enumerate(captures.captures)))
    honest = {photo.file: measure_one(captures.path_of(photo.file)) for photo in captures.photos}
    found: dict[str, list[str | None]] = {}
    for start in range(0, len(sent), AT_A_TIME):
        batch = sent[start : start + AT_A_TIME]
        uploads = [_upload(timed, attack, f"attack{place}") for place, attack in enumerate(batch)]
        measures = honest | {
            photo.file: measures_of(torch.tensor(picture))
            for upload, attack in zip(uploads, batch, strict=True)
            for photo, picture in zip(upload.photos, (attack.picture, *attack.others), strict=True)
        }
        report = judge(replace(timed, captures=(*timed.captures, *uploads)), measures)
        reason = {row.photo: row.check for row in report.rejected}
        # Of two copies either may be the better one; one of them goes.
        reason |= {
            upload: "duplicate" for row in report.rejected if (upload := row.reason.rpartition(" ")[2]) in measures
        }
        for upload, attack in zip(uploads, batch, strict=True):
            found.setdefault(attack.check, []).append(reason.get(upload.photos[0].file))
    rows = {
        f"attack_{check}": f"{len(reasons) - reasons.count(None)} found, {reasons.count(check)} named, "
        f"of {len(reasons)}"
        for check, reasons in found.items()
    }
    missed = sum(reasons.count(None) for reasons in found.values())
    return rows | {"attacks_found": len(sent) - missed, "attacks": len(sent)}


def _displays(*, quick: bool) -> dict[str, float]:
    """How well a photo of a display is told from a photo, by the pitch of its pixels in the camera.

    Recall at the limit that is used; and the area under the ROC, over all pitches and blurs.
    """
    photos = [read_photo(Path(skimage.__file__).parent / "data" / name).numpy() for name in REAL_PHOTOS]
    plain = np.array([grid_strength(photo) for photo in photos])
    shown: dict[float, list[float]] = {}
    for pitch in PITCHES[::3] if quick else PITCHES:
        for blur in BLURS[:1] if quick else BLURS:
            for seed, photo in enumerate(photos[:1] if quick else photos[:3]):
                turn = math.radians(1 + 2 * seed)
                picture = attacks.shown_on_display(photo, pitch=pitch, blur=blur, turn=turn, seed=seed)
                shown.setdefault(pitch, []).append(grid_strength(attacks.as_jpeg(picture, quality=90)))
    everything = np.concatenate(list(shown.values()))
    above = (everything[:, None] > plain).mean() + 0.5 * (everything[:, None] == plain).mean()
    return {"display_roc_area": round(float(above), 3)} | {
        f"display_recall_at_{pitch}_px": round(float(np.mean(np.array(values) > USUAL_LIMITS.grid_db)), 2)
        for pitch, values in shown.items()
    }


def _false_alarms(captures: CaptureSet, *, quick: bool) -> dict[str, str]:
    """Good photos that were rejected, by where they are from."""
    bundled = Path(skimage.__file__).parent / "data"
    moments: dict[str, list[Path]] = {}
    for view in captures.views:
        if view.split == "moment" and view.ue:
            moments.setdefault(view.ue, []).append(captures.path_of(view.file))
    events = {"scikit_image": {name.partition(".")[0]: [bundled / name] for name in REAL_PHOTOS}, "moments": moments}
    for name in ("lund", "fox"):
        if folder := os.environ.get(f"CROWDNERF_{name.upper()}"):
            photos = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            events[name] = {"ue": photos[::8] if quick else photos}
    return {f"false_alarms_{name}": _alarms(photos_of) for name, photos_of in events.items()}


def _alarms(photos_of: Mapping[str, Sequence[Path]]) -> str:
    """What is rejected of an event, by the paths of each UE's photos."""
    measures = {path.name: measure_one(path) for paths in photos_of.values() for path in paths}
    ues = tuple(_honest(ue, [path.name for path in paths], measures) for ue, paths in photos_of.items())
    event = CaptureSet(root=Path(), name="photos", licence="none", origin_wgs84=None, captures=ues)
    reasons = [row.check for row in judge(event, measures).rejected]
    counts = ", ".join(f"{reasons.count(check)} {check}" for check in dict.fromkeys(reasons))
    return f"{len(reasons)} of {len(measures)}" + (f" ({counts})" if counts else "")


def _spoofed(captures: CaptureSet) -> dict[str, str]:
    """Where every sixth UE says it is that far from where it is: its photos found, and honest ones lost."""
    scene: PosedScene = calibrate(captures, poses="truth", progress=False)[0]
    found = {}
    for metres in SPOOFS_M:
        liars = {one.ue for one in captures.captures[::6]}
        moved = replace(
            captures, captures=tuple(_lying(one, metres) if one.ue in liars else one for one in captures.captures)
        )
        rows = screen_poses(moved, scene)[1].rejected
        caught = sum(row.ue in liars for row in rows)
        total = sum(len(one.photos) for one in captures.captures if one.ue in liars)
        found[f"spoof_by_{metres:.0f}_m"] = f"{caught} of {total} found, {len(rows) - caught} honest ones lost"
    return found


def _lying(capture: Capture, metres: float) -> Capture:
    photos = (photo.model_copy(update={"reported": _moved(photo, metres)}) for photo in capture.photos)
    return capture.model_copy(update={"photos": tuple(photos)})


def _moved(photo: Photo, metres: float) -> ReportedPose | None:
    """A reported pose that much further east."""
    if photo.reported is None:
        return None
    pose = torch.tensor(photo.reported.camera_to_world, dtype=torch.float64)
    pose[0, 3] += metres
    return ReportedPose.model_validate({"camera_to_world": pose.tolist()})


def _timed(place: int, capture: Capture) -> Capture:
    """The concert with times: a photo every few seconds for half an hour."""
    photos = (
        photo.model_copy(update={"time_s": 100.0 + 37.0 * place + 5.0 * index})
        for index, photo in enumerate(capture.photos)
    )
    return capture.model_copy(update={"photos": tuple(photos)})


def _upload(timed: CaptureSet, attack: Attack, ue: str) -> Capture:
    """An attack with the pose of the concert's first photo, which is a good one."""
    photos = []
    for index, picture in enumerate((attack.picture, *attack.others)):
        height, width = picture.shape[:2]
        fields = {"file": f"{ue}_{index}.jpg", "width": width, "height": height, "time_s": 1000.0, "truth": None}
        photos.append(timed.photos[0].model_copy(update=fields | ({} if index else attack.fields)))
    return Capture(ue=ue, device="unknown", consent=YES, licence="none", photos=tuple(photos))


def _honest(ue: str, names: Sequence[str], measures: Mapping[str, PhotoMeasures]) -> Capture:
    photos = tuple(
        Photo(file=name, width=measures[name].width, height=measures[name].height, focal_px=None, time_s=0.0)
        for name in names
    )
    return Capture(ue=ue, device="unknown", consent=YES, licence="none", photos=photos)
