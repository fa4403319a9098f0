"""A video file held open: limits, which of its streams to use, and what they hold when decoded. Nothing is trusted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

INSTALL = 'pip install "crowdnerf-lab[video]"'
VIDEO_BYTES = 8 << 30
"""Largest file that is opened: about twenty minutes of 4K at 50 Mbit/s."""
VIDEO_PIXELS = 7680 * 4320
"""Largest picture that is decoded: 8K, the largest that phones record."""
VIDEO_SECONDS = 3600.0
"""Longest clip that is read."""
VIDEO_FRAMES = 500_000
"""Most pictures read from one clip: an hour at 120 a second."""
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts"
"""The only formats that are tried: play lists and the like would open further files."""


class VideoError(ValueError):
    """A video that cannot be read; the message names the file and the remedy."""


def installed_av() -> Any:
    """PyAV, silenced; raises VideoError with the install line where it is missing."""
    try:
        av: Any = import_module("av")
    except ImportError:
        raise VideoError(f"reading videos needs PyAV; install it with: {INSTALL}") from None
    av.logging.set_level(av.logging.PANIC)
    return av


@contextmanager
def opened_video(path: Path) -> Iterator[Any]:
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


def picture_stream(container: Any, path: Path) -> Any:
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
    check_pixels(path, stream.width, stream.height)
    if declared_duration(container, stream) > VIDEO_SECONDS:
        raise VideoError(f"{path} is longer than {VIDEO_SECONDS:.0f} s; cut it into shorter clips")
    stream.codec_context.options = {"max_pixels": str(VIDEO_PIXELS)}
    return stream


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise VideoError for a picture of more than VIDEO_PIXELS."""
    if width * height > VIDEO_PIXELS:
        raise VideoError(f"{path} is {width}x{height}, more than {VIDEO_PIXELS} pixels a picture; make it smaller")


def sound_stream(container: Any) -> Any | None:
    """The default sound track with a codec that is known, or the first."""
    default = installed_av().stream.Disposition.default
    tracks = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return max(tracks, key=lambda stream: bool(stream.disposition & default), default=None)


def decoded_frames(container: Any, stream: Any, path: Path, *, warn: Callable[[str], None]) -> Iterator[Any]:
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


def first_picture(container: Any, stream: Any, path: Path) -> Any:
    """The first picture of a stream; raises VideoError where none can be decoded."""
    for decoded in decoded_frames(container, stream, path, warn=lambda _: None):
        return decoded
    raise VideoError(f"{path} has no picture that can be decoded; copy or upload it again, or convert it to MP4")


def declared_duration(container: Any, stream: Any) -> float:
    """Seconds, as the container says; 0 when it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    if container.duration is None:
        return 0.0
    return max(0.0, (container.duration - max(0, container.start_time or 0)) / 1e6)


def frame_duration(stream: Any) -> float:
    """Seconds from one picture to the next, on average."""
    return 1 / float(stream.average_rate) if stream.average_rate else 1 / 30


def pixel_stretch(stream: Any) -> float:
    """Width of a pixel over its height."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 0.1 < ratio < 10 else 1.0
