"""One uploaded file becomes protected photos: what a worker of an ingest does, within its sandbox.

Nothing of an upload reaches the disk again but pixels whose faces are gone: no metadata, no profile, no trailer.
Pictures of cut-out objects stay cut out, as PNG; all others are JPEG. Files are named by what was uploaded, so that the
same upload gives the same names.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.captures.bundle import Capture, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.pictures import is_video
from crowdnerf_lab.captures.intake.unsafe_files import refuse_unsafe
from crowdnerf_lab.captures.photos import PhotoError, read_metadata, read_opacity, read_photo
from crowdnerf_lab.captures.privacy.protection import protected, write_pixels
from crowdnerf_lab.captures.video.frame_selection import photo_of_frame, selected_frames
from crowdnerf_lab.captures.video.videos import VideoError, read_clip_metadata
from crowdnerf_lab.files import inside, write_atomically

DIGEST_LETTERS = 24
"""Of a SHA-256 in hexadecimal, kept in file names: 96 bits tell a crowd's files apart."""


@dataclass(frozen=True)
class Upload:
    """One file to take in. source: where it lies; digest: SHA-256 of its bytes; capture: whose it is, with this photo
    or clip alone; root: the folder to fill; faces: whether to make faces unrecognisable."""

    source: Path
    digest: str
    capture: Capture
    root: Path
    faces: bool

    @property
    def name(self) -> str:
        """What its photos are called within the folder, without suffix: by whom and of what, and nothing else."""
        return f"{self.capture.ue}/{self.digest[:DIGEST_LETTERS]}"


def digest_in(file: str) -> str:
    """The part of an upload's digest that stands in the name of one of its photos."""
    return PurePosixPath(file).name[:DIGEST_LETTERS]


def probe(path: Path) -> None:
    """Open a photo or video as a listing does. What its reader refuses is for the listing to tell."""
    with suppress(PhotoError, VideoError):
        if is_video(path):
            read_clip_metadata(path)
        else:
            read_metadata(path)


def take_photo(upload: Upload) -> tuple[Photo, ...]:
    """Check, protect and write one photo.

    Raises PhotoError, UnsafeFileError and CaptureError about the file; FaceError and FileError about this machine.
    """
    (photo,) = upload.capture.photos
    refuse_unsafe(upload.source)
    image = read_photo(upload.source)
    height, width = image.shape[:2]
    if photo.camera is not None and (width, height) != (photo.width, photo.height):
        raise CaptureError(
            f"{upload.source} is {width}x{height} but its camera is for {photo.width}x{photo.height}; "
            "give the photo that was calibrated"
        )
    opacity = read_opacity(upload.source)
    file = f"{upload.name}.{'jpg' if opacity is None else 'png'}"
    hidden = _write_protected(image, file, upload, opacity=opacity)
    update = {"file": file, "width": width, "height": height, "truth": None, **hidden}
    return (photo.model_copy(update=update),)


def take_clip(upload: Upload) -> tuple[Photo, ...]:
    """Choose a video's frames, protect and write them, one after the other. Raises VideoError too."""
    (clip,) = upload.capture.clips
    refuse_unsafe(upload.source)
    from_clip = f"{upload.name}{upload.source.suffix.lower()}"
    photos = []
    for frame in selected_frames(upload.source):
        file = f"{upload.name}_{round(frame.time_s * 1000):08d}.jpg"
        hidden = _write_protected(frame.image, file, upload)
        photos.append(photo_of_frame(frame, clip, file).model_copy(update={"from_clip": from_clip, **hidden}))
    return tuple(photos)


def _write_protected(
    image: UInt8[Tensor, "h w 3"], file: str, upload: Upload, *, opacity: UInt8[Tensor, "h w"] | None = None
) -> dict[str, Any]:
    """Write pixels, and nothing else. Returns what a photo's record says of faces that were made unrecognisable."""
    safe = protected(image) if upload.faces else None
    pixels, path = safe.image if safe else image, inside(upload.root, file)
    if opacity is None:
        write_pixels(pixels, path)
    else:
        picture = Image.fromarray(cut_out(pixels, opacity).numpy())
        write_atomically(path, lambda partial: picture.save(partial, "PNG"))
    if safe is None:
        # Not what an upload claims of itself either.
        return {"faces": None, "filled": None}
    boxes = tuple((face.left, face.top, face.right, face.bottom) for face in safe.faces)
    return {"faces": len(boxes), "filled": boxes or None}


def cut_out(image: UInt8[Tensor, "h w 3"], opacity: UInt8[Tensor, "h w"]) -> UInt8[Tensor, "h w 4"]:
    """Colours and opacity of what looks like `image` upon white: c = (seen - 255 (1 - a)) / a."""
    share = opacity[..., None] / 255
    colours = (image - 255 * (1 - share)) / share.clamp(min=1 / 255)
    return torch.cat([colours.round().clamp(0, 255).to(torch.uint8), opacity[..., None]], dim=-1)
