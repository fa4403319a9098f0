"""What a browser runs of an artefact: a baked field's rows, a light field as a plain ONNX graph; both gzip'd.

    model = browser_model_of(artefact)
    model.content                          what a page unpacks and draws with

Range decoders would cost a page more bytes of program and more seconds than they save it, so the network decodes.

    python -m crowdnerf_lab.network.models.browser_models FOLDER PATH

writes what the browser runs of the artefact in FOLDER to PATH, and gzip'd to PATH.gz, at the lowest priority.
"""

import gzip
import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.verification import ArtefactError, verified_model
from crowdnerf_lab.coding.coded_graph import decode_graph
from crowdnerf_lab.fields.baked_rows import rows_file
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.network.ue import decoded_field

log = logging.getLogger(__name__)

BrowserKind = Literal["baked_rows", "onnx"]
COMPRESSION = 6
"""gzip's level; 9 takes longer for 1 % fewer bytes."""
NICENESS = 10


class BrowserModelError(ValueError):
    """An artefact that no browser can run; the message says why and what to do."""


@dataclass(frozen=True)
class BrowserModel:
    """What a browser downloads and runs of one artefact.

    content: gzip'd; unpacked it is a file of fields.baked_rows, or an ONNX graph with the inputs and the output of
    devices.pose_to_image. width, height: pixels of its pictures (a field is marched at any size; this is the one that
    was measured).
    """

    name: str
    kind: BrowserKind
    content: bytes
    width: int
    height: int
    card: ModelCard

    @property
    def bytes(self) -> int:
        """Size of the download."""
        return len(self.content)

    @cached_property
    def sha256(self) -> str:
        """Of `content`, hex; the same artefact always gives the same."""
        return hashlib.sha256(self.content).hexdigest()


def browser_model_of(artefact: Artefact) -> BrowserModel:
    """What a browser runs of an artefact, verified and decoded. Seconds for a baked field, milliseconds for a graph.

    Raises ArtefactError when a file is not what the card says, BrowserModelError when no browser can run it.
    """
    card = artefact.card
    return BrowserModel(
        name=card.name,
        kind=browser_kind(card),
        content=packed(unpacked_model(artefact)),
        width=card.width,
        height=card.height,
        card=card,
    )


def browser_kind(card: ModelCard) -> BrowserKind:
    """What a browser runs of an artefact with this card."""
    return "baked_rows" if card.kind == "baked_field" else "onnx"


def packed(content: bytes) -> bytes:
    """gzip'd, the same bytes for the same content."""
    return gzip.compress(content, compresslevel=COMPRESSION, mtime=0)


def unpacked_model(artefact: Artefact) -> bytes:
    """The file that `BrowserModel.content` unpacks to. Raises ArtefactError, BrowserModelError."""
    content = verified_model(artefact.folder, artefact.card.model_dump(mode="json"))
    coded = artefact.card.coding != "none"
    try:
        if browser_kind(artefact.card) == "onnx":
            return plain_graph(content, name=artefact.model) if coded else content
        return rows_file(decoded_field(content, name=artefact.model, coded=coded)[0])
    except ValueError as error:  # of the decoders, and of fields with more bricks than textures hold
        raise BrowserModelError(f"a browser cannot run {artefact.card.name}: {error}") from error


def plain_graph(content: bytes, *, name: Path) -> bytes:
    """A coded graph as one that carries its own weights. Raises CodedFileError when it is damaged or incomplete."""
    decoded = decode_graph(content, name=name)
    if not decoded.complete:
        raise BrowserModelError(f"{name} is only a beginning; fetch it whole")
    try:
        model = onnx.load_from_string(decoded.model)
    except DecodeError as error:
        raise BrowserModelError(f"{name} holds no graph ({error}); fetch it again") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = decoded.initializers[tensor.name].tobytes()
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model.SerializeToString(deterministic=True)


def main(folder: Path, path: Path) -> None:
    """Write what a browser runs of an artefact, plain and gzip'd; an empty file where no browser can run it."""
    os.nice(NICENESS)
    try:
        content = unpacked_model(open_artefact(folder))
    except (ArtefactError, BrowserModelError) as error:
        log.warning("%s", error)
        content = b""
    else:
        write_bytes(path.with_name(path.name + ".gz"), packed(content))
    write_bytes(path, content)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
