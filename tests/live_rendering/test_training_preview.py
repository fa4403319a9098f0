import pytest

from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.live_rendering.frame import Frame
from crowdnerf_lab.live_rendering.training_preview import TrainingPreview
from crowdnerf_lab.training import fit
from crowdnerf_lab.training_control import TrainingControl
from tests.live_rendering.test_sources import view_of
from tests.toy_field import toy_scene

SMALL = FitSettings(shape=SHGridShape(resolutions=(4, 8), log2_rows=8, occupancy_cells=8, steps=16))


def test_frames_of_a_field_that_learns():
    frames: list[Frame] = []
    preview, control = TrainingPreview(view_of(), on_frame=frames.append), TrainingControl()
    control.watch(lambda moment: preview.look(view_of(moment.step % 12), mode="depth", number=moment.step))
    control.watch(preview)  # without the share, so that every step shows a frame
    watched = fit(toy_scene(), steps=12, settings=SMALL, control=control, progress=False)
    unwatched = fit(toy_scene(), steps=12, settings=SMALL, progress=False)
    assert [frame.look.number for frame in frames][:12] == list(range(1, 13))
    assert {frame.look.mode for frame in frames} == {"depth"}
    assert frames[-1].picture.std() > 0
    assert watched.model.table.equal(unwatched.model.table)


def test_a_preview_keeps_to_its_share():
    frames: list[Frame] = []
    preview, control = TrainingPreview(view_of(), on_frame=frames.append), TrainingControl()
    preview.watch(control)
    result = fit(toy_scene(), steps=60, settings=SMALL, control=control, progress=False)
    spent = [frame.seconds for frame in frames]
    assert frames
    assert sum(spent[:-1]) < 0.1 * result.seconds


def test_a_mode_that_the_field_has_not_ends_the_preview_alone(caplog):
    preview, control = TrainingPreview(view_of(), on_frame=pytest.fail, mode="as taken"), TrainingControl()
    control.watch(preview)
    result = fit(toy_scene(), steps=3, settings=SMALL, control=control, progress=False)
    assert result.history[-1].step == 3
    assert "no mode 'as taken'" in caplog.text
