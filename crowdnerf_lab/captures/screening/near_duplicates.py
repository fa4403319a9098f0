"""The same picture sent twice: re-encoded, resized, slightly cropped, brightened, by one UE or by several.

A signature is a small grey picture. Two are compared in two steps. Coarse: each whole picture against slightly cropped
versions of all others, as one matrix product of their lowest cosine waves. Fine, for the few that remain: the crop is
found exactly (Gauss-Newton on scale and shift of each axis, as Lucas and Kanade 1981), and what must then agree is
the detail without the layout, in which two neighbours' shots of one stage would agree too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from crowdnerf_lab.captures.screening.quality import measured_grey, sharpness_of

SIDE = 64
"""Pixels of a signature's sides, whatever the picture's."""
WAVES = 10
"""Lowest frequencies of each axis that are compared; without the higher ones a small shift changes little."""
_ALONG = ((1.0, 0.0), (0.93, -0.07), (0.93, 0.07), (0.9, 0.0))
CROPS = tuple((*across, *down) for across in _ALONG for down in _ALONG)
"""Windows of cropped versions: scale and shift across, scale and shift down; the picture spans -1 to 1."""
ROUNDS = ((16, 8), (32, 5), (64, 3))
"""Sides in pixels at which a crop is searched for, and Gauss-Newton steps at each."""
LARGEST_CROP = 0.16
"""A found window smaller or larger than the picture by more than this fraction of its sides is no slight crop."""
_EVEN = 1e-3
"""Standard deviation (of 1) below which a picture has nothing to compare."""
_BATCH = 256
"""Pairs aligned at a time: bounds memory."""


@dataclass(frozen=True)
class Signature:
    """What a picture is recognised by. width, height: pixels of the picture; sharpness: stops (`sharpness_of`)."""

    width: int
    height: int
    sharpness: float
    thumbnail: Float32[Tensor, "side side"]


@dataclass(frozen=True)
class DuplicateLimits:
    """coarse: least correlation of the layouts of pictures that are compared in detail. fine: least correlation of the
    aligned details of pictures that are the same; fine_faint: where noise and rounding are a part of what is compared,
    since the grey values of either deviate by less than `faint` (of 1).
    """

    coarse: float = 0.9
    fine: float = 0.88
    fine_faint: float = 0.7
    faint: float = 0.05


def signature_of(image: UInt8[Tensor, "h w 3"]) -> Signature:
    """The signature of an upright picture."""
    grey = measured_grey(image)
    small = interpolate(grey[None, None], size=(SIDE, SIDE), mode="area")[0, 0]
    height, width = image.shape[:2]
    return Signature(
        width=width,
        height=height,
        sharpness=sharpness_of(grey),
        thumbnail=small,
    )


def near_duplicates(
    signatures: Sequence[Signature], *, limits: DuplicateLimits = DuplicateLimits()
) -> tuple[tuple[int, ...], ...]:
    """Groups of indices that show the same picture, the best first: the largest, of equally large ones the sharpest.

    Pictures without a duplicate are in no group. Pictures of one even colour are never duplicates.
    """
    if len(signatures) < 2:
        return ()
    pictures = torch.stack([signature.thumbnail for signature in signatures])
    pairs, windows = _similar(pictures, limits.coarse)
    faint = pictures.std(dim=(1, 2))[pairs].amin(dim=1) < limits.faint
    least = torch.where(faint, limits.fine_faint, limits.fine)
    same = pairs[agreement(pictures, pairs, windows) >= least]
    groups = [sorted(group, key=lambda index: _worth(signatures[index], index)) for group in _joined(same.tolist())]
    return tuple(tuple(group) for group in sorted(groups, key=min))


def agreement(
    pictures: Float[Tensor, "n side side"], pairs: Int64[Tensor, "m 2"], windows: Float[Tensor, "m 4"]
) -> Float[Tensor, "m"]:
    """How well the first of each pair agrees with what is seen of the second through the best window, in [-1, 1].

    The correlation of their details; -1 where no window of a crop makes them alike. windows: where to begin.
    """
    results = [
        _aligned_agreement(pictures[pair[:, 0]], pictures[pair[:, 1]], window)
        for pair, window in zip(pairs.split(_BATCH), windows.split(_BATCH), strict=True)
    ]
    return torch.cat(results)


def _worth(signature: Signature, index: int) -> tuple[int, float, int]:
    return -signature.width * signature.height, -signature.sharpness, index


def _similar(pictures: Float[Tensor, "n side side"], least: float) -> tuple[Int64[Tensor, "m 2"], Float[Tensor, "m 4"]]:
    """Pairs of which the first resembles the second as seen through a window, and that window."""
    whole = _layout(pictures, (1.0, 0.0, 1.0, 0.0))
    cropped = torch.stack([_layout(pictures, crop) for crop in CROPS])
    best = torch.cat([(rows @ cropped.mT).amax(dim=0) for rows in whole.split(_BATCH)])
    better = (best >= least) & ((best > best.T) | (best == best.T).triu())
    pairs = better.fill_diagonal_(False).nonzero()
    which = [(whole[part[:, 0]] * cropped[:, part[:, 1]]).sum(dim=-1).argmax(dim=0) for part in pairs.split(_BATCH)]
    return pairs, torch.tensor(CROPS)[torch.cat(which)]


def _layout(
    pictures: Float[Tensor, "n side side"], window: tuple[float, float, float, float]
) -> Float[Tensor, "n waves"]:
    """The lowest cosine waves of what a window shows, without brightness, of length one; zero for one even colour."""
    across, down = _cosines(*window[:2]), _cosines(*window[2:])
    waves = (down @ pictures @ across.T).flatten(1)
    waves[:, 0] = 0
    length = waves.norm(dim=1, keepdim=True)
    return torch.where(length > SIDE * _EVEN, waves / length.clamp(min=1e-9), 0.0)


@cache
def _cosines(scale: float, shift: float) -> Float[Tensor, "waves side"]:
    """Weights of the pixels along an axis in the cosine waves (DCT-II) of a window's content."""
    pixel = torch.arange(SIDE)
    place = (scale * ((pixel + 0.5) * 2 / SIDE - 1) + shift + 1) * SIDE / 2 - 0.5
    seen = (1 - (place.clamp(0, SIDE - 1)[:, None] - pixel).abs()).clamp(min=0)
    return torch.cos(torch.pi / SIDE * torch.outer(torch.arange(WAVES), pixel + 0.5)) @ seen


