"""The explorer: fly through models live from the kernel, side by side, under one camera.

    cn.widgets.explorer(field, scene=scene)
    cn.widgets.explorer({"teacher": field, "student": student, "truth": scene}, scene=scene)

The browser steers the camera (web/src/camera) and shows pictures; one LiveRenderer a model draws them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import anywidget
import plotly.graph_objects as go
import traitlets
from ipywidgets import jslink
from PIL import Image

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.figures.pictures import image_strip
from crowdnerf_lab.files import write_atomically
from crowdnerf_lab.live_rendering.frame import Frame
from crowdnerf_lab.live_rendering.live_renderer import LiveRenderer, LiveSettings
from crowdnerf_lab.live_rendering.modes import Mode
from crowdnerf_lab.live_rendering.sources import FixedPictures, Model, Training
from crowdnerf_lab.network.views.view_codecs import MEDIA_TYPES, Format, encode_picture
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.widgets.built import built_file
from crowdnerf_lab.widgets.explorer_camera import camera_of, first_camera, ideal_photo, judging_rows, photos_of, view_of
from crowdnerf_lab.widgets.explorer_recording import MEDIA_TYPE_OF, Flight, Recording, free_name

WIDEST = 640
"""Pixels across a picture at full resolution, unless another size is asked for."""
IN_FLIGHT = 2
"""Frames that may be on their way to the browser: one that it decodes while the next is drawn."""
FORMAT: Format = "jpeg"
"""Of frames and photos on their way to a browser of the same machine: encoded in the least time."""
PHOTO_QUALITY = 90


class ExplorerError(ValueError):
    """An explorer that cannot be opened; the message says why and what to do."""


class Explorer(anywidget.AnyWidget):
    """Models under one camera. Made by `explorer`.

    Its traits may be set, observed and linked. camera: where it rests, as `explorer_camera.camera_of` gives it. mode:
    what is drawn, one of `modes`. ue: whose phone "as taken" is about, one of `ues`. photo: row of the scene's photo
    that the camera stands at, -1 for none. pace: walking speed in m/s.
    """

    _esm = built_file("explorer.js")
    _css = built_file("explorer.css")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    camera = traitlets.Dict().tag(sync=True)
    mode = traitlets.Unicode("colour").tag(sync=True)
    modes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ue = traitlets.Unicode("").tag(sync=True)
    ues = traitlets.List(traitlets.Unicode()).tag(sync=True)
    photos = traitlets.List(traitlets.Dict()).tag(sync=True)
    photo = traitlets.Int(-1).tag(sync=True)
    pace = traitlets.Float(2.0).tag(sync=True)

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        camera: Mapping[str, Any],
        size: tuple[int, int],
        scene: PosedScene | None,
        appearance: Appearance | None,
        settings: LiveSettings,
    ) -> None:
        self._scene, self._appearance, self._models = scene, appearance, tuple(models.values())
        self._steered: Mapping[str, Any] = camera
        self._recording: Recording | None = None
        self._renderers = tuple(
            LiveRenderer(
                model,
                on_frame=self._sender(pane),
                on_error=self._speaker(pane),
                scene=scene,
                appearance=appearance,
                settings=settings,
            )
            for pane, model in enumerate(self._models)
        )
        photos = [] if scene is None else photos_of(scene)
        ues = list(dict.fromkeys(photo["ue"] for photo in photos))
        super().__init__(
            names=list(models),
            width=size[0],
            height=size[1],
            camera=dict(camera),
            modes=list(dict.fromkeys(mode for renderer in self._renderers for mode in renderer.modes)),
            photos=photos,
            ues=ues,
            ue=ues[0] if ues else "",
        )
        self.on_msg(self._receive)
        self.observe(self._look, ["camera", "mode", "ue", "photo"])
        for model, renderer in zip(self._models, self._renderers, strict=True):
            if isinstance(model, Training):  # a fit in the same cell lets no look of the browser through
                renderer.look(self._view())

    @property
    def cameras(self) -> Cameras:
        """The camera that is shown now, as a batch of one: what `render_view` and others take."""
        return self._view().cameras()

    def look_from(self, cameras: Cameras, index: int = 0) -> None:
        """Show what one camera sees; its principal point is put in the middle."""
        self.photo = -1
        self.camera = camera_of(cameras, index) | {"distance": self.camera["distance"]}

    def wait_for_stand_ins(self, timeout: float | None = None) -> bool:
        """Wait, so many seconds at most, for the baked fields that are shown while moving; whether there is one."""
        waited = [renderer.wait_for_stand_in(timeout) for renderer in self._renderers]
        return any(waited)

    def still(self) -> go.Figure:
        """What is shown now, at full resolution, as a figure that stays; with the photo, if the camera is a photo's."""
        pictures: dict[str, Any] = {name: self._frame(pane).picture for pane, name in enumerate(self.names)}
        if self._scene is not None and self.photo >= 0:
            pictures[f"photo of {self._ue_of(self.photo)}"] = ideal_photo(self._scene, self.photo)
        return image_strip(pictures)

    def save_view(self, path: Path | str, *, name: str | None = None) -> Path:
        """Write what is shown now of the model called `name` (the first), at full resolution, as a PNG file.

        Raises FileError when it cannot be written.
        """
        frame = self._frame(0 if name is None else self._pane_of(name))
        return write_atomically(
            Path(path), lambda temporary: Image.fromarray(frame.picture).save(temporary, format="PNG")
        )

    def close(self) -> None:
        """Take the widget away, and end what draws for it."""
        if self._recording is not None:
            self._recording.stop()
        for renderer in self._renderers:
            renderer.close()
        super().close()

    def _view(self) -> ViewRequest:
        return view_of(self.camera, width=self.width, height=self.height)

    def _frame(self, pane: int) -> Frame:
        renderer = self._renderers[pane]
        return renderer.still(self._view(), mode=self._mode_of(renderer), photo=self._photo_of_phone())

    def _pane_of(self, name: str) -> int:
        if name not in self.names:
            raise ExplorerError(f"no model is called {name!r}; choose one of {', '.join(self.names)}")
        return self.names.index(name)

    def _mode_of(self, renderer: LiveRenderer) -> Mode:
        """The chosen mode; colour for a model that does not have it."""
        return cast(Mode, self.mode) if self.mode in renderer.modes else "colour"

    def _ue_of(self, row: int) -> str:
        return next(photo["ue"] for photo in self.photos if photo["row"] == row)

    def _photo_of_phone(self) -> int | None:
        """The photo whose phone "as taken" is about: the one that the camera stands at, or the first of the UE."""
        if self.photo >= 0 and self._ue_of(self.photo) == self.ue:
            return self.photo
        return next((photo["row"] for photo in self.photos if photo["ue"] == self.ue), None)

    def _look(self, _: object = None) -> None:
        """Draw the camera at rest. One that was set, not steered here, may be on its way: soon counts more then."""
        arrived = self.camera == self._steered
        self._look_at(self.camera, moving=not arrived)

    def _look_at(self, camera: Mapping[str, Any], *, moving: bool, number: int = 0) -> None:
        view, photo = view_of(camera, width=self.width, height=self.height), self._photo_of_phone()
        for renderer in self._renderers:
            renderer.look(view, mode=self._mode_of(renderer), photo=photo, moving=moving, number=number)

    def _receive(self, _: object, message: Mapping[str, Any], __: object) -> None:
        """Answer a message of the browser (web/src/explorer)."""
        for pane, serial in message.get("drawn", ()):
            self._renderers[pane].shown(serial)
        if message["kind"] == "look":
            self._steered = message["camera"]
            self._look_at(self._steered, moving=True, number=message["number"])
        elif message["kind"] == "hello":
            self._look_at(self.camera, moving=False)
        elif message["kind"] == "photo":
            self._send_photo(message["row"])
        elif message["kind"] == "record":
            self._record(message)
        elif message["kind"] == "stop_recording" and self._recording is not None:
            self._recording.stop()

    def _sender(self, pane: int) -> Callable[[Frame], None]:
        """What sends a pane's frames to the browser, from the thread that draws them."""

        def send(frame: Frame) -> None:
            wanted = "" if frame.look.mode == self.mode else f"has no {self.mode}"
            head = {
                "kind": "frame",
                "pane": pane,
                "number": frame.serial,
                "look": frame.look.number,
                "width": frame.width,
                "height": frame.height,
                "full": frame.final,
                "render_ms": 1000 * frame.seconds,
                "media_type": MEDIA_TYPES[FORMAT],
                "note": wanted or ("baked stand-in" if frame.stand_in else ""),
                "legend": None if frame.legend is None else asdict(frame.legend),
            }
            self.send(head, [frame.encoded(FORMAT)])

        return send

    def _speaker(self, pane: int) -> Callable[[str], None]:
        return lambda text: self.send({"kind": "say", "pane": pane, "text": text})

    def _send_photo(self, row: int) -> None:
        assert self._scene is not None, "photos are offered only of a scene"
        picture = (ideal_photo(self._scene, row) * 255).round().byte().numpy()
        head = {"kind": "photo", "row": row, "media_type": MEDIA_TYPES[FORMAT]}
        self.send(head, [encode_picture(picture, format=FORMAT, quality=PHOTO_QUALITY)])

    def _record(self, message: Mapping[str, Any]) -> None:
        """Record a flight through the cameras of a message into the kernel's folder."""
        pane = self._pane_of(message["model"])
        model, suffix = self._models[pane], message["format"]
        flight = Flight(
            model,
            [view_of(camera, width=self.width, height=self.height) for camera in message["cameras"]],
            seconds=message["seconds"],
            file=free_name(Path.cwd(), "flight", suffix),
            mode=self._mode_of(self._renderers[pane]),
            photo=self._photo_of_phone(),
            scene=self._scene,
            appearance=self._appearance,
        )

        def end(file: Path | None, why: str) -> None:
            if file is None:
                self.send({"kind": "not_recorded", "why": why})
            else:
                head = {"kind": "recorded", "file": file.name, "media_type": MEDIA_TYPE_OF[suffix]}
                self.send(head, [file.read_bytes()])

        self._recording = Recording(
            flight,
            on_progress=lambda done, frames: self.send({"kind": "recording", "done": done, "frames": frames}),
            on_end=end,
        )


