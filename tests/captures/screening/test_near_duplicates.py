"""Near-duplicates on the bundled concert: every altered copy is found, no two of its 144 photos are taken for one."""

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.screening.near_duplicates import Signature, near_duplicates, signature_of


def signature(picture: Image.Image) -> Signature:
    return signature_of(torch.from_numpy(np.array(picture)))


def encoded(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def brightened(picture: Image.Image, gain: float) -> Image.Image:
    return picture.point([min(255, int(gain * value)) for value in range(256)] * 3)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda picture: encoded(picture, 30),
    "half as large": lambda picture: encoded(picture.resize((picture.width // 2, picture.height // 2)), 80),
    "larger": lambda picture: picture.resize((int(1.7 * picture.width), int(1.7 * picture.height))),
    "cropped all around": lambda picture: cropped(picture, 0.05, 0.05, 0.05, 0.05),
    "cropped at a corner": lambda picture: cropped(picture, 0, 0, 0.1, 0.1),
    "cropped at one side": lambda picture: cropped(picture, 0.1, 0, 0, 0),
    "darker": lambda picture: brightened(picture, 0.6),
    "brighter": lambda picture: brightened(picture, 1.2),
    "all of it": lambda picture: encoded(brightened(cropped(picture, 0.04, 0.02, 0, 0.05), 1.1).resize((256, 200)), 60),
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    captures = concert()
    return [Image.open(captures.path_of(photo.file)).convert("RGB") for photo in captures.photos]


@pytest.fixture(scope="module")
def signatures(photos: list[Image.Image]) -> list[Signature]:
    return [signature(photo) for photo in photos]


@pytest.mark.row("S64")
def test_no_two_photos_of_the_concert_are_the_same(signatures: list[Signature]) -> None:
    """Neighbours who photographed one stage, and the three shots of one phone, are not duplicates."""
    assert len(signatures) == 144
    assert near_duplicates(signatures) == ()


@pytest.mark.row("S64")
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(
    photos: list[Image.Image], signatures: list[Signature], alteration: str
) -> None:
    """One photo in four, each beside its copy and another photo."""
    chosen, among = range(0, len(photos), 4), [*signatures[::4], *signatures[1::4]]
    copies = [signature(ALTERATIONS[alteration](photos[index])) for index in chosen]
    found = near_duplicates([*among, *copies])
    expected = {frozenset((index, len(among) + index)) for index in range(len(copies))}
    assert {frozenset(group) for group in found} == expected


def test_the_largest_then_the_sharpest_is_the_best(photos: list[Image.Image]) -> None:
    photo = photos[0]
    small, coarse = photo.resize((256, 192)), photo.resize((160, 120)).resize(photo.size)
    assert near_duplicates([signature(each) for each in (small, coarse, photo)]) == ((2, 1, 0),)


def test_even_pictures_are_no_duplicates() -> None:
    black, grey = (torch.full((60, 80, 3), value, dtype=torch.uint8) for value in (0, 128))
    assert near_duplicates([signature_of(black), signature_of(grey), signature_of(black)]) == ()
    assert near_duplicates([]) == ()


def test_copies_of_copies_are_one_group(photos: list[Image.Image]) -> None:
    versions = [
        photos[7],
        encoded(photos[7], 50),
        brightened(photos[7], 0.8),
        photos[8],
        cropped(photos[7], 0, 0, 0, 0.06),
    ]
    found = near_duplicates([signature(version) for version in versions])
    assert [sorted(group) for group in found] == [[0, 1, 2, 4]]


def test_two_thousand_are_compared_in_a_second(photos: list[Image.Image], signatures: list[Signature]) -> None:
    """Pictures that share nothing, twelve of them twice. Processor time: the machine may be busy with others."""
    rng = np.random.default_rng(3)
    blocks = torch.from_numpy(rng.random((1988, 1, 8, 8), dtype=np.float32))
    thumbnails = torch.nn.functional.interpolate(blocks, size=(64, 64), mode="bilinear")[:, 0]
    strangers = [Signature(width=64, height=64, sharpness=-5.0, thumbnail=each) for each in thumbnails]
    begun = time.process_time()
    found = near_duplicates([*strangers, *strangers[:12]])
    assert time.process_time() - begun < 1.0
    assert [sorted(group) for group in found] == [[index, 1988 + index] for index in range(12)]
