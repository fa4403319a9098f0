"""Baking by importance: what matters stays, what nobody sees goes, and sizes are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.cameras import Cameras, look_at, pinhole
from crowdnerf_lab.catalogue.delta import packed_delta
from crowdnerf_lab.coding.baked_stream import coded_baked
from crowdnerf_lab.coding.entropy import bits_of
from crowdnerf_lab.coding.row_statistics import colour_before, column_order, contexts_of
from crowdnerf_lab.devices.profile import device_profile
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import TIERS, bake, bytes_for, levels_for, view_cell
from crowdnerf_lab.fields.importance import Importance, ImportanceSettings, importance_of
from crowdnerf_lab.fields.rate_distortion import Before, QuantizedLevel, quantize_level
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import Bounds

FEW = ImportanceSettings(poses=24, batches=12, rays=2048)


@pytest.fixture(scope="module")
def field() -> SHGrid:
    """An opaque ball of random colours in empty space; finer levels hold less."""
    generator = torch.Generator().manual_seed(0)
    shape = SHGridShape(resolutions=(8, 16, 32), log2_rows=12, occupancy_cells=32, steps=96)
    grid = SHGrid(Bounds(centre=torch.zeros(3), half_size=torch.full((3,), 2.0)), shape=shape)
    spread = torch.tensor([1.0, 0.5, 0.25]).repeat_interleave(grid.rows)[:, None]
    grid.table.data[:, :13] = spread * torch.randn(len(grid.table), 13, generator=generator)
    grid.table.data[:, 0] += 1.5
    side = (torch.arange(32) + 0.5) / 32
    unit = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1)
    inside = ((unit - 0.5).norm(dim=-1) < 0.13).float()
    grid.density_of_cell.copy_(inside * 80)
    grid.occupied.copy_(inside > 0)
    return grid


def eyes(*azimuths: float) -> Cameras:
    """Cameras around the ball."""
    angle = torch.tensor(azimuths, dtype=torch.float32)
    eye = torch.stack([2.6 * angle.cos(), 2.6 * angle.sin(), torch.full_like(angle, 0.4)], dim=-1)
    return pinhole(look_at(eye, torch.zeros_like(eye)), torch.full((len(eye),), 50.0), width=40, height=32)


ALL_AROUND = tuple(np.linspace(0, 2 * np.pi, 12, endpoint=False))


@pytest.fixture(scope="module")
def importance(field: SHGrid) -> Importance:
    return importance_of(field, eyes(*ALL_AROUND), settings=FEW)


def loss(baked: BakedField, field: SHGrid, cameras: Cameras) -> float:
    """PSNR to the teacher's pictures, dB."""
    pictures, teacher = [], []
    for i in range(len(cameras)):
        focal, centre = (tuple(part[i].tolist()) for part in (cameras.focal, cameras.centre))
        image = baked.render_image(
            cameras.camera_to_world[i].numpy(), focal, centre=centre, width=40, height=32, threads=1
        )
        pictures.append(torch.from_numpy(image.colour))
        teacher.append(render_view(field, cameras, i).colour)
    return psnr(torch.stack(pictures), torch.stack(teacher))


def test_importance_predicts_what_a_change_does_to_the_pictures(field: SHGrid) -> None:
    cameras = eyes(0.3)
    found = importance_of(field, cameras, settings=replace(FEW, batches=30, rays=1024))
    before = render_view(field, cameras).colour
    generator = np.random.default_rng(0)
    change = torch.zeros_like(field.table)
    change[:, :13] = torch.from_numpy(0.01 * generator.choice([-1.0, 1.0], (len(change), 13)).astype(np.float32))
    try:
        field.table.data += change
        changed = render_view(field, cameras).colour
    finally:
        field.table.data -= change
    measured = float(((changed - before) ** 2).sum(-1).mean())
    predicted = float((found.of_rows * change[:, :13].numpy() ** 2).sum() / found.pixels)
    assert predicted == pytest.approx(measured, rel=0.3)


def test_importance_is_the_same_for_a_seed_and_nothing_where_nobody_looks(field: SHGrid) -> None:
    one, same, other = (importance_of(field, eyes(0.0), seed=seed, settings=FEW) for seed in (1, 1, 2))
    assert np.array_equal(one.of_rows, same.of_rows)
    assert np.array_equal(one.of_cells, same.of_cells)
    assert not np.array_equal(one.of_rows, other.of_rows)
    away = look_at(torch.tensor([[3.0, 0, 0]]), torch.tensor([[9.0, 0, 0]]))
    unseen = importance_of(field, pinhole(away, torch.tensor([50.0]), width=40, height=32), settings=FEW)
    assert not unseen.of_rows.any()
    assert not unseen.of_cells.any()


def test_cells_get_the_weight_of_their_samples_and_of_their_steps(importance: Importance, field: SHGrid) -> None:
    """Each weight counts once for its own cell and once for that of its step's middle, which is occupied too."""
    assert 0 < importance.of_cells.sum() <= 2 * importance.pixels
    assert not importance.of_cells[~field.occupied.numpy()].any()


