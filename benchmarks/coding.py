"""Rate and distortion of a trained student's weights: what each codec makes of them, and what that does to pictures.

    python -m benchmarks.coding --scene data/concert --field runs/standard/field.safetensors \
        --student runs/standard/student.safetensors --json

Every point is a file that was decoded and rendered by ONNX Runtime as a UE does. Importances are measured at poses
between the captured ones, quality at the scene's held-out views, which nothing here was tuned on. NNC needs NNCodec in
an environment of its own (CROWDNERF_NNCODEC) and is left out without it.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from benchmarks.conditions import conditions, finish, print_table, run_options
from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.coding.coded_graph import KIND, packed_graph
from crowdnerf_lab.coding.layered_file import read_layers
from crowdnerf_lab.coding.nncodec import NNCodecError, decode_nnc, encode_nnc
from crowdnerf_lab.coding.quantization import Importance, step_for_psnr
from crowdnerf_lab.coding.tensors import compress
from crowdnerf_lab.coding.weights import importance_of
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import Picture, as_colour, pictures_of, pooled_psnr
from crowdnerf_lab.devices.quantize import convert
from crowdnerf_lab.devices.reference import Reference, calibration_feeds, reference_of
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.storage import load_light_field
from crowdnerf_lab.network.ue import light_field_model
from crowdnerf_lab.pseudo_views import poses_between, viewing_cameras
from crowdnerf_lab.scene import PosedScene

log = logging.getLogger(__name__)

PSNRS = (46, 42, 40, 38, 36, 34, 32, 28)
"""PSNR, dB, to the student's own pictures that the lossy points are made for."""
RELATIVE_STEPS = (0.1, 0.2, 0.4)
"""Steps of the uninformed points, in root mean squares of a tensor."""
NNC_QPS = (-38, -32, -26, -22)
IMPORTANCE_VIEWS = 48


