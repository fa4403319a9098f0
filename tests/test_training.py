"""fit(): determinism, resuming, interruption, refusal; and that it learns."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLPShape
from crowdnerf_lab.fields.hash_grid import HashGridShape
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.fields.storage import load_field, save_field
from crowdnerf_lab.files import FileError
from crowdnerf_lab.fit_settings import FitSettings, Stage, settings_for
from crowdnerf_lab.kernels.reference import contracted
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.pose_refinement import perturbed
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import Bounds, PosedScene, SceneError, bounds_of
from crowdnerf_lab.training import TrainingError
from crowdnerf_lab.training import fit as fit_on_any_threads
from crowdnerf_lab.weights import WeightsError

# One thread: regions of so little work cost more to share than to do, and tests run beside each other.
fit = partial(fit_on_any_threads, threads=1, progress=False)

SMALL = FitSettings(
    shape=SHGridShape(resolutions=(8, 16), log2_rows=10, occupancy_cells=16, steps=48),
    stages=(Stage(0, 48, 2),),
    samples_per_step=4096,
)


def striped_ball(views: int = 12, size: int = 24, *, gains: tuple[float, ...] = (1.0,)) -> PosedScene:
    """A ball with coloured stripes on grey, seen from a ring; photo i is brighter by gains[i % len(gains)]."""
    angle = torch.arange(views) * (2 * torch.pi / views)
    eye = torch.stack([3 * angle.cos(), 3 * angle.sin(), 0.4 + 0.6 * torch.sin(3 * angle)], dim=-1)
    cameras = pinhole(look_at(eye, torch.zeros_like(eye)), torch.full((views,), 1.2 * size), width=size, height=size)
    images = []
    for index in range(views):
        from crowdnerf_lab.rays import image_rays

        rays = image_rays(cameras, index)
        along = (rays.origins * rays.directions).sum(-1)
        inside = along**2 - (rays.origins**2).sum(-1) + 1
        point = rays.origins + (-along - inside.clamp(min=0).sqrt())[..., None] * rays.directions
        colour = torch.stack([0.5 + 0.4 * torch.sin(4 * point[..., k]) for k in range(3)], dim=-1)
        colour = torch.where((inside > 0)[..., None], colour, torch.full_like(colour, 0.4))
        images.append((colour * gains[index % len(gains)] * 255).clamp(0, 255).to(torch.uint8))
    held_out = torch.arange(0, views, 6)
    train = torch.tensor([i for i in range(views) if i % 6])
    return PosedScene(
        name="ball",
        image_names=tuple(f"{i}.png" for i in range(views)),
        cameras=cameras,
        images=tuple(images),
        masks=None,
        bounds=bounds_of(cameras),
        captures=tuple(f"ue{i}" for i in range(len(gains))),
        capture_of_image=torch.arange(views) % len(gains),
        time_of_image=torch.zeros(views),
        train=train,
        held_out=held_out,
        origin_wgs84=None,
    )


@pytest.fixture(scope="module")
def ball() -> PosedScene:
    return striped_ball()


def state_of(model: SHGrid) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.row("S23", "S65")
def test_training_learns_the_held_out_views(ball: PosedScene) -> None:
    result = fit(ball, steps=400, settings=SMALL)
    reached = [psnr(render_view(result.model, ball.cameras, int(i)).colour, ball.image(int(i))) for i in ball.held_out]
    grey = [psnr(torch.full((24, 24, 3), 0.4), ball.image(int(i))) for i in ball.held_out]
    assert min(reached) > max(grey) + 3
    assert result.history[-1].loss < result.history[0].loss / 2
    assert result.history[-1].held_out_psnr is not None


def test_same_seed_same_bits_for_any_number_of_threads(ball: PosedScene) -> None:
    import numba

    many = int(numba.config.NUMBA_NUM_THREADS)
    results = [state_of(fit(ball, steps=40, settings=SMALL, seed=5, threads=threads).model) for threads in (1, many)]
    other = state_of(fit(ball, steps=40, settings=SMALL, seed=6).model)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not torch.equal(results[0]["table"], other["table"])


def test_kill_and_resume_gives_the_bits_of_an_uninterrupted_run(ball: PosedScene, tmp_path: Path) -> None:
    """A process is killed with SIGKILL while it trains; the same call afterwards ends where a quiet run ends."""
    checkpoint = tmp_path / "fit.safetensors"
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from tests.test_training import SMALL, fit, striped_ball
        fit(striped_ball(), steps=500, settings=SMALL, checkpoint={str(checkpoint)!r}, checkpoint_every=0.0)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    try:
        waited = threading.Event()
        for _ in range(600):
            if checkpoint.exists() or process.poll() is not None:
                break
            waited.wait(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    killed_at = _checkpoint_step(checkpoint)
    assert 0 < killed_at < 500

    quiet = tmp_path / "quiet.safetensors"
    fit(ball, steps=500, settings=SMALL, checkpoint=quiet, checkpoint_every=1e9)
    resumed = fit(ball, steps=500, settings=SMALL, checkpoint=checkpoint, checkpoint_every=1e9)
    assert resumed.history[-1].step == 500
    from safetensors.torch import load_file

    expected, got = load_file(quiet), load_file(checkpoint)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def _checkpoint_step(path: Path) -> int:
    import json

    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["counters"])["step"]


def test_interrupt_returns_what_there_is(ball: PosedScene, caplog: pytest.LogCaptureFixture) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with caplog.at_level(logging.INFO, "crowdnerf_lab"):
        result = fit(ball, seconds=600, settings=SMALL)
    timer.join()
    assert result.interrupted
    assert 0 < result.seconds < 60
    assert render_view(result.model, ball.cameras, 0).colour.isfinite().all()
    assert "stopped early" in caplog.text


def test_budget_of_seconds_is_kept(ball: PosedScene) -> None:
    result = fit(ball, seconds=0.5, settings=SMALL)
    assert 0.5 <= result.seconds < 1.0


@pytest.mark.parametrize(
    ("budget", "message"),
    [({}, "either seconds or steps"), ({"seconds": 1, "steps": 1}, "either seconds"), ({"steps": 0}, "positive")],
)
def test_budget_must_make_sense(ball: PosedScene, budget: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(ball, **budget)


def test_refuses_what_cannot_be_trained(ball: PosedScene) -> None:
    pose = ball.cameras.camera_to_world.clone()
    pose[3, 0, 0] = torch.nan
    with pytest.raises(SceneError, match=r"3\.png.*calibrate"):
        fit(replace(ball, cameras=replace(ball.cameras, camera_to_world=pose)), steps=1)
    with pytest.raises(SceneError, match="no training photos"):
        fit(ball.with_split([], [0]), steps=1)
    with pytest.raises(SceneError, match="2 training photos"):
        fit(ball.with_split([1, 2], [0]), steps=1)


def test_checkpoint_of_something_else_is_refused(ball: PosedScene, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.safetensors"
    fit(ball, steps=2, settings=SMALL, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="another seed"):
        fit(ball, steps=4, settings=SMALL, seed=1, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"fit\.safetensors.*delete it"):
        fit(ball, steps=4, settings=SMALL, checkpoint=checkpoint)


def test_full_disk_leaves_the_old_checkpoint(ball: PosedScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "fit.safetensors"
    fit(ball, steps=2, settings=SMALL, checkpoint=checkpoint)
    before = checkpoint.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"fit\.safetensors.*space"):
        fit(ball, steps=4, settings=SMALL, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_field_file_round_trip(ball: PosedScene, tmp_path: Path) -> None:
    result = fit(ball, steps=20, settings=SMALL)
    path = save_field(result.model, tmp_path / "field.safetensors")
    again = load_field(path)
    assert again.shape == result.model.shape
    assert torch.equal(render_view(again, ball.cameras, 0).colour, render_view(result.model, ball.cameras, 0).colour)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"field\.safetensors"):
        load_field(path)


@pytest.mark.row("S14")
def test_appearance_takes_exposure_out_of_the_scene() -> None:
    """Photos of two phones, one half as bright: appearance finds the gains, and the photos agree better."""
    scene = striped_ball(gains=(0.55, 0.9))
    settings = replace(SMALL, appearance_rate=0.05)
    with_appearance = fit(scene, steps=200, settings=settings, robust=False)
    without = fit(scene, steps=200, settings=settings, robust=False, appearance=False)
    assert with_appearance.history[-1].loss < without.history[-1].loss
    assert with_appearance.appearance is not None
    gains = with_appearance.appearance.log_gain.detach().mean(1)
    assert gains[1] > gains[0] + 0.3


def test_quality_chooses_the_field_by_the_budget() -> None:
    few, many = 1_400_000, 10_000_000
    assert isinstance(settings_for("fast", seconds=600, pixels=few).shape, SHGridShape)
    assert settings_for("best", seconds=30, pixels=few) == settings_for("fast")
    assert isinstance(settings_for("best", seconds=120, pixels=few).shape, HashGridShape)
    larger = settings_for("best", seconds=120, pixels=many).shape
    assert isinstance(larger, SHGridShape)
    assert len(larger.resolutions) > len(SHGridShape().resolutions)
    assert isinstance(settings_for("vanilla").shape, FrequencyMLPShape)


def test_one_phone_gets_no_appearance_and_a_crowd_does(ball: PosedScene) -> None:
    alone = fit(ball, steps=2, settings=SMALL)
    crowd = fit(striped_ball(gains=(0.6, 0.9)), steps=2, settings=SMALL)
    assert (alone.appearance, alone.trust) == (None, None)
    assert None not in (crowd.appearance, crowd.trust)


def test_nothing_is_where_no_camera_looks(ball: PosedScene) -> None:
    field = fit(ball, steps=1, settings=SMALL).model
    assert isinstance(field, SHGrid)
    above = contracted(torch.tensor([0.0, 0.0, 30.0]), field.centre, field.half_size)
    x, y, z = (above * 16).long().tolist()
    assert not field.in_view[x, y, z]
    assert not field.occupied[x, y, z]
    assert field.in_view[8, 8, 8]


def test_refined_poses_explain_moved_photos_better(ball: PosedScene) -> None:
    moved = replace(ball, cameras=perturbed(ball.cameras, ball.train, turn=0.06, shift=0.15, seed=1))
    still = fit(moved, steps=300, settings=SMALL)
    refined = fit(moved, steps=300, settings=SMALL, refine_poses=True)
    assert refined.history[-1].loss < 0.9 * still.history[-1].loss
    assert torch.equal(still.cameras.camera_to_world, moved.cameras.camera_to_world)
    assert not torch.equal(refined.cameras.camera_to_world[ball.train], moved.cameras.camera_to_world[ball.train])
    assert torch.equal(refined.cameras.camera_to_world[ball.held_out], moved.cameras.camera_to_world[ball.held_out])


def test_an_object_is_trained_within_its_box_on_white(ball: PosedScene) -> None:
    box = Bounds(centre=torch.zeros(3), half_size=torch.full((3,), 1.1), closed=True)
    cut_out = tuple(torch.where((image == 102).all(-1, keepdim=True), 255, image) for image in ball.images)
    field = fit(replace(ball, bounds=box, images=cut_out), steps=120, settings=SMALL).model
    assert isinstance(field, SHGrid)
    assert not field.in_view[0].any()
    assert field.in_view[8, 8, 8]
    view = render_view(field, ball.cameras, 0)
    assert view.colour[0, 0].min() > 0.85
    assert view.opacity[12, 12] > 0.8
    # Rays begin before the ball's nearest point and end behind its farthest, seen from three metres.
    assert 1.0 < field.near < 2.0
