"""Videos as phones make them: upright pictures with their times, and sound on the same clock. Nothing is trusted.

Time zero of a clip is its first picture that is shown. Pictures carry the time at which they are shown, whatever the
frame rate does; sound sample i belongs to i / rate seconds. Everything streams: memory does not grow with the length.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import focal_from_35mm
from crowdnerf_lab.captures.video import clip_tags, containers
from crowdnerf_lab.captures.video.containers import (
    VideoError,
    check_pixels,
    declared_duration,
    decoded_frames,
    first_picture,
    frame_duration,
    installed_av,
    opened_video,
    picture_stream,
    pixel_stretch,
    sound_stream,
)
from crowdnerf_lab.captures.video.high_dynamic_range import HLG, PQ, tone_mapped

logger = logging.getLogger(__name__)

_SOUND_GAP_S = 0.01
"""Sound whose time stamps jump by more is set anew; less is rounding by the container."""


@dataclass(frozen=True)
class ClipMetadata:
    """What a video's container says; None where it says nothing. width, height: pixels of the upright picture.

    rotation: degrees counterclockwise by which stored pictures were turned upright. created: when the recording began,
    with its zone. position_wgs84: latitude, longitude (degrees), altitude (m). accuracy_m: of the position, horizontal.
    focal_35mm: mm on film whose longer side is 36 mm. codec: of the pictures, as FFmpeg calls it.
    """

    width: int
    height: int
    duration_s: float
    rotation: int
    created: datetime | None
    position_wgs84: tuple[float, float, float] | None
    accuracy_m: float | None
    device: str | None
    focal_35mm: float | None
    audio: bool
    codec: str

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels of the upright picture."""
        return self.focal_35mm and focal_from_35mm(self.focal_35mm, self.width, self.height)


@dataclass(frozen=True)
class VideoFrame:
    """An upright sRGB picture; time_s: seconds after the clip's first picture."""

    time_s: float
    image: UInt8[Tensor, "h w 3"]


class Picture:
    """A decoded picture that is converted only when asked for. time_s: seconds after the clip's first picture."""

    def __init__(self, decoded: Any, *, time_s: float, stretch: float) -> None:
        self.time_s = time_s
        self._decoded = decoded
        self._size = {"width": round(decoded.width * stretch), "height": decoded.height}

    def image(self) -> UInt8[Tensor, "h w 3"]:
        """Upright sRGB bytes; 10 bits are rounded to 8, high dynamic range is brought into the range of a screen."""
        decoded, size, space = self._decoded, self._size, _colour_space(self._decoded)
        if decoded.color_trc in (PQ, HLG):
            signal = decoded.reformat(**size, format="rgb48le", src_colorspace=space).to_ndarray()
            pixels = tone_mapped(signal, transfer=decoded.color_trc, primaries=decoded.color_primaries)
        else:
            pixels = decoded.reformat(**size, format="rgb24", src_colorspace=space).to_ndarray()
        return torch.from_numpy(np.ascontiguousarray(_upright(pixels, _display_matrix(decoded))))

    def grey(self, longer_side: int) -> Float32[Tensor, "h w"]:
        """The upright picture's luma in [0, 1], shrunk to at most `longer_side` pixels: cheap, for measuring."""
        shrink = min(1.0, longer_side / max(self._size.values()))
        small = {side: max(1, round(length * shrink)) for side, length in self._size.items()}
        luma = self._decoded.reformat(**small, format="gray", interpolation="AREA").to_ndarray()
        upright = np.ascontiguousarray(_upright(luma, _display_matrix(self._decoded)))
        return torch.from_numpy(upright.astype(np.float32) / 255)


def read_clip_metadata(path: Path | str) -> ClipMetadata:
    """A clip's size, length and tags; one picture is decoded, since only it says how the phone was held.

    Raises VideoError for a file that is missing, empty, too large, no video, or cut short before its first picture.
    """
    path = Path(path)
    with opened_video(path) as container:
        stream = picture_stream(container, path)
        first = first_picture(container, stream, path)
        tags = clip_tags.merged(container.metadata.items(), stream.metadata.items())
        duration_s = declared_duration(container, stream)
        matrix = _display_matrix(first)
        height, width = _upright(np.empty((first.height, round(first.width * pixel_stretch(stream)))), matrix).shape
        return ClipMetadata(
            width=width,
            height=height,
            duration_s=duration_s,
            rotation=round(math.degrees(math.atan2(-matrix[1], matrix[0]))) % 360,
            created=clip_tags.started(tags, duration_s),
            position_wgs84=clip_tags.position(tags),
            accuracy_m=clip_tags.accuracy(tags),
            device=clip_tags.device(tags),
            focal_35mm=clip_tags.focal_35mm(tags),
            audio=sound_stream(container) is not None,
            codec=stream.codec_context.name,
        )


def frames(path: Path | str, *, warn: Callable[[str], None] = logger.warning) -> Iterator[VideoFrame]:
    """The clip's pictures, upright, as sRGB bytes, in the order of their times.

    A clip that is cut short or damaged gives what can be read; `warn` is told what is missing. Raises VideoError as
    `read_clip_metadata` does, and for a clip that outgrows the limits of `containers`.
    """
    for picture in pictures(path, warn=warn):
        yield VideoFrame(time_s=picture.time_s, image=picture.image())


