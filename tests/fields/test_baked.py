"""The baked field against the field it was baked from, and its files."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.fields.baked import BakedField, BakedFieldError, BakedImage, check_consistent, densities_of
from crowdnerf_lab.fields.baking import bake, quantized_rows
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import Bounds


@pytest.fixture(scope="module")
def field() -> SHGrid:
    """A ball of random colours in empty space."""
    generator = torch.Generator().manual_seed(0)
    shape = SHGridShape(resolutions=(8, 16, 32), log2_rows=12, occupancy_cells=32, steps=128)
    grid = SHGrid(Bounds(centre=torch.zeros(3), half_size=torch.full((3,), 2.0)), shape=shape)
    grid.table.data[:, :13] = 0.6 * torch.randn(grid.table.shape[0], 13, generator=generator)
    side = (torch.arange(32) + 0.5) / 32
    unit = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1)
    inside = ((unit - 0.5).norm(dim=-1) < 0.13).float()
    grid.table.data[:, 0] += 2.0
    grid.density_of_cell.copy_(inside * 10)
    grid.occupied.copy_(inside > 0)
    return grid


@pytest.fixture(scope="module")
def cameras():
    eye = torch.tensor([[2.5, 0.5, 0.4], [-1.0, 2.4, 0.8]])
    return pinhole(look_at(eye, torch.zeros_like(eye)), torch.full((2,), 50.0), width=40, height=32)


def drawn(baked: BakedField, cameras, index: int, *, threads: int | None = 1) -> BakedImage:
    return baked.render_image(
        cameras.camera_to_world[index].numpy(),
        tuple(cameras.focal[index].tolist()),
        centre=tuple(cameras.centre[index].tolist()),
        width=40,
        height=32,
        threads=threads,
    )


def image_of(baked: BakedField, cameras, index: int) -> torch.Tensor:
    return torch.from_numpy(drawn(baked, cameras, index).colour)


@pytest.mark.row("S43", "S48")
def test_eight_bits_look_like_the_teacher_and_weigh_less(field: SHGrid, cameras) -> None:
    baked = bake(field)
    for index in range(2):
        teacher = render_view(field, cameras, index).colour
        assert psnr(image_of(baked, cameras, index), teacher) > 40
    assert baked.bytes < 0.3 * field.table.numel() * 4


def unbaked(baked: BakedField, shape: SHGridShape) -> SHGrid:
    """The oracle: an SH grid that holds a baked field's rows as floats, marched by the teacher's own kernels."""
    box = Bounds(centre=torch.from_numpy(baked.centre), half_size=torch.from_numpy(baked.half_size))
    resolutions, cells = baked.resolutions, baked.occupancy_cells
    grid = SHGrid(box, shape=replace(shape, resolutions=resolutions, refine=baked.refine, steps=baked.steps))
    kept = np.unpackbits(baked.kept, count=len(grid.table)).astype(bool)
    scale = np.repeat(baked.scales, kept.reshape(len(resolutions), -1).sum(1), axis=0)
    columns = [0, 1, 5, 9] if baked.sh_degree == 0 else list(range(13))
    rows = np.zeros((len(grid.table), 16), np.float32)
    rows[np.flatnonzero(kept)[:, None], columns] = baked.values * scale
    grid.table.data.copy_(torch.from_numpy(rows))
    occupied = np.unpackbits(baked.occupied, count=cells**3, bitorder="little").astype(bool)
    density = np.zeros(cells**3, np.float32)
    density[occupied] = densities_of(baked.densities)
    grid.occupied.copy_(torch.from_numpy(occupied.reshape(cells, cells, cells)))
    grid.density_of_cell.copy_(torch.from_numpy(density.reshape(cells, cells, cells)))
    grid.background.data.copy_(torch.from_numpy(np.log(baked.background / (1 - baked.background))))
    return grid


def as_it_is(baked: BakedField) -> BakedField:
    return baked


def without_a_level(baked: BakedField) -> BakedField:
    """The middle level keeps no row, as in a progressive file cut short."""
    kept = np.unpackbits(baked.kept).astype(bool)
    level = np.flatnonzero(kept) // baked.rows
    kept[baked.rows : 2 * baked.rows] = False
    return replace(baked, kept=np.packbits(kept), values=baked.values[level != 1])


def of_degree_0(baked: BakedField) -> BakedField:
    columns = [0, 1, 5, 9]
    return replace(baked, values=baked.values[:, columns], scales=baked.scales[:, columns])


def without_rows(baked: BakedField) -> BakedField:
    return replace(baked, kept=np.zeros_like(baked.kept), values=baked.values[:0])


def empty(baked: BakedField) -> BakedField:
    return replace(baked, occupied=np.zeros_like(baked.occupied), densities=baked.densities[:0])


def with_zeros(baked: BakedField) -> BakedField:
    return replace(baked, values=np.where(np.arange(len(baked.values))[:, None] % 3 == 0, 0, baked.values))


@pytest.mark.parametrize("form", [as_it_is, without_a_level, of_degree_0, without_rows, with_zeros, empty])
def test_bricks_show_what_the_rows_say(field: SHGrid, cameras, form) -> None:
    baked = form(bake(field))
    check_consistent(baked)
    oracle = unbaked(baked, field.shape)
    for index in range(2):
        expected = render_view(oracle, cameras, index).colour
        assert psnr(image_of(baked, cameras, index), expected) > 50


@pytest.mark.parametrize("levels", [1, 2])
def test_fields_cut_to_fewer_levels_show_what_their_rows_say(field: SHGrid, cameras, levels: int) -> None:
    baked = bake(field, levels=levels)
    assert psnr(image_of(baked, cameras, 0), render_view(unbaked(baked, field.shape), cameras, 0).colour) > 50


def test_depth_and_opacity_are_the_teachers(field: SHGrid, cameras) -> None:
    baked = bake(field)
    expected = render_view(unbaked(baked, field.shape), cameras, 0)
    image = drawn(baked, cameras, 0)
    solid = expected.opacity > 0.5
    assert 0.02 < solid.float().mean() < 0.98
    torch.testing.assert_close(torch.from_numpy(image.opacity), expected.opacity, atol=0.02, rtol=0)
    found = torch.from_numpy(image.depth)[solid]
    apart = (found - (expected.depth / expected.opacity)[solid]).abs()
    assert (apart < 0.02).float().mean() > 0.995
    assert apart.max() < 0.5


@pytest.mark.parametrize("threads", [None, 2, 3])
def test_threads_draw_the_same_picture(field: SHGrid, cameras, threads: int | None) -> None:
    baked = bake(field)
    alone, together = drawn(baked, cameras, 0), drawn(baked, cameras, 0, threads=threads)
    assert np.array_equal(alone.colour, together.colour)
    assert np.array_equal(alone.depth, together.depth)


def test_memory_counts_the_bricks(field: SHGrid) -> None:
    baked = bake(field)
    assert baked.memory == baked.bytes + baked.bricks.words.nbytes + baked.bricks.texels.nbytes
    assert bake(field, levels=1).memory <= baked.memory < baked.peak_memory


@pytest.mark.row("S50")
def test_fewer_bits_and_levels_lose_more(field: SHGrid, cameras) -> None:
    teacher = render_view(field, cameras, 0).colour
    by_bits = [psnr(image_of(bake(field, bits=bits), cameras, 0), teacher) for bits in (3, 5, 8)]
    by_levels = [psnr(image_of(bake(field, levels=levels), cameras, 0), teacher) for levels in (1, 2, 3)]
    assert by_bits == sorted(by_bits)
    assert by_levels == sorted(by_levels)
    assert bake(field, levels=1).bytes < bake(field, levels=2).bytes < bake(field, levels=3).bytes


def test_pruning_keeps_every_row_that_is_looked_up(field: SHGrid, cameras) -> None:
    """Zeroing the rows that baking drops changes nothing in the teacher's own picture."""
    baked = bake(field)
    kept = torch.from_numpy(np.unpackbits(baked.kept, count=len(field.table)).astype(bool))
    assert 0 < kept.sum() < len(kept)
    before = render_view(field, cameras, 0).colour
    full = field.table.data.clone()
    try:
        field.table.data[~kept] = 0
        torch.testing.assert_close(render_view(field, cameras, 0).colour, before, atol=1e-6, rtol=0)
    finally:
        field.table.data.copy_(full)


