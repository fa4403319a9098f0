"""One render process of network inference; the service starts `python -m crowdnerf_lab.network.views.render_process`.

It reads messages from standard input and answers on standard output (`view_messages`): load a field, drop it, render
views of it. Loading goes on beside rendering, at a lower priority, so that a new version is swapped in while the one
before is shown. It ends when its input ends: with its parent, whatever ended that. No torch is imported.
"""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np

from crowdnerf_lab.catalogue.verification import ArtefactError, read_card, verified_model
from crowdnerf_lab.fields.baked import BakedField, BakedImage
from crowdnerf_lab.network.ue import decoded_field
from crowdnerf_lab.network.views.view_codecs import FORMATS, encode_picture
from crowdnerf_lab.network.views.view_messages import Message, packed, read_message

log = logging.getLogger(__name__)

SWITCH_S = 5e-4
"""How long a thread may hold the interpreter; Python's 5 ms would let decoding stop a render 24 times a view."""
LOADING_NICENESS = 10
TRIAL_SIZE = (128, 96)
"""Pixels of the view that a field shows before it is used: compiles what has to be, and tells how long views take."""


class RenderProcess:
    """The loaded fields and the two threads that load and render; `serve` reads messages until there are no more."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._answering = threading.Lock()
        self._fields: dict[str, BakedField] = {}
        self._to_load: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._to_render: SimpleQueue[tuple[dict[str, Any], int, BakedField | None]] = SimpleQueue()

    def serve(self, messages: BinaryIO) -> None:
        """Read and obey messages until the parent closes them or ends."""
        for work in (self._load_all, self._render_all):
            threading.Thread(target=work, daemon=True).start()
        while (message := read_message(messages)) is not None:
            header = message.header
            match header["do"]:
                case "load":
                    self._to_load.put(header)
                case "drop":
                    self._fields.pop(header["field"], None)
                case "render":
                    field = self._fields.get(header["field"])
                    for view in header["views"]:
                        self._to_render.put((view, header["threads"], field))

    def _load_all(self) -> None:
        if sys.platform == "linux":  # where a niceness is a thread's own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICENESS)
        while True:
            wanted = self._to_load.get()
            try:
                started = time.perf_counter()
                field, trial_ms = loaded_field(Path(wanted["folder"]))
                self._fields[wanted["field"]] = field
                seconds = time.perf_counter() - started
                trial = {"pixels": TRIAL_SIZE[0] * TRIAL_SIZE[1], "ms": trial_ms}
                self._answer({"loaded": wanted["field"], "seconds": seconds} | trial)
            except (ArtefactError, ValueError, KeyError, OSError, MemoryError, ImportError) as error:
                self._answer({"failed": wanted["field"], "reason": str(error) or repr(error)})

    def _render_all(self) -> None:
        while True:
            view, threads, field = self._to_render.get()
            try:
                if field is None:
                    raise ValueError("its field is not loaded")
                header, body = rendered(view, field, threads=threads)
                self._answer(header, body)
            except (ArithmeticError, ValueError, OSError, MemoryError) as error:
                self._answer({"refused": view["id"], "reason": str(error) or repr(error)})

    def _answer(self, header: dict[str, Any], body: bytes = b"") -> None:
        with self._answering:
            self._answers.write(packed(Message(header, body)))
            self._answers.flush()


def loaded_field(folder: Path) -> tuple[BakedField, float]:
    """The verified field of an artefact, ready to be marched, and the milliseconds of its trial view."""
    card = read_card(folder)
    field, _ = decoded_field(
        verified_model(folder, card), name=folder / card["model"], coded=card.get("coding", "none") != "none"
    )
    probe, (width, height) = card["probes"][0], TRIAL_SIZE
    pose, focal = np.array(probe["camera_to_world"], np.float32), probe["focal"]
    scale = width / int(card["width"])
    times = []
    for format in FORMATS:  # the first reads what was compiled, and loads a codec
        started = time.perf_counter()
        image = field.render_image(
            pose,
            (focal[0] * scale, focal[1] * scale),
            centre=(width / 2, height / 2),
            width=width,
            height=height,
            threads=1,
        )
        encode_picture(as_picture(image), format=format, quality=80)
        times.append(time.perf_counter() - started)
    return field, 1e3 * min(times)


def as_picture(image: BakedImage) -> np.ndarray:
    """An image as bytes [h w 3]."""
    return (image.colour * 255 + 0.5).astype(np.uint8)


def rendered(view: dict[str, Any], field: BakedField, *, threads: int) -> tuple[dict[str, Any], bytes]:
    """Header and body of the answer to one view: rendered once, encoded as often as it was asked for."""
    started = time.perf_counter()
    image = field.render_image(
        np.array(view["pose"], np.float32).reshape(3, 4),
        tuple(view["focal"]),
        centre=tuple(view["centre"]),
        width=view["width"],
        height=view["height"],
        threads=threads,
    )
    picture = as_picture(image)
    ended = time.perf_counter()
    contents, encode_ms = [], []
    for format, quality in view["encodings"]:
        before = time.perf_counter()
        contents.append(encode_picture(picture, format=format, quality=quality))
        encode_ms.append(1e3 * (time.perf_counter() - before))
    header = {
        "rendered": view["id"],
        "render_ms": 1e3 * (ended - started),
        "threads": threads,
        "encode_ms": encode_ms,
        "bytes": [len(content) for content in contents],
    }
    return header, b"".join(contents)


def main() -> None:
    """Serve standard input. Whatever a library prints goes to standard error, so that answers stay readable."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to deal with
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.setswitchinterval(SWITCH_S)
    RenderProcess(answers).serve(sys.stdin.buffer)
    os._exit(0)  # at once, even amidst a view: nobody is there to see it


if __name__ == "__main__":
    main()
