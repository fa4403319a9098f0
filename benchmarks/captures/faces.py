"""How many faces are found and hidden: real faces set into photos of the concert, at known places, sizes and angles.

The faces are those that scikit-image carries: one astronaut (Eileen Collins, NASA, public domain) and 100 crops of
25x25 pixels from Labeled Faces in the Wild, tinted, cut out as ellipses. So they lack hair and neck, and those above 25
pixels are enlarged: what is measured is a lower bound. The concert's own spectators are primitives without faces, so
whatever is found in a concert photo is a false alarm.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.privacy.anonymisation import anonymised, hidden_pixels
from crowdnerf_lab.captures.privacy.faces import find_faces

SIZES = (12, 16, 20, 32, 64, 128)
"""Heights of the faces, chin to forehead, pixels."""
TURNS = (0, 30, 60, 90, 180)
"""Degrees by which faces lie."""
LFW_PIXELS = 25
LARGEST_LFW = 64
"""Crops of 25 pixels are not enlarged beyond this."""
ASTRONAUT = (147, 20, 303, 216)
"""Her head in astronaut.png, the middle of the face in the middle: left, top, right, bottom."""
ASTRONAUT_FACE = 122.0
"""Height of her face in pixels."""
SKINS = ((1.0, 0.82, 0.72), (1.0, 0.78, 0.62), (0.95, 0.72, 0.56), (1.0, 0.88, 0.8))
HIDDEN = 0.9
"""A face counts as found when this part of the disc from its eyes to its mouth is hidden."""
FACES_A_PICTURE = 24


@dataclass(frozen=True)
class Head:
    """A cut-out with the middle of a face in its middle; face: its height, pixels."""

    picture: Image.Image
    face: float


@dataclass(frozen=True)
class Planted:
    """A picture and where the middles of its faces are, pixels; size: their height."""

    picture: Image.Image
    middles: tuple[tuple[float, float], ...]
    size: float


def heads() -> tuple[tuple[Head, ...], tuple[Head, ...]]:
    """The astronaut, also mirrored; and the faces of Labeled Faces in the Wild."""
    folder = Path(skimage.__file__).parent / "data"
    astronaut = Image.open(folder / "astronaut.png").convert("RGB").crop(ASTRONAUT)
    mirrored = astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    grey = np.load(folder / "lfw_subset.npy")[:100]
    tinted = [(crop[..., None] * SKINS[index % len(SKINS)] * 255).astype(np.uint8) for index, crop in enumerate(grey)]
    return (
        (Head(astronaut, ASTRONAUT_FACE), Head(mirrored, ASTRONAUT_FACE)),
        tuple(Head(Image.fromarray(pixels), LFW_PIXELS) for pixels in tinted),
    )


def planted(
    background: Image.Image, choice: Sequence[Head], *, size: float, turn: float, rng: np.random.Generator, spoil: bool
) -> Planted:
    """The background with faces of `size` pixels, turned by `turn` degrees (and up to 8 more), that do not touch.

    spoil: dim or brighten each, blur it, hold a hand in front of its mouth or eyes, add noise to the whole picture.
    """
    picture, reach = background.copy(), math.ceil(0.9 * size)
    middles: list[tuple[float, float]] = []
    for _ in range(20 * FACES_A_PICTURE):
        x, y = (float(rng.uniform(min(reach, side / 2), max(side - reach, side / 2))) for side in picture.size)
        if len(middles) == FACES_A_PICTURE or any(math.hypot(x - u, y - v) < 2 * reach for u, v in middles):
            continue
        cutout = _cutout(choice[int(rng.integers(len(choice)))], size=size, rng=rng, spoil=spoil)
        cutout = cutout.rotate(turn + float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC, expand=True)
        picture.paste(cutout, (round(x - cutout.width / 2), round(y - cutout.height / 2)), cutout)
        middles.append((x, y))
    if spoil:
        noisy = np.asarray(picture) + rng.normal(0, 8, (picture.height, picture.width, 3))
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return Planted(picture, tuple(middles), size)


def _cutout(head: Head, *, size: float, rng: np.random.Generator, spoil: bool) -> Image.Image:
    """An ellipse of a head with soft edges, its face `size` pixels tall."""
    scale = size / head.face
    width, height = max(4, round(head.picture.width * scale)), max(4, round(head.picture.height * scale))
    picture = head.picture.resize((width, height), Image.Resampling.LANCZOS)
    if spoil:
        ImageDraw.Draw(picture).rectangle(_bar(width, height, size, rng), fill=(60, 50, 45))
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.04)) * size))
        light = np.asarray(picture) * float(rng.uniform(0.4, 1.5))
        picture = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    y, x = np.mgrid[0:height, 0:width] + 0.5
    radius = np.hypot(2 * x / width - 1, 2 * y / height - 1)
    alpha = ((1 - radius) / 0.12).clip(0, 1) * 255
    return Image.fromarray(np.dstack([np.asarray(picture), alpha.astype(np.uint8)]))


def _bar(width: int, height: int, size: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """What hides a quarter of a face: left, top, right, bottom."""
    top = height / 2 + size * float(rng.choice([-0.45, 0.2]))
    return 0, top, width, top + size / 4


def hidden_faces(scene: Planted) -> int:
    """How many of the planted faces the lab would hide."""
    faces = find_faces(torch.from_numpy(np.array(scene.picture)))
    count = 0
    for x, y in scene.middles:
        # Only what was found there: a false alarm that happens to lie over a face is no find.
        there = [
            face
            for face in faces
            if math.hypot((face.left + face.right) / 2 - x, (face.top + face.bottom) / 2 - y) < scene.size / 2
        ]
        hidden = hidden_pixels(there, scene.picture.width, scene.picture.height).numpy()
        count += _part_hidden(hidden, (x, y), scene.size) >= HIDDEN
    return count


def _part_hidden(hidden: NDArray[np.bool_], middle: tuple[float, float], size: float) -> float:
    """Of the disc from the eyes to the mouth."""
    y, x = np.mgrid[0 : hidden.shape[0], 0 : hidden.shape[1]] + 0.5
    disc = np.hypot(x - middle[0], y - middle[1]) < 0.3 * size
    return float(hidden[disc].mean())


def measure(*, quick: bool) -> dict[str, float | int | str]:
    """Recall by size and by how the faces lie, false alarms, and times on one thread.

    face_recall: upright faces of 20 pixels and more. quick: fewer sizes, angles and pictures.
    """
    rng = np.random.default_rng(0)
    captures = concert()
    photos = [Image.fromarray(read_photo(captures.path_of(photo.file)).numpy()) for photo in captures.photos[::24]]
    sizes, turns, canvas = ((16, 24, 64), (0, 90), (320, 240)) if quick else (SIZES, TURNS, (640, 480))
    found: dict[tuple[int, int, bool], tuple[int, int]] = {}
    for size in sizes:
        astronaut, crowd = heads()
        choice = astronaut if size > LARGEST_LFW else (*astronaut, *crowd[:: 8 if quick else 1])
        for turn, spoil in [*((turn, False) for turn in turns), (0, True)]:
            background = photos[int(rng.integers(len(photos)))].resize(canvas, Image.Resampling.BICUBIC)
            scene = planted(background, choice, size=size, turn=turn, rng=rng, spoil=spoil)
            found[size, turn, spoil] = hidden_faces(scene), len(scene.middles)

    def recall(cases: Sequence[tuple[int, int, bool]]) -> float:
        return sum(found[case][0] for case in cases) / sum(found[case][1] for case in cases)

    upright = [(size, 0, False) for size in sizes if size >= 20]
    return {
        "face_recall": recall(upright),
        "face_recall_spoiled": recall([(size, 0, True) for size, _, _ in upright]),
        **{f"face_recall_{size}px": recall([(size, 0, False)]) for size in sizes},
        **{
            f"face_recall_turned_{turn}": recall([(size, turn, False) for size, _, _ in upright])
            for turn in turns
            if turn
        },
        "faces_planted": sum(count for _, count in found.values()),
        **_false_alarms(photos[:2] if quick else photos),
        **_times(photos[0], ((320, 240),) if quick else ((320, 240), (1280, 960))),
    }


def _false_alarms(photos: Sequence[Image.Image]) -> dict[str, float | int | str]:
    alarms, hidden = 0, 0.0
    for photo in photos:
        faces = find_faces(torch.from_numpy(np.array(photo)))
        alarms += len(faces)
        hidden += float(hidden_pixels(faces, photo.width, photo.height).float().mean())
    return {
        "face_false_alarms_per_photo": alarms / len(photos),
        "face_hidden_for_nothing": hidden / len(photos),
    }


def _times(photo: Image.Image, sizes: Sequence[tuple[int, int]]) -> dict[str, float | int | str]:
    """Milliseconds on one thread, after a first run."""
    times: dict[str, float | int | str] = {}
    for width, height in sizes:
        image = torch.from_numpy(np.array(photo.resize((width, height), Image.Resampling.BICUBIC)))
        faces = find_faces(image)
        start = time.perf_counter()
        find_faces(image)
        found = time.perf_counter()
        anonymised(image, faces)
        times[f"face_search_ms_{width}x{height}"] = 1000 * (found - start)
        times[f"face_anonymisation_ms_{width}x{height}"] = 1000 * (time.perf_counter() - found)
    return times
