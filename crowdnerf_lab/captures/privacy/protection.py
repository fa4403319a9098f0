"""A stranger's photo made safe to keep: faces gone, nothing but pixels in the file, before anything of it is written.

What calibration needs of the metadata comes back as data; where it may be kept and how finely it may leave the lab is
the manifest's matter (see `publishing`).
"""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.captures.photos import PhotoMetadata, read_metadata, read_photo
from crowdnerf_lab.captures.privacy.anonymisation import anonymised, hidden_pixels
from crowdnerf_lab.captures.privacy.faces import USUAL, Face, FaceSearch, find_faces
from crowdnerf_lab.files import write_atomically

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
QUALITY = 92
"""Of JPEG and WebP, 0 to 100."""


class PrivacyError(ValueError):
    """A picture that cannot be made safe as asked for; the message says what to change."""


@dataclass(frozen=True)
class ProtectedImage:
    """A picture without faces; faces: where they were; hidden: the pixels that are no longer the camera's."""

    image: UInt8[Tensor, "h w 3"]
    faces: tuple[Face, ...]
    hidden: Bool[Tensor, "h w"]


@dataclass(frozen=True)
class ProtectedPhoto:
    """A photo that was written without faces and metadata. metadata: what its file said, for calibration."""

    path: Path
    width: int
    height: int
    faces: tuple[Face, ...]
    metadata: PhotoMetadata


def protected(image: UInt8[Tensor, "h w 3"], *, search: FaceSearch = USUAL) -> ProtectedImage:
    """A photo or a video's frame with its faces anonymised. Raises FaceError when they cannot be looked for."""
    faces = find_faces(image, search=search)
    height, width = image.shape[:2]
    return ProtectedImage(anonymised(image, faces), faces, hidden_pixels(faces, width, height))


def protect_photo(source: Path | str, target: Path | str, *, search: FaceSearch = USUAL) -> ProtectedPhoto:
    """Write a photo's pixels, upright, without faces and without metadata, as `target` (.jpg, .png or .webp).

    The pixels as they were never reach the disk, not even in a temporary file: the target appears whole, anonymised,
    or not at all. Raises PhotoError for a source that cannot be read, FaceError when faces cannot be looked for,
    PrivacyError for a target of another format, FileError when the disk is full.
    """
    picture = read_photo(source)
    metadata = read_metadata(source)
    safe = protected(picture, search=search)
    path = write_pixels(safe.image, target)
    height, width = safe.image.shape[:2]
    return ProtectedPhoto(path, width, height, safe.faces, metadata)


def write_pixels(image: UInt8[Tensor, "h w 3"], target: Path | str) -> Path:
    """Write a picture in the format that the name asks for, atomically, with nothing in the file but its pixels."""
    target = Path(target)
    kind = _FORMATS.get(target.suffix.lower())
    if kind is None:
        raise PrivacyError(f"{target} is not written: name it {', '.join(_FORMATS)}")
    picture = Image.fromarray(image.numpy())
    return write_atomically(target, lambda partial: picture.save(partial, format=kind, quality=QUALITY))
