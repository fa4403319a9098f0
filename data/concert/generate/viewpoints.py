"""Who stands where with which phone, what every press of the shutter draws, and the views to compare with.

Metres, ENU; camera-to-world with OpenCV axes (x right, y down, z forward); pixels of the picture's own size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from people import Gesture
from phones import Spoiling, drawn_spoiling
from scipy.spatial.transform import Rotation

BAND = np.array([0, 2.5, 3.2])
"""What everybody aims at."""
PHOTOS_PER_PHONE = 3
TEST_VIEWS, TEST_VIEWS_BEYOND = 16, 4
TEST_SEED = 7
MOMENTS, SECONDS_BETWEEN_MOMENTS = 8, 0.5
SPOILED_SHARE = 0.10
OCCLUDED_SHARE = 0.55


@dataclass(frozen=True)
class Viewpoint:
    """An ideal pinhole camera with its principal point in the middle."""

    camera_to_world: Float[np.ndarray, "3 4"]
    focal_px: float
    width: int
    height: int


@dataclass(frozen=True)
class Phone:
    """A UE: its place, its lens and its habits.

    field_of_view_deg: across the longer side of a landscape picture. exposure_ev and white_balance: the phone's own
    offset in stops and gains in linear light. gps_bias (m) and yaw_bias_deg: how wrong its metadata always is.
    clock_s: how wrong its clock is.
    """

    ue: str
    device: str
    eye: Float[np.ndarray, "3"]
    field_of_view_deg: float
    portrait: bool
    exposure_ev: float
    white_balance: Float[np.ndarray, "3"]
    iso: int
    gps_bias: Float[np.ndarray, "3"]
    yaw_bias_deg: float
    clock_s: float


@dataclass(frozen=True)
class Bystander:
    """Someone who steps in front of a phone."""

    feet: Float[np.ndarray, "3"]
    yaw: float
    gesture: Gesture
    seed: int


@dataclass(frozen=True)
class Shot:
    """One press of the shutter: the true camera, what spoils the photo, and the pose that the phone reports."""

    phone: Phone
    name: str
    viewpoint: Viewpoint
    bystanders: tuple[Bystander, ...]
    spoiling: Spoiling
    reported_camera_to_world: Float[np.ndarray, "3 4"]


@dataclass(frozen=True)
class ComparisonView:
    """A clean view of the still concert that nothing trains on."""

    name: str
    split: Literal["test", "test_beyond"]
    viewpoint: Viewpoint


@dataclass(frozen=True)
class Moment:
    """What a phone sees at a moment of the moving show (s), without occluders, blur and noise."""

    name: str
    viewpoint: Viewpoint
    time: float
    phone: Phone


def crowd_of_phones(count: int, rng: np.random.Generator) -> tuple[Phone, ...]:
    """Every other phone on the floor, the rest on the side stands and the rear stand."""
    return tuple(_drawn_phone(index, count, rng) for index in range(count))


def shots(phones: tuple[Phone, ...], rng: np.random.Generator, *, size: int) -> Iterator[Shot]:
    """The photos of every phone, one after the other, from one stream; `size` is the longer side in px."""
    for phone in phones:
        for index in range(PHOTOS_PER_PHONE):
            yield _drawn_shot(phone, index, rng, size)


def comparison_views(phones: tuple[Phone, ...], *, size: int) -> Iterator[ComparisonView]:
    """Sixteen views between the phones, then four beyond them, higher up."""
    rng, eyes = np.random.default_rng(TEST_SEED), np.array([phone.eye for phone in phones])
    for index in range(TEST_VIEWS + TEST_VIEWS_BEYOND):
        beyond = index >= TEST_VIEWS
        eye = _eye_beyond(index - TEST_VIEWS, rng) if beyond else _eye_between(eyes, rng)
        camera_to_world = look_at(eye, BAND + rng.normal(0, 0.3, 3))
        width, height = size, size * 3 // 4
        focal_px = width / 2 / np.tan(np.arctan(7.4 / np.linalg.norm(eye - BAND)))
        viewpoint = Viewpoint(camera_to_world, float(focal_px), width, height)
        yield ComparisonView(f"{index:02d}", "test_beyond" if beyond else "test", viewpoint)


def moments(phones: tuple[Phone, ...], *, size: int) -> Iterator[Moment]:
    """What every sixth phone sees, held still and level, at the same eight moments of the show."""
    for step in range(MOMENTS):
        for phone in phones[::6]:
            width, height = size, size * 3 // 4
            focal_px = width / 2 / np.tan(np.radians(phone.field_of_view_deg / 2))
            viewpoint = Viewpoint(look_at(phone.eye, BAND), float(focal_px), width, height)
            yield Moment(f"{phone.ue}_t{step}", viewpoint, SECONDS_BETWEEN_MOMENTS * step, phone)


def look_at(
    eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], *, roll: float = 0.0
) -> Float[np.ndarray, "3 4"]:
    """Camera-to-world [3 4] of a camera at `eye` looking at `target`, rolled about its axis (radians)."""
    forward = target - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.stack([cosine * right + sine * down, -sine * right + cosine * down, forward, eye], axis=1)


def reported_pose(
    camera_to_world: Float[np.ndarray, "3 4"], phone: Phone, rng: np.random.Generator
) -> Float[np.ndarray, "3 4"]:
    """The pose as the phone's sensors give it: its own bias, and 0.4 m and 1 degree that change with every shot."""
    reported = camera_to_world.copy()
    reported[:, 3] += phone.gps_bias + rng.normal(0, 0.4, 3)
    heading = Rotation.from_rotvec(np.radians([0, 0, phone.yaw_bias_deg])).as_matrix()
    jitter = Rotation.from_rotvec(np.radians(rng.normal(0, 1.0, 3))).as_matrix()
    reported[:, :3] = heading @ jitter @ camera_to_world[:, :3]
    return reported


