"""The explorer's half in the kernel: looks answered with frames, photos, recordings, and what a reader gets wrong."""

import io
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crowdnerf_lab.cameras import distorted, pixel_grid
from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.fit_settings import FitSettings
from crowdnerf_lab.network.views.view_request import ViewError
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import fit
from crowdnerf_lab.training_control import TrainingControl
from crowdnerf_lab.widgets.explorer_camera import camera_of, ideal_photo, view_of
from crowdnerf_lab.widgets.explorer_recording import free_name
from crowdnerf_lab.widgets.explorer_widget import Explorer, ExplorerError, explorer
from tests.toy_field import ToyField, toy_cameras, toy_scene


@dataclass
class Browser:
    """What an explorer sent, in place of a browser that draws it."""

    sent: list[tuple[dict[str, Any], list[bytes]]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def receive(self, head: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        with self.arrived:
            self.sent.append((head, buffers or []))
            self.arrived.notify_all()

    def first(self, wanted: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], list[bytes]]:
        """The first message so far, or soon, of which `wanted` is true."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(wanted(head) for head, _ in self.sent), timeout=10), self.sent
            return next(message for message in self.sent if wanted(message[0]))


@pytest.fixture(scope="module")
def scene() -> PosedScene:
    return toy_scene()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    browser = Browser()
    monkeypatch.setattr(Explorer, "send", lambda _, head, buffers=None: browser.receive(head, buffers))
    return browser


@pytest.fixture
def opened(browser: Browser, scene: PosedScene) -> Iterator[Explorer]:
    widget = explorer({"field": ToyField(), "truth": scene}, scene=scene)
    yield widget
    widget.close()


def say(widget: Explorer, message: dict[str, Any]) -> None:
    """As if the browser had sent it."""
    widget._handle_custom_msg(message, [])


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float32)


def test_it_opens_at_the_first_held_out_view_and_sharpens_to_full_resolution(opened, browser, scene):
    row = int(scene.held_out[0])
    assert torch.allclose(opened.cameras.camera_to_world[0], scene.cameras.camera_to_world[row])
    assert torch.allclose(opened.cameras.focal[0], scene.cameras.focal[row])
    say(opened, {"kind": "hello"})
    head, [content] = browser.first(lambda head: head["kind"] == "frame" and head["pane"] == 0 and head["full"])
    assert (head["width"], head["height"]) == (opened.width, opened.height) == (48, 40)
    sharpest = opened._frame(0).picture.astype(np.float32)
    assert np.abs(picture(content) - sharpest).mean() < 4


def test_a_look_is_answered_by_its_number(opened, browser):
    say(opened, {"kind": "look", "number": 7, "camera": opened.camera, "drawn": []})
    head, _ = browser.first(lambda head: head["kind"] == "frame" and head["pane"] == 0)
    assert head["look"] == 7
    assert not head["note"]


def test_the_camera_that_comes_to_rest_is_drawn_sharp(opened, browser, scene):
    there = camera_of(scene.cameras, 5)
    say(opened, {"kind": "look", "number": 1, "camera": there, "drawn": []})
    opened.camera = there
    browser.first(lambda head: head["kind"] == "frame" and head["full"] and head["look"] == 0)


def test_a_model_without_the_mode_shows_colour_and_says_so(opened, browser):
    opened.mode = "depth"
    head, _ = browser.first(lambda head: head["kind"] == "frame" and head["pane"] == 0 and head["legend"])
    assert head["legend"]["unit"] == "m"
    other, _ = browser.first(lambda head: head["kind"] == "frame" and head["pane"] == 1)
    assert other["note"] == "has no depth"
    assert other["legend"] is None


def test_photos_come_when_asked_for(opened, browser, scene):
    assert {photo["ue"] for photo in opened.photos} == set(scene.captures)
    say(opened, {"kind": "photo", "row": 3})
    head, [content] = browser.first(lambda head: head["kind"] == "photo")
    assert head["row"] == 3
    assert np.abs(picture(content) - scene.images[3].numpy()).mean() < 4


def test_the_still_holds_every_model_and_the_photo_one_stands_at(opened):
    names = [note.text for note in opened.still().layout.annotations]
    assert [name for name in names if name in ("field", "truth")] == ["field", "truth"]
    opened.photo = 3
    assert any("photo of ue03" in note.text for note in opened.still().layout.annotations)


def test_a_view_is_saved_as_it_is_shown(opened, tmp_path: Path):
    file = opened.save_view(tmp_path / "view.png", name="truth")
    assert np.asarray(Image.open(file)).shape == (40, 48, 3)
    with pytest.raises(ExplorerError, match="'student'; choose one of field, truth"):
        opened.save_view(tmp_path / "view.png", name="student")


def test_a_flight_is_recorded_with_progress(opened, browser, scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    keys = [camera_of(scene.cameras, row) for row in (0, 6, 11)]
    say(opened, {"kind": "record", "cameras": keys, "seconds": 0.25, "format": "gif", "model": "field"})
    head, [content] = browser.first(lambda head: head["kind"] == "recorded")
    assert head["file"] == "flight.gif"
    assert (tmp_path / "flight.gif").read_bytes() == content
    with Image.open(io.BytesIO(content)) as film:
        assert film.n_frames == 7
    done, _ = browser.first(lambda head: head["kind"] == "recording" and head["done"] == head["frames"])
    assert done["frames"] == 7
    assert free_name(tmp_path, "flight", "gif").name == "flight-2.gif"


def test_a_recording_that_is_stopped_leaves_no_file(
    opened, browser, scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    keys = [camera_of(scene.cameras, row) for row in (0, 11)]
    say(opened, {"kind": "record", "cameras": keys, "seconds": 60, "format": "gif", "model": "field"})
    browser.first(lambda head: head["kind"] == "recording")
    say(opened, {"kind": "stop_recording"})
    head, _ = browser.first(lambda head: head["kind"] == "not_recorded")
    assert "stopped" in head["why"]
    assert list(tmp_path.iterdir()) == []


def test_a_flight_that_goes_nowhere_is_explained(opened, browser):
    say(
        opened,
        {"kind": "record", "cameras": [opened.camera] * 2, "seconds": 1, "format": "gif", "model": "field"},
    )
    head, _ = browser.first(lambda head: head["kind"] == "not_recorded")
    assert "two different key views" in head["why"]


def test_linked_explorers_share_a_camera(opened, scene):
    other = explorer(ToyField(), scene=scene, linked_to=opened)
    assert other.camera == opened.camera
    assert other.names == ["scene"]
    other.close()


def test_looking_from_a_camera_of_ones_own_keeps_what_it_sees(browser):
    cameras = toy_cameras(3)
    widget = explorer(ToyField(), at=cameras, size=(30, 20))
    widget.look_from(cameras, 2)
    assert torch.allclose(widget.cameras.camera_to_world[0], cameras.camera_to_world[2])
    seen = 2 * math.atan(20 / (2 * float(widget.cameras.focal[0, 1])))
    assert seen == pytest.approx(2 * math.atan(40 / (2 * float(cameras.focal[2, 1]))), rel=1e-6)
    widget.close()


def test_a_fit_in_the_same_cell_is_seen_while_it_trains(browser, scene):
    control = TrainingControl()
    widget = explorer(control, scene=scene)
    seen: list[int] = []
    control.watch(lambda moment: seen.append(len(browser.sent)))
    small = SHGridShape(resolutions=(4, 8), log2_rows=8, occupancy_cells=8, steps=16)
    fit(scene, steps=40, settings=FitSettings(shape=small), control=control, progress=False)
    assert seen[-1] > 0, "no frame before the last step"
    head, _ = browser.sent[0]
    assert head["kind"] == "frame"
    widget.close()


def test_whoever_says_too_little_is_told_what_is_missing():
    with pytest.raises(ExplorerError, match="give scene=, or at="):
        explorer(ToyField())
    with pytest.raises(ExplorerError, match="no model to explore"):
        explorer({})


@pytest.mark.parametrize(
    ("camera", "match"),
    [
        ({"camera_to_world": [1.0] * 11, "field_of_view": 1.0}, "11 numbers"),
        ({"camera_to_world": [0.0] * 12, "field_of_view": 4.0}, "4.0 radians"),
        ({"camera_to_world": [0.0] * 12, "field_of_view": 1.0}, "rotation"),
        ({"field_of_view": 1.0}, "no camera"),
    ],
)
def test_a_camera_that_is_none_is_refused(camera: dict[str, Any], match: str):
    with pytest.raises(ViewError, match=match):
        view_of(camera, width=8, height=6)


def test_a_photo_of_a_bent_lens_is_straightened(scene: PosedScene):
    """A photo whose red is its own column tells where each pixel of the straight picture was taken from."""
    bend = torch.tensor([-0.1, 0.02, 0.0, 0.0])
    cameras = replace(scene.cameras, distortion=bend.expand(len(scene), 4))
    column = torch.arange(48).expand(40, 48) + 0.5
    image = torch.stack([column * 5] * 3, dim=-1).round().to(torch.uint8)
    bent = replace(scene, cameras=cameras, images=(image, *scene.images[1:]))
    plane = (pixel_grid(48, 40) - cameras.centre[0]) / cameras.focal[0]
    expected = distorted(plane, bend.expand(40, 48, 4))[..., 0] * cameras.focal[0, 0] + cameras.centre[0, 0]
    seen = ideal_photo(bent, 0)[..., 0] * 255 / 5
    inside = slice(8, -8)
    assert torch.allclose(seen[inside, inside], expected[inside, inside], atol=0.15)
    assert (expected - column)[inside, inside].abs().max() > 0.2
