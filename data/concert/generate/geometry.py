"""Triangle meshes with a colour per vertex, put together from simple solids.

Lengths in metres, ENU axes (x east, y north, z up); colours are linear reflectances in [0, 1], red green blue.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Vector = Sequence[float] | Float[np.ndarray, "3"]
Colour = Sequence[float] | Float[np.ndarray, "3"]

POINT = 1e-4
"""Radius that closes the end of a surface of revolution: zero would make triangles without area."""


@dataclass(frozen=True)
class Mesh:
    """Triangles as indices into vertices; one colour per vertex."""

    vertices: Float[np.ndarray, "n 3"]
    triangles: Int[np.ndarray, "m 3"]
    colours: Float[np.ndarray, "n 3"]


class MeshBuilder:
    """Collects solids and joins them into one mesh."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._triangles: list[np.ndarray] = []
        self._colours: list[np.ndarray] = []
        self.vertex_count = 0

    def mesh(self) -> Mesh:
        """Everything added so far. At least one solid is needed."""
        return Mesh(np.concatenate(self._vertices), np.concatenate(self._triangles), np.concatenate(self._colours))

    def add(self, vertices: Float[np.ndarray, "n 3"], triangles: Int[np.ndarray, "m 3"], *, colour: Colour) -> None:
        """Add triangles of one colour; indices count from the first of these vertices."""
        self._vertices.append(vertices)
        self._triangles.append(triangles + self.vertex_count)
        self._colours.append(np.broadcast_to(np.asarray(colour, float), (len(vertices), 3)))
        self.vertex_count += len(vertices)

    def lathe(
        self, start: Vector, end: Vector, *, profile: Sequence[tuple[float, float]], colour: Colour, sides: int
    ) -> None:
        """A surface of revolution about the line from start to end.

        profile lists (metres along the line from start, radius); `sides` is the number of corners of each ring.
        """
        start, end = np.asarray(start, float), np.asarray(end, float)
        axis = end - start
        axis = axis / (np.linalg.norm(axis) + 1e-9)
        across, along = _perpendicular_to(axis, fallback=(1.0, 0.0, 0.0))
        angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
        ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * along
        distance, radius = np.asarray(profile, float).T[..., None, None]
        vertices = (start + distance * axis + radius * ring).reshape(-1, 3)
        self.add(vertices, _tube_triangles(len(profile), sides), colour=colour)

    def capsule(
        self, start: Vector, end: Vector, radius: float, end_radius: float, *, colour: Colour, sides: int = 10
    ) -> None:
        """A limb: a cone frustum from start to end with round caps."""
        length = np.linalg.norm(np.subtract(end, start))
        cap = np.linspace(0, np.pi / 2, 4)
        first = [(-radius * np.cos(a), max(radius * np.sin(a), POINT)) for a in cap]
        last = [(length + end_radius * np.sin(a), max(end_radius * np.cos(a), POINT)) for a in cap]
        self.lathe(start, end, profile=first + last, colour=colour, sides=sides)

    def cylinder(self, start: Vector, end: Vector, radius: float, *, colour: Colour, sides: int = 12) -> None:
        """A closed cylinder from start to end."""
        length = float(np.linalg.norm(np.subtract(end, start)))
        profile = [(0, POINT), (0, radius), (length, radius), (length, POINT)]
        self.lathe(start, end, profile=profile, colour=colour, sides=sides)

    def ball(self, centre: Vector, radius: float, *, colour: Colour, sides: int = 10) -> None:
        """A sphere."""
        middle, lift = np.array(centre, float), np.array([0, 0, 1e-3])
        self.capsule(middle - lift, middle + lift, radius, radius, colour=colour, sides=sides)

    def box(self, centre: Vector, size: Vector, *, colour: Colour, yaw: float = 0.0, pitch: float = 0.0) -> None:
        """A box, pitched about x, then turned about z (radians); its faces share no vertices."""
        corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        placed = corners @ (turn @ tilt).T + centre
        first = 4 * np.arange(6)[:, None, None]
        self.add(placed[_BOX_FACES.ravel()], (first + _QUAD_TRIANGLES).reshape(-1, 3), colour=colour)


_BOX_FACES = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
_QUAD_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])


def lattice_girder(builder: MeshBuilder, start: Vector, end: Vector, *, width: float = 0.36) -> None:
    """A square truss of aluminium: four tubes and a zigzag of braces every half metre."""
    start, end = np.array(start, float), np.array(end, float)
    length = np.linalg.norm(end - start)
    axis = (end - start) / length
    across, along = _perpendicular_to(axis, fallback=(0.0, 1.0, 0.0))
    corners = [start + (i * across + j * along) * width / 2 for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    aluminium = (0.55, 0.56, 0.58)
    for corner in corners:
        builder.cylinder(corner, corner + axis * length, 0.03, colour=aluminium, sides=8)
    bays = int(length / 0.5)
    for bay in range(bays):
        for side in range(4):
            low = corners[side] + axis * length * bay / bays
            high = corners[(side + 1) % 4] + axis * length * (bay + 1) / bays
            builder.cylinder(low, high, 0.014, colour=aluminium, sides=5)


def _perpendicular_to(axis: np.ndarray, *, fallback: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that complete `axis` to a frame; `fallback` replaces 'up' for an upright axis."""
    across = np.cross(axis, [0, 0, 1.0] if abs(axis[2]) < 0.9 else fallback)
    across /= np.linalg.norm(across)
    return across, np.cross(axis, across)


@functools.cache
def _tube_triangles(rings: int, sides: int) -> np.ndarray:
    """Triangles [m 3] between neighbouring rings of `sides` vertices each."""
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    here, beside = ring * sides + side, ring * sides + (side + 1) % sides
    lower = np.stack([here, beside, beside + sides], -1)
    upper = np.stack([here, beside + sides, here + sides], -1)
    return np.stack([lower, upper], 2).reshape(-1, 3)
