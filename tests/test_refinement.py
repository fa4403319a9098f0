"""refine: a trained field takes up new photos, keeps what it knows, and is deterministic in steps."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from crowdnerf_lab.cameras import project
from crowdnerf_lab.fields import occupancy
from crowdnerf_lab.fields.occupancy import OccupancySettings
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.fields.storage import Field, sh_grid_of
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.pixels import pixel_table
from crowdnerf_lab.refinement import APPEARANCE_FILE, Learned, appearance_of, refinement_settings
from crowdnerf_lab.refinement import refine as refine_on_any_threads
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, TrainingError
from crowdnerf_lab.weights import WeightsError
from tests.test_training import SMALL, fit, state_of, striped_ball

refine = partial(refine_on_any_threads, threads=1, progress=False)
GAINS = (1.0, 0.7, 1.3)


@pytest.fixture(scope="module")
def ball() -> PosedScene:
    return striped_ball(gains=GAINS)


def early(ball: PosedScene) -> PosedScene:
    """The scene while only the photos of one side are there."""
    return ball.with_split(ball.train.tolist()[:5], ball.held_out.tolist())


@pytest.fixture(scope="module")
def begun(ball: PosedScene) -> Fit:
    return fit(early(ball), steps=250, settings=SMALL)


@pytest.fixture(scope="module")
def learned(ball: PosedScene, begun: Fit) -> Learned:
    return Learned.of(begun, early(ball))


def small_refinement() -> FitSettings:
    return replace(SMALL, rate=0.02, pyramid=((0.0, 1),), stages=(replace(SMALL.stages[-1], from_step=0),))


def table_of(field: Field) -> torch.Tensor:
    return sh_grid_of(field, "the test").table


def psnr_of(model: Field, scene: PosedScene) -> float:
    shown = [render_view(sh_grid_of(model, scene.name), scene.cameras, row).colour for row in scene.held_out.tolist()]
    truth = [scene.image(row) for row in scene.held_out.tolist()]
    return psnr(torch.stack(shown), torch.stack(truth))


@pytest.mark.row("S40", "S61")
def test_new_photos_improve_a_field_in_a_fraction_of_the_steps(ball: PosedScene, learned: Learned) -> None:
    result = refine(learned, ball, steps=60, settings=small_refinement())
    assert psnr_of(result.model, ball) > psnr_of(learned.field, ball) + 1


def test_the_same_steps_give_the_same_bits_and_leave_the_start_as_it_was(ball: PosedScene, learned: Learned) -> None:
    before = state_of(sh_grid_of(learned.field, "the test"))
    one, other = (refine(learned, ball, steps=10, settings=small_refinement()) for _ in range(2))
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in learned.field.state_dict().items())
    assert not torch.equal(table_of(one.model), table_of(learned.field))


def test_what_was_learned_is_found_again_on_disk(ball: PosedScene, learned: Learned, tmp_path: Path) -> None:
    again = Learned.load(learned.save(tmp_path))
    one, other = (refine(start, ball, steps=5, settings=small_refinement()) for start in (learned, again))
    assert torch.equal(table_of(one.model), table_of(other.model))
    assert (again.captures, again.photos, again.trained_on, again.ues) == (
        learned.captures,
        learned.photos,
        learned.trained_on,
        learned.ues,
    )
    (tmp_path / APPEARANCE_FILE).write_bytes(b"cut")
    with pytest.raises(WeightsError, match=APPEARANCE_FILE):
        Learned.load(tmp_path)


def test_a_checkpoint_of_another_start_is_refused(ball: PosedScene, learned: Learned, tmp_path: Path) -> None:
    file = tmp_path / "fit.safetensors"
    refine(learned, ball, steps=4, settings=small_refinement(), checkpoint=file)
    refine(learned, ball, steps=4, settings=small_refinement(), checkpoint=file)
    with pytest.raises(TrainingError, match="checkpoint"):
        refine(learned.field, ball, steps=4, settings=small_refinement(), checkpoint=file)


def test_phones_keep_what_was_learned_of_them_wherever_they_stand_now(ball: PosedScene, learned: Learned) -> None:
    mixed = replace(
        ball, captures=("new", "ue2", "ue1", "ue0"), capture_of_image=torch.tensor([3, 2, 1])[torch.arange(12) % 3]
    )
    before, now = learned.appearance, appearance_of(learned, mixed)
    assert before is not None
    assert now is not None
    colour, radius = torch.rand(12, 3), torch.rand(12)
    photos = torch.arange(12)
    assert torch.allclose(now(colour, photos, radius), before(colour, photos, radius), atol=1e-6)
    assert torch.allclose(now.log_gain.mean(0), torch.zeros(3), atol=1e-6)


def test_new_photos_are_drawn_as_often_as_is_said(ball: PosedScene) -> None:
    pixels = pixel_table(ball)
    often = torch.ones(len(ball))
    often[[1, 5]] = 9.0
    generator = np.random.default_rng(0)
    drawn = pixels.photo[pixels.drawn(200_000, generator=generator, often=often)]
    share = torch.bincount(drawn, minlength=12)[ball.train].double() / 200_000
    expected = often[ball.train].double() / often[ball.train].sum()
    assert torch.allclose(share, expected, atol=5e-3)
    never = torch.zeros(len(ball))
    never[7] = 1.0
    alone = pixels.drawn(5000, generator=generator, often=never)
    assert set(pixels.photo[alone].tolist()) == {7}
    assert len(torch.unique(alone)) > 500


def test_a_witness_has_the_point_in_its_picture(ball: PosedScene) -> None:
    cameras = replace(ball.cameras, distortion=torch.tensor([0.1, -0.02, 0.004, -0.003]).expand(len(ball), 4))
    points = (torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 12
    expected = torch.zeros(len(points), dtype=torch.int32)
    for index in range(len(cameras)):
        pixels, depth = project(cameras[torch.full((len(points),), index)], points)
        size = torch.stack([cameras.width[index], cameras.height[index]])
        expected += (depth > 0.5) & ((pixels >= 0) & (pixels < size)).all(dim=-1)
    counted = occupancy.witnesses(cameras, points, near=0.5)
    assert int(expected.max()) > 1
    assert (counted != expected).float().mean() < 2e-3


def test_space_that_only_new_photos_see_is_opened_and_the_rest_stays_as_it_was(ball: PosedScene) -> None:
    settings = OccupancySettings(witnesses=0.01)
    grid = SHGrid(ball.bounds, shape=SHGridShape(resolutions=(8, 16), log2_rows=10, occupancy_cells=16, steps=48))
    occupancy.keep_to_view(grid, ball.cameras[:2], settings)
    seen = grid.in_view.clone()
    grid.density_of_cell.zero_()
    grid.occupied.zero_()
    occupancy.keep_to_view(grid, ball.cameras, settings)
    opened = grid.in_view & ~seen
    assert bool(opened.any())
    assert bool((grid.density_of_cell[opened] == 1).all())
    assert bool(grid.occupied[opened].all())
    assert not bool(grid.occupied[seen].any())


def test_nonsense_is_refused(ball: PosedScene, learned: Learned) -> None:
    with pytest.raises(ValueError, match="new_share"):
        refine(learned, ball, steps=1, new_share=1.0)
    with pytest.raises(ValueError, match="not trained on"):
        refine(learned, ball, steps=1, new=[int(ball.held_out[0])])


def test_settings_of_refinement_have_all_levels_from_the_first_step_on() -> None:
    settings = refinement_settings()
    assert settings.stages[0].from_step == 0
    assert max(stage.levels for stage in settings.stages) == settings.stages[0].levels
