"""A small upload as crowds send them, made of the concert: for lessons and tests.

Phones' photos as they are, clips that heard the same music by clocks that disagree, one face, one photo sent twice,
and files that are no photos. What is true of it is known: see `ExampleUpload`.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.captures.bundle import Capture, CaptureSet
from crowdnerf_lab.captures.clocks.constructed_sound import Hearing, heard, music
from crowdnerf_lab.captures.photos import read_metadata, read_photo
from crowdnerf_lab.captures.study import truth_of
from crowdnerf_lab.captures.video.constructed_clips import write_clip

CLIP_SECONDS = 8.0
FRAMES_PER_SECOND = 15
BEGUN = datetime(2026, 6, 20, 19, 30, tzinfo=UTC)
STAGE = (0.0, 4.0, 6.0)
"""Where the sound comes from, metres."""
FAST = ((1.5, 1.8), (3.0, 3.2))
"""When the phones swing fast, seconds of their clips."""


@dataclass(frozen=True)
class ExampleUpload:
    """What was put together. root: the upload, a folder a phone. clips: file of each clip below root, by phone.
    begun_s: when each clip truly begins, seconds, as the music is heard at the stage; clock_s: how far each phone's
    clock is ahead, seconds. broken: files that are no photos. again: the photo sent twice, and its copy.
    """

    root: Path
    clips: dict[str, str]
    begun_s: dict[str, float]
    clock_s: dict[str, float]
    broken: tuple[str, ...]
    again: tuple[str, str]


def write_example_upload(
    captures: CaptureSet,
    root: Path | str,
    *,
    phones: int = 4,
    clips: int = 3,
    portrait: UInt8[Tensor, "h w 3"] | None = None,
    seed: int = 0,
) -> ExampleUpload:
    """Write an upload of some of a simulated event's phones. portrait: a picture with a face, sent among the photos.

    The first `clips` of the `phones` also send a clip. The same seed gives the same pictures and
    sounds.
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    shutil.rmtree(root, ignore_errors=True)
    chosen = captures.captures[:: max(1, len(captures.captures) // phones)][:phones]
    for capture in chosen:
        (root / capture.ue).mkdir(parents=True)
        for photo in capture.photos:
            shutil.copyfile(captures.path_of(photo.file), root / capture.ue / Path(photo.file).name)
    sound = music(CLIP_SECONDS + 8.0, seed=seed)
    filmed = chosen[:clips]
    begun_s = {capture.ue: float(rng.uniform(1.0, 3.0)) for capture in filmed}
    clock_s = {capture.ue: float(rng.uniform(-3.0, 3.0)) for capture in filmed}
    for number, capture in enumerate(filmed):
        hearing = Hearing(starts_s=begun_s[capture.ue], echo=0.2, snr_db=15.0, seed=seed + number)
        _film(captures, capture, root, sound, hearing=hearing, clock_s=clock_s[capture.ue])
    first, last = chosen[0], chosen[-1]
    whole = captures.path_of(first.photos[0].file)
    (root / first.ue / "cut_short.jpg").write_bytes(whole.read_bytes()[:2000])
    (root / last.ue / "holiday.jpg").write_bytes(b"<html>not a photo at all</html>")
    copy = root / last.ue / "forwarded.jpg"
    with Image.open(whole) as picture:
        picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)).save(copy, quality=70)
    if portrait is not None:
        Image.fromarray(portrait.numpy()).save(root / last.ue / "portrait.jpg", quality=92)
    return ExampleUpload(
        root=root,
        clips={capture.ue: f"{capture.ue}/clip.mp4" for capture in filmed},
        begun_s=begun_s,
        clock_s=clock_s,
        broken=(f"{first.ue}/cut_short.jpg", f"{last.ue}/holiday.jpg"),
        again=(f"{first.ue}/{Path(first.photos[0].file).name}", f"{last.ue}/forwarded.jpg"),
    )


def pan(
    picture: UInt8[Tensor, "h w 3"], *, seconds: float, rate: float, fast: Sequence[tuple[float, float]] = ()
) -> Iterator[tuple[float, UInt8[np.ndarray, "h2 w2 3"]]]:
    """Times and frames of half the picture's size, as a phone that swings from left to right across it, blurred by its
    motion. fast: spans of time (s) in which it swings ten times as fast."""
    height, width = (picture.shape[0] // 4 * 2, picture.shape[1] // 4 * 2)
    shutters = np.arange(round(seconds * rate) * 8) / (8 * rate)
    speed = np.ones(len(shutters))
    for begin, end in fast:
        speed[(shutters >= begin) & (shutters < end)] = 10.0
    across = np.concatenate([[0.0], np.cumsum(speed)[:-1]]) / speed.sum() * (picture.shape[1] - width)
    top = (picture.shape[0] - height) // 2
    rows = picture.numpy()[top : top + height].astype(np.float32)
    for frame in range(round(seconds * rate)):
        exposed = [rows[:, round(x) : round(x) + width] for x in across[8 * frame : 8 * frame + 8]]
        yield frame / rate, np.mean(exposed, axis=0).round().astype(np.uint8)


def _film(
    captures: CaptureSet,
    capture: Capture,
    root: Path,
    sound: Float32[np.ndarray, "samples"],
    *,
    hearing: Hearing,
    clock_s: float,
) -> None:
    """One phone's clip: it swings over what its first photo shows, and hears the stage late, with its own noise."""
    photo = capture.photos[0]
    truth = truth_of(photo)
    distance_m = math.dist(STAGE, [row[3] for row in truth.camera_to_world])
    told = BEGUN + timedelta(seconds=hearing.starts_s + clock_s)
    place = read_metadata(captures.path_of(photo.file)).position_wgs84
    write_clip(
        root / capture.ue / "clip.mp4",
        pan(
            read_photo(captures.path_of(truth.clean_file or photo.file)),
            seconds=CLIP_SECONDS,
            rate=FRAMES_PER_SECOND,
            fast=FAST,
        ),
        sound=heard(sound, replace(hearing, distance_m=distance_m), CLIP_SECONDS),
        tags={"creation_time": told.isoformat().replace("+00:00", "Z")}
        | ({"location": "{:+09.5f}{:+010.5f}{:+08.3f}/".format(*place)} if place else {}),
    )
