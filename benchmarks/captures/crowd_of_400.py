"""A larger crowd: do photos cost less than their square, and what does choosing pairs lose?

The crowd of 400 is made of the concert's own pictures: 144 spoiled photos, their 144 clean twins, 20 views between and
beyond the UEs, 64 moments of the moving event and 28 crops of clean photos. All but the first report positions and
attitudes as the concert's phones do: bias 3, 3, 5 m and 6 degrees of heading a UE, seed 0. Most of half an hour.
"""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from benchmarks.captures.calibration import Figures, compared, workspace
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, Pose, ReportedPose, Truth, concert

CROPS = 28
QUICK = 12
"""UEs of the quick run, which stands for nothing."""


def measure(*, quick: bool) -> Figures:
    """Chosen pairs against all pairs."""
    with workspace() as folder:
        crowd = _crowd_of_400(concert(), folder / "crowd")
        return compared(replace(crowd, captures=crowd.captures[:QUICK]) if quick else crowd, "400")


def _crowd_of_400(captures: CaptureSet, root: Path) -> CaptureSet:
    """See the module's docstring."""
    root.mkdir()
    for folder in ("train", "train_clean", "test", "dyn"):
        shutil.copytree(captures.root / folder, root / folder)
    generator = torch.Generator().manual_seed(0)
    crowd = [capture.model_copy(update={"photos": _without_extras(capture.photos)}) for capture in captures.captures]
    crowd += [
        _newcomer(f"{capture.ue}-twin", [_twin(photo) for photo in capture.photos], generator)
        for capture in captures.captures
    ]
    for view in captures.views:
        photo = _simulated(view.file, view.width, view.height, view.focal_px, view.camera_to_world)
        crowd.append(_newcomer(f"view-{len(crowd):03d}", [photo], generator))
    for photo in [capture.photos[0] for capture in captures.captures][:CROPS]:
        crowd.append(_newcomer(f"crop-{len(crowd):03d}", [_cropped(_twin(photo), root)], generator))
    return replace(captures, root=root, captures=tuple(crowd), views=())


def _without_extras(photos: tuple[Photo, ...]) -> tuple[Photo, ...]:
    bare = {"clean_file": None, "occluder_mask_file": None}
    return tuple(
        photo.model_copy(update={"truth": photo.truth and photo.truth.model_copy(update=bare)}) for photo in photos
    )


def _simulated(file: str, width: int, height: int, focal_px: float, pose: Pose) -> Photo:
    truth = Truth(
        camera_to_world=pose,
        exposure_ev=0.0,
        white_balance=(1.0, 1.0, 1.0),
        blur_px=0.0,
        spoiled_by=None,
        occluded=0.0,
        clean_file=None,
        occluder_mask_file=None,
    )
    return Photo(file=file, width=width, height=height, focal_px=focal_px, time_s=0.0, truth=truth)


def _twin(photo: Photo) -> Photo:
    """The same view without spoiling, as a photo of its own."""
    if photo.truth is None or photo.truth.clean_file is None or photo.focal_px is None:
        raise ValueError(f"{photo.file} has no clean twin; take the concert of a checkout")
    return _simulated(photo.truth.clean_file, photo.width, photo.height, photo.focal_px, photo.truth.camera_to_world)


def _cropped(photo: Photo, root: Path) -> Photo:
    """The middle three quarters of a photo, as somebody who zoomed in would have taken it."""
    width, height = photo.width * 3 // 4, photo.height * 3 // 4
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    file = f"crops/{Path(photo.file).stem}.jpg"
    (root / "crops").mkdir(exist_ok=True)
    with Image.open(root / photo.file) as picture:
        picture.crop((left, top, left + width, top + height)).save(root / file, quality=92)
    return photo.model_copy(update={"file": file, "width": width, "height": height})


def _newcomer(ue: str, photos: list[Photo], generator: torch.Generator) -> Capture:
    """A UE whose phone reports what the truth makes of its own bias and of the noise of each shot."""
    bias = torch.randn(3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 3.0, 5.0])
    turn = math.radians(6) * float(torch.randn((), generator=generator))
    cosine, sine = math.cos(turn), math.sin(turn)
    yaw = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    reporting = []
    for photo in photos:
        truth = torch.tensor(photo.truth.camera_to_world if photo.truth else [], dtype=torch.float64)
        noise = 0.4 * torch.randn(3, generator=generator, dtype=torch.float64)
        pose = torch.cat([yaw @ truth[:, :3], (truth[:, 3] + bias + noise)[:, None]], dim=1).tolist()
        reported = ReportedPose.model_validate({"camera_to_world": pose})
        reporting.append(photo.model_copy(update={"reported": reported}))
    consent = Consent(train=True, publish=True)
    return Capture(ue=ue, device="unknown", consent=consent, licence="CC0-1.0", photos=tuple(reporting))