def explorer(
    models: Model | PosedScene | Mapping[str, Model | PosedScene],
    *,
    scene: PosedScene | None = None,
    at: Cameras | None = None,
    size: tuple[int, int] | None = None,
    appearance: Appearance | None = None,
    linked_to: Explorer | None = None,
    frames_per_second: float = 24.0,
) -> Explorer:
    """Fly through a model, or through several side by side under one camera, by mouse, touch or keyboard.

    models: one, or several by name: radiance fields, baked fields, light fields, what `load_artefact` returns; a scene,
    whose held-out photos are then shown as the truth: the nearest one, wherever one stands; or the TrainingControl that
    is given to fit(), or a training board, to see the field while it trains. scene: its photos
    can be gone to and blended with; it also gives uncertainty. at: the first camera; without it, that of the scene's
    first held-out photo. size: width and height at full resolution; by default of the first camera, 640 wide at most.
    appearance: as learned with the model (`cn.fit(scene).appearance`), to see it as a UE saw it. linked_to: an explorer
    whose camera this one shares. frames_per_second: held while moving, by drawing fewer pixels.

    Raises ExplorerError without scene, at and linked_to; LiveRenderingError for a model that cannot be shown.
    """
    named = models if isinstance(models, Mapping) else {"scene": models}
    if not named:
        raise ExplorerError("there is no model to explore; give one, or several by name")
    if linked_to is not None:
        camera, own_size = linked_to.camera, (linked_to.width, linked_to.height)
    elif at is not None:
        camera, own_size = camera_of(at, focus=None if scene is None else scene.bounds.centre), _size_of(at)
    elif scene is not None:
        camera, own_size = first_camera(scene), _size_of(scene.cameras[judging_rows(scene)])
    else:
        raise ExplorerError("nobody knows where to begin; give scene=, or at= some cameras, or linked_to= an explorer")
    widget = Explorer(
        {name: _shown(model) for name, model in named.items()},
        camera=camera,
        size=size or own_size,
        scene=scene,
        appearance=appearance,
        settings=LiveSettings(frames_per_second=frames_per_second, in_flight=IN_FLIGHT),
    )
    if linked_to is not None:
        jslink((linked_to, "camera"), (widget, "camera"))
    return widget


def _shown(model: Model | PosedScene) -> Model:
    if not isinstance(model, PosedScene):
        return model
    return FixedPictures.of(model, judging_rows(model))


def _size_of(cameras: Cameras) -> tuple[int, int]:
    """Width and height of the first camera's pictures, shrunk to WIDEST pixels across."""
    width, height = int(cameras.width[0]), int(cameras.height[0])
    scale = min(1.0, WIDEST / width)
    return round(scale * width), round(scale * height)
