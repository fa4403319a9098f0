"""Bricks and brick textures against the rows they were filled from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.fields import bricks as bricks_module
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.brick_textures import BrickTexturesError
from crowdnerf_lab.fields.bricks import Bricks, build_bricks, plan_bricks
from crowdnerf_lab.kernels import bricks_cpu, reference
from crowdnerf_lab.metrics import psnr
from tests import brick_shader
from tests.toy_baked_field import ball, degree_0, thinned

CELLS, ROWS, RESOLUTIONS = 8, 1 << 9, (4, 8, 16, 32)
WIDTH, HEIGHT = 40, 32


def scattered(seed: int, *, kept_share: float = 1.0, occupied_share: float = 0.1, numbers: int = 13) -> dict:
    """Arguments of plan_bricks and build_bricks: random rows at random places, level 4 dense, the others hashed."""
    rng = np.random.default_rng(seed)
    kept = rng.random((len(RESOLUTIONS), ROWS)) < kept_share
    occupied = rng.random((CELLS, CELLS, CELLS)) < occupied_share
    return {
        "values": rng.integers(-127, 128, (kept.sum(), numbers)).astype(np.int8),
        "scales": (0.002 + 0.01 * rng.random((len(RESOLUTIONS), numbers))).astype(np.float32),
        "kept": kept,
        "resolutions": RESOLUTIONS,
        "occupied": occupied,
        "densities": rng.integers(90, 200, occupied.sum()).astype(np.uint8),
    }


def built(arguments: dict) -> Bricks:
    values, scales, densities = (arguments[name] for name in ("values", "scales", "densities"))
    where = {name: arguments[name] for name in ("kept", "resolutions", "occupied")}
    return build_bricks(plan_bricks(values, scales, **where), densities=densities)


def rows_at(arguments: dict, unit: np.ndarray) -> np.ndarray:
    """The oracle: rows [n numbers] at positions of the unit cube, interpolated from the table in torch."""
    numbers = arguments["values"].shape[1]
    table = np.zeros((*arguments["kept"].shape, 16), np.float32)
    scale = np.broadcast_to(arguments["scales"][:, None], (*arguments["kept"].shape, numbers))
    table[arguments["kept"], :numbers] = arguments["values"] * scale[arguments["kept"]]
    found = reference.look_up(
        torch.from_numpy(table.reshape(-1, 16)), ROWS, arguments["resolutions"], torch.from_numpy(unit).float()
    )
    return found[:, :numbers].numpy()


def numbers_in_bricks(bricks: Bricks, unit: np.ndarray, numbers: int) -> np.ndarray:
    """Rows [n numbers] at positions inside occupied cells, interpolated from the atlas."""
    scaled = unit * bricks.cells
    cell = scaled.astype(int)
    word = bricks.words[(cell[:, 0] * bricks.cells + cell[:, 1]) * bricks.cells + cell[:, 2]].astype(np.int64)
    kind = word >> 22 & 3
    assert (kind > 0).all()
    intervals = np.array([0, *bricks_module.INTERVALS])[kind]
    inside = (scaled - cell) * intervals[:, None]
    low = np.minimum(inside.astype(int), intervals[:, None] - 1)
    channels = list(bricks_module.CHANNEL_OF_NUMBER[numbers])
    total = np.zeros((len(unit), numbers))
    side = intervals + 1
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (low + corner).T
        vertex = bricks.kind_firsts[kind] + ((word & (1 << 22) - 1) * side**3) + (x * side + y) * side + z
        weight = np.where(corner, inside - low, 1 - inside + low).prod(-1)
        total += weight[:, None] * (bricks.texels[vertex] - bricks.zeros[: bricks.texels.shape[1]])[:, channels]
    return total * bricks.units[channels]


def positions_in(occupied: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = np.argwhere(occupied)
    return (cells[rng.integers(0, len(cells), count)] + 0.999 * rng.random((count, 3))) / CELLS


@pytest.mark.parametrize("numbers", [4, 13])
def test_bricks_hold_the_field_to_half_a_byte(numbers: int) -> None:
    arguments = scattered(1, numbers=numbers)
    bricks = built(arguments)
    unit = positions_in(arguments["occupied"], 400, 2)
    found, truth = numbers_in_bricks(bricks, unit, numbers), rows_at(arguments, unit)
    units = bricks.units[list(bricks_module.CHANNEL_OF_NUMBER[numbers])]
    assert np.abs(truth).max() > 40 * units.max()
    assert (np.abs(found - truth) <= 0.51 * units).all()


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), kept_share=st.sampled_from([0.0, 0.001, 0.01, 0.3]))
def test_small_bricks_are_as_exact_as_large_ones(seed: int, kept_share: float) -> None:
    arguments = scattered(seed, kept_share=kept_share)
    bricks = built(arguments)
    unit = positions_in(arguments["occupied"], 200, seed)
    found, truth = numbers_in_bricks(bricks, unit, 13), rows_at(arguments, unit)
    assert (np.abs(found - truth) <= 0.51 * bricks.units[list(bricks_module.CHANNEL_OF_NUMBER[13])] + 1e-6).all()


def test_a_brick_is_as_fine_as_the_finest_row_in_it() -> None:
    """Rows of zeros do not count, and a level without rows costs nothing."""
    arguments = scattered(3)
    kept, level = arguments["kept"], np.repeat(np.arange(4), arguments["kept"].sum(1))
    for levels, kind in ((4, 3), (3, 2), (2, 1), (0, 1)):
        values = np.where((level < levels)[:, None], np.maximum(arguments["values"], 1), 0).astype(np.int8)
        bricks = built({**arguments, "values": values})
        assert set(bricks.kinds[arguments["occupied"].reshape(-1)]) == {kind}
        few = np.arange(4)[:, None] < levels
        cut = built({**arguments, "values": values[level < levels], "kept": kept & few})
        assert np.array_equal(cut.texels, bricks.texels)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 1.0])
def test_empty_cells_know_how_far_matter_is(share: float) -> None:
    arguments = scattered(5, occupied_share=share)
    bricks = built(arguments)
    everywhere = np.indices((CELLS,) * 3).reshape(3, -1).T
    matter = np.argwhere(arguments["occupied"])
    empty = bricks.kinds == 0
    assert np.array_equal(~empty, arguments["occupied"].reshape(-1))
    told = bricks.words >> bricks_cpu.BYTE_SHIFT
    if len(matter) == 0:
        assert (told == bricks_cpu.FARTHEST).all()
        return
    apart = np.abs(everywhere[:, None] - matter).max(-1).min(1)
    assert np.array_equal(told[empty], apart[empty])
    assert np.array_equal(told[~empty], arguments["densities"])


def test_a_leap_never_passes_the_empty_cube() -> None:
    """Wherever a leap of `clear` begins, nothing up to its end is as many cells away as were told to be empty."""
    rng = np.random.default_rng(0)
    half_size, size = torch.tensor([1.0, 2.0, 0.5]), 4 / CELLS
    around = 6 * rng.random((300, 3)) - 3
    around[::2] /= 3
    positions, farthest = (around * half_size.numpy()).astype(np.float32), 0.0
    directions = rng.normal(size=(300, 3)).astype(np.float32)
    speed = np.abs(directions / half_size.numpy()).max(-1)
    for position, direction, fastest in zip(positions, directions, speed, strict=True):
        reach = np.float32(rng.integers(0, 4))
        x, y, z = position / half_size.numpy()
        free = bricks_cpu.clear(x, y, z, reach, np.float32(size))
        assert free >= 0
        along = torch.linspace(0, free / fastest, 20)[:, None] * torch.from_numpy(direction)
        there = reference.contracted(torch.from_numpy(position) + along, torch.zeros(3), half_size)
        cells_away = float((there - there[0]).abs().max()) * CELLS
        assert cells_away <= reach + 1e-4
        farthest = max(farthest, cells_away)
    assert farthest > 1


@pytest.fixture(scope="module")
def baked() -> BakedField:
    return ball()


def camera() -> dict:
    eye = torch.tensor([[2.5, 0.5, 0.4]])
    cameras = pinhole(look_at(eye, torch.zeros_like(eye)), torch.full((1,), 50.0), width=WIDTH, height=HEIGHT)
    pose, (cx, cy) = cameras.camera_to_world[0].numpy(), cameras.centre[0].tolist()
    return {"camera_to_world": pose, "focal": (50.0, 50.0), "centre": (cx, cy), "width": WIDTH, "height": HEIGHT}


@pytest.mark.parametrize("form", [lambda field: field, thinned, degree_0], ids=["full", "thinned", "degree 0"])
def test_a_shader_draws_what_numba_draws(baked: BakedField, form) -> None:
    field = form(baked)
    ours = torch.from_numpy(field.render_image(**camera(), threads=1).colour)
    assert ours.std() > 0.05
    by_shader = torch.from_numpy(brick_shader.picture(field.textures(), **camera())).float()
    assert psnr(by_shader, ours) > 45
    spoiled = replace(field.textures(), bricks=np.roll(field.textures().bricks, 1, axis=2))
    assert psnr(torch.from_numpy(brick_shader.picture(spoiled, **camera())).float(), ours) < 40


def test_all_kinds_of_bricks_occur_when_fine_rows_are_few(baked: BakedField) -> None:
    assert set(thinned(baked).bricks.kinds) == {0, 1, 2, 3}
    assert thinned(baked).memory < baked.memory < baked.peak_memory


def test_textures_are_small_enough_and_degree_0_takes_a_quarter(baked: BakedField) -> None:
    textures, plain = baked.textures(), degree_0(baked).textures()
    assert max(textures.bricks.shape + textures.cells.shape) <= 2048
    assert textures.bricks.dtype == textures.cells.dtype == np.uint8
    assert textures.bricks.shape[3] == textures.cells.shape[3] == 4
    assert textures.bricks.nbytes < 2 * baked.bricks.texels.nbytes
    assert plain.bytes < 0.5 * textures.bytes


def test_textures_too_large_for_webgl_are_refused(baked: BakedField, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdnerf_lab.fields.brick_textures.MAX_SIDE", 30)
    with pytest.raises(BrickTexturesError, match="more than 30 a side; bake fewer levels"):
        baked.textures()
