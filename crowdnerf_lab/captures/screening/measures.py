"""All that screening measures on one picture, by itself: no other photo, no metadata, nothing that cannot be pickled.

Photos are measured one by one, in any process and any order; `screening.judge` then compares the measures.
"""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.screening.authenticity import PhotoAuthenticity, authenticity_of
from crowdnerf_lab.captures.screening.near_duplicates import Signature, signature_of
from crowdnerf_lab.captures.screening.quality import PhotoQuality, measure_photo


@dataclass(frozen=True)
class PhotoMeasures:
    """width, height: of the upright picture, pixels. signature: what the same picture is recognised by, sent again."""

    width: int
    height: int
    quality: PhotoQuality
    authenticity: PhotoAuthenticity
    signature: Signature


def measures_of(photo: UInt8[Tensor, "h w 3"]) -> PhotoMeasures:
    """The measures of a picture that is already decoded."""
    height, width = photo.shape[:2]
    return PhotoMeasures(
        width=width,
        height=height,
        quality=measure_photo(photo),
        authenticity=authenticity_of(photo),
        signature=signature_of(photo),
    )


def measure_one(path: Path | str) -> PhotoMeasures:
    """The measures of a picture on disk. Raises PhotoError when it cannot be read."""
    return measures_of(read_photo(path))