def test_dropping_cells_of_no_weight_opens_no_hole() -> None:
    """Steps are skipped where their middle is empty, so the thin air around a wall is needed for the wall to be met."""
    shape = SHGridShape(resolutions=(32,), log2_rows=16, occupancy_cells=32, steps=10)
    field = SHGrid(Bounds(centre=torch.zeros(3), half_size=torch.full((3,), 2.0)), shape=shape)
    depth = (torch.arange(33**3) // 33**2 - 16).abs()
    field.table.data[: 33**3, 0] = torch.where(depth <= 1, 6.0, -9.0)
    field.table.data[: 33**3, 1] = 3.0
    away = (torch.arange(32) - 15.5).abs()[:, None, None].expand(32, 32, 32)
    field.occupied.copy_(away < 7)
    field.density_of_cell.copy_(torch.where(away < 2, 80.0, 1.0))
    cameras = eyes(0.0, 0.3, -0.3)
    found = importance_of(field, cameras, settings=replace(FEW, margin=0.0, angle=0.0))
    before = torch.stack([render_view(field, cameras, i).colour for i in range(3)])
    all_cells = int(field.occupied.sum())
    field.occupied &= torch.from_numpy(found.of_cells > 1e-7 * found.pixels)
    after = torch.stack([render_view(field, cameras, i).colour for i in range(3)])
    assert int(field.occupied.sum()) < 0.7 * all_cells
    assert psnr(after, before) > 30


@given(seed=st.integers(0, 999), numbers=st.sampled_from([4, 13]), multiplier=st.floats(1e-4, 1.0))
@settings(max_examples=10, deadline=None)
def test_quantized_rows_cost_no_more_than_rounded_ones(seed: int, numbers: int, multiplier: float) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.laplace(0, 1, (300, numbers)).astype(np.float32)
    weight = generator.exponential(1, (300, numbers)).astype(np.float32)
    fine = quantize_level(rows, weight, multiplier=1e-9, top=127)
    step = np.abs(rows).max(0) / 127
    rounded = float((weight * (np.rint(rows / step) * step - rows) ** 2).sum())
    assert float((weight * (fine.values * fine.scale - rows) ** 2).sum()) <= 1.001 * rounded
    coarse = quantize_level(rows, weight, multiplier=multiplier, top=127)
    actual = float((weight * (coarse.values * coarse.scale - rows) ** 2).sum())
    assert actual <= coarse.distortion * 1.001
    assert coarse.bits < fine.bits
    assert coarse.distortion + multiplier * coarse.bits <= fine.distortion + multiplier * fine.bits


@pytest.mark.parametrize("numbers", [4, 13])
def test_bits_are_those_that_the_coder_takes(numbers: int) -> None:
    generator = np.random.default_rng(0)
    shared = generator.laplace(0, 1, (4000, 1))
    rows = (shared + generator.laplace(0, 0.5, (4000, numbers))).astype(np.float32)
    found = quantize_level(rows, np.ones_like(rows), multiplier=0.05, top=127)
    kept = found.values.any(1)
    values = found.values[kept][:, column_order(numbers)]
    bits = bits_of(kept.astype(np.int32))
    for k, colour in enumerate(colour_before(numbers)):
        contexts = contexts_of(values[:, :k], None if colour < 0 else values[:, colour])
        bits += bits_of(values[:, k].astype(np.int32), contexts=contexts)
    assert found.bits == pytest.approx(bits, rel=0.1)


@pytest.mark.row("S40", "S50")
@given(seed=st.integers(0, 999), numbers=st.sampled_from([4, 13]))
@settings(max_examples=8, deadline=None)
def test_rows_that_follow_a_version_move_where_it_pays(seed: int, numbers: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.laplace(0, 1, (500, numbers)).astype(np.float32)
    weight = generator.exponential(1, rows.shape).astype(np.float32)
    later = rows + generator.normal(0, 0.3, rows.shape).astype(np.float32)
    later[:50] *= 3
    old = quantize_level(rows, weight, multiplier=0.03, top=127)
    before = Before(old.values, old.values.any(1), old.scale)
    new, alone = (quantize_level(later, weight, multiplier=0.03, top=127, after=after) for after in (before, None))
    same = quantize_level(rows, weight, multiplier=0.03, top=127, after=before)
    assert np.array_equal(new.scale, old.scale)
    assert (same.values != old.values).mean() < 0.02
    assert (new.values != old.values).mean() < 0.7 * (alone.values != old.values).mean()
    assert (new.values[:50] != old.values[:50]).mean() > 2 * (new.values[50:] != old.values[50:]).mean()

    def lost(found: QuantizedLevel) -> float:
        return float((weight * (found.values * found.scale - later) ** 2).sum())

    assert lost(new) < 0.8 * lost(old)


def test_a_field_that_follows_itself_stays_as_it_is(field: SHGrid, importance: Importance) -> None:
    old = bake(field, importance=importance)
    again = bake(field, importance=importance, after=old)
    assert np.array_equal(again.scales, old.scales)
    delta = packed_delta(coded_baked(old), coded_baked(again))
    assert delta is not None
    assert len(delta) < 0.2 * len(coded_baked(again))


def test_a_field_of_other_sizes_is_not_followed(
    field: SHGrid, importance: Importance, caplog: pytest.LogCaptureFixture
) -> None:
    old = bake(field, importance=importance, max_bytes=3000, levels=1)
    alone = bake(field, importance=importance, max_bytes=3000)
    followed = bake(field, importance=importance, max_bytes=3000, after=old)
    assert "not followed" in caplog.text
    assert coded_baked(followed) == coded_baked(alone)


def test_rows_without_importance_are_dropped() -> None:
    generator = np.random.default_rng(0)
    rows, weight = generator.normal(size=(100, 13)).astype(np.float32), np.ones((100, 13), np.float32)
    weight[40:] = 0
    values = quantize_level(rows, weight, multiplier=1e-4, top=31).values
    assert values[:40].any(1).all()
    assert not values[40:].any()
    assert np.abs(values).max() <= 31


@pytest.mark.row("S43", "S50")
def test_every_size_is_kept_and_more_bytes_look_better(field: SHGrid, importance: Importance) -> None:
    quality = []
    for max_bytes in (2200, 3000, 4500):
        baked = bake(field, importance=importance, max_bytes=max_bytes)
        assert 0.8 * max_bytes < len(coded_baked(baked)) <= max_bytes
        quality.append(loss(baked, field, eyes(0.2, 2.0, 4.0)))
    assert quality == sorted(quality)
    assert quality[-1] > 30
    full = bake(field, importance=importance)
    assert loss(full, field, eyes(0.2, 2.0, 4.0)) > 38


def test_importance_beats_fewer_bits(field: SHGrid, importance: Importance) -> None:
    crude = bake(field, bits=4)
    baked = bake(field, importance=importance, max_bytes=len(coded_baked(crude)))
    assert loss(baked, field, eyes(1.0, 3.0)) > loss(crude, field, eyes(1.0, 3.0)) + 1


@pytest.mark.row("S48")
def test_a_view_cell_spends_its_bytes_on_what_its_seats_see(field: SHGrid, importance: Importance) -> None:
    crowd = eyes(*ALL_AROUND)
    block = view_cell(crowd, torch.tensor([2.6, 0.0, 0.0]), radius=1.5)
    assert 1 < len(block) < len(crowd)
    cell = bake(field, importance=importance_of(field, block, settings=FEW), max_bytes=2500)
    whole = bake(field, importance=importance, max_bytes=2500)
    here, opposite = eyes(0.1), eyes(0.1 + np.pi)
    assert loss(cell, field, here) > loss(whole, field, here) + 1
    assert loss(cell, field, opposite) < loss(whole, field, opposite)


def test_fields_of_degree_zero_hold_four_numbers_a_row(field: SHGrid, importance: Importance) -> None:
    plain = bake(field, sh_degree=0)
    assert plain.values.shape[1] == 4
    assert plain.sh_degree == 0
    assert np.array_equal(plain.values, bake(field).values[:, [0, 1, 5, 9]])
    small = bake(field, importance=importance, max_bytes=3000, sh_degree=0)
    assert small.sh_degree == 0
    assert len(coded_baked(small)) <= 3000


def test_profiles_ask_for_what_their_link_and_memory_take(field: SHGrid, importance: Importance) -> None:
    profile = device_profile("laptop_cpu")
    assert bytes_for(profile.model_copy(update={"link_mbit_s": 1.0})) == 1_000_000
    assert bytes_for(profile.model_copy(update={"memory_mb": 16.0})) <= 100_000
    slow = profile.model_copy(update={"link_mbit_s": 0.003})
    assert len(coded_baked(bake(field, slow, importance=importance))) <= 3000
    back_row = pinhole(
        look_at(torch.tensor([[30.0, 0, 1]]), torch.zeros(1, 3)), torch.tensor([50.0]), width=40, height=32
    )
    tiny = profile.model_copy(update={"view_width": 16, "view_height": 16})
    assert levels_for(profile, field, eyes(0.0)) == 3
    assert levels_for(tiny, field, back_row) == 1


def test_impossible_sizes_say_why(field: SHGrid, importance: Importance) -> None:
    with pytest.raises(ValueError, match="cameras"):
        bake(field, max_bytes=1000)
    with pytest.raises(ValueError, match="the smallest takes"):
        bake(field, importance=importance, max_bytes=50)
    with pytest.raises(ValueError, match="max_bytes"):
        bake(field, importance=importance, max_bytes=0)
    with pytest.raises(ValueError, match="sh_degree"):
        bake(field, sh_degree=2)
    with pytest.raises(ValueError, match="no camera lies within"):
        view_cell(eyes(0.0), torch.tensor([90.0, 0, 0]), radius=2.0)


def test_tiers_grow() -> None:
    sizes = [tier.max_bytes for tier in TIERS]
    assert sizes[-1] is None
    assert sizes[:-1] == sorted(filter(None, sizes))
