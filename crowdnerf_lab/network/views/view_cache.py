"""Views that were encoded before, for whoever asks for nearly the same: least recently used ones leave first."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from crowdnerf_lab.network.views.view_request import ViewRequest

PictureKey = tuple[object, ...]
"""Model, quantized pose and intrinsics, size: requests with the same one are shown the same picture."""


@dataclass(frozen=True)
class PoseSteps:
    """How finely poses are told apart when views are shared.

    translation_m: metres; 2 mm, so at most 1 mm off, shift what is 2 m away by an eighth of a pixel at a focal length
    of 250. rotation: in elements of the rotation matrix (radians): 1/2000 is an eighth of a pixel there. pixels: of
    focal length and principal point.
    """

    translation_m: float = 2e-3
    rotation: float = 1 / 2000
    pixels: float = 0.05


def picture_key(model: object, request: ViewRequest, *, steps: PoseSteps) -> PictureKey:
    """What tells a request's picture from others."""
    pose = request.pose.astype(np.float64)
    rotation = np.rint(pose[:, :3] / steps.rotation).astype(np.int64).tobytes()
    translation = np.rint(pose[:, 3] / steps.translation_m).astype(np.int64).tobytes()
    lens = tuple(round(number / steps.pixels) for number in (*request.focal, *request.centre))
    return (model, rotation, translation, lens, request.width, request.height)


@runtime_checkable
class Sized(Protocol):
    """Something encoded."""

    @property
    def content(self) -> bytes: ...


Kept = TypeVar("Kept", bound=Sized)


class ViewCache(Generic[Kept]):
    """At most `most_bytes` of content; an entry counts 500 bytes more than its content."""

    ENTRY_BYTES = 500

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._views: OrderedDict[object, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._views)

    def get(self, key: object) -> Kept | None:
        """The view of a key, now the most recently used one."""
        view = self._views.get(key)
        if view is not None:
            self._views.move_to_end(key)
        return view

    def put(self, key: object, view: Kept) -> None:
        """Keep a view; the least recently used ones make room. One that is larger than the cache is not kept."""
        size = len(view.content) + self.ENTRY_BYTES
        if size > self.most_bytes:
            return
        if (before := self._views.pop(key, None)) is not None:
            self.bytes -= len(before.content) + self.ENTRY_BYTES
        self._views[key] = view
        self.bytes += size
        while self.bytes > self.most_bytes:
            _, oldest = self._views.popitem(last=False)
            self.bytes -= len(oldest.content) + self.ENTRY_BYTES
