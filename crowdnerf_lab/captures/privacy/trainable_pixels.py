"""Which pixels of photos show the scene: not those where a face was filled."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from crowdnerf_lab.captures.bundle import Photo, ReferenceView
from crowdnerf_lab.captures.privacy.anonymisation import hidden_pixels
from crowdnerf_lab.captures.privacy.faces import Face


def trainable_pixels(
    records: Sequence[Photo | ReferenceView], images: Sequence[UInt8[Tensor, "_ _ 3"]]
) -> tuple[Bool[Tensor, "_ _"], ...] | None:
    """A scene's masks, True where a pixel may be trained on; None when nothing was filled in any of the pictures."""
    boxes = [record.filled or () if isinstance(record, Photo) else () for record in records]
    if not any(boxes):
        return None
    return tuple(
        ~hidden_pixels([Face(*box, score=1.0) for box in filled], image.shape[1], image.shape[0])
        if filled
        else torch.ones(image.shape[:2], dtype=torch.bool)
        for filled, image in zip(boxes, images, strict=True)
    )
