"""Network inference: a UE asks for a view, the network renders and encodes it; and what each path costs.

`ViewAccount` puts both inference paths into the same two numbers: bytes and milliseconds, once and for every view.
"""

import io
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, invalid_poses
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.rendering import render_view

Format = Literal["webp", "jpeg"]
MEDIA_TYPES = {"webp": "image/webp", "jpeg": "image/jpeg"}
MAX_PIXELS = 4096 * 4096


class ViewError(ValueError):
    """A view that cannot be rendered or shown; the message says why and what to do."""


@dataclass(frozen=True)
class ViewRequest:
    """What a UE asks for: the view of an ideal camera (OpenCV axes, metres; focal and principal point in pixels)."""

    camera_to_world: Float[Tensor, "3 4"]
    focal: tuple[float, float]
    centre: tuple[float, float]
    width: int
    height: int

    def cameras(self) -> Cameras:
        """The request as a batch of one camera. Raises ViewError for a pose or size that nobody can render."""
        pose = self.camera_to_world.to(torch.float32)[None]
        if bool(invalid_poses(pose).any()):
            raise ViewError("the requested pose is not finite or its rotation is none; send camera-to-world, 3 x 4")
        if min(self.width, self.height) < 1 or self.width * self.height > MAX_PIXELS:
            raise ViewError(f"a view of {self.width} x {self.height} pixels; ask for 1 to {MAX_PIXELS} pixels")
        if not all(np.isfinite([*self.focal, *self.centre])) or min(self.focal) <= 0:
            raise ViewError(f"focal {self.focal}, centre {self.centre}: give finite pixels, focal above 0")
        return Cameras(
            camera_to_world=pose,
            focal=torch.tensor([self.focal]),
            centre=torch.tensor([self.centre]),
            width=torch.tensor([self.width]),
            height=torch.tensor([self.height]),
            distortion=torch.zeros(1, 4),
        )


@dataclass(frozen=True)
class EncodedView:
    """A rendered view as it goes over the air, and the milliseconds it took to render and to encode."""

    content: bytes
    media_type: str
    width: int
    height: int
    render_ms: float
    encode_ms: float


def render_and_encode(
    field: RadianceField, request: ViewRequest, *, format: Format = "webp", quality: int = 80
) -> EncodedView:
    """Render the view of a request and encode it. quality: 1 (small) to 100 (good), the codec's own scale."""
    if format not in MEDIA_TYPES or not 1 <= quality <= 100:
        raise ViewError(f"format {format!r} at quality {quality}; give {' or '.join(MEDIA_TYPES)} and 1 to 100")
    cameras = request.cameras()
    started = time.perf_counter()
    colour = render_view(field, cameras).colour
    rendered = time.perf_counter()
    picture = Image.fromarray((colour * 255).round().to(torch.uint8).numpy())
    buffer = io.BytesIO()
    picture.save(buffer, format=format, quality=quality)
    encoded = time.perf_counter()
    return EncodedView(
        content=buffer.getvalue(),
        media_type=MEDIA_TYPES[format],
        width=request.width,
        height=request.height,
        render_ms=1e3 * (rendered - started),
        encode_ms=1e3 * (encoded - rendered),
    )


def decode_view(encoded: EncodedView) -> NDArray[np.uint8]:
    """The picture of an encoded view, [h w 3]. Raises ViewError when it is damaged or not of the size it says."""
    try:
        with Image.open(io.BytesIO(encoded.content), formats=["WEBP", "JPEG"]) as image:
            size = image.size
            picture = np.asarray(image.convert("RGB")) if size == (encoded.width, encoded.height) else None
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ViewError(f"the view of {len(encoded.content)} bytes is damaged ({error}); ask for it again") from error
    if picture is None:
        raise ViewError(f"the view is {size[0]} x {size[1]}, not {encoded.width} x {encoded.height}; ask again")
    return picture


@dataclass(frozen=True)
class ViewAccount:
    """What views cost on one inference path: bytes over the air and milliseconds, once and for each view.

    The device path downloads a model once and then renders; the network path sends every view. server_ms: render and
    encode; device_ms: decode, or render. A round trip is paid for every request: for the model once, or for each view.
    """

    path: Literal["device", "network"]
    bytes_once: int
    bytes_per_view: int
    server_ms: float
    device_ms: float

    def total_bytes(self, views: int) -> int:
        """Bytes over the air for so many views."""
        return self.bytes_once + views * self.bytes_per_view

    def first_pixels_ms(self, *, link_mbit_s: float, rtt_ms: float) -> float:
        """From the request to the first picture: one round trip, the transfer, and the work at both ends."""
        return rtt_ms + self._transfer_ms(self.total_bytes(1), link_mbit_s) + self.server_ms + self.device_ms

    def next_pixels_ms(self, *, link_mbit_s: float, rtt_ms: float) -> float:
        """From a new pose to its picture, once the first has been shown."""
        round_trip = rtt_ms if self.bytes_per_view else 0.0
        return round_trip + self._transfer_ms(self.bytes_per_view, link_mbit_s) + self.server_ms + self.device_ms

    @staticmethod
    def _transfer_ms(size: int, link_mbit_s: float) -> float:
        return 8 * size / (link_mbit_s * 1e3)


def break_even_views(device: ViewAccount, network: ViewAccount) -> float:
    """Number of views from which sending the model takes fewer bytes than sending views; infinite if it never does."""
    saved = network.bytes_per_view - device.bytes_per_view
    return max(0.0, (device.bytes_once - network.bytes_once) / saved) if saved > 0 else float("inf")
