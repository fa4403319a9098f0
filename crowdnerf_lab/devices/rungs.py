"""The files of a ladder's rungs: a student exported, converted and coded; a field baked and coded.

What was made stays in a working folder, whole or absent, so that a build that was killed goes on where it was.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from crowdnerf_lab.catalogue.card import Coding, Format, Kind
from crowdnerf_lab.coding import baked_stream, coded_graph
from crowdnerf_lab.coding.layered_file import read_layers
from crowdnerf_lab.coding.quantization import Importance, step_for_psnr
from crowdnerf_lab.coding.weights import importance_of
from crowdnerf_lab.devices.cost import Work, work_of_graph, work_of_march
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.profile import Precision
from crowdnerf_lab.devices.quantize import computes_in, convert
from crowdnerf_lab.devices.reference import calibration_feeds
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.network.ue import LocalModel, baked_model, light_field_model
from crowdnerf_lab.pseudo_views import poses_between, viewing_cameras
from crowdnerf_lab.scene import PosedScene

IMPORTANCE_VIEWS = 48
WORK_VIEWS = 8
"""Captured poses at which the samples of a march are counted."""


@dataclass(frozen=True)
class Candidate:
    """One rung of a ladder, built or not. size: of the student, or the tier of the baked field.

    width, height: of the picture it draws. faithful_db: PSNR to the pictures of the uncoded file that a coder which may
    round the weights aims at; None: nothing is lost in coding.
    """

    family: str
    size: str
    stored_as: Format
    width: int
    height: int
    coding: Coding = "none"
    faithful_db: float | None = None

    @property
    def kind(self) -> Kind:
        """What a UE has to run."""
        return "baked_field" if self.stored_as == "baked" else "light_field"

    @property
    def name(self) -> str:
        """What tells it from the other rungs, as part of a file's name."""
        coding = self.coding if self.faithful_db is None else f"{self.coding}-{self.faithful_db:g}dB"
        return plain(f"{self.family}.{self.size}.{self.stored_as}.{self.width}x{self.height}.{coding}")


@dataclass(frozen=True)
class Rung:
    """A candidate's files. path: what travels; uncoded: the same as it runs. work: of one frame.

    parameters, bytes_float32: of the model that was converted, as plain float32.
    """

    path: Path
    uncoded: Path
    computes_in: Precision
    architecture: str
    parameters: int
    bytes_float32: int
    work: Work


def light_field_rung(
    student: LightField,
    candidate: Candidate,
    *,
    scene: PosedScene,
    folder: Path,
    importances: Callable[[], Mapping[str, Importance]],
    after: Path | None = None,
) -> Rung:
    """Export, convert and code a student. Raises QuantizationError for a format that its graph does not take.

    importances: of its weights, asked for when a coder may round them. after: the file of the version before, for which
    a delta shall be small.
    """
    plain_graph = plain_graph_of(student, candidate, folder=folder)
    size = {"width": candidate.width, "height": candidate.height}
    graph = folder / f"{_sized(candidate)}.{candidate.stored_as}.onnx"
    if not graph.exists():
        convert(plain_graph, graph, stored_as=candidate.stored_as, feeds=calibration_feeds(scene, **size))
    plain_file = folder / f"{_sized(candidate)}.onnx_float32.onnx"
    _once(plain_file, lambda: convert(plain_graph, plain_file, stored_as="onnx_float32").path)
    path = folder / f"{candidate.name}{_following(after)}.cnlf"
    match candidate.coding:
        case "none":
            path = graph
        case coding:
            _once(path, lambda: _coded(graph, path, coding, candidate.faithful_db, student, importances, after))
    return Rung(
        path=path,
        uncoded=graph,
        computes_in=computes_in(graph),
        architecture=student.architecture,
        parameters=parameters_of(student),
        bytes_float32=plain_file.stat().st_size,
        work=work_of_graph(graph),
    )


def _coded(
    graph: Path,
    path: Path,
    coding: Literal["zstd", "range", "progressive"],
    faithful_db: float | None,
    student: LightField,
    importances: Callable[[], Mapping[str, Importance]],
    after: Path | None,
) -> Path:
    if faithful_db is None:
        return coded_graph.encode_graph(graph, path, coding=coding)
    step = step_for_psnr(faithful_db, weights=parameters_of(student))
    return coded_graph.encode_graph(graph, path, coding=coding, step=step, importances=importances(), after=after)