def test_region_cuts_what_lies_outside(field: SHGrid) -> None:
    corner = Bounds(centre=torch.tensor([0.5, 0.0, 0.0]), half_size=torch.tensor([0.5, 2.0, 2.0]))
    half = bake(field, region=corner)
    assert 0.3 < len(half.values) / len(bake(field).values) < 0.8


@given(st.integers(2, 8), st.integers(0, 2**16))
def test_quantization_error_is_at_most_half_a_step_unless_clipped(bits: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(50, 13)).astype(np.float32)
    scale, quantized = quantized_rows(rows, bits=bits)
    top = 2 ** (bits - 1) - 1
    assert np.abs(quantized).max() <= top
    unclipped = np.abs(quantized) < top
    error = np.abs(quantized * scale - rows)
    assert (error[unclipped] <= np.broadcast_to(scale, rows.shape)[unclipped] * 0.5001).all()


def test_file_round_trip_gives_the_same_picture(field: SHGrid, cameras, tmp_path: Path) -> None:
    baked = bake(field)
    again = BakedField.load(baked.save(tmp_path / "field.safetensors"))
    assert torch.equal(image_of(again, cameras, 0), image_of(baked, cameras, 0))
    assert again.bytes == baked.bytes


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_file_is_refused(field: SHGrid, tmp_path: Path, keep: int) -> None:
    path = bake(field).save(tmp_path / "field.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BakedFieldError, match=r"field\.safetensors.*fetch"):
        BakedField.load(path)


def test_inconsistent_file_is_refused(field: SHGrid, tmp_path: Path) -> None:
    path = replace(bake(field), steps=0).save(tmp_path / "field.safetensors")
    with pytest.raises(BakedFieldError, match="steps 0"):
        BakedField.load(path)
    path = replace(bake(field), resolutions=(8, 16, -1)).save(tmp_path / "field.safetensors")
    with pytest.raises(BakedFieldError, match=r"resolutions \(8, 16, -1\)"):
        BakedField.load(path)
    path = replace(bake(field), values=np.zeros((3, 13), np.int8)).save(tmp_path / "field.safetensors")
    with pytest.raises(BakedFieldError, match="3 are stored"):
        BakedField.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("centre", np.zeros(1, np.float32)),
        ("half_size", np.zeros(3, np.float32)),
        ("background", np.zeros(3, np.uint8)),
        ("far", 1e300),
        ("near", float("nan")),
    ],
)
def test_an_impossible_box_or_ray_is_refused(field: SHGrid, tmp_path: Path, name: str, value) -> None:
    """Kernels index memory by what these give."""
    path = replace(bake(field), **{name: value}).save(tmp_path / "field.safetensors")
    with pytest.raises(BakedFieldError, match=name.replace("_", ".")):
        BakedField.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("camera_to_world", np.full((3, 4), np.nan)), ("focal", (0.0, 50.0)), ("centre", (np.inf, 1.0)), ("width", 0)],
)
def test_an_impossible_camera_is_refused(field: SHGrid, name: str, value) -> None:
    view: dict[str, Any] = {"camera_to_world": np.eye(4)[:3], "focal": (50.0, 50.0), "centre": (20.0, 16.0)}
    view |= {"width": 40, "height": 32, name: value}
    with pytest.raises(ValueError, match=r"camera_to_world must|no camera has"):
        bake(field).render_image(**view)


