"""People made of capsules and balls: the band, the crowd, and whoever steps in front of a phone.

A body's own axes are right, forward, up; metres for a person of 1.75 m, scaled to the height. Angles in radians.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from geometry import Colour, Mesh, MeshBuilder, Vector
from jaxtyping import Float

Gesture = Literal["down", "up", "one", "phone", "microphone", "guitar", "keyboard", "drums"]
Reach = tuple[Vector, Vector]
"""Where an arm's elbow and hand are, in the body's axes."""

SKINS = np.array([[0.80, 0.58, 0.44], [0.62, 0.42, 0.30], [0.42, 0.27, 0.19], [0.26, 0.16, 0.11], [0.88, 0.68, 0.55]])
HAIRS = np.array([[0.02, 0.015, 0.01], [0.10, 0.05, 0.02], [0.35, 0.24, 0.10], [0.3, 0.06, 0.03], [0.04, 0.03, 0.03]])
PHONE_IN_HANDS = (0.0, 0.40, 1.68)
"""Where a person with the gesture 'phone' holds it, in the body's axes."""


RED = (0.7, 0.08, 0.05)


@dataclass(frozen=True)
class Outfit:
    """What a musician looks like; the crowd's outfits are drawn."""

    height: float
    clothes: Colour
    legs: Colour
    hair: Colour
    instrument: Colour = RED


@dataclass(frozen=True)
class Look:
    """A drawn person: height in metres and linear colours."""

    height: float
    skin: Float[np.ndarray, "3"]
    clothes: Float[np.ndarray, "3"]
    legs: Float[np.ndarray, "3"]
    hair: Float[np.ndarray, "3"]
    long_hair: bool
    instrument: Colour


@dataclass(frozen=True)
class Body:
    """Where a person stands (feet), which way it faces (yaw from north, counter-clockwise) and its size."""

    feet: Vector
    yaw: float
    scale: float

    def place(self, right: float, forward: float, up: float) -> Float[np.ndarray, "3"]:
        """A point of the body in the world."""
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        east = self.feet[0] + (right * cosine - forward * sine) * self.scale
        north = self.feet[1] + (right * sine + forward * cosine) * self.scale
        return np.array([east, north, self.feet[2] + up * self.scale])


def add_person(
    builder: MeshBuilder,
    feet: Vector,
    *,
    yaw: float,
    gesture: Gesture,
    rng: np.random.Generator,
    outfit: Outfit | None = None,
    time: float = 0.0,
    sides: int = 10,
) -> Body:
    """Add a person; what the outfit leaves open is drawn. `sides` is the roundness of the limbs."""
    look = _drawn_look(rng, outfit)
    body = Body(feet, yaw, look.height / 1.75)
    _add_legs(builder, body, look, sides)
    _add_trunk_and_head(builder, body, look, sides)
    left, right = arms_of(gesture, time=time, east=feet[0])
    _add_arm(builder, body, look, -1, left, sides)
    _add_arm(builder, body, look, 1, right, sides)
    if gesture == "microphone":
        builder.capsule(
            body.place(*right[1]), body.place(0.02, 0.15, 1.57), 0.018, 0.026, colour=(0.08, 0.08, 0.08), sides=8
        )
    elif gesture == "guitar":
        _add_guitar(builder, body, look.instrument)
    elif gesture == "drums":
        for side, (_, hand) in ((-1, left), (1, right)):
            grip = body.place(*hand)
            builder.cylinder(
                grip, grip + np.array([0.02 * side, -0.30, 0.05]), 0.012, colour=(0.7, 0.55, 0.35), sides=6
            )
    return body