def importances_of(student: LightField, scene: PosedScene, *, seed: int) -> dict[str, Importance]:
    """How much each weight matters to the pictures at poses around the captured ones, of which none is held out."""
    width, height = student.view_size
    captured = viewing_cameras(scene.cameras[scene.train], width=width, height=height)
    poses = poses_between(captured, max(2 * len(captured), IMPORTANCE_VIEWS), margin=0.1, angle=0.04, seed=seed)
    return importance_of(student, poses[torch.linspace(0, len(poses) - 1, IMPORTANCE_VIEWS).round().long()], seed=seed)


def plain_graph_of(student: LightField, candidate: Candidate, *, folder: Path) -> Path:
    """The student as it was trained: its float32 graph at the candidate's size."""
    path = folder / f"{_sized(candidate)}.trained.onnx"
    return _once(path, lambda: export_onnx(student, path, width=candidate.width, height=candidate.height))


def baked_rung(
    bake: Callable[[BakedField | None], BakedField],
    candidate: Candidate,
    *,
    scene: PosedScene,
    folder: Path,
    after: Path | None = None,
) -> Rung:
    """Bake (where that was not done yet) and code a field. bake: from the version before, if `after` is its file."""
    stem = f"{plain(candidate.size)}.baked{_following(after)}"
    plain_file = folder / f"{stem}.safetensors"
    _once(plain_file, lambda: bake(_field_before(after)).save(plain_file))
    field = BakedField.load(plain_file)
    path = plain_file
    if candidate.coding != "none":
        path = folder / f"{stem}.cnlf"
        _once(path, lambda: baked_stream.encode_baked(field, path))
    rows = scene.train[:: max(1, len(scene.train) // WORK_VIEWS)]
    levels, degree = ", ".join(map(str, field.resolutions)), field.sh_degree
    return Rung(
        path=path,
        uncoded=plain_file,
        computes_in="float32",
        architecture=f"SH grid of degree {degree}, levels {levels}, {field.bits} bits, {len(field.values)} rows",
        parameters=field.values.size,
        bytes_float32=4 * field.values.size + plain_file.stat().st_size - field.values.nbytes,
        work=work_of_march(field, scene.cameras[rows], width=candidate.width, height=candidate.height),
    )


def opened(path: Path, candidate: Candidate, *, threads: int, most_bytes: int | None = None) -> LocalModel:
    """A rung's file as a UE opens it; most_bytes: the beginning of it only."""
    content = path.read_bytes()[:most_bytes]
    open_model = baked_model if candidate.kind == "baked_field" else light_field_model
    return open_model(
        content,
        width=candidate.width,
        height=candidate.height,
        threads=threads,
        name=path,
        coded=path.suffix == ".cnlf",
    )


def layer_ends(path: Path, candidate: Candidate) -> tuple[int, ...]:
    """Where the layers of a rung's coded file end, bytes from its start."""
    kind = baked_stream.KIND if candidate.kind == "baked_field" else coded_graph.KIND
    return read_layers(path.read_bytes(), kind=kind, name=path).ends


def family_of(student: LightField) -> str:
    """ray_mlp, light_slab, ...: the class's name in the words of a card."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(student).__name__).lower()


def size_of(student: LightField) -> str:
    """The student's size, and its cell where that is not MobileR2L's 8 pixels."""
    return student.size if student.cell == 8 else f"{student.size}-cell{student.cell}"


def parameters_of(student: LightField) -> int:
    """Numbers that were trained."""
    return sum(parameter.numel() for parameter in student.parameters())


def plain(text: str) -> str:
    """Text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "scene"


def _field_before(after: Path | None) -> BakedField | None:
    """The whole baked field of a coded file."""
    if after is None or after.suffix != ".cnlf":
        return None
    field, complete = baked_stream.decode_baked(after.read_bytes(), name=after)
    return field if complete else None


def _following(after: Path | None) -> str:
    """What a file's name says of the version that it follows."""
    return "" if after is None else f".after-{sha256_of(after)[:12]}"


def _sized(candidate: Candidate) -> str:
    return plain(f"{candidate.family}.{candidate.size}.{candidate.width}x{candidate.height}")


def _once(path: Path, make: Callable[[], Path]) -> Path:
    return path if path.exists() else make()
