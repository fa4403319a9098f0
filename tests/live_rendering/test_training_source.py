import threading

import pytest

from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.live_rendering.live_renderer import LiveRenderer, LiveSettings
from crowdnerf_lab.live_rendering.sources import LiveRenderingError
from crowdnerf_lab.live_rendering.training_source import SHARE
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.training import fit
from crowdnerf_lab.training_control import TrainingControl
from tests.live_rendering.test_live_renderer import Reader
from tests.live_rendering.test_sources import view_of
from tests.toy_field import toy_scene

SMALL = FitSettings(shape=SHGridShape(resolutions=(4, 8), log2_rows=8, occupancy_cells=8, steps=16))


def train(control: TrainingControl | None, *, steps: int = 60):
    return fit(toy_scene(), steps=steps, settings=SMALL, control=control, progress=False)


def test_a_fit_in_the_same_thread_is_seen_while_it_trains_and_sharply_afterwards():
    reader, control = Reader(), TrainingControl()
    with LiveRenderer(control, on_frame=reader, settings=LiveSettings(in_flight=1)) as renderer:
        renderer.look(view_of(3), mode="depth", number=1)
        result = train(control)
        while_training = list(reader.frames)
        frame = reader.final(1)
        still = renderer.still(view_of(3))
    assert while_training
    assert not any(frame.final for frame in while_training)
    assert frame.legend is not None
    truth = 255 * render_view(result.model, view_of(3).cameras()).colour.numpy()
    assert abs(still.picture - truth).max() < 0.51


def test_a_camera_steers_what_trains_in_a_thread():
    reader, control = Reader(), TrainingControl()
    numbers = iter(range(1, 1000))
    with LiveRenderer(control, on_frame=reader) as renderer:
        control.watch(lambda moment: renderer.look(view_of(moment.step % 12), number=next(numbers)))
        thread = threading.Thread(target=train, args=(control,))
        thread.start()
        thread.join()
        assert reader.frames[-1].look.number > reader.frames[0].look.number
        reader.final(next(numbers) - 1)


def test_looking_changes_no_bit_and_keeps_to_its_share():
    reader, control = Reader(), TrainingControl()
    with LiveRenderer(control, on_frame=reader) as renderer:
        renderer.look(view_of())
        watched = train(control)
        spent = [frame.seconds for frame in reader.frames]
    assert watched.model.table.equal(train(None).model.table)
    # Whether another one fits is asked before it is drawn.
    assert sum(spent[:-1]) <= SHARE * watched.seconds


def test_before_the_first_step_there_is_nothing_to_see():
    with LiveRenderer(TrainingControl(), on_frame=pytest.fail) as renderer:
        renderer.look(view_of())
        with pytest.raises(LiveRenderingError, match="nothing has been trained yet"):
            renderer.still(view_of())


def test_a_closed_view_lets_training_go_on():
    control = TrainingControl()
    LiveRenderer(control, on_frame=pytest.fail).close()
    assert train(control, steps=5).history[-1].step == 5
