"""Questions to a student: the pixel asked is the one rendered, and hard windows are drawn fairly."""

import numpy as np
import pytest
import torch

from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.pseudo_rays import HARDEST, HardWindows, Questions, answers, ask_cells, ask_windows, trust_in_windows
from crowdnerf_lab.pseudo_views import PseudoViews, random_offsets, windows_of
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.uncertainty import EvidenceSettings, gather_evidence
from tests.toy_field import toy_scene


@pytest.fixture(scope="module")
def scene() -> PosedScene:
    return toy_scene()


def views_of(student: RayMLP, scene: PosedScene, step: int) -> PseudoViews:
    """What a student that is its own teacher shows."""
    windows = windows_of(scene.cameras, 16, seed=0)
    whole = (student(windows, 16, 16).detach() * 255).round().to(torch.uint8).numpy()
    offsets = random_offsets(windows, step, seed=1)
    u, v = offsets[..., 0], offsets[..., 1]
    rows, columns = np.indices(u.shape[1:])
    return PseudoViews(
        windows, step, offsets, whole[np.arange(len(whole))[:, None, None], step * rows + v, step * columns + u]
    )


@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("cell", "upsampling"), [(1, "pixel_shuffle"), (4, "pixel_shuffle"), (8, "pixel_shuffle"), (8, "conv_transpose")]
)
def test_a_pixel_asked_is_the_one_the_teacher_rendered(
    scene: PosedScene, step: int, cell: int, upsampling: str
) -> None:
    """A student that is its own teacher sees no error, whichever pixels are drawn."""
    student = RayMLP(planes_across(scene.cameras, scene.bounds), "XS", cell=cell, upsampling=upsampling).eval()
    views = views_of(student, scene, step)
    drawn, weight = np.arange(40) % len(views), np.ones(40)
    asked: list[Questions] = [ask_windows(views, drawn, weight, cell=cell)]
    if student.cells_are_independent:
        asked.append(ask_cells(views, drawn, weight, cell=cell, seed=[2, 0]))
    for questions in asked:
        shown = answers(student, questions)
        assert shown.shape == questions.colour.shape
        torch.testing.assert_close(shown, questions.colour, atol=0.6 / 255, rtol=0)
        assert questions.colour.std() > 0.002


def test_steps_are_the_whole_in_order(scene: PosedScene) -> None:
    student = RayMLP(planes_across(scene.cameras, scene.bounds), "XS")
    questions = ask_cells(views_of(student, scene, 2), np.arange(12).repeat(2), np.ones(24), cell=8, seed=[0, 0])
    steps = list(questions.in_steps(10))
    assert [len(step) for step in steps] == [10, 10, 4]
    assert torch.equal(torch.cat([step.pixels for step in steps]), questions.pixels)


def test_even_draws_need_no_weights() -> None:
    for hard in (HardWindows(50, 0.0), HardWindows(50, 0.5)):
        window, weight = hard.draw(2000, seed=[0, 1])
        assert weight.tolist() == [1.0] * 2000
        assert len(np.unique(window)) == 50


def test_hard_windows_are_drawn_more_often_and_weigh_less_by_as_much() -> None:
    hard = HardWindows(100, 0.5)
    error = torch.linspace(0, 0.02, 100)
    hard.learn(torch.arange(100), error)
    window, weight = hard.draw(200_000, seed=[0, 1])
    drawn = np.bincount(window, minlength=100) / len(window)
    assert drawn[90:].sum() > 1.3 * drawn[:10].sum()
    assert weight.max() <= 2 + 1e-6
    seen = np.bincount(window, weights=weight, minlength=100) / len(window)
    np.testing.assert_allclose(seen, np.full(100, 0.01), rtol=0.1)


def test_rays_that_cannot_be_learned_do_not_take_all_draws() -> None:
    hard = HardWindows(100, 1.0)
    error = torch.full((100,), 1e-3)
    error[7] = 1.0
    hard.learn(torch.arange(100), error)
    window, _ = hard.draw(20_000, seed=[0, 1])
    limit = HARDEST * float(error.mean())
    assert (window == 7).mean() == pytest.approx(limit / (limit + 99e-3), rel=0.1)


def test_what_is_known_of_a_window_follows_its_latest_errors() -> None:
    hard = HardWindows(3, 0.5)
    hard.learn(torch.tensor([1]), torch.tensor([0.4]))
    assert hard.error[1] == pytest.approx(0.4)
    for _ in range(20):
        hard.learn(torch.tensor([1]), torch.tensor([0.1]))
    assert hard.error[1] == pytest.approx(0.1, abs=1e-3)
    assert hard.error[[0, 2]].isnan().all()


def test_what_the_teacher_doubts_weighs_less(scene: PosedScene) -> None:
    """A field that was asked by half of the photos only is trusted where they look, not where no photo looked."""
    teacher = SHGrid(scene.bounds, shape=SHGridShape(resolutions=(8, 16), log2_rows=12, occupancy_cells=16))
    told = scene.with_split(scene.train[:4].tolist(), [])
    evidence = gather_evidence(teacher, told, settings=EvidenceSettings(cells=16, rays=4000, prior_error=2.0))
    windows = windows_of(scene.cameras, 16, seed=0)
    trust = trust_in_windows(teacher, evidence, windows)
    assert trust.mean() == pytest.approx(1, abs=1e-5)
    assert (trust > 0).all()
    assert trust[:4].mean() > trust[8:].mean()


def test_trust_weighs_even_and_uneven_draws() -> None:
    trust = torch.linspace(0.5, 1.5, 100)
    for share in (0.0, 0.5):
        hard = HardWindows(100, share, trust=trust)
        hard.learn(torch.arange(100), torch.linspace(0, 0.02, 100))
        window, weight = hard.draw(200_000, seed=[0, 1])
        seen = np.bincount(window, weights=weight, minlength=100) / len(window)
        np.testing.assert_allclose(seen, trust.numpy() / 100, rtol=0.15)
