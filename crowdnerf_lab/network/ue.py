"""The minimal UE: verify an artefact, load it, render. Needs numpy, pillow and onnxruntime (a baked field: numba).

No torch and no training code: about a hundred lines to port to another language.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crowdnerf_lab.catalogue.verification import ArtefactError, read_card, verified_files

Picture = NDArray[np.uint8]
Pair = Sequence[float] | NDArray[np.floating]
Draw = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""camera_to_world [3 4], focal [2], centre [2] in pixels of the model's image -> image [h w 3] in [0, 1]."""


@dataclass(frozen=True)
class LocalModel:
    """A model that is ready to render on this device, width x height pixels at a time, with so many CPU threads."""

    width: int
    height: int
    threads: int
    runtime: str
    draw: Draw

    def render(
        self,
        camera_to_world: NDArray[np.floating],
        focal: Pair,
        centre: Pair,
        *,
        width: int | None = None,
        height: int | None = None,
    ) -> Picture:
        """The view of an ideal camera (OpenCV axes, metres) as sRGB bytes [h w 3].

        focal and centre are in pixels of the width x height asked for (the model's own by default); the model draws at
        its own size, and the picture is resampled to the one asked for.
        """
        width, height = width or self.width, height or self.height
        scale = np.array([self.width / width, self.height / height], np.float32)
        pose = np.ascontiguousarray(camera_to_world, np.float32)
        image = self.draw(pose, np.asarray(focal, np.float32) * scale, np.asarray(centre, np.float32) * scale)
        picture = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
        if picture.shape[:2] == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def load_artefact(folder: Path, *, threads: int = 1) -> LocalModel:
    """Verify an artefact's folder and load its model. Raises ArtefactError, and loads nothing then."""
    folder = Path(folder)
    card = read_card(folder)
    contents = verified_files(folder, card)
    try:
        path, kind = folder / card["model"], card["kind"]
        content, width, height = contents[card["model"]], int(card["width"]), int(card["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{folder}: its card is incomplete ({error}); fetch the artefact again") from error
    if kind == "light_field":
        return light_field_model(content, width=width, height=height, threads=threads, name=path)
    if kind == "baked_field":
        return baked_model(path, width=width, height=height, threads=threads)
    raise ArtefactError(f"{folder}: this UE cannot run a model of kind {kind!r}; update it or ask the network")


def light_field_model(content: bytes, *, width: int, height: int, threads: int, name: Path) -> LocalModel:
    """A light field's ONNX graph on the CPU, with pinned threads that sleep, rather than spin, between frames.

    From bytes, so that a graph cannot pull in other files of the device.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base class
        raise ArtefactError(f"{name}: ONNX Runtime refuses the graph ({error}); fetch the artefact again") from error

    def draw(pose, focal, centre):
        (image,) = session.run(["image"], {"camera_to_world": pose, "focal": focal, "centre": centre})
        return np.asarray(image)[0]

    return LocalModel(width, height, threads, f"onnxruntime {onnxruntime.__version__}", draw)


def baked_model(path: Path, *, width: int, height: int, threads: int) -> LocalModel:
    """A baked field, marched by numba's compiled kernels."""
    try:
        import numba

        from crowdnerf_lab.fields.baked import BakedField, BakedFieldError
    except ImportError as error:
        raise ArtefactError(f"{path} is a baked field, which needs numba here: pip install numba") from error
    try:
        field = BakedField.load(path)
    except BakedFieldError as error:
        raise ArtefactError(str(error)) from error

    def draw(pose, focal, centre):
        f, c = (float(focal[0]), float(focal[1])), (float(centre[0]), float(centre[1]))
        return field.render_image(pose, f, centre=c, width=width, height=height, threads=threads).colour

    return LocalModel(width, height, threads, f"numba {numba.__version__}", draw)


def probe_psnr(model: LocalModel, folder: Path, probes: Sequence[Mapping[str, Any]]) -> float:
    """PSNR, dB, of the model's pictures against an artefact's probe views: does its card tell the truth here?"""
    squared = []
    for probe in probes:
        with Image.open(folder / probe["path"]) as image:
            truth = np.asarray(image.convert("RGB"), np.float64)
        height, width = truth.shape[:2]
        pose = np.asarray(probe["camera_to_world"], np.float32)
        picture = model.render(pose, probe["focal"], probe["centre"], width=width, height=height)
        squared.append(np.mean((picture - truth) ** 2))
    return float(10 * np.log10(255**2 / max(np.mean(squared), 1e-5)))
