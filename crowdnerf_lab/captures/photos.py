"""One photo from disk: pixels upright in sRGB bytes, and what its EXIF says. Nothing about the file is trusted."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pi_heif
import torch
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from crowdnerf_lab.captures.exif import PhotoMetadata, metadata_of

PHOTO_BYTES = 100 << 20
"""Largest file that is opened."""
PHOTO_PIXELS = 50_000_000
"""Largest picture that is decoded: what the largest phone sensors give in their full mode."""
PHOTO_SIDE = 1 << 16
"""Longest side, pixels."""
_PROFILE_BYTES = 4 << 20
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow and libheif raise for files that were cut, mangled or made to mislead."""


class PhotoError(ValueError):
    """A picture that cannot be read; the message names the file and the remedy."""


def read_photo(path: Path | str) -> UInt8[Tensor, "h w 3"]:
    """A JPEG (or MPO), PNG, WebP, HEIC or AVIF picture as sRGB bytes, upright; transparency becomes white.

    It is turned by its EXIF orientation (HEIC and AVIF: by the container's own) and its colours are converted where it
    brings another colour profile, as phones with wide-gamut cameras do. Raises PhotoError for a file that is missing,
    empty, larger than PHOTO_BYTES or PHOTO_PIXELS (before decoding), truncated, or no 8-bit picture of these formats.
    """
    with _opened(Path(path)) as image:
        told = image.size
        image.load()
        if image.size != told:
            raise ValueError(f"its header tells of {told} pixels, its picture has {image.size}")
        upright = in_srgb(ImageOps.exif_transpose(image))
        if upright.has_transparency_data:
            colours = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
        pixels = np.array(upright.convert("RGB"))
    return torch.from_numpy(pixels)


def read_opacity(path: Path | str) -> UInt8[Tensor, "h w"] | None:
    """How opaque each pixel of the upright picture is, 0 to 255; None where all are. Raises PhotoError."""
    with _opened(Path(path)) as image:
        if not image.has_transparency_data:
            return None
        opacity = np.array(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))
    return torch.from_numpy(opacity) if (opacity < 255).any() else None


def read_metadata(path: Path | str) -> PhotoMetadata:
    """A photo's size and EXIF, without decoding it. Raises PhotoError as `read_photo` does for files it cannot open."""
    with _opened(Path(path)) as image:
        return metadata_of(image.getexif(), width=image.width, height=image.height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open picture; what Pillow raises while it reads becomes a PhotoError naming the file."""
    if not path.is_file():
        raise PhotoError(f"{path} does not exist; put the photo back or drop its entry")
    size = path.stat().st_size
    if size == 0:
        raise PhotoError(f"{path} is empty (0 bytes); copy or upload it again")
    if size > PHOTO_BYTES:
        raise PhotoError(f"{path} has {size} bytes, more than {PHOTO_BYTES}; save it smaller")
    try:
        # Pillow warns of damage that it can read past; a warning would name neither the file nor a remedy.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=_formats()) as image:
                _check_size(path, image)
                yield image
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"{path} is too large to decode ({error}); shrink it below {PHOTO_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise PhotoError(
            f"{path} is not a JPEG, PNG or WebP picture, nor HEIC or AVIF; save it as one of these (raw files: as JPEG)"
        ) from None
    except _DAMAGE as error:
        raise PhotoError(f"{path} is damaged or cut short ({error}); copy or upload it again") from None


@cache
def _formats() -> tuple[str, ...]:
    """What is tried: other decoders of Pillow stay closed to strangers' files."""
    pi_heif.register_heif_opener()
    return ("JPEG", "PNG", "WEBP", "HEIF", *(("AVIF",) if features.check("avif") else ()))


def in_srgb(image: Image.Image) -> Image.Image:
    """Colours converted from the picture's own profile (Display P3, Adobe RGB); as they are without a good one."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _PROFILE_BYTES or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image
        converted = ImageCms.profileToProfile(image, own, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image
    return converted or image


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > PHOTO_PIXELS:
        raise PhotoError(
            f"{path} is {image.width}x{image.height}, more than {PHOTO_PIXELS} pixels; shrink it before uploading"
        )
    if max(image.size) > PHOTO_SIDE:
        raise PhotoError(f"{path} is {image.width}x{image.height}, no side may have more than {PHOTO_SIDE}; crop it")
    if image.mode not in _MODES:
        raise PhotoError(f"{path} has pixels of kind {image.mode!r}; save it with 8 bits a channel")