def arms_of(gesture: Gesture, *, time: float, east: float) -> tuple[Reach, Reach]:
    """Elbow and hand of the left and the right arm, in the body's axes. Players and raised arms move with time (s)."""
    hanging_left, hanging_right = ((-0.27, 0.0, 1.12), (-0.26, 0.12, 0.90)), ((0.27, 0, 1.12), (0.26, 0.12, 0.90))
    match gesture:
        case "up":
            wave = 0.06 * np.sin(2 * time + east * 3)
            return ((-0.33, 0.05, 1.62), (-0.26 + wave, 0.08, 1.95)), ((0.33, 0.05, 1.62), (0.26 + wave, 0.08, 1.97))
        case "one":
            return hanging_left, ((0.31, 0.08, 1.64), (0.22, 0.12, 1.98))
        case "phone":
            return ((-0.26, 0.16, 1.33), (-0.07, 0.38, 1.62)), ((0.26, 0.16, 1.33), (0.07, 0.38, 1.62))
        case "microphone":
            raised = 1.82 + 0.1 * np.sin(3 * time)
            return ((-0.33, 0.10, 1.50), (-0.42, 0.2, raised)), ((0.28, 0.18, 1.26), (0.06, 0.20, 1.50))
        case "guitar":
            strum = 0.04 * np.sin(9 * time)
            return ((-0.30, 0.16, 1.18), (-0.46, 0.26, 1.20)), ((0.30, 0.10, 1.12), (0.10, 0.22, 1.02 + strum))
        case "keyboard":
            press = 0.03 * np.sin(8 * time)
            return ((-0.27, 0.12, 1.12), (-0.2, 0.36, 1.04)), ((0.27, 0.12, 1.12), (0.2, 0.36, 1.04 + press))
        case "drums":
            beat = [1.18 + 0.12 * np.sin(10 * time + side) for side in (-1, 1)]
            return ((-0.3, 0.14, 1.16), (-0.22, 0.36, beat[0])), ((0.3, 0.14, 1.16), (0.22, 0.36, beat[1]))
        case _:
            return hanging_left, hanging_right


def _drawn_look(rng: np.random.Generator, outfit: Outfit | None) -> Look:
    height = outfit.height if outfit else rng.normal(1.72, 0.09)
    skin = SKINS[rng.integers(5)] * rng.uniform(0.85, 1.1)
    if outfit:
        clothes, legs, hair = np.array(outfit.clothes), np.array(outfit.legs), np.array(outfit.hair)
    else:
        clothes = rng.uniform(0.03, 0.75, 3) * rng.uniform(0.3, 1)
        legs = np.array([0.03, 0.04, 0.08]) + rng.uniform(0, 0.12)
        hair = HAIRS[rng.integers(5)]
    instrument = outfit.instrument if outfit else RED
    return Look(height, skin, clothes, legs, hair, long_hair=rng.random() < 0.35, instrument=instrument)


def _add_legs(builder: MeshBuilder, body: Body, look: Look, sides: int) -> None:
    scale = body.scale
    for side in (-1, 1):
        hip, knee = body.place(0.09 * side, 0, 0.92), body.place(0.12 * side, 0.02, 0.48)
        ankle, heel, toe = ((0.13, -0.02, 0.06), (0.13, -0.04, 0.04), (0.14, 0.14, 0.04))
        ankle, heel, toe = (body.place(right * side, forward, up) for right, forward, up in (ankle, heel, toe))
        builder.capsule(hip, knee, 0.085 * scale, 0.065 * scale, colour=look.legs, sides=sides)
        builder.capsule(knee, ankle, 0.06 * scale, 0.045 * scale, colour=look.legs, sides=sides)
        builder.capsule(heel, toe, 0.05 * scale, 0.045 * scale, colour=(0.05, 0.05, 0.05), sides=sides)


def _add_trunk_and_head(builder: MeshBuilder, body: Body, look: Look, sides: int) -> None:
    scale, place = body.scale, body.place
    waist, chest = place(0, 0, 0.95), place(0, 0.01, 1.18)
    builder.capsule(waist, chest, 0.145 * scale, 0.15 * scale, colour=look.clothes * 0.9, sides=sides)
    left, right = place(-0.07, 0.01, 1.33), place(0.07, 0.01, 1.33)
    builder.capsule(left, right, 0.135 * scale, 0.135 * scale, colour=look.clothes, sides=sides)
    neck, chin = place(0, 0, 1.42), place(0, 0.01, 1.52)
    builder.capsule(neck, chin, 0.055 * scale, 0.055 * scale, colour=look.skin, sides=sides)
    builder.ball(place(0, 0.02, 1.63), 0.105 * scale, colour=look.skin, sides=sides + 2)
    builder.ball(place(0, -0.012, 1.66), 0.112 * scale, colour=look.hair, sides=sides + 2)
    if look.long_hair:
        crown, tips = place(0, -0.07, 1.6), place(0, -0.09, 1.38)
        builder.capsule(crown, tips, 0.085 * scale, 0.07 * scale, colour=look.hair, sides=sides)
    builder.ball(place(0, 0.122, 1.615), 0.018 * scale, colour=look.skin * 0.9, sides=6)
    for side in (-1, 1):
        builder.ball(place(0.038 * side, 0.108, 1.65), 0.014 * scale, colour=(0.02, 0.02, 0.02), sides=6)