def pictures(path: Path | str, *, warn: Callable[[str], None] = logger.warning) -> Iterator[Picture]:
    """`frames`, each converted only when asked for."""
    path = Path(path)
    with opened_video(path) as container:
        stream = picture_stream(container, path)
        start: float | None = None
        last: float | None = None
        for count, decoded in enumerate(decoded_frames(container, stream, path, warn=warn)):
            check_pixels(path, decoded.width, decoded.height)
            time_s: float = decoded.time if decoded.time is not None else _next_time(last, stream)
            if last is not None and time_s <= last:
                continue
            start = time_s if start is None else start
            last = time_s
            if count >= containers.VIDEO_FRAMES or last - start > containers.VIDEO_SECONDS:
                limits = f"{containers.VIDEO_FRAMES} pictures or {containers.VIDEO_SECONDS:.0f} s"
                raise VideoError(f"{path} holds more than {limits}; cut it into shorter ones")
            yield Picture(decoded, time_s=last - start, stretch=pixel_stretch(stream))
        if start is None or last is None:
            raise VideoError(f"{path} has no picture that can be decoded; copy or upload it again")
        missing = declared_duration(container, stream) - (last - start)
        if missing > max(1.0, 4 * frame_duration(stream)):
            warn(f"{path} is cut short: its last {missing:.1f} s cannot be read; what comes before is used")


def read_sound(path: Path | str, *, rate: int = 16000) -> Float32[np.ndarray, "samples"]:
    """All channels mixed into one, at `rate` samples a second; sample 0 is heard with the clip's first picture.

    What sounds before that is left out, silence stands where sound begins later or is missing. Raises VideoError when
    the file has no sound, or as `read_clip_metadata` does; a file without pictures begins with its sound.
    """
    path = Path(path)
    with opened_video(path) as container:
        if sound_stream(container) is None:
            raise VideoError(f"{path} has no sound; synchronise it by its clock, or record with the microphone on")
        start_s = _first_picture_s(path, container)
    with opened_video(path) as container:
        runs = _sound_runs(container, sound_stream(container), path, rate=rate)
        pieces = [(run.begin, run.samples()) for run in runs]
    if not pieces:
        raise VideoError(f"the sound of {path} cannot be decoded; copy or upload it again")
    start_s = pieces[0][0] if start_s is None else start_s
    length = max(round((begin - start_s) * rate) + len(samples) for begin, samples in pieces)
    mono = np.zeros(max(0, min(length, round(containers.VIDEO_SECONDS * rate))), np.float32)
    for begin, samples in pieces:
        at = round((begin - start_s) * rate)
        samples = samples[max(0, -at) :][: max(0, len(mono) - max(0, at))]
        mono[max(0, at) : max(0, at) + len(samples)] = samples
    return mono


def _next_time(last: float | None, stream: Any) -> float:
    """For streams without time stamps."""
    return 0.0 if last is None else last + frame_duration(stream)


def _colour_space(decoded: Any) -> int:
    """The matrix from YCbCr as H.273 numbers it; where a phone does not say: Rec. 709 for HD, else Rec. 601."""
    unspecified = 2
    if decoded.colorspace != unspecified:
        return decoded.colorspace
    return 1 if min(decoded.width, decoded.height) >= 720 else 5


def _display_matrix(decoded: Any) -> tuple[float, float, float, float]:
    """a, b, c, d of the container's display matrix: stored (x, y) is shown at (a x + c y, b x + d y)."""
    data = decoded.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = (np.frombuffer(bytes(data), np.int32)[:9] / (1 << 16)).tolist()
    return a, b, c, d


def _upright(pixels: np.ndarray, matrix: tuple[float, float, float, float]) -> np.ndarray:
    """A picture turned by quarters and mirrored as its display matrix says."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, right, down = np.swapaxes(pixels, 0, 1), c, b
    else:
        right, down = a, d
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return pixels[::-1] if down < 0 else pixels


def _first_picture_s(path: Path, container: Any) -> float | None:
    """The container's time of the first picture; None for a file without pictures."""
    if not container.streams.video:
        return None
    stream = picture_stream(container, path)
    return first_picture(container, stream, path).time


class _SoundRun:
    """Sound without a gap, resampled as it comes. begin: the container's time of its first sample; end: of its end."""

    def __init__(self, frame: Any, begin: float, rate: int) -> None:
        self.begin = self.end = begin
        self._kind = _kind(frame)
        self._resampler = installed_av().AudioResampler(format="flt", layout="mono", rate=rate)
        self._pieces: list[np.ndarray] = []

    def goes_on_with(self, frame: Any, time_s: float) -> bool:
        return abs(time_s - self.end) < _SOUND_GAP_S and _kind(frame) == self._kind

    def add(self, frame: Any) -> None:
        self.end += frame.samples / frame.sample_rate
        frame.pts = None
        self._pieces += [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]

    def samples(self) -> Float32[np.ndarray, "samples"]:
        """All of it; nothing can be added afterwards."""
        self._pieces += [piece.to_ndarray()[0] for piece in self._resampler.resample(None)]
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _sound_runs(container: Any, stream: Any, path: Path, *, rate: int) -> Iterator[_SoundRun]:
    run: _SoundRun | None = None
    for frame in decoded_frames(container, stream, path, warn=logger.warning):
        time_s = frame.time if frame.time is not None else run.end if run else 0.0
        if run is None or not run.goes_on_with(frame, time_s):
            if run is not None:
                yield run
            run = _SoundRun(frame, time_s, rate)
        run.add(frame)
        if run.end - run.begin > containers.VIDEO_SECONDS:
            raise VideoError(
                f"{path} has more than {containers.VIDEO_SECONDS:.0f} s of sound; cut it into shorter clips"
            )
    if run is not None:
        yield run