def _drawn_phone(index: int, count: int, rng: np.random.Generator) -> Phone:
    eye = _drawn_eye(index, count, rng)
    stage_width_deg = np.degrees(2 * np.arctan(7.2 / np.linalg.norm(eye - BAND)))
    return Phone(
        ue=f"ue{index:02d}",
        eye=eye,
        field_of_view_deg=float(np.clip(stage_width_deg * rng.uniform(0.85, 1.2), 30, 74)),
        portrait=index % 6 == 3 or index % 16 == 8,
        exposure_ev=float(rng.normal(0, 0.7)),
        white_balance=np.exp(rng.normal(0, 0.10, 3) * [1, 0.3, 1]),
        iso=int(rng.choice([400, 800, 1600, 3200])),
        gps_bias=rng.normal(0, [3, 3, 5]),
        yaw_bias_deg=float(rng.normal(0, 6)),
        clock_s=float(rng.normal(0, 0.4)),
        device=str(rng.choice(["Pixel 9", "iPhone 16", "Galaxy S25", "Xperia 5"])),
    )


def _drawn_eye(index: int, count: int, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    if index % 2 == 0:
        azimuth = np.radians(-48 + 96 * index / max(count - 1, 1) + rng.normal(0, 3))
        distance, height = rng.uniform(9.5, 17), rng.uniform(1.65, 2.15)
        return np.array([distance * np.sin(azimuth), 2 - distance * np.cos(azimuth), height])
    if index % 4 == 1:
        side, step = -1 if index % 8 == 1 else 1, rng.integers(0, 4)
        return np.array([side * (13.0 + 1.1 * step), rng.uniform(-16, -9), 0.5 + step + 1.75])
    step = rng.integers(0, 6)
    return np.array([rng.uniform(-11, 11), -20.5 - 1.1 * step, 0.5 + step + 1.75])


def _drawn_shot(phone: Phone, index: int, rng: np.random.Generator, size: int) -> Shot:
    width, height = (size * 3 // 4, size) if phone.portrait else (size, size * 3 // 4)
    field_of_view_deg = min(phone.field_of_view_deg * 1.15, 80) if phone.portrait else phone.field_of_view_deg
    focal_px = float(size / 2 / np.tan(np.radians(field_of_view_deg / 2)))
    eye = phone.eye + rng.normal(0, [0.25, 0.25, 0.08])
    spoiled_by = str(rng.choice(["blur", "over", "dark", "wrong"])) if rng.random() < SPOILED_SHARE else None
    if spoiled_by == "wrong":
        target = eye + np.array([rng.normal(), -1.2, -0.25])
    else:
        target = BAND + rng.normal(0, [0.9, 0.3, 0.35])
    camera_to_world = look_at(eye, target, roll=np.radians(rng.normal(0, 2.5)))
    viewpoint = Viewpoint(camera_to_world, focal_px, width, height)
    bystanders = _drawn_bystanders(viewpoint, rng) if rng.random() < OCCLUDED_SHARE else ()
    spoiling = drawn_spoiling(
        rng,
        spoiled_by=spoiled_by,
        exposure_ev=phone.exposure_ev,
        white_balance=phone.white_balance,
        iso=phone.iso,
        width=width,
        height=height,
    )
    reported = reported_pose(camera_to_world, phone, rng)
    return Shot(phone, f"{phone.ue}_{index}", viewpoint, bystanders, spoiling, reported)


def _drawn_bystanders(viewpoint: Viewpoint, rng: np.random.Generator) -> tuple[Bystander, ...]:
    """One to three people 0.8 to 2.4 m ahead, more or less in the picture."""
    eye, ahead = viewpoint.camera_to_world[:, 3], viewpoint.camera_to_world[:, 2] * [1, 1, 0]
    ahead /= np.linalg.norm(ahead)
    right = np.array([ahead[1], -ahead[0], 0])
    bystanders = []
    for _ in range(rng.integers(1, 4)):
        distance = rng.uniform(0.8, 2.4)
        half_width = distance * viewpoint.width / 2 / viewpoint.focal_px
        feet = eye + ahead * distance + right * (rng.choice([-1, 1]) * rng.uniform(0.25, 1.05) * half_width)
        feet[2] = eye[2] - 1.62 - rng.uniform(-0.10, 0.50)
        own_seed = int(rng.integers(1 << 30))
        gesture = str(rng.choice(["up", "one", "phone", "down", "up"]))
        bystanders.append(Bystander(feet, float(np.arctan2(-ahead[0], ahead[1])), gesture, own_seed))
    return tuple(bystanders)


def _eye_between(eyes: Float[np.ndarray, "ues 3"], rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A point inside the triangle of a phone and two of its six nearest neighbours, at least 2 m up."""
    first = rng.integers(len(eyes))
    neighbours = np.argsort(np.linalg.norm(eyes - eyes[first], axis=1))[1:7]
    second, third = rng.choice(neighbours, 2, replace=False)
    weights = rng.dirichlet([2, 2, 2])
    eye = weights[0] * eyes[first] + weights[1] * eyes[second] + weights[2] * eyes[third]
    eye[2] = max(eye[2], 2.0)
    return eye


def _eye_beyond(index: int, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    azimuth = np.radians(-42 + 84 * index / (TEST_VIEWS_BEYOND - 1))
    distance = rng.uniform(10, 19)
    return np.array([distance * np.sin(azimuth), 2 - distance * np.cos(azimuth), rng.uniform(3.5, 5.5)])
