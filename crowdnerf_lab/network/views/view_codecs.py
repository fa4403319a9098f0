"""Views as they go over the air: WebP, JPEG or AVIF, at the speed that a view's budget of milliseconds leaves; or PNG.

Measured on the concert's views of 256 x 192 at quality 80 (one thread of a shared machine; time, size, PSNR):

    WebP method 0   1.2 ms  8.1 kB  34.8 dB      JPEG            0.2 ms   9.4 kB  34.6 dB
         method 2   1.8 ms  7.0 kB  34.6 dB      AVIF speed 6     34 ms   9.8 kB  37.4 dB
         method 4   4.0 ms  6.7 kB  34.8 dB           speed 8     13 ms   9.9 kB  37.2 dB
         method 6   8.7 ms  6.4 kB  34.7 dB           speed 9      4 ms  10.3 kB  37.2 dB

Beside a render of 50 ms, WebP's method 2 and AVIF's speed 9 are the last steps that still pay. PNG keeps every bit: a
yardstick for the others, and for what a UE draws itself. Needs numpy and pillow.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from crowdnerf_lab.network.views.view_request import ViewError

Format = Literal["webp", "jpeg", "avif", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: dict[Format, str] = {
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "avif": "image/avif",
    "png": "image/png",
}
QUALITIES = (1, 100)
LONGEST_SIDE: dict[Format, int] = {"webp": 16383, "jpeg": 65500, "avif": 16384, "png": 65500}
"""Pixels that the formats can say (WebP: 14 bits; PNG more than anybody asks for)."""
SPEEDS: dict[Format, dict[str, Any]] = {
    "webp": {"method": 2},
    "jpeg": {},
    "avif": {"speed": 9, "max_threads": 1},
    "png": {"compress_level": 1},
}


@dataclass(frozen=True)
class EncodedView:
    """A rendered view as it goes over the air, and the milliseconds it took to render and to encode."""

    content: bytes
    media_type: str
    width: int
    height: int
    render_ms: float
    encode_ms: float


def check_encoding(format: str, quality: int, *, longest_side: int = 1) -> None:
    """Raise ViewError for a format, or a quality, or a side of so many pixels in it, that there is not."""
    if format not in MEDIA_TYPES or not QUALITIES[0] <= quality <= QUALITIES[1]:
        raise ViewError(f"format {format!r} at quality {quality}; give {' or '.join(MEDIA_TYPES)} and 1 to 100")
    if longest_side > LONGEST_SIDE[format]:
        raise ViewError(f"{format} holds {LONGEST_SIDE[format]} pixels a side, not {longest_side}; ask for fewer")


def encode_picture(picture: NDArray[np.uint8], *, format: Format, quality: int) -> bytes:
    """A picture [h w 3] in sRGB, encoded. quality: 1 (small) to 100 (good), the codec's own scale; PNG has none."""
    check_encoding(format, quality, longest_side=max(picture.shape[:2]))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=format, quality=quality, **SPEEDS[format])
    return buffer.getvalue()


def decode_view(encoded: EncodedView) -> NDArray[np.uint8]:
    """The picture of an encoded view, [h w 3]. Raises ViewError when it is damaged or not of the size it says."""
    try:
        with Image.open(io.BytesIO(encoded.content), formats=[name.upper() for name in FORMATS]) as image:
            size = image.size
            picture = np.asarray(image.convert("RGB")) if size == (encoded.width, encoded.height) else None
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ViewError(f"the view of {len(encoded.content)} bytes is damaged ({error}); ask for it again") from error
    if picture is None:
        raise ViewError(f"the view is {size[0]} x {size[1]}, not {encoded.width} x {encoded.height}; ask again")
    return picture
