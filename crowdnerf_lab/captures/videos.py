"""Videos as phones make them: upright pictures with their times, and sound on the same clock. Nothing is trusted.

Time zero of a clip is its first picture that is shown. Pictures carry the time at which they are shown, whatever the
frame rate does; sound sample i belongs to i / rate seconds. Everything streams: memory does not grow with the length.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import focal_from_35mm
from crowdnerf_lab.captures import clip_tags
from crowdnerf_lab.captures.high_dynamic_range import HLG, PQ, tone_mapped

logger = logging.getLogger(__name__)

INSTALL = 'pip install "crowdnerf-lab[video]"'
SUFFIXES = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm")
"""What videos of phones are called."""
VIDEO_BYTES = 8 << 30
"""Largest file that is opened: about twenty minutes of 4K at 50 Mbit/s."""
VIDEO_PIXELS = 7680 * 4320
"""Largest picture that is decoded: 8K, the largest that phones record."""
VIDEO_SECONDS = 3600.0
"""Longest clip that is read."""
VIDEO_FRAMES = 500_000
"""Most pictures read from one clip: an hour at 120 a second."""
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"
"""The only formats that are tried: play lists and the like would open further files."""
_SOUND_GAP_S = 0.01
"""Sound whose time stamps jump by more is set anew; less is rounding by the container."""


class VideoError(ValueError):
    """A video that cannot be read; the message names the file and the remedy."""


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
    with _opened(path) as container:
        stream = _pictures_of(container, path)
        first = _first_picture(container, stream, path)
        tags = clip_tags.merged(container.metadata.items(), stream.metadata.items())
        duration_s = _declared_duration(container, stream)
        matrix = _display_matrix(first)
        height, width = _upright(np.empty((first.height, round(first.width * _stretch(stream)))), matrix).shape
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
            audio=_sound_of(container) is not None,
            codec=stream.codec_context.name,
        )


def frames(path: Path | str, *, warn: Callable[[str], None] = logger.warning) -> Iterator[VideoFrame]:
    """The clip's pictures, upright, as sRGB bytes, in the order of their times.

    A clip that is cut short or damaged gives what can be read; `warn` is told what is missing. Raises VideoError as
    `read_clip_metadata` does, and for a clip that outgrows VIDEO_SECONDS, VIDEO_FRAMES or VIDEO_PIXELS.
    """
    for picture in pictures(path, warn=warn):
        yield VideoFrame(time_s=picture.time_s, image=picture.image())


def pictures(path: Path | str, *, warn: Callable[[str], None] = logger.warning) -> Iterator[Picture]:
    """`frames`, each converted only when asked for."""
    path = Path(path)
    with _opened(path) as container:
        stream = _pictures_of(container, path)
        start: float | None = None
        last: float | None = None
        for count, decoded in enumerate(_decoded(container, stream, path, warn=warn)):
            _check_pixels(path, decoded.width, decoded.height)
            time_s: float = decoded.time if decoded.time is not None else _next_time(last, stream)
            if last is not None and time_s <= last:
                continue
            start = time_s if start is None else start
            last = time_s
            if count >= VIDEO_FRAMES or last - start > VIDEO_SECONDS:
                raise VideoError(
                    f"{path} holds more than {VIDEO_FRAMES} pictures or {VIDEO_SECONDS:.0f} s; cut it into shorter ones"
                )
            yield Picture(decoded, time_s=last - start, stretch=_stretch(stream))
        if start is None or last is None:
            raise VideoError(f"{path} has no picture that can be decoded; copy or upload it again")
        missing = _declared_duration(container, stream) - (last - start)
        if missing > max(1.0, 4 * _frame_duration(stream)):
            warn(f"{path} is cut short: its last {missing:.1f} s cannot be read; what comes before is used")


def read_sound(path: Path | str, *, rate: int = 16000) -> Float32[np.ndarray, "samples"]:
    """All channels mixed into one, at `rate` samples a second; sample 0 is heard with the clip's first picture.

    What sounds before that is left out, silence stands where sound begins later or is missing. Raises VideoError when
    the file has no sound, or as `read_clip_metadata` does; a file without pictures begins with its sound.
    """
    path = Path(path)
    with _opened(path) as container:
        if _sound_of(container) is None:
            raise VideoError(f"{path} has no sound; synchronise it by its clock, or record with the microphone on")
        start_s = _first_picture_s(path, container)
    with _opened(path) as container:
        runs = _sound_runs(container, _sound_of(container), path, rate=rate)
        pieces = [(run.begin, run.samples()) for run in runs]
    if not pieces:
        raise VideoError(f"the sound of {path} cannot be decoded; copy or upload it again")
    start_s = pieces[0][0] if start_s is None else start_s
    length = max(round((begin - start_s) * rate) + len(samples) for begin, samples in pieces)
    mono = np.zeros(max(0, min(length, round(VIDEO_SECONDS * rate))), np.float32)
    for begin, samples in pieces:
        at = round((begin - start_s) * rate)
        samples = samples[max(0, -at) :][: max(0, len(mono) - max(0, at))]
        mono[max(0, at) : max(0, at) + len(samples)] = samples
    return mono


def installed_av() -> Any:
    """PyAV, silenced; raises VideoError with the install line where it is missing."""
    try:
        av: Any = import_module("av")
    except ImportError:
        raise VideoError(f"reading videos needs PyAV; install it with: {INSTALL}") from None
    av.logging.set_level(av.logging.PANIC)
    return av


def _ignored(problem: str) -> None:
    """For callers that look at a part of a clip only."""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open container; what FFmpeg raises while it is read becomes a VideoError naming the file."""
    av = installed_av()
    if not path.is_file():
        raise VideoError(f"{path} does not exist; put the clip back or drop its entry")
    size = path.stat().st_size
    if size == 0:
        raise VideoError(f"{path} is empty (0 bytes); copy or upload it again")
    if size > VIDEO_BYTES:
        raise VideoError(f"{path} has {size} bytes, more than {VIDEO_BYTES}; cut it into shorter clips")
    try:
        container = av.open(
            f"file:{path.resolve()}",
            container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f"{path} is no MP4, MOV, MKV or WebM video, or its index is missing because the recording or the upload "
            f"was cut short ({_first_line(error)}); copy or upload it again, or convert it to MP4"
        ) from None
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise VideoError(f"{path} is damaged ({_first_line(error)}); copy or upload it again") from None