def _add_arm(builder: MeshBuilder, body: Body, look: Look, side: int, reach: Reach, sides: int) -> None:
    scale = body.scale
    shoulder, elbow, hand = body.place(0.19 * side, 0.01, 1.38), body.place(*reach[0]), body.place(*reach[1])
    builder.capsule(shoulder, elbow, 0.055 * scale, 0.045 * scale, colour=look.clothes * 0.95, sides=sides)
    builder.capsule(elbow, hand, 0.042 * scale, 0.033 * scale, colour=look.skin, sides=sides)
    builder.ball(hand, 0.048 * scale, colour=look.skin, sides=8)


def _add_guitar(builder: MeshBuilder, body: Body, colour: Colour) -> None:
    scale, place = body.scale, body.place
    bout, waist = place(0.20, 0.19, 0.98), place(0.06, 0.20, 1.03)
    builder.capsule(bout, waist, 0.15 * scale, 0.12 * scale, colour=colour, sides=14)
    builder.cylinder(place(0.0, 0.24, 1.05), place(-0.62, 0.27, 1.24), 0.024, colour=(0.25, 0.14, 0.06))
    builder.box(place(-0.67, 0.27, 1.26), (0.14, 0.03, 0.09), colour=(0.1, 0.06, 0.03), yaw=body.yaw)


def band(time: float, *, deck_height: float) -> Mesh:
    """Singer, two guitarists, keyboarder and drummer at a moment of the show (s)."""
    builder = MeshBuilder()
    singer = Outfit(1.78, (0.85, 0.80, 0.70), (0.05, 0.05, 0.06), (0.10, 0.04, 0.02))
    left_guitar = Outfit(1.83, (0.10, 0.12, 0.35), (0.10, 0.12, 0.22), (0.03, 0.02, 0.02), (0.75, 0.08, 0.05))
    right_guitar = Outfit(1.70, (0.45, 0.06, 0.08), (0.04, 0.04, 0.05), (0.5, 0.36, 0.15), (0.9, 0.75, 0.35))
    keys = Outfit(1.72, (0.80, 0.62, 0.10), (0.06, 0.06, 0.08), (0.25, 0.05, 0.03))
    drummer = Outfit(1.70, (0.06, 0.35, 0.30), (0.05, 0.05, 0.05), (0.02, 0.02, 0.02))
    members = (
        (0.5 * np.sin(0.8 * time), 1.55, 0.0, np.pi + 0.25 * np.sin(time), "microphone", singer),
        (-2.6 + 0.2 * np.sin(1.3 * time), 1.9, 0.0, np.pi - 0.25, "guitar", left_guitar),
        (2.45 - 0.2 * np.sin(1.1 * time), 1.9, 0.0, np.pi + 0.3, "guitar", right_guitar),
        (4.15, 3.1, 0.0, np.pi + 0.35, "keyboard", keys),
        (0.0, 4.85, 0.35, np.pi, "drums", drummer),
    )
    for seed, (east, north, up, yaw, gesture, outfit) in enumerate(members, start=11):
        rng, feet = np.random.default_rng(seed), (east, north, deck_height + up)
        add_person(builder, feet, yaw=yaw, gesture=gesture, rng=rng, outfit=outfit, time=time, sides=14)
    return builder.mesh()


