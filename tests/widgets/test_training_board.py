"""The training board: stop, resume and branch really do, in a thread, with the bits of fit(); and what stays to see."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.widgets import training_board_widget
from crowdnerf_lab.widgets.training_board_view import TrainingBoardView
from crowdnerf_lab.widgets.training_board_widget import TrainingBoard, training_board
from crowdnerf_lab.widgets.training_figure import CURVES, PICTURES
from crowdnerf_lab.widgets.training_runs import TrainingRuns
from tests.test_training import SMALL, fit, striped_ball

PATIENCE = 60.0
Begin = Callable[..., TrainingBoard]


@pytest.fixture(scope="module")
def ball() -> PosedScene:
    return striped_ball()


@pytest.fixture
def board_of(ball: PosedScene) -> Iterator[Begin]:
    begun = []

    def begin(**budget: float) -> TrainingBoard:
        begun.append(training_board(ball, settings=SMALL, threads=1, **budget))
        return begun[-1]

    yield begin
    for board in begun:
        board.runs.close()


def reaching(board: TrainingBoard, step: int) -> None:
    """Wait until the current run has a point at this step or later."""
    end = time.monotonic() + PATIENCE
    while not (board.runs.current.points and board.runs.current.points[-1].step >= step):
        assert time.monotonic() < end
        time.sleep(0.005)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_it_trains_in_the_background_with_the_bits_of_fit(board_of: Begin, ball: PosedScene) -> None:
    board = board_of(steps=60)
    assert board.runs.busy
    result = board.wait(PATIENCE)
    assert same(result.model, fit(ball, steps=60, settings=SMALL).model)
    run = board.runs.current
    assert (run.status, run.used) == ("done", 1.0)
    assert run.points[-1].step == 60
    assert [point.seconds for point in run.points] == sorted(point.seconds for point in run.points)
    assert all(point.rays_per_second > 0 for point in run.points[1:])
    assert run.latest_psnr == result.history[-1].held_out_psnr


def test_stop_resume_and_branch_really_do(board_of: Begin, ball: PosedScene) -> None:
    board = board_of(steps=300)
    reaching(board, 10)
    board.stop()
    assert board.wait(PATIENCE).interrupted
    stopped_at = board.runs.current.points[-1].step
    assert board.runs.current.status == "stopped"
    assert 10 <= stopped_at < 300

    branch = board.branch(seed=7, steps=stopped_at + 20)
    branched = board.wait(PATIENCE)
    assert (branch.name, branch.parent, branch.seed, branch.status) == ("branch 1", "trunk", 7, "done")
    assert branch.points[0].step == stopped_at
    assert branched.history[-1].step == stopped_at + 20

    trunk = board.resume("trunk", steps=stopped_at + 20)
    resumed = board.wait(PATIENCE)
    assert trunk is board.runs.current
    assert resumed.history[-1].step == stopped_at + 20
    assert not same(resumed.model, branched.model)


def test_resuming_within_the_same_budget_gives_the_bits_of_a_quiet_run(board_of: Begin, ball: PosedScene) -> None:
    board = board_of(steps=80)
    reaching(board, 10)
    board.stop()
    board.wait(PATIENCE)
    board.resume()
    assert same(board.wait(PATIENCE).model, fit(ball, steps=80, settings=SMALL).model)


def test_a_branch_from_what_still_trains_stops_it(board_of: Begin) -> None:
    board = board_of(steps=4000)
    reaching(board, 40)
    board.branch(seed=1, seconds=board.runs.current.points[-1].seconds + 1.0)
    board.wait(PATIENCE)
    assert [run.status for run in board.runs.runs] == ["stopped", "done"]


def test_what_cannot_be_done_is_refused(board_of: Begin, ball: PosedScene) -> None:
    board = board_of(steps=600)
    with pytest.raises(ValueError, match="trunk is training already"):
        board.resume()
    with pytest.raises(ValueError, match="no run 'twig'; there are trunk"):
        board.branch("twig")
    board.stop()
    board.wait(PATIENCE)
    with pytest.raises(ValueError, match=r"has used its budget .* give more"):
        board.resume(steps=1)
    with pytest.raises(ValueError, match="either seconds or steps"):
        training_board(ball)
    with pytest.raises(ValueError, match="view 99 is no row"):
        training_board(ball, steps=1, view=99)


def test_a_training_that_fails_says_why(board_of: Begin, caplog: pytest.LogCaptureFixture) -> None:
    board = board_of(steps=10)
    board.wait(PATIENCE)
    board.runs.runs[0].checkpoint.write_bytes(b"broken")
    board.branch(seed=1, steps=20)
    board.wait(PATIENCE)
    assert board.runs.current.status == "failed"
    assert "trunk.safetensors" in board.runs.current.error
    assert "failed" in repr(board)


def test_checkpoints_in_a_folder_are_found_again(ball: PosedScene, tmp_path: Path) -> None:
    first = TrainingRuns(ball, steps=30, settings=SMALL, folder=tmp_path, threads=1)
    first.start()
    first.wait(PATIENCE)
    again = TrainingRuns(ball, steps=30, settings=SMALL, folder=tmp_path, threads=1)
    again.start()
    result = again.wait(PATIENCE).result
    assert result.history == first.current.result.history
    assert again.current.status == "done"


def test_the_buttons_do_what_they_say(board_of: Begin) -> None:
    board = board_of(steps=600)
    view = TrainingBoardView(board)
    board._live = view
    reaching(board, 10)
    assert (view.stop.disabled, view.resume.disabled) == (False, True)
    view.stop.click()
    board.wait(PATIENCE)
    assert (view.stop.disabled, view.resume.disabled) == (True, False)
    assert "trunk: stopped" in view.words.value
    view.seed.value, view.rate.value = 3, 0.5
    view.budget.value = board.runs.current.points[-1].step + 10
    view.branch.click()
    board.wait(PATIENCE)
    branch = board.runs.named("branch 1")
    assert (branch.seed, branch.settings.rate, branch.status) == (3, SMALL.rate / 2, "done")
    assert repr(view).splitlines()[1].startswith("branch 1: done")
    assert view.run.options == ("trunk", "branch 1")
    assert [trace.name for trace in view.figure.data[len(PICTURES) + len(CURVES) :]] == ["branch 1"] * 3
    assert list(view.figure.data[-3].x) == [point.seconds for point in branch.points]
    rows = [row for _, row in view.preview.options]
    view.next.click()
    assert board.view == view.preview.value == rows[1]
    view.resume.click()
    assert "has used its budget" in view.words.value


def test_previews_and_the_worst_view_are_shown_and_stay(board_of: Begin, ball: PosedScene) -> None:
    board = board_of(steps=60)
    board.wait(PATIENCE)
    worst = board.runs.current.worst_view
    assert worst in ball.held_out.tolist()
    assert ball.image_names[worst] in board.notes["truth"]
    assert "dB" in board.notes["worst"]
    assert "step 60" in board.notes["preview"]
    assert (board.pictures["truth"] == ball.images[worst].numpy()).all()
    figure = board.still()
    assert [trace.type for trace in figure.data] == ["image"] * 4 + ["scatter"] * 3
    assert len(figure.to_json()) < 300_000


def test_text_where_widgets_are_absent(
    board_of: Begin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(training_board_widget, "find_spec", lambda name: None)
    InteractiveShell.instance()
    board = board_of(steps=20)
    board._ipython_display_()
    board.wait(PATIENCE)
    InteractiveShell.clear_instance()
    assert "trunk: done, 100% of 20 steps, step 20" in repr(board)
    assert "trunk: " in capsys.readouterr().out


def test_without_ipywidgets_the_package_still_has_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ipywidgets", "anywidget", "IPython"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "crowdnerf_lab.widgets.training_board_view")
    spec = importlib.util.spec_from_file_location("board_alone", training_board_widget.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.training_board)
