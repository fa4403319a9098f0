"""A view as a UE shows it, wherever it was rendered, and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crowdnerf_lab.catalogue.select import Trigger
from crowdnerf_lab.network.ues.network_views import NetworkView
from crowdnerf_lab.network.ues.path_choice import Path


@dataclass(frozen=True)
class View:
    """What the UE shows. picture: [height width 3] sRGB bytes. path: where it was rendered; reason: why there.

    version: of the model, None when unknown. milliseconds: by stage, "total" included. bytes: over the air for it.
    dropped: poses left out since the view before (of a stream). rendered: width and height before any resampling.
    because: the circumstances that made the path or the model change with this view.
    """

    picture: NDArray[np.uint8]
    path: Path
    reason: str
    version: int | None
    milliseconds: Mapping[str, float]
    rendered: tuple[int, int]
    bytes: int = 0
    dropped: int = 0
    because: tuple[Trigger, ...] = ()


def shown(
    sent: NetworkView,
    size: tuple[int, int],
    *,
    reason: str,
    total_ms: float,
    because: tuple[Trigger, ...] = (),
) -> View:
    """A view of the network at the size that was asked for, whatever the network had the time to render."""
    height, width = sent.picture.shape[:2]
    picture = sent.picture
    if (width, height) != size:
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    return View(
        picture=picture,
        path="network",
        reason=reason,
        version=sent.version,
        milliseconds={**sent.milliseconds, "total": total_ms},
        rendered=(width, height),
        bytes=sent.bytes,
        dropped=sent.dropped,
        because=because,
    )
