"""The minimal UE: verify an artefact, load it, render. Needs numpy, pillow and onnxruntime (a baked field: numba).

No torch and no training code: about a hundred lines to port to another language.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crowdnerf_lab.catalogue.verification import ArtefactError, read_card, verified_model, verified_prefix

if TYPE_CHECKING:
    from crowdnerf_lab.fields.baked import BakedField

Picture = NDArray[np.uint8]
Pair = Sequence[float] | NDArray[np.floating]
Draw = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""camera_to_world [3 4], focal [2], centre [2] in pixels of the model's image -> image [h w 3] in [0, 1]."""
INPUTS = {"camera_to_world": [3, 4], "focal": [2], "centre": [2]}
"""What a light field's graph takes."""


@dataclass(frozen=True)
class LocalModel:
    """A model that is ready to render on this device, width x height pixels at a time, with so many CPU threads.

    complete: False when only the first layers of a progressive file were here.
    """

    width: int
    height: int
    threads: int
    runtime: str
    draw: Draw
    complete: bool = True

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


def load_artefact(folder: Path, *, threads: int = 1, allow_partial: bool = False) -> LocalModel:
    """Verify an artefact's folder and load its model. Raises ArtefactError, and loads nothing then.

    allow_partial: while a progressive file still arrives, load the layers that are here; the other files may be absent.
    """
    folder = Path(folder)
    card = read_card(folder)
    content = verified_prefix(folder, card) if allow_partial else verified_model(folder, card)
    try:
        open_model = {"light_field": light_field_model, "baked_field": baked_model}.get(card["kind"])
        width, height, coded = int(card["width"]), int(card["height"]), card.get("coding", "none") != "none"
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{folder}: its card is incomplete ({error}); fetch the artefact again") from error
    if open_model is None:
        raise ArtefactError(
            f"{folder}: this UE cannot run a model of kind {card['kind']!r}; update it or ask the network"
        )
    name = folder / card["model"]
    try:
        return open_model(content, width=width, height=height, threads=threads, name=name, coded=coded)
    except ImportError as error:
        raise ArtefactError(f"{name} needs {error.name} here: pip install {error.name}") from error
    except ValueError as error:  # of the decoders and of the baked field
        raise error if isinstance(error, ArtefactError) else ArtefactError(str(error)) from error


def light_field_model(
    content: bytes, *, width: int, height: int, threads: int, name: Path, coded: bool = False
) -> LocalModel:
    """A light field's ONNX graph on the CPU, with pinned threads that sleep, rather than spin, between frames.

    From bytes, so that a graph cannot pull in other files of the device.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    complete = True
    if coded:
        from crowdnerf_lab.coding.coded_graph import decode_graph

        decoded = decode_graph(content, name=name)
        decoded.lend(options)
        content, complete = decoded.model, decoded.complete
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        takes, gives = {i.name: i.shape for i in session.get_inputs()}, {o.name: o.shape for o in session.get_outputs()}
    except Exception as error:  # ONNX Runtime's exceptions share no other base class
        raise ArtefactError(f"{name}: ONNX Runtime refuses the graph ({error}); fetch the artefact again") from error
    if takes != INPUTS or gives != {"image": [1, height, width, 3]}:
        raise ArtefactError(f"{name} makes {gives} of {takes}, not the card's picture; fetch the artefact again")

    def draw(pose, focal, centre):
        (image,) = session.run(["image"], {"camera_to_world": pose, "focal": focal, "centre": centre})
        return np.asarray(image)[0]

    return LocalModel(width, height, threads, f"onnxruntime {onnxruntime.__version__}", draw, complete)


def baked_model(
    content: bytes, *, width: int, height: int, threads: int, name: Path, coded: bool = False
) -> LocalModel:
    """A baked field, marched by numba's compiled kernels."""
    import numba

    field, complete = decoded_field(content, name=name, coded=coded)

    def draw(pose, focal, centre):
        f, c = (float(focal[0]), float(focal[1])), (float(centre[0]), float(centre[1]))
        return field.render_image(pose, f, centre=c, width=width, height=height, threads=threads).colour

    return LocalModel(width, height, threads, f"numba {numba.__version__}", draw, complete)


def decoded_field(content: bytes, *, name: Path, coded: bool) -> "tuple[BakedField, bool]":
    """The baked field of an artefact's verified bytes, and whether it is complete. Raises ValueError when damaged."""
    if coded:
        from crowdnerf_lab.coding.baked_stream import decode_baked

        return decode_baked(content, name=name)
    from crowdnerf_lab.fields.baked import baked_field_of

    return baked_field_of(content, name=name), True
