"""What a simulated event knows of its own photos: their clean twins, the people in front, and which are spoiled.

For study and benchmarks only; nothing here may be used to screen, calibrate or train.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from crowdnerf_lab.captures.bundle import CaptureSet, Photo, Truth
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.scene import area_resized

OCCLUDED = 0.05
"""Fraction of a picture behind people from which a photo counts as spoiled."""


def truth_of(photo: Photo) -> Truth:
    """A simulated photo's truth. Raises CaptureError for a real photo."""
    if photo.truth is None:
        raise CaptureError(f"{photo.file} has no truth; only simulated photos can be compared with it")
    return photo.truth


def is_spoiled(photo: Photo) -> bool:
    """Whether a photo looks the right way but is occluded, blurred, dark or over-exposed."""
    truth = truth_of(photo)
    return truth.spoiled_by != "wrong" and (truth.spoiled_by is not None or truth.occluded > OCCLUDED)


def clean_twin(captures: CaptureSet, photo: Photo, *, downscale: int = 1) -> Float[Tensor, "h w 3"]:
    """The photo as it would be without spoiling, sRGB in [0, 1]. Raises CaptureError when there is none."""
    file = truth_of(photo).clean_file
    if file is None:
        raise CaptureError(f"{photo.file} has no clean twin; only simulated photos have one")
    clean = read_photo(captures.path_of(file))
    return area_resized(clean, photo.width // downscale, photo.height // downscale).to(torch.float32) / 255


def people_in_front(captures: CaptureSet, photo: Photo, *, downscale: int = 1) -> Bool[Tensor, "h w"]:
    """True where people stand before the phone. Raises CaptureError when no mask is known."""
    file = truth_of(photo).occluder_mask_file
    if file is None:
        raise CaptureError(f"{photo.file} has no occluder mask; only simulated photos have one")
    with Image.open(captures.path_of(file)) as image:
        mask = torch.from_numpy(np.asarray(image.convert("L"))[..., None].copy())
    return area_resized(mask, photo.width // downscale, photo.height // downscale)[..., 0] > 127
