"""Steering fit(): watchers see every step and change nothing, stopping returns what there is."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import TrainingError
from crowdnerf_lab.training_control import TrainingControl, TrainingMoment
from crowdnerf_lab.weights import WeightsError
from tests.test_training import SMALL, fit, state_of, striped_ball


@pytest.fixture(scope="module")
def ball() -> PosedScene:
    return striped_ball()


def test_a_watched_training_has_the_bits_of_one_that_nobody_watches(ball: PosedScene) -> None:
    """The watcher renders the field between steps and keeps copies of it, as a live preview does."""
    moments: list[TrainingMoment] = []
    kept = []

    def look(moment: TrainingMoment) -> None:
        moments.append(moment)
        if moment.step % 10 == 0:
            render_view(moment.model, ball.cameras, 0)
            kept.append(moment.snapshot())

    control = TrainingControl()
    control.watch(look)
    watched = fit(ball, steps=40, settings=SMALL, seed=3, control=control)
    alone = fit(ball, steps=40, settings=SMALL, seed=3)
    assert all(torch.equal(state_of(watched.model)[name], value) for name, value in state_of(alone.model).items())
    assert [(line.step, line.loss, line.held_out_psnr) for line in watched.history] == [
        (line.step, line.loss, line.held_out_psnr) for line in alone.history
    ]
    assert [moment.step for moment in moments] == list(range(1, 41))
    assert [moment.rays for moment in moments] == sorted(moment.rays for moment in moments)
    assert not torch.equal(kept[0].state_dict()["table"], kept[-1].state_dict()["table"])
    assert torch.equal(kept[-1].state_dict()["table"], watched.model.state_dict()["table"])


def test_reports_come_with_their_moments_and_name_the_worst_view(ball: PosedScene) -> None:
    reports = []
    control = TrainingControl()
    control.watch(lambda moment: moment.report and reports.append(moment.report))
    result = fit(ball, steps=40, settings=SMALL, control=control)
    assert tuple(report.record for report in reports) == result.history
    last = reports[-1]
    assert set(last.psnr_of_view) == set(ball.held_out.tolist())
    assert last.psnr_of_view[last.worst_view] == min(last.psnr_of_view.values())
    assert min(last.psnr_of_view.values()) <= last.record.held_out_psnr <= max(last.psnr_of_view.values())


def test_stopping_from_another_thread_ends_the_fit_and_the_same_call_resumes_it(
    ball: PosedScene, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "fit.safetensors"
    begun = threading.Event()
    control = TrainingControl()
    control.watch(lambda moment: begun.set() if moment.step >= 20 else None)
    stopper = threading.Thread(target=lambda: (begun.wait(20), control.stop()))
    stopper.start()
    stopped = fit(ball, steps=80, settings=SMALL, checkpoint=checkpoint, control=control)
    stopper.join()
    assert stopped.interrupted
    assert 20 <= stopped.history[-1].step < 80
    resumed = fit(ball, steps=80, settings=SMALL, checkpoint=checkpoint, control=TrainingControl())
    quiet = fit(ball, steps=80, settings=SMALL)
    assert not resumed.interrupted
    assert all(torch.equal(state_of(resumed.model)[name], value) for name, value in state_of(quiet.model).items())


def test_a_watcher_gets_its_share_of_the_time_only(ball: PosedScene) -> None:
    spent = []

    def slow(moment: TrainingMoment) -> None:
        time.sleep(0.02)
        spent.append(moment.seconds)

    control = TrainingControl()
    control.watch(slow, share=0.1)
    result = fit(ball, steps=100, settings=SMALL, control=control)
    assert len(spent) >= 2
    # The first call is free, and none is longer than the one before but for what the machine makes of it.
    assert 0.02 * (len(spent) - 1) <= 0.1 * result.seconds + 0.02
    with pytest.raises(ValueError, match="above 0, got 0"):
        control.watch(slow, share=0)


def test_a_watcher_that_fails_is_dropped_and_training_goes_on(
    ball: PosedScene, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken(moment: TrainingMoment) -> None:
        calls.append(moment.step)
        raise RuntimeError("no screen")

    control = TrainingControl()
    control.watch(broken)
    with caplog.at_level(logging.ERROR, "crowdnerf_lab"):
        result = fit(ball, steps=5, settings=SMALL, control=control)
    assert calls == [1]
    assert result.history[-1].step == 5
    assert "no screen" in caplog.text


def test_a_branch_goes_on_with_other_numbers_and_its_trunk_stays(ball: PosedScene, tmp_path: Path) -> None:
    trunk, twin = tmp_path / "trunk.safetensors", tmp_path / "twin.safetensors"
    control = TrainingControl()
    control.watch(lambda moment: control.stop() if moment.step == 30 else None)
    fit(ball, steps=60, settings=SMALL, checkpoint=trunk, control=control)
    before = trunk.read_bytes()
    unchanged = fit(ball, steps=60, settings=SMALL, checkpoint=twin, branch_from=trunk)
    seeded = fit(ball, steps=60, settings=SMALL, seed=1, branch_from=trunk)
    faster = fit(ball, steps=90, settings=replace(SMALL, rate=0.08), branch_from=trunk)
    whole = fit(ball, steps=60, settings=SMALL)
    assert torch.equal(unchanged.model.state_dict()["table"], whole.model.state_dict()["table"])
    for branch in (seeded, faster):
        assert branch.history[0] == unchanged.history[0]
        assert not torch.equal(branch.model.state_dict()["table"], whole.model.state_dict()["table"])
    assert faster.history[-1].step == 90
    assert trunk.read_bytes() == before
    # A branch that has a checkpoint of its own goes on from that.
    again = fit(ball, steps=60, settings=SMALL, checkpoint=twin, branch_from=trunk)
    assert again.history == unchanged.history


def test_a_branch_onto_something_else_is_refused(ball: PosedScene, tmp_path: Path) -> None:
    trunk = tmp_path / "trunk.safetensors"
    fit(ball, steps=1, settings=SMALL, checkpoint=trunk)
    other_size = replace(SMALL, shape=replace(SMALL.shape, log2_rows=9))
    with pytest.raises(TrainingError, match=r"trunk\.safetensors.*another kind or size.*may change the seed"):
        fit(ball, steps=2, settings=other_size, branch_from=trunk)
    with pytest.raises(TrainingError, match="other photos"):
        fit(striped_ball(views=10), steps=2, settings=SMALL, branch_from=trunk)
    with pytest.raises(WeightsError, match=r"nothing\.safetensors"):
        fit(ball, steps=2, settings=SMALL, branch_from=tmp_path / "nothing.safetensors")