def _normalised(pictures: Tensor) -> Float[Tensor, "n pixels"]:
    """Without mean, of length one; zero for pictures of one colour."""
    flat = pictures.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    deviation = flat.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(deviation > _EVEN, flat / (deviation * flat.shape[1] ** 0.5).clamp(min=1e-9), 0.0)


def _windowed(pictures: Tensor, window: Float[Tensor, "n 4"], *, side: int = SIDE, padding: str = "border") -> Tensor:
    """What is seen through each window (scale x, shift x, scale y, shift y; the picture spans -1 to 1)."""
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    x = window[:, 0, None] * axis + window[:, 1, None]
    y = window[:, 2, None] * axis + window[:, 3, None]
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
    return grid_sample(pictures[:, None], grid, padding_mode=padding, align_corners=False)[:, 0]


def _aligned_agreement(
    a: Float[Tensor, "m side side"], b: Float[Tensor, "m side side"], window: Float[Tensor, "m 4"]
) -> Float[Tensor, "m"]:
    """`agreement` of one batch: from coarse to fine, leaving out what has turned out not to be a crop."""
    result = torch.full((len(a),), -1.0)
    left = torch.arange(len(a))
    for size, rounds in ROUNDS:
        pooled = [avg_pool2d(pictures[left, None], SIDE // size)[:, 0] for pictures in (a, b)]
        for _ in range(rounds):
            window = _refined(pooled[0], pooled[1], window)
        cropped = _is_crop(window, slack=2 / size)
        left, window = left[cropped], window[cropped]
    inside = _windowed(torch.ones_like(b[left]), window, padding="zeros") > 0.999
    result[left] = _detail_correlation(a[left], _windowed(b[left], window), inside)
    return result


def _is_crop(window: Float[Tensor, "m 4"], *, slack: float) -> Bool[Tensor, "m"]:
    """Whether, up to an error of `slack`, a window lies in its picture or holds all of it: a cut of one or the other.

    Two shots from nearly the same place agree where one is shifted: parts of either are missing in the other.
    """
    larger, shift = window[:, 0::2] - 1, window[:, 1::2].abs()
    small = (larger.abs() < LARGEST_CROP).all(dim=1)
    nested = (shift <= larger.abs() + slack).all(dim=1)
    return small & nested & ((larger < slack).all(dim=1) | (larger > -slack).all(dim=1))


def _refined(a: Tensor, b: Tensor, window: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
    """One Gauss-Newton step on the squared difference of the pictures, both without mean and of length one."""
    side = a.shape[1]
    seen = _windowed(b, window, side=side)
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    across, down = torch.gradient(seen, spacing=2 / side, dim=2)[0], torch.gradient(seen, spacing=2 / side, dim=1)[0]
    slopes = torch.stack([across * axis, across, down * axis[:, None], down], dim=1).flatten(2)
    length = (seen - seen.mean(dim=(1, 2), keepdim=True)).flatten(1).norm(dim=1).clamp(min=1e-6)
    slopes = slopes / window[:, [0, 0, 2, 2], None].clamp(min=1e-3) / length[:, None, None]
    slopes = slopes - slopes.mean(dim=2, keepdim=True)
    difference = (_normalised(a) - _normalised(seen))[..., None]
    normal = slopes @ slopes.mT + 1e-4 * torch.eye(4)
    return window + torch.linalg.solve(normal, slopes @ difference)[..., 0].clamp(-0.1, 0.1)


def _detail_correlation(a: Tensor, b: Tensor, inside: Tensor) -> Float[Tensor, "m"]:
    """Correlation, where both can be seen, of what differs from its surroundings in both pictures."""
    details = [
        picture - avg_pool2d(picture[:, None], 9, stride=1, padding=4, count_include_pad=False)[:, 0]
        for picture in (a, b)
    ]
    product, *energies = (
        (first * second * inside).sum(dim=(1, 2)) for first, second in (details, details[:1] * 2, details[1:] * 2)
    )
    return product / (energies[0] * energies[1]).sqrt().clamp(min=1e-9)


def _joined(pairs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices that are connected by pairs."""
    group_of: dict[int, list[int]] = {}
    for first, second in pairs:
        a, b = group_of.setdefault(first, [first]), group_of.setdefault(second, [second])
        if a is not b:
            a.extend(b)
            group_of.update(dict.fromkeys(b, a))
    return list({id(group): group for group in group_of.values()}.values())