@dataclass(frozen=True)
class Point:
    """One way to send the student: the file that a UE opens, and the bytes that travel where they are others.

    exact: the student's float32 weights come back bit by bit.
    """

    codec: str
    content: bytes
    coded: bool
    exact: bool
    travelling: int | None = None


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    torch.set_num_threads(arguments.threads)
    scene = read_scene(arguments.scene)
    student = load_light_field(arguments.student)
    reference = reference_of(sh_grid_of(load_field(arguments.field), arguments.field), scene, views=arguments.views)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    importances = importance_of(student, _looking(student, scene, arguments.seed), seed=arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        graph = export_onnx(
            student, Path(folder) / "student.onnx", width=student.view_size[0], height=student.view_size[1]
        )
        content = graph.read_bytes()
        shown = _shown(Point("float32", content, coded=False, exact=True), student, reference)
        rows = [
            _row(point, len(content), parameters, shown, student, reference)
            for point in _points(graph, student, scene, importances, parameters, arguments.nncodec)
        ]
    print_table(rows, f"student {student.size} of {scene.name}: {student.architecture}, {parameters} parameters")
    finish(
        {
            "scene": scene.name,
            "student": student.architecture,
            "parameters": parameters,
            "views": len(reference.photos),
            "teacher_psnr": round(pooled_psnr(reference.teacher, reference.photos), 3),
            "rows": rows,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


def _points(
    graph: Path,
    student: LightField,
    scene: PosedScene,
    importances: dict[str, Importance],
    parameters: int,
    nncodec: Path | None,
) -> Iterator[Point]:
    """Every codec at every setting."""
    yield Point("float32", graph.read_bytes(), coded=False, exact=True)
    yield Point("zstd", packed_graph(graph, coding="zstd"), coded=True, exact=True)
    yield Point("range, exact", packed_graph(graph), coded=True, exact=True)
    yield from _prefixes("progressive, exact", packed_graph(graph, coding="progressive"), exact=True)
    yield from _int8_points(graph, student, scene, importances, parameters)
    for step in RELATIVE_STEPS:
        yield Point(f"range, step {step:g} rms", packed_graph(graph, step=step), coded=True, exact=False)
    for psnr in PSNRS:
        step = step_for_psnr(psnr, weights=parameters)
        content = packed_graph(graph, step=step, importances=importances)
        yield Point(f"range, for {psnr} dB", content, coded=True, exact=False)
    step = step_for_psnr(40, weights=parameters)
    progressive = packed_graph(graph, coding="progressive", step=step, importances=importances)
    yield from _prefixes("progressive, for 40 dB", progressive, exact=False)
    yield from _nnc_points(graph, nncodec)


def _prefixes(codec: str, content: bytes, *, exact: bool) -> Iterator[Point]:
    ends = read_layers(content, kind=KIND, name=codec).ends
    for k, end in enumerate(ends, 1):
        whole = k == len(ends)
        yield Point(f"{codec}: {k} of {len(ends)} layers", content[:end], coded=True, exact=exact and whole)


def _int8_points(
    graph: Path, student: LightField, scene: PosedScene, importances: dict[str, Importance], parameters: int
) -> Iterator[Point]:
    """Formats whose weights are int8: as they are, coded exactly, and with coarser integers where it pays."""
    width, height = student.view_size
    feeds = calibration_feeds(scene, width=width, height=height)
    for stored_as in ("onnx_int8_weights", "onnx_int8_qdq"):
        int8 = graph.with_name(f"{stored_as}.onnx")
        convert(graph, int8, stored_as=stored_as, feeds=feeds)
        yield Point(stored_as, int8.read_bytes(), coded=False, exact=False)
        yield Point(f"{stored_as}, range", packed_graph(int8), coded=True, exact=False)
        for psnr in (42, 38, 34):
            step = step_for_psnr(psnr, weights=parameters)
            content = packed_graph(int8, step=step, importances=importances)
            yield Point(f"{stored_as}, range, for {psnr} dB", content, coded=True, exact=False)


def _nnc_points(graph: Path, environment: Path | None) -> Iterator[Point]:
    """The float weights of layers as NNC bitstreams; what is left of the graph is added to their bytes, zstd'd."""
    model = onnx.load(graph)
    tensors = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith((".weight", ".bias"))
    }
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    for tensor in rest.graph.initializer:
        if tensor.name in tensors:
            tensor.ClearField("raw_data")
    graph_bytes = len(compress(rest.SerializeToString()))
    for qp in NNC_QPS:
        try:
            bitstream = encode_nnc(tensors, qp=qp, environment=environment)
            decoded = decode_nnc(bitstream, environment=environment)
        except NNCodecError as error:
            log.warning("NNC is left out: %s", error)
            return
        for tensor in model.graph.initializer:
            if tensor.name in tensors:
                values = decoded[tensor.name].reshape(tensors[tensor.name].shape)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        travelling = len(bitstream) + graph_bytes
        yield Point(f"NNC, qp {qp}", model.SerializeToString(), coded=False, exact=False, travelling=travelling)


def _shown(point: Point, student: LightField, reference: Reference) -> list[Picture]:
    width, height = student.view_size
    name = Path(point.codec)
    model = light_field_model(point.content, width=width, height=height, threads=1, name=name, coded=point.coded)
    return pictures_of(model, reference.cameras)


def _row(
    point: Point,
    float32_bytes: int,
    parameters: int,
    student_pictures: list[Picture],
    student: LightField,
    reference: Reference,
) -> dict[str, Any]:
    pictures = _shown(point, student, reference)
    shown, before = ([as_colour(picture) for picture in part] for part in (pictures, student_pictures))
    psnr = pooled_psnr(shown, reference.photos)
    travelling = len(point.content) if point.travelling is None else point.travelling
    same = all((a == b).all() for a, b in zip(pictures, student_pictures, strict=True))
    return {
        "codec": point.codec,
        "bytes": travelling,
        "percent_of_float32": round(100 * travelling / float32_bytes, 2),
        "bits_per_weight": round(8 * travelling / parameters, 2),
        "exact": point.exact,
        "psnr_float32": None if same else round(pooled_psnr(shown, before), 2),
        "psnr_teacher": round(pooled_psnr(shown, reference.teacher), 3),
        "psnr": round(psnr, 3),
        "lost_db": round(pooled_psnr(before, reference.photos) - psnr, 3),
    }


def _looking(student: LightField, scene: PosedScene, seed: int) -> Cameras:
    """Poses that importances are measured at: captured ones and such between them; no held-out one."""
    width, height = student.view_size
    captured = viewing_cameras(scene.cameras[scene.train], width=width, height=height)
    poses = poses_between(captured, max(2 * len(captured), IMPORTANCE_VIEWS), margin=0.1, angle=0.04, seed=seed)
    return poses[torch.linspace(0, len(poses) - 1, IMPORTANCE_VIEWS).round().long()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle or a folder with transforms.json")
    parser.add_argument("--field", type=Path, required=True, help="the teacher (.safetensors)")
    parser.add_argument("--student", type=Path, required=True, help="the trained student (.safetensors)")
    parser.add_argument("--nncodec", type=Path, help="NNCodec's environment, instead of CROWDNERF_NNCODEC")
    parser.add_argument("--views", type=int, default=0, help="held-out views to judge by; 0: all")
    run_options(parser, threads=1, threads_of="rendering and importances")
    return parser.parse_args()


if __name__ == "__main__":
    main()
