"""Clips made on purpose, for study and tests: pictures and sound of known times, encoded as phones encode them."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from crowdnerf_lab.captures.video.containers import installed_av

_TICKS = 90_000
"""Clock of the pictures, per second."""
_SOUND_BLOCK = 1024
"""Samples given to the encoder at a time."""
_ENCODING = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1", "crf": "18"},
}


def write_clip(
    path: Path | str,
    pictures: Iterable[tuple[float, UInt8[np.ndarray, "h w 3"]]],
    *,
    sound: Float32[np.ndarray, "samples"] | None = None,
    sound_rate: int = 48_000,
    sound_starts_s: float = 0.0,
    rotation: int = 0,
    codec: str = "libx264",
    sound_codec: str = "aac",
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write times (s) and pictures, and sound whose first sample is heard at `sound_starts_s`; the suffix says the
    container.

    Times may be spaced unevenly and start anywhere from 0. rotation: degrees counterclockwise that a player turns the
    pictures by. Sizes must be even. tags: as the container writes them; MOV keeps Apple's keys.
    """
    path = Path(path)
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mov" else {}
    with installed_av().open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {})
        video: Any = None
        audio: Any = None
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono")
        for time_s, picture in pictures:
            if video is None:
                video = _picture_stream(container, codec, picture.shape, rotation)
            container.mux(video.encode(_frame(picture, time_s)))
        if video is not None:
            container.mux(video.encode())
        if audio is not None and sound is not None:
            for begin in range(0, len(sound), _SOUND_BLOCK):
                block = _sound_frame(sound[begin : begin + _SOUND_BLOCK], sound_rate)
                block.pts = begin + round(sound_starts_s * sound_rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def _picture_stream(container: Any, codec: str, shape: tuple[int, ...], rotation: int) -> Any:
    stream = container.add_stream(codec, rate=30, options=_ENCODING.get(codec, {}))
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # several give other bytes from run to run
    stream.codec_context.time_base = Fraction(1, _TICKS)
    stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
    if codec == "libx265":
        stream.codec_context.codec_tag = "hvc1"
    if rotation:
        stream.set_display_rotation(rotation)
    return stream


def _frame(picture: UInt8[np.ndarray, "h w 3"], time_s: float) -> Any:
    frame = installed_av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
    frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
    return frame


def _sound_frame(samples: Float32[np.ndarray, "samples"], rate: int) -> Any:
    frame = installed_av().AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame
