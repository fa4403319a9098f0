"""Distillation on a field in closed form: the student learns, and budgets, crashes and nonsense are handled."""

import logging
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab import distillation
from crowdnerf_lab.distillation import DistillationError, DistilSettings, distil
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.light_fields.planes import planes_across, planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene, SceneError
from crowdnerf_lab.uncertainty import DIRECTIONS, Evidence, EvidenceSettings, gather_evidence
from tests.toy_field import ToyField, toy_scene

SIZE = {"size": "XS", "width": 48, "height": 40, "progress": False}
SMALL = DistilSettings(window=16, rays_per_step=64)


@pytest.fixture(scope="module")
def scene() -> PosedScene:
    return toy_scene()


def weights(student: RayMLP) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in student.parameters()])


@pytest.mark.row("S9", "S25")
@pytest.mark.parametrize(("upsampling", "cell"), [("pixel_shuffle", 8), ("conv_transpose", 8), ("pixel_shuffle", 1)])
def test_a_student_learns_its_teacher(scene: PosedScene, upsampling: str, cell: int) -> None:
    settings = DistilSettings(window=16, rays_per_step=128 if cell == 8 else 512)
    planes = planes_across(scene.cameras[scene.train], scene.bounds)
    student = RayMLP(planes, "XS", cell=cell, upsampling=upsampling, view_size=(48, 40))
    untouched = weights(student).clone()
    result = distil(ToyField(), scene, student=student, steps=120, views=24, settings=settings, **SIZE)
    assert torch.equal(weights(student), untouched)
    assert result.student.architecture == student.architecture
    cameras, field = scene.cameras[scene.held_out], ToyField()
    truths = torch.stack([render_view(field, cameras, i).colour for i in range(len(cameras))])
    with torch.no_grad():
        distilled = psnr(result.student(cameras, 40, 48), truths)
        untrained = psnr(student(cameras, 40, 48), truths)
    constant = psnr(truths.mean((0, 1, 2)).expand_as(truths), truths)
    assert distilled > max(untrained, constant) + 2
    assert result.history[-1].held_out_psnr == pytest.approx(distilled, abs=2)
    assert not result.interrupted


def test_the_same_seed_gives_the_same_bits_and_another_does_not(scene: PosedScene) -> None:
    first, second = (distil(ToyField(), scene, steps=6, views=3, settings=SMALL, seed=5, **SIZE) for _ in range(2))
    assert torch.equal(weights(first.student), weights(second.student))
    other = distil(ToyField(), scene, steps=6, views=3, settings=SMALL, seed=6, **SIZE)
    assert not torch.equal(weights(first.student), weights(other.student))


def test_the_global_generator_is_left_alone(scene: PosedScene) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    distil(ToyField(), scene, steps=1, views=1, settings=SMALL, **SIZE)
    assert torch.equal(torch.rand(3), expected)


def test_a_seconds_budget_is_kept(scene: PosedScene) -> None:
    result = distil(ToyField(), scene, seconds=0.3, views=2, settings=SMALL, **SIZE)
    assert 0.3 <= result.history[-1].seconds < 1.5
    assert result.history[-1].step > 1
    assert [record.step for record in result.history] == sorted({record.step for record in result.history})


KILLED = """
import sys
from pathlib import Path
import os, torch
torch.set_num_threads(1)
from crowdnerf_lab import distillation
from tests.test_distillation import SIZE, SMALL
from tests.toy_field import ToyField, toy_scene
train_step = distillation._train_step
def dying(state, *args):
    if state.step == 17:
        os.kill(os.getpid(), 9)
    train_step(state, *args)
distillation._train_step = dying
root = Path(sys.argv[1])
where = {"workspace": root, "checkpoint": root / "c"}
distillation.distil(ToyField(), toy_scene(), steps=24, views=2, settings=SMALL, **where, **SIZE)
"""


def test_after_kill_9_it_resumes_to_the_same_bits(scene: PosedScene, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "c").exists()
    arguments = {"steps": 24, "views": 2, "settings": SMALL, **SIZE}
    resumed = distil(ToyField(), scene, workspace=tmp_path, checkpoint=tmp_path / "c", **arguments)
    whole = distil(ToyField(), scene, **arguments)
    assert torch.equal(weights(resumed.student), weights(whole.student))
    assert [record.step for record in resumed.history] == [record.step for record in whole.history]


def test_without_averaging_a_checkpoint_goes_on_too(scene: PosedScene, tmp_path: Path) -> None:
    settings = replace(SMALL, averaging=0.0)
    arguments = {"views": 2, "settings": settings, "checkpoint": tmp_path / "c", **SIZE}
    distil(ToyField(), scene, steps=12, **arguments)
    longer = distil(ToyField(), scene, steps=24, **arguments)
    assert [record.step for record in longer.history][:12] == list(range(1, 13))
    assert longer.history[-1].step == 24


def test_a_checkpoint_of_something_else_is_refused(scene: PosedScene, tmp_path: Path) -> None:
    arguments = {"views": 2, "settings": SMALL, "checkpoint": tmp_path / "c", **SIZE}
    distil(ToyField(), scene, steps=2, **arguments)
    with pytest.raises(DistillationError, match=r"checkpoint .*c belongs to another teacher"):
        distil(ToyField(), scene, steps=2, seed=9, **arguments)


def test_ctrl_c_returns_what_is_there(scene: PosedScene, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = distillation._train_step

    def interrupted_at_five(state: distillation.DistillationState, *rest: object) -> None:
        if state.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        train_step(state, *rest)

    monkeypatch.setattr(distillation, "_train_step", interrupted_at_five)
    result = distil(ToyField(), scene, steps=1000, views=2, settings=SMALL, **SIZE)
    assert result.interrupted
    assert result.history[-1].step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_outside_the_main_thread(scene: PosedScene) -> None:
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(distil, ToyField(), scene, steps=2, views=1, settings=SMALL, **SIZE).result()
    assert result.history[-1].step == 2


def test_a_loss_that_is_not_finite_stops_it(scene: PosedScene) -> None:
    with pytest.raises(DistillationError, match=r"the loss became nan at step \d+; lower DistilSettings.rate"):
        distil(ToyField(), scene, steps=24, views=1, settings=replace(SMALL, rate=math.inf, warm_steps=1), **SIZE)


def test_a_scene_with_poses_that_are_none_is_refused(scene: PosedScene) -> None:
    poses = scene.cameras.camera_to_world.clone()
    poses[3, 0, 0] = math.nan
    broken = replace(scene, cameras=replace(scene.cameras, camera_to_world=poses))
    with pytest.raises(SceneError, match=r"03\.png"):
        distil(ToyField(), broken, steps=1, **SIZE)


def test_views_smaller_than_a_cell_are_refused(scene: PosedScene) -> None:
    with pytest.raises(DistillationError, match="smaller than a cell of 8"):
        distil(ToyField(), scene, steps=1, width=6, height=6, progress=False)


@pytest.mark.parametrize("budget", [{}, {"steps": 1, "seconds": 1.0}])
def test_exactly_one_budget_is_needed(scene: PosedScene, budget: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either seconds or steps"):
        distil(ToyField(), scene, **budget)


def test_one_summary_line_is_logged(scene: PosedScene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="crowdnerf_lab.distillation"):
        distil(ToyField(), scene, steps=2, views=1, settings=SMALL, **SIZE)
    assert len(caplog.messages) == 1
    assert "distil XS from toy: 2 steps" in caplog.messages[0]


def test_a_seat_block_s_student_is_judged_by_views_from_there(scene: PosedScene) -> None:
    block = scene.cameras[scene.train][:4]
    result = distil(ToyField(), scene, steps=60, views=12, cameras=block, settings=SMALL, **SIZE)
    assert result.history[-1].held_out_psnr is not None
    far = scene.cameras[scene.held_out][-1:]
    alone = scene.with_split(scene.train.tolist(), scene.held_out[-1:].tolist())
    assert not distillation.among(block, far).any()
    elsewhere = distil(ToyField(), alone, steps=1, views=1, cameras=block, settings=SMALL, **SIZE)
    assert elsewhere.history[-1].held_out_psnr is None


def test_averaged_weights_lag_behind_the_last_ones(scene: PosedScene) -> None:
    last, averaged = (
        distil(ToyField(), scene, steps=20, views=2, settings=replace(SMALL, averaging=decay), **SIZE).student
        for decay in (0.0, 0.9)
    )
    start = RayMLP(planes_through(ToyField(), scene.cameras[scene.train], scene.bounds), "XS")
    moved, moved_on_average = (torch.linalg.vector_norm(weights(s) - weights(start)) for s in (last, averaged))
    assert 0 < moved_on_average < moved


@pytest.mark.parametrize("change", [{"hard_share": 0.0}, {"precision": "bf16"}])
def test_other_ways_to_train_learn_too(scene: PosedScene, change: dict[str, float | str]) -> None:
    settings = replace(SMALL, rays_per_step=128, **change)
    history = distil(ToyField(), scene, steps=120, views=24, settings=settings, **SIZE).history
    assert history[-1].held_out_psnr > history[0].held_out_psnr + 2


def test_evidence_is_for_fields_that_can_tell_where_their_light_comes_from(scene: PosedScene) -> None:
    cells = 8**3 + DIRECTIONS**3
    evidence = Evidence(torch.zeros(cells), torch.zeros(cells), EvidenceSettings(cells=8))
    with pytest.raises(DistillationError, match="a ToyField has no evidence"):
        distil(ToyField(), scene, steps=1, views=1, evidence=evidence, settings=SMALL, **SIZE)


def test_trust_changes_what_is_learned(scene: PosedScene) -> None:
    """The field knows nothing, but of the windows that photos 0 to 3 see it is told more."""
    teacher = SHGrid(scene.bounds, shape=SHGridShape(resolutions=(8, 16), log2_rows=12, occupancy_cells=16))
    told = scene.with_split(scene.train[:4].tolist(), [])
    evidence = gather_evidence(teacher, told, settings=EvidenceSettings(cells=8, rays=2000))
    even, trusting = (
        distil(teacher, scene, steps=3, views=4, evidence=known, settings=SMALL, **SIZE).student
        for known in (None, evidence)
    )
    assert not torch.equal(weights(even), weights(trusting))


def test_without_held_out_views_the_curve_has_no_quality(scene: PosedScene) -> None:
    result = distil(ToyField(), scene.with_split(range(12), []), steps=2, views=1, settings=SMALL, **SIZE)
    assert result.history[-1].held_out_psnr is None
