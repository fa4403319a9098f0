"""The frames of a video that are worth keeping: the sharpest ones, spaced by how far the camera has moved.

First all pictures are looked at, small and grey: how far each has moved from the one at which its stretch began, and
how sharp it is. A stretch ends when the camera has moved by the spacing, or after the longest gap. Then the sharpest
look of each stretch is chosen, and only these are decoded in colour. Memory holds one picture, whatever the length.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, GpsFix, LeftOut, Photo
from crowdnerf_lab.captures.screening.quality import MEASURED_SIZE, sharpness_of
from crowdnerf_lab.captures.video.picture_motion import motion_between
from crowdnerf_lab.captures.video.videos import VideoError, pictures
from crowdnerf_lab.files import FileError, inside, write_atomically

logger = logging.getLogger(__name__)

MOTION_SIZE = 160
"""Longer side in pixels of the pictures between which motion is measured."""
JPEG_QUALITY = 95


@dataclass(frozen=True)
class SelectionSettings:
    """spacing: how far the picture moves from one frame to the next, as a fraction of its width. longest_gap_s: a
    still camera gives a frame this often. fewest, most: frames a clip, unless it has less. soft: stops less sharp than
    the clip's good frames (its upper quartile) is blurred; softer: so is what is that much less sharp than the good
    ones from which the picture has moved by at most `nearby` widths, which show much the same. looks_per_s: pictures
    measured a second.
    """

    spacing: float = 0.08
    longest_gap_s: float = 5.0
    fewest: int = 3
    most: int = 200
    soft: float = 1.0
    softer: float = 0.5
    nearby: float = 0.3
    looks_per_s: float = 15.0

    def __post_init__(self) -> None:
        if not (self.spacing > 0 and self.longest_gap_s > 0 and self.looks_per_s > 0):
            raise ValueError(f"spacing, longest_gap_s and looks_per_s must be positive: {self}")
        if not 1 <= self.fewest <= self.most:
            raise ValueError(f"fewest must be at least 1 and at most `most`: {self}")


@dataclass(frozen=True)
class SelectedFrame:
    """A chosen frame, upright. time_s: seconds after the clip's first picture; sharpness: stops (`sharpness_of`);
    motion: how far the picture has moved since the frame chosen before, in widths.
    """

    time_s: float
    image: UInt8[Tensor, "h w 3"]
    sharpness: float
    motion: float


@dataclass(frozen=True)
class Look:
    """A picture that was measured. stretch: counts from 0; path: how far the picture has moved since the clip began, in
    widths, along the stretches.
    """

    time_s: float
    sharpness: float
    stretch: int
    path: float


def select_frames(
    path: Path | str,
    *,
    settings: SelectionSettings = SelectionSettings(),
    warn: Callable[[str], None] = logger.warning,
) -> tuple[SelectedFrame, ...]:
    """The frames of a clip worth keeping, in the order of their times; see `selected_frames` for long clips.

    Raises VideoError for a clip that cannot be read; `warn` is told of what is missing from one that is damaged.
    """
    return tuple(selected_frames(path, settings=settings, warn=warn))


def selected_frames(
    path: Path | str,
    *,
    settings: SelectionSettings = SelectionSettings(),
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[SelectedFrame]:
    """`select_frames` one by one: one picture is in memory at a time."""
    looks = tuple(_looks(path, settings, warn))
    wanted = iter(chosen(looks, settings))
    before, look = None, next(wanted)
    for picture in pictures(path, warn=_already_told):
        if picture.time_s < look.time_s:
            continue
        motion = 0.0 if before is None else abs(look.path - before.path)
        yield SelectedFrame(time_s=look.time_s, image=picture.image(), sharpness=look.sharpness, motion=motion)
        before, following = look, next(wanted, None)
        if following is None:
            return
        look = following


def chosen(looks: Sequence[Look], settings: SelectionSettings) -> tuple[Look, ...]:
    """The sharpest look of each stretch without the blurred ones, in the order of their times.

    Where stretches are fewer than `fewest` the clip is cut into that many of equal length in time; where they are more
    than `most` neighbours are joined. Of two that are nearly the same place the sharper one is chosen.
    """
    stretches = looks[-1].stretch + 1
    if stretches < settings.fewest:
        end = looks[-1].time_s + 1e-9
        groups = [int(settings.fewest * look.time_s / end) if end > 0 else 0 for look in looks]
    else:
        joined = math.ceil(stretches / settings.most)
        groups = [look.stretch // joined for look in looks]
    sharpest: dict[int, Look] = {}
    for group, look in zip(groups, looks, strict=True):
        if group not in sharpest or look.sharpness > sharpest[group].sharpness:
            sharpest[group] = look
    winners = list(sharpest.values())
    blurred = _good([look.sharpness for look in looks]) - settings.soft
    sharp = [
        look
        for look in winners
        if look.sharpness >= max(blurred, _good(_nearby(looks, look, settings.nearby)) - settings.softer)
    ]
    for candidates in (_apart(sharp, settings), sharp):
        if len(candidates) >= settings.fewest:
            return tuple(candidates)
    best = sorted(winners, key=lambda look: look.sharpness, reverse=True)[: settings.fewest]
    return tuple(sorted(best, key=lambda look: look.time_s))


def _good(sharpness: Sequence[float]) -> float:
    """The upper quartile: what a picture is like that is not blurred."""
    return float(np.quantile(sharpness, 0.75))


def _nearby(looks: Sequence[Look], look: Look, within: float) -> list[float]:
    return [other.sharpness for other in looks if abs(other.path - look.path) <= within]


def photos_from_clips(
    captures: CaptureSet,
    into: str = "frames",
    *,
    settings: SelectionSettings = SelectionSettings(),
    progress: bool = True,
) -> CaptureSet:
    """The captures with the best frames of their clips as further photos; the clips stay listed.

    Frames are written as JPEG into the folder `into`, relative to the captures' root, a folder a UE; their times are
    those of their clip plus their own. Clips whose photos are already there are passed over; a clip that cannot be read
    becomes a row of `source.left_out`. Raises FileError when the folder cannot be written.
    """
    inside(captures.root, into)
    done = {photo.from_clip for photo in captures.photos}
    waiting = [(capture.ue, clip) for capture in captures.captures for clip in capture.clips if clip.file not in done]
    found: dict[str, list[Photo]] = {}
    problems: list[LeftOut] = []
    for ue, clip in tqdm(waiting, desc="frames of clips", unit="clip", disable=not progress):
        warn = partial(_note, problems, clip.file)
        try:
            folder = f"{into}/{ue}/{_name_of(clip)}"
            frames = selected_frames(captures.path_of(clip.file), settings=settings, warn=warn)
            found.setdefault(ue, []).extend(_written(frame, clip, captures.root, folder) for frame in frames)
        except FileError:
            raise
        except VideoError as error:
            warn(str(error))
    logger.info(
        "clips of %s: %d frames from %d clips; %d problems",
        captures.name,
        sum(map(len, found.values())),
        len(waiting),
        len(problems),
    )
    return replace(
        captures,
        captures=tuple(_with_photos(capture, found.get(capture.ue, [])) for capture in captures.captures),
        source=replace(captures.source, left_out=(*captures.source.left_out, *problems)),
    )


def photo_of_frame(frame: SelectedFrame, clip: Clip, file: str) -> Photo:
    """The entry of a frame in `file`: its time is the clip's plus its own.

    Of what the phone said when the clip began only the place still holds: it has turned since.
    """
    height, width = frame.image.shape[:2]
    if clip.gps is not None:
        gps = clip.gps.model_copy(update={"heading": None})
    elif clip.reported is not None:
        (*_, x), (*_, y), (*_, z) = clip.reported.camera_to_world
        gps = GpsFix(position=(x, y, z))
    else:
        gps = None
    return Photo(
        file=file,
        width=width,
        height=height,
        focal_px=clip.focal_px,
        time_s=clip.time_s + frame.time_s,
        gps=gps,
        from_clip=clip.file,
    )


def _looks(path: Path | str, settings: SelectionSettings, warn: Callable[[str], None]) -> Iterator[Look]:
    """Every picture that is due for a look, measured, with the stretch it belongs to."""
    anchor = before = None
    started = due = -math.inf
    stretch, travelled, moved = 0, 0.0, 0.0
    for picture in pictures(path, warn=warn):
        if picture.time_s < due:
            continue
        due = picture.time_s + 0.999 / settings.looks_per_s
        grey = picture.grey(MEASURED_SIZE)
        small = _shrunk(grey)
        if anchor is None or before is None:
            anchor, started = small, picture.time_s
        else:
            moved = _moved(anchor, before, small, so_far=moved, unknown=settings.spacing)
            if moved >= settings.spacing or picture.time_s - started >= settings.longest_gap_s:
                anchor, started, stretch = small, picture.time_s, stretch + 1
                travelled, moved = travelled + moved, 0.0
        before = small
        yield Look(time_s=picture.time_s, sharpness=sharpness_of(grey), stretch=stretch, path=travelled + moved)


def _shrunk(grey: Tensor) -> np.ndarray:
    height, width = grey.shape
    shrink = min(1.0, MOTION_SIZE / max(height, width))
    size = max(8, round(width * shrink)), max(8, round(height * shrink))
    return np.asarray(Image.fromarray(grey.numpy()).resize(size, Image.Resampling.BOX))


def _moved(anchor: np.ndarray, before: np.ndarray, now: np.ndarray, *, so_far: float, unknown: float) -> float:
    """Widths from the anchor: directly, so that a shaking hand goes nowhere, or through the picture before."""
    direct = motion_between(anchor, now)
    if not math.isnan(direct):
        return direct
    step = motion_between(before, now)
    return so_far + (unknown if math.isnan(step) else step)


def _apart(winners: Sequence[Look], settings: SelectionSettings) -> list[Look]:
    """Neighbours on both sides of a boundary of stretches may be nearly the same picture: keep the sharper."""
    kept: list[Look] = []
    for look in winners:
        if not kept or not _same_place(kept[-1], look, settings):
            kept.append(look)
        elif look.sharpness > kept[-1].sharpness:
            kept[-1] = look
    return kept


def _same_place(a: Look, b: Look, settings: SelectionSettings) -> bool:
    return abs(b.path - a.path) < settings.spacing / 4 and b.time_s - a.time_s < settings.longest_gap_s / 2


def _already_told(problem: str) -> None:
    """The first pass has told of it."""


def _note(problems: list[LeftOut], file: str, problem: str) -> None:
    problems.append(LeftOut(file=file, problem=problem))


def _name_of(clip: Clip) -> str:
    """A name for the clip's frames that no other clip of the UE shares."""
    return "_".join(PurePosixPath(clip.file).parts).replace(".", "_")


def _written(frame: SelectedFrame, clip: Clip, root: Path, folder: str) -> Photo:
    """A frame as a JPEG, and its entry."""
    file = f"{folder}_{round(frame.time_s * 1000):08d}.jpg"
    picture = Image.fromarray(frame.image.numpy())
    write_atomically(inside(root, file), partial(picture.save, format="JPEG", quality=JPEG_QUALITY, subsampling=0))
    return photo_of_frame(frame, clip, file)


def _with_photos(capture: Capture, photos: Sequence[Photo]) -> Capture:
    return capture.model_copy(update={"photos": (*capture.photos, *photos)})
