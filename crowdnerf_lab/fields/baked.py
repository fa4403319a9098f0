"""The baked field: a radiance field cut, pruned and quantized for a device, and marched without torch.

What PlenOctrees (Yu et al. 2021), SNeRG (Hedman et al. 2021) and MERF (Reiser et al. 2023) do for phones and
browsers, for the SH grid: rows that no occupied cell needs are dropped, the finest levels may be cut, and what stays
becomes 8 bits or fewer. It takes seconds and no training.

A UE loads and renders with numpy and numba alone, so shapes stand in the docstrings here, not in jaxtyping annotations.
"""

import json
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numba
import numpy as np

from crowdnerf_lab.fields.array_files import read_arrays, write_arrays
from crowdnerf_lab.fields.brick_textures import BrickTextures, textures_of
from crowdnerf_lab.fields.bricks import (
    MAX_BRICKS,
    Bricks,
    PlannedBricks,
    build_bricks,
    building_memory,
    plan_bricks,
)
from crowdnerf_lab.kernels import bricks_cpu

FORMAT = "crowdnerf_lab.baked_field/2"
NUMBERS_OF_DEGREE = (4, 13)
"""Numbers a row at SH degree 0 and 1: log density and three colours of 1 or 4 coefficients."""
LARGEST = 1e9
"""Metres; no scene and no camera is larger or farther away, and float32 holds what is computed from them."""