@dataclass(frozen=True)
class Crowd:
    """The spectators at rest, how far each vertex follows the music (0 feet, about 1 head) and when; their phones."""

    people: Mesh
    sway: Float[np.ndarray, "n"]
    phase: Float[np.ndarray, "n"]
    phones: Mesh

    def at(self, time: float) -> Mesh:
        """The people at a moment of the show (s): up to 6 cm sideways and 3 cm up."""
        vertices = self.people.vertices.copy()
        vertices[:, 0] += self.sway * 0.06 * np.sin(2.2 * time + self.phase)
        vertices[:, 2] += (self.sway > 0) * 0.03 * np.abs(np.sin(2.6 * time + self.phase))
        return Mesh(vertices, self.people.triangles, self.people.colours)


def crowd(seed: int, *, lenses: Float[np.ndarray, "ues 3"]) -> Crowd:
    """Spectators on the floor and the stands, 445 with the bundled phones; nobody stands in front of a lens."""
    rng = np.random.default_rng(seed)
    people, phones = MeshBuilder(), MeshBuilder()
    feet_of, phase_of, owned = [], [], []
    for feet, raised_share in _places(rng):
        draw = rng.random()
        shares = zip((raised_share, raised_share + 0.12, raised_share + 0.24), ("up", "one", "phone"), strict=True)
        gesture = next((gesture for share, gesture in shares if draw < share), "down")
        yaw = np.arctan2(feet[0], 3 - feet[1]) + rng.normal(0, 0.12)
        phase, own_seed = rng.uniform(0, 6.28), rng.integers(1 << 30)
        if blocks_a_lens(feet, lenses):
            continue
        before = people.vertex_count
        body = add_person(people, feet, yaw=yaw, gesture=gesture, rng=np.random.default_rng(own_seed), sides=6)
        owned.append(people.vertex_count - before)
        feet_of.append(feet[2])
        phase_of.append(phase)
        if gesture == "phone":
            facing = np.array([-np.sin(yaw), np.cos(yaw), 0])
            phone = body.place(*PHONE_IN_HANDS) - 0.01 * facing
            phones.box(phone, (0.075, 0.006, 0.145), colour=(0.5, 0.6, 0.8), yaw=yaw)
    mesh = people.mesh()
    sway = (mesh.vertices[:, 2] - np.repeat(feet_of, owned)) / 1.7
    return Crowd(mesh, sway, np.repeat(phase_of, owned), phones.mesh())


def blocks_a_lens(feet: Vector, lenses: Float[np.ndarray, "ues 3"]) -> bool:
    """Whether someone here would stand within 0.6 m of a phone, or up to 3.2 m ahead of it in its line to the band."""
    offset = np.asarray(feet[:2]) - lenses[:, :2]
    aim = np.array([0.0, 3.0]) - lenses[:, :2]
    aim = aim / np.linalg.norm(aim, axis=1, keepdims=True)
    distance = np.linalg.norm(offset, axis=1)
    ahead = np.einsum("ij,ij->i", aim, offset)
    aside = np.abs(aim[:, 0] * offset[:, 1] - aim[:, 1] * offset[:, 0])
    same_level = np.abs(feet[2] - (lenses[:, 2] - 1.6)) < 1.2
    in_line = (distance < 3.2) & same_level & (ahead > 0) & (aside < 0.55)
    return bool(np.any((distance < 0.6) | in_line))


def _places(rng: np.random.Generator) -> Iterator[tuple[Sequence[float], float]]:
    """Where spectators stand, and the share there that has both arms up.

    Drawn one by one from the crowd's own stream: whoever takes a place draws the person before the next place is drawn.
    """
    for row in range(17):
        north = -3.3 - 0.85 * row
        for east in np.arange(-9.5, 9.6, 0.82):
            if rng.random() < 0.86 - 0.018 * row:
                shifted = east + rng.normal(0, 0.14) + 0.4 * (row % 2)
                yield (shifted, north + rng.normal(0, 0.13), 0.0), 0.28 if row < 6 else 0.16
    for side in (-1, 1):
        for step in range(6):
            for north in np.arange(-17, 1, 0.9):
                if rng.random() < 0.55:
                    yield (side * (13.0 + 1.1 * step), north + rng.normal(0, 0.1), 0.5 + 1.0 * step), 0.12
    for step in range(7):
        for east in np.arange(-14, 14, 0.9):
            if rng.random() < 0.5:
                yield (east, -20.5 - 1.1 * step, 0.5 + 1.0 * step), 0.12