def _first_line(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def _pictures_of(container: Any, path: Path) -> Any:
    """The stream that a player would show: no cover picture; the default one, then the largest."""
    av = installed_av()
    candidates = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not candidates:
        raise VideoError(f"{path} holds no pictures that move; drop it, or use it for its sound only")
    known = [stream for stream in candidates if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{path} holds pictures in an unknown codec; convert it to MP4 with H.264 or HEVC")
    default = av.stream.Disposition.default
    stream = max(known, key=lambda stream: (bool(stream.disposition & default), stream.width * stream.height))
    _check_pixels(path, stream.width, stream.height)
    if _declared_duration(container, stream) > VIDEO_SECONDS:
        raise VideoError(f"{path} is longer than {VIDEO_SECONDS:.0f} s; cut it into shorter clips")
    stream.codec_context.options = {"max_pixels": str(VIDEO_PIXELS)}
    return stream


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > VIDEO_PIXELS:
        raise VideoError(f"{path} is {width}x{height}, more than {VIDEO_PIXELS} pixels a picture; make it smaller")


def _sound_of(container: Any) -> Any | None:
    """The default sound track with a codec that is known, or the first."""
    default = installed_av().stream.Disposition.default
    tracks = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return max(tracks, key=lambda stream: bool(stream.disposition & default), default=None)


def _decoded(container: Any, stream: Any, path: Path, *, warn: Callable[[str], None]) -> Iterator[Any]:
    """What a stream holds, without what is damaged or the decoder had to invent; `warn` is told of it."""
    av = installed_av()
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                damaged += 1
                continue
            for frame in decoded:
                damaged += frame.is_corrupt
                if not frame.is_corrupt:
                    yield frame
    except (av.FFmpegError, OSError) as error:
        warn(f"{path} ends in the middle ({_first_line(error)}); what comes before is used")
    if damaged:
        warn(f"{path}: {damaged} damaged pieces of its {stream.type} are left out")


def _first_picture(container: Any, stream: Any, path: Path) -> Any:
    for decoded in _decoded(container, stream, path, warn=_ignored):
        return decoded
    raise VideoError(f"{path} has no picture that can be decoded; copy or upload it again, or convert it to MP4")


def _declared_duration(container: Any, stream: Any) -> float:
    """Seconds, as the container says; 0 when it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    if container.duration is None:
        return 0.0
    return max(0.0, (container.duration - max(0, container.start_time or 0)) / 1e6)


def _frame_duration(stream: Any) -> float:
    return 1 / float(stream.average_rate) if stream.average_rate else 1 / 30


def _next_time(last: float | None, stream: Any) -> float:
    """For streams without time stamps."""
    return 0.0 if last is None else last + _frame_duration(stream)


def _stretch(stream: Any) -> float:
    """Width of a pixel over its height."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 0.1 < ratio < 10 else 1.0


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
    stream = _pictures_of(container, path)
    return _first_picture(container, stream, path).time


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
    for frame in _decoded(container, stream, path, warn=logger.warning):
        time_s = frame.time if frame.time is not None else run.end if run else 0.0
        if run is None or not run.goes_on_with(frame, time_s):
            if run is not None:
                yield run
            run = _SoundRun(frame, time_s, rate)
        run.add(frame)
        if run.end - run.begin > VIDEO_SECONDS:
            raise VideoError(f"{path} has more than {VIDEO_SECONDS:.0f} s of sound; cut it into shorter clips")
    if run is not None:
        yield run
