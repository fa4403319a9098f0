import threading
import time

import numpy as np
import pytest
import torch

from crowdnerf_lab.live_rendering.frame import Frame
from crowdnerf_lab.live_rendering.live_renderer import LiveRenderer, LiveSettings
from crowdnerf_lab.live_rendering.sources import FixedPictures, LiveRenderingError
from crowdnerf_lab.network.views.view_codecs import EncodedView, decode_view
from crowdnerf_lab.network.views.view_request import ViewError, ViewRequest
from crowdnerf_lab.rendering import render_view
from tests.live_rendering.test_sources import view_of
from tests.toy_artefacts import random_grid, small_scene, untrained_student
from tests.toy_field import ToyField

PATIENCE_S = 20.0


class Reader:
    """Keeps the frames that come, and waits for those that should."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._came = threading.Condition()

    def __call__(self, frame: Frame) -> None:
        with self._came:
            self.frames.append(frame)
            self._came.notify_all()

    def until(self, wanted) -> Frame:
        with self._came:
            found = self._came.wait_for(lambda: [f for f in self.frames if wanted(f)], timeout=PATIENCE_S)
        assert found, f"no such frame among {len(self.frames)}"
        return found[0]

    def final(self, number: int) -> Frame:
        return self.until(lambda frame: frame.final and frame.look.number == number)


class SlowField(ToyField):
    """So many rays a second, and no more."""

    def __init__(self, rays_per_second: float) -> None:
        super().__init__()
        self.rays_per_second = rays_per_second

    def render(self, rays):
        time.sleep(rays.near.numel() / self.rays_per_second)
        return super().render(rays)


def test_at_rest_the_view_becomes_the_models_own():
    reader = Reader()
    with LiveRenderer(ToyField(), on_frame=reader) as renderer:
        renderer.look(view_of(3), moving=False, number=7)
        frame = reader.final(7)
    truth = render_view(ToyField(), view_of(3).cameras()).colour.numpy()
    np.testing.assert_allclose(frame.picture, 255 * truth, atol=0.51)
    assert (frame.width, frame.height, frame.moving, frame.stand_in) == (48, 40, False, False)


def test_a_moving_view_rests_when_no_camera_comes():
    reader = Reader()
    with LiveRenderer(SlowField(5e4), on_frame=reader) as renderer:
        renderer.look(view_of(width=160, height=120), number=1)
        frame = reader.final(1)
    assert frame.width == 160
    assert reader.frames[0].moving
    widths = [frame.width for frame in reader.frames]
    assert widths == sorted(widths)
    assert widths[0] < 160


def test_the_newest_camera_wins():
    reader = Reader()
    with LiveRenderer(SlowField(1e5), on_frame=reader) as renderer:
        for number in range(60):
            renderer.look(view_of(number % 12, width=160, height=120), number=number)
            time.sleep(0.005)
        reader.final(59)
    numbers = [frame.look.number for frame in reader.frames]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) < 40
    assert [frame.look.number for frame in reader.frames if frame.final] == [59]


def test_a_newer_look_ends_a_drawing_between_two_bands():
    reader = Reader()
    with LiveRenderer(SlowField(5e3), on_frame=reader) as renderer:  # the whole view would take 4 s
        renderer.look(view_of(width=160, height=120), moving=False, number=1)
        first = reader.until(lambda frame: frame.look.number == 1)
        time.sleep(0.1)
        asked = time.perf_counter()
        renderer.look(view_of(width=32, height=24), moving=False, number=2)
        reader.final(2)
        waited = time.perf_counter() - asked
    assert not first.final
    assert waited < 2
    assert not [frame for frame in reader.frames if frame.final and frame.look.number == 1]


def test_frames_wait_for_those_on_their_way():
    reader = Reader()
    settings = LiveSettings(in_flight=1, patience_s=PATIENCE_S, rest_s=0.01)
    with LiveRenderer(SlowField(5e4), on_frame=reader, settings=settings) as renderer:
        renderer.look(view_of(width=160, height=120), number=1)
        first = reader.until(lambda frame: True)
        time.sleep(0.3)
        assert len(reader.frames) == 1
        renderer.shown(first.serial)
        reader.until(lambda frame: frame.serial > first.serial)


def test_a_lost_report_is_not_waited_for_forever():
    reader = Reader()
    settings = LiveSettings(in_flight=1, patience_s=0.05, rest_s=0.01)
    with LiveRenderer(ToyField(), on_frame=reader, settings=settings) as renderer:
        renderer.look(view_of(1), moving=False, number=1)
        reader.final(1)
        renderer.look(view_of(2), moving=False, number=2)
        reader.final(2)


def test_a_baked_field_stands_in_while_the_camera_moves():
    reader = Reader()
    with LiveRenderer(random_grid(), on_frame=reader) as renderer:
        assert renderer.wait_for_stand_in(PATIENCE_S)
        renderer.look(view_of(), number=1)
        model = reader.final(1)
    moving, baked = reader.frames[0], reader.until(lambda frame: frame.stand_in and frame.width == 48)
    assert (moving.moving, moving.stand_in, model.stand_in) == (True, True, False)
    assert np.abs(baked.picture.astype(int) - model.picture).mean() < 1.5


def test_what_the_stand_in_cannot_show_the_model_shows():
    reader = Reader()
    with LiveRenderer(random_grid(), on_frame=reader, scene=small_scene()) as renderer:
        assert renderer.wait_for_stand_in(PATIENCE_S)
        renderer.look(view_of(), mode="uncertainty", number=1)
        frame = reader.final(1)
    assert not any(frame.stand_in for frame in reader.frames)
    assert frame.legend is not None
    assert frame.legend == renderer.legend("uncertainty")


def test_a_light_field_is_drawn_at_its_own_size():
    reader = Reader()
    with LiveRenderer(untrained_student(), on_frame=reader) as renderer:
        renderer.look(view_of(width=96, height=80), number=1)
        frame = reader.final(1)
    with torch.no_grad():
        image = untrained_student()(view_of().cameras(), 40, 48)[0].numpy()
    assert (frame.width, frame.height) == (48, 40)
    np.testing.assert_allclose(frame.picture, 255 * image, atol=0.6)
    assert len(reader.frames) == 1


def test_truth_is_shown_as_it_is():
    reader = Reader()
    with LiveRenderer(FixedPictures.of(small_scene(), [2, 6]), on_frame=reader) as renderer:
        assert renderer.modes == ("colour",)
        renderer.look(view_of(6), number=1)
        assert (reader.final(1).picture == small_scene().images[6].numpy()).all()


def test_a_still_is_the_sharpest_frame():
    with LiveRenderer(ToyField(), on_frame=Reader()) as renderer:
        frame = renderer.still(view_of(4), mode="depth")
    assert frame.final
    assert (frame.width, frame.height) == (48, 40)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_frames_travel_encoded(format):
    with LiveRenderer(ToyField(), on_frame=Reader()) as renderer:
        frame = renderer.still(view_of(width=96, height=80))
    content = frame.encoded(format, quality=95)
    picture = decode_view(EncodedView(content, f"image/{format}", 96, 80, 0.0, 0.0))
    assert np.abs(picture.astype(int) - frame.picture).mean() < 4


def test_impossible_looks_are_refused_at_once():
    with LiveRenderer(ToyField(), on_frame=Reader()) as renderer:
        with pytest.raises(LiveRenderingError, match="no mode 'occupancy'; choose one of colour, depth, opacity"):
            renderer.look(view_of(), mode="occupancy")
        with pytest.raises(ViewError, match="pose"):
            renderer.look(ViewRequest(np.zeros((3, 4)), (1.0, 1.0), (1.0, 1.0), 4, 4))


def test_a_model_that_fails_once_is_shown_again(caplog):
    class Failing(ToyField):
        fails = True

        def render(self, rays):
            if self.fails:
                raise RuntimeError("out of luck")
            return super().render(rays)

    field, reader, errors = Failing(), Reader(), []
    with LiveRenderer(field, on_frame=reader, on_error=errors.append) as renderer:
        renderer.look(view_of(), moving=False, number=1)
        deadline = time.monotonic() + PATIENCE_S
        while not errors and time.monotonic() < deadline:
            time.sleep(0.01)
        field.fails = False
        renderer.look(view_of(), moving=False, number=2)
        reader.final(2)
    assert errors == ["RuntimeError: out of luck"]


def test_nothing_comes_after_close():
    reader = Reader()
    renderer = LiveRenderer(SlowField(5e3), on_frame=reader)
    renderer.look(view_of(width=160, height=120), moving=False)
    reader.until(lambda frame: True)
    renderer.close()
    shown = len(reader.frames)
    renderer.look(view_of())
    time.sleep(0.05)
    renderer.close()
    assert len(reader.frames) == shown