@pytest.mark.parametrize(("argument", "value"), [("bits", 1), ("bits", 9), ("levels", 4)])
def test_impossible_bakes_are_refused(field: SHGrid, argument: str, value: int) -> None:
    options: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=argument):
        bake(field, **options)


def test_bake_says_what_it_did(field: SHGrid, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "crowdnerf_lab"):
        bake(field)
    assert "8 bits" in caplog.text


@pytest.mark.row("S28")
def test_a_ue_renders_without_torch(field: SHGrid, tmp_path: Path) -> None:
    path = bake(field).save(tmp_path / "field.safetensors")
    script = f"""
import sys
for absent in ("torch", "pydantic", "scipy", "jaxtyping", "safetensors", "onnxruntime"):
    sys.modules[absent] = None
sys.path[:0] = {sys.path!r}
import numpy as np
from crowdnerf_lab.fields.baked import BakedField
pose = np.array([[0.0, 0, 1, -2.5], [-1, 0, 0, 0], [0, -1, 0, 0]])
image = BakedField.load({str(path)!r}).render_image(pose, (50, 50), centre=(20, 16), width=40, height=32)
assert image.opacity[16, 20] > 0.5 and image.opacity[0, 0] < 1e-6, image.opacity
assert 1.0 < image.depth[16, 20] < 2.5, image.depth[16, 20]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