class BakedFieldError(ValueError):
    """A baked field's file that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class BakedImage:
    """One rendered view, float32: colour [h w 3] sRGB in [0, 1], expected depth [h w] along the ray in metres, opacity
    [h w] in [0, 1]."""

    colour: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


@dataclass(frozen=True)
class BakedField:
    """Quantized rows of an SH grid and where they belong.

    values [kept, numbers] int8: kept rows in units of scales [levels, numbers]; level after level, in the order of
    the table. A row is [log density, red, green, blue], each colour 4 SH coefficients (13 numbers) or, at degree 0, the
    first of them (4). kept: bitmap over levels * rows, most significant bit first. occupied: bitmap
    over the cells of the occupancy grid, least significant bit first; densities: one byte for every occupied cell, see
    `density_codes`. centre, half_size: the box in metres that is not contracted.
    near, far, steps, refine, finest: how rays are marched (metres; steps a whole ray; see GridShape).
    """

    values: np.ndarray
    scales: np.ndarray
    kept: np.ndarray
    occupied: np.ndarray
    densities: np.ndarray
    background: np.ndarray
    centre: np.ndarray
    half_size: np.ndarray
    resolutions: tuple[int, ...]
    rows: int
    occupancy_cells: int
    bits: int
    near: float
    far: float
    steps: int
    refine: int
    finest: int

    @property
    def sh_degree(self) -> int:
        """0: colours are the same from everywhere; 1: they turn with the direction of view."""
        return 0 if self.scales.shape[1] == NUMBERS_OF_DEGREE[0] else 1

    @property
    def bytes(self) -> int:
        """Size of the stored arrays."""
        return sum(getattr(self, name).nbytes for name in ("values", "scales", "kept", "occupied", "densities"))

    def render_image(
        self,
        camera_to_world: np.ndarray,
        focal: tuple[float, float],
        *,
        centre: tuple[float, float],
        width: int,
        height: int,
        threads: int | None = None,
    ) -> BakedImage:
        """The view of a pinhole camera: camera_to_world [3 4], OpenCV axes; focal and principal point in pixels.
        Neutral colours. The first call builds the bricks. Raises ValueError when the camera is impossible."""
        if not (np.abs(np.array(camera_to_world)) < LARGEST).all() or np.shape(camera_to_world) != (3, 4):
            raise ValueError(f"camera_to_world must be 3 x 4 finite numbers, got {camera_to_world}")
        if not (np.isfinite((*focal, *centre)).all() and min(focal) > 0 and min(width, height) >= 1):
            raise ValueError(f"no camera has focal {focal}, centre {centre} and {width} x {height} pixels")
        bricks, ratio, density_scale = self.bricks, self.ratio, self.density_scale
        starts = self.near * ratio ** (0.5 + np.arange(self.steps))
        out = np.empty((height * width, 5), np.float32)
        arguments = (
            width,
            np.ascontiguousarray(camera_to_world, np.float32),
            np.array(focal, np.float32),
            np.array(centre, np.float32),
            self.centre,
            (1 / self.half_size).astype(np.float32),
            starts[starts * (1 + ratio) / 2 < self.far].astype(np.float32),
            np.float32(ratio),
            np.float32(self.refine),
            np.int32(self.finest),
            bricks.words,
            np.int32(bricks.cells),
            bricks.kind_firsts,
            (densities_of(np.arange(256)) * density_scale).astype(np.float32),
            (bricks.densities(parts=8) * density_scale).astype(np.float32),
            bricks.texels,
            bricks.units,
            self.background,
            out,
        )

        def march(first: int) -> None:
            bricks_cpu.march_rows(first, min(first + bricks_cpu.TILE, height), *arguments)

        bands = range(0, height, bricks_cpu.TILE)
        if threads == 1:
            for first in bands:
                march(first)
        else:
            with ThreadPoolExecutor(threads or numba.get_num_threads()) as pool:
                deque(pool.map(march, bands), maxlen=0)
        image = out.reshape(height, width, 5)
        return BakedImage(
            colour=np.ascontiguousarray(image[..., :3]).clip(0, 1),
            depth=np.ascontiguousarray(image[..., 3]),
            opacity=np.ascontiguousarray(image[..., 4]),
        )

    @property
    def ratio(self) -> float:
        """Of a step's end to its begin, along a ray."""
        return math.exp(math.log(self.far / self.near) / self.steps)

    @property
    def density_scale(self) -> float:
        """Density per metre of what is stored as 1."""
        return float(1 / self.half_size.mean())

    def planned_bricks(self) -> PlannedBricks:
        """Which bricks there will be, before they are filled."""
        return plan_bricks(
            self.values,
            self.scales,
            kept=np.unpackbits(self.kept, count=len(self.resolutions) * self.rows)
            .astype(bool)
            .reshape(len(self.resolutions), self.rows),
            resolutions=self.resolutions,
            occupied=np.unpackbits(self.occupied, count=self.occupancy_cells**3, bitorder="little")
            .astype(bool)
            .reshape((self.occupancy_cells,) * 3),
        )

    @cached_property
    def bricks(self) -> Bricks:
        """What is marched: built from the rows when first asked for, in a second or two for a field of 60 000 occupied
        cells, then kept."""
        return build_bricks(self.planned_bricks(), densities=self.densities)

    def textures(self) -> BrickTextures:
        """The field as a WebGL2 fragment shader marches it. Raises BrickTexturesError when they are too large."""
        return textures_of(
            self.bricks,
            centre=self.centre,
            half_size=self.half_size,
            background=self.background,
            near=self.near,
            far=self.far,
            ratio=self.ratio,
            density_scale=self.density_scale,
            refine=self.refine,
            finest=self.finest,
        )

    @property
    def memory(self) -> int:
        """Bytes in memory while rendering: the stored arrays and the bricks (which this builds)."""
        return self.bytes + self.bricks.bytes

    @property
    def peak_memory(self) -> int:
        """Bytes in memory at most, while the bricks are built (which this does); a picture takes 20 bytes a pixel
        more."""
        rows = len(self.resolutions) * self.rows
        return self.memory + building_memory(kept=len(self.values), rows=rows, cells=self.occupancy_cells)

    def save(self, path: Path) -> Path:
        """Write the field as one safetensors file (atomically)."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return write_arrays(Path(path), arrays, {"format": FORMAT, "numbers": json.dumps(numbers)})

    @staticmethod
    def load(path: Path) -> "BakedField":
        """Read what `save` wrote. Raises BakedFieldError when the file is truncated, inconsistent or something else."""
        return baked_field_of(Path(path).read_bytes(), name=Path(path))


_ARRAYS = ("values", "scales", "kept", "occupied", "densities", "background", "centre", "half_size")
_NUMBERS = ("resolutions", "rows", "occupancy_cells", "bits", "near", "far", "steps", "refine", "finest")


def baked_field_of(content: bytes, *, name: Path) -> BakedField:
    """As `BakedField.load`, from what is in memory already; name: what errors call it."""
    try:
        arrays, meta = read_arrays(content, name=name)
    except ValueError as error:
        raise BakedFieldError(str(error)) from error
    if meta.get("format") != FORMAT:
        raise BakedFieldError(f"{name} holds {meta.get('format')!r}, not {FORMAT!r}; fetch the right file")
    try:
        numbers = json.loads(meta["numbers"])
        numbers["resolutions"] = tuple(int(r) for r in numbers["resolutions"])
        field = BakedField(**{key: arrays[key] for key in _ARRAYS}, **{key: numbers[key] for key in _NUMBERS})
        check_consistent(field)
    except (KeyError, TypeError, ValueError) as error:
        raise BakedFieldError(f"{name} is not a consistent baked field: {error}; fetch it again") from error
    return field


def density_codes(density: np.ndarray) -> np.ndarray:
    """exp(log density) [n] as bytes, in steps of 6 %."""
    return np.clip(np.round(16 * np.log(density)) + 128, 0, 255).astype(np.uint8)


def densities_of(codes: np.ndarray) -> np.ndarray:
    """Inverse of `density_codes`, float32."""
    return np.exp((codes.astype(np.float32) - 128) / 16)


def check_consistent(field: BakedField) -> None:
    """Raise ValueError unless the arrays of a field fit each other and its numbers are possible."""
    cells, rows = field.occupancy_cells, len(field.resolutions) * field.rows
    if not 1 <= field.rows <= 1 << 26 or field.rows & (field.rows - 1):
        raise ValueError(f"rows must be a power of two up to 2^26, got {field.rows}")
    if not 1 <= cells <= 1024 or len(field.occupied) != -(-(cells**3) // 8):
        raise ValueError(f"{len(field.occupied)} bytes of occupancy do not fit {cells} cells a side")
    filled = int(np.unpackbits(field.occupied, count=cells**3, bitorder="little").sum())
    if len(field.densities) != filled:
        raise ValueError(f"{filled} cells are occupied but {len(field.densities)} have a density")
    if filled > MAX_BRICKS:
        raise ValueError(f"{filled} cells are occupied, more than {MAX_BRICKS} bricks can be told apart")
    if not all(1 <= resolution <= min(64 * cells, 1 << 16) for resolution in field.resolutions):
        raise ValueError(f"resolutions {field.resolutions} do not fit {cells} cells a side")
    if len(field.kept) != -(-rows // 8):
        raise ValueError(f"{len(field.kept)} bytes of the row map do not fit {rows} rows")
    kept = int(np.unpackbits(field.kept, count=rows).sum())
    if kept != len(field.values):
        raise ValueError(f"the row map keeps {kept} rows but {len(field.values)} are stored")
    if field.scales.shape not in [(len(field.resolutions), numbers) for numbers in NUMBERS_OF_DEGREE]:
        raise ValueError(f"scales of shape {field.scales.shape} do not fit {len(field.resolutions)} levels")
    if field.values.dtype != np.int8 or field.values.shape[1:] != field.scales.shape[1:]:
        raise ValueError(f"{field.values.dtype} rows of shape {field.values.shape} do not fit the scales")
    for name in ("centre", "half_size", "background"):
        if getattr(field, name).shape != (3,) or getattr(field, name).dtype != np.float32:
            raise ValueError(f"{name} must be three float32 numbers")
    if not ((np.abs(field.centre) < LARGEST) & (field.half_size > 1 / LARGEST) & (field.half_size < LARGEST)).all():
        raise ValueError(f"a box of centre {field.centre} and half size {field.half_size} m is impossible")
    numbers = [field.near, field.far, *field.scales.ravel(), *field.centre, *field.half_size, *field.background]
    if not np.isfinite(numbers).all() or not 0 < field.near < field.far < LARGEST or not 1 <= field.steps <= 65536:
        raise ValueError(f"near {field.near}, far {field.far}, steps {field.steps} or a scale is out of range")
    if not (0 <= field.refine <= 4096 and 1 <= field.finest <= 4096):
        raise ValueError(f"refine {field.refine} or finest {field.finest} is out of range")
