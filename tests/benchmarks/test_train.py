"""benchmarks.train: what it accepts, what it averages, what it writes, and one true trial in a process of its own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import train
from benchmarks.trial import Trial, prepared, run_trial
from crowdnerf_lab.captures.exporting import write_transforms
from tests.toy_field import toy_scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_transforms(toy_scene(), tmp_path / "toy")
    return tmp_path / "toy"


def pretended(scene: Any, trial: Trial, *, cold: bool = False) -> dict[str, Any]:
    """Figures that tell which trial they belong to."""
    psnr = 20.0 + (trial.seconds or 0) / 10 + trial.seed
    figures = {"psnr": psnr, "psnr_affine": psnr + 1, "ssim": 0.5, "flip": 0.2, "train_seconds": trial.seconds}
    speeds = {"samples_per_second": 1000, "fps_256": 2.5, "warmup_seconds": 9.0 if cold else 0.4, "peak_mb": 500}
    curve = [{"step": 1, "seconds": 0.5, "loss": 0.1, "psnr": 12.0}]
    return {"seed": trial.seed, **figures, **speeds, "steps": 7, "curve": curve}


def test_budgets_and_seeds_are_runs_and_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "run_trial", pretended)
    out = tmp_path / "results" / "toy.json"
    words = f"--scene {folder} --budgets 5,10 --seeds 3 --curve --threads 1 --json --out {out}"
    train.main(words.split())
    printed = capsys.readouterr().out
    figures = json.loads(printed.splitlines()[-1])
    assert figures == json.loads(out.read_text())
    assert [(run["budget"], run["seed"]) for run in figures["runs"]] == [(b, s) for b in (5, 10) for s in (0, 1, 2)]
    assert [row["psnr"] for row in figures["budgets"]] == [pytest.approx(21.5), pytest.approx(22.0)]
    assert [row["psnr_worst"] for row in figures["budgets"]] == [pytest.approx(20.5), pytest.approx(21.0)]
    assert (figures["psnr"], figures["warmup_seconds"], figures["warmup_cold_seconds"]) == (pytest.approx(22), 0.4, 9.0)
    assert (figures["photos"], figures["views"], figures["size"], figures["tier"]) == (9, 3, "48x40", "fast")
    assert figures["conditions"]["threads"] == 1
    assert printed.count("over time") == 6


def test_present_flags_still_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Trial] = []

    def noted(scene: Any, trial: Trial, *, cold: bool = False) -> dict[str, Any]:
        seen.append(trial)
        return pretended(scene, trial, cold=cold)

    monkeypatch.setattr(train, "run_trial", noted)
    words = f"--scene {folder} --downscale 2 --held-out 4 --seconds 3 --threads 1 --seed 5 --poses truth --photos clean"
    train.main([*words.split(), "--unscreened", "--no-appearance", "--no-robust", "--no-cold", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert seen == [Trial(tier="fast", seconds=3.0, seed=5, threads=1, appearance=False, robust=False)]
    assert (figures["size"], figures["train_seconds"], figures["appearance"]) == ("24x20", 3.0, False)
    assert figures["warmup_cold_seconds"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--budgets 5,zero", "--budgets"),
        ("--budgets -1", "--budgets"),
        ("--downscale 0", "--downscale"),
        ("--tier slow", "--tier"),
        ("--peer gsplat", "--peer"),
        ("--held-out 0 --split held-out", "--held-out 8"),
    ],
)
def test_what_cannot_be_run_is_said(folder: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps(document | {"train_filenames": None, "test_filenames": None}))
    with pytest.raises(SystemExit) as ended:
        train.main(["--scene", str(folder), *words.split()])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--scene", str(folder), "--device", "cuda"])
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(("peer", "step"), [("opensplat", "cmake --build build"), ("nerfacto", "pip install")])
def test_a_peer_that_is_absent_is_told_how_to_install(
    folder: Path, peer: str, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENSPLAT", "opensplat-that-is-not-there")
    monkeypatch.delenv("NERFACTO_PYTHON", raising=False)
    with pytest.raises(SystemExit) as ended:
        train.main(["--scene", str(folder), "--peer", peer])
    assert ended.value.code == 2
    assert step in capsys.readouterr().err


def test_validation_photos_come_from_the_training_photos_and_held_out_views_stay_unseen() -> None:
    scene = toy_scene()
    tuned = prepared(scene, split="validation", views=0, every=4)
    names = [tuned.image_names[i] for i in tuned.held_out]
    trained = [tuned.image_names[i] for i in tuned.train]
    held_out = {scene.image_names[i] for i in scene.held_out}
    assert names
    assert not {*names} & {*trained}
    assert {*names, *trained} == {scene.image_names[i] for i in scene.train}
    assert not held_out & {*tuned.image_names}
    row = int(tuned.held_out[0])
    before = scene.image_names.index(tuned.image_names[row])
    assert torch.equal(tuned.images[row], scene.images[before])
    assert torch.equal(tuned.cameras.camera_to_world[row], scene.cameras.camera_to_world[before])


def test_few_views_are_spread_over_all() -> None:
    few = prepared(toy_scene(24), split="held-out", views=3)
    assert [few.image_names[i] for i in few.held_out] == ["02.png", "10.png", "22.png"]
    assert len(few.train) == 18


def test_a_trial_runs_in_a_process_of_its_own() -> None:
    scene = prepared(toy_scene(4, width=16, height=16), split="held-out", views=1)
    figures = run_trial(scene, Trial(tier="fast", seconds=None, steps=2, seed=0, threads=1))
    assert figures["steps"] == 2
    assert 0 < figures["psnr"] < 60
    assert figures["samples_per_second"] > 0
    assert figures["fps_256"] > 0
    assert 100 < figures["peak_mb"] < 3000
    assert figures["curve"][-1]["step"] == 2
    json.dumps(figures, allow_nan=False)
