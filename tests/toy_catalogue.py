"""Cards and artefacts of no scene at all, made in milliseconds without torch: what catalogue tests need of a model.

The toy model is an ONNX graph that shows a gradient which turns with the camera, so that its probes mean something.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from crowdnerf_lab.catalogue.artefact import Artefact, card_files, write_artefact
from crowdnerf_lab.catalogue.card import (
    CardFile,
    Energy,
    Latency,
    MeasuredQuality,
    ModelCard,
    Probe,
    Provenance,
    ViewCell,
)
from crowdnerf_lab.catalogue.remeasurement import probe_psnr, timed_on_probes
from crowdnerf_lab.devices.measure import latency_of
from crowdnerf_lab.network.ue import LocalModel, light_field_model

DIGEST = "0" * 64
WIDTH, HEIGHT = 24, 16
POSE = ((1.0, 0.0, 0.0, 0.5), (0.0, 1.0, 0.0, -0.25), (0.0, 0.0, 1.0, 0.0))
OTHER_POSE = ((0.0, 0.0, 1.0, -0.5), (0.0, 1.0, 0.0, 0.25), (-1.0, 0.0, 0.0, 1.0))
FOCAL, CENTRE = (20.0, 20.0), (12.0, 8.0)
MACHINE = "the machine of the tests"


def quality_of(psnr: float | None, *, ssim: float | None = 0.5) -> MeasuredQuality:
    return MeasuredQuality(views=4, psnr=psnr, psnr_affine=psnr, ssim=ssim, flip=0.3, psnr_teacher=psnr)


def toy_card(
    name: str,
    *,
    psnr: float | None = 20.0,
    size: int = 100_000,
    ms: float = 10.0,
    kind: str = "light_field",
    memory_mb: float | None = None,
    energy_mj: float | None = None,
    place: tuple[float, float, float, float] | None = None,
    **others: Any,
) -> ModelCard:
    """A card with these figures. place: centre x, y, z and radius of the view cell it serves."""
    baked = kind == "baked_field"
    model = "model.cnlf" if baked else "model.onnx"
    document: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "family": "baked_field" if baked else "ray_mlp",
        "stored_as": "baked" if baked else "onnx_float32",
        "computes_in": "float32",
        "architecture": "for this test",
        "width": 320,
        "height": 240,
        "view_cell": None if place is None else ViewCell(centre=place[:3], radius=place[3]),
        "model": model,
        "bytes": size,
        "peak_memory_mb": memory_mb,
        "energy": None if energy_mj is None else Energy(frame_mj=energy_mj, assumption="made up for the tests"),
        "latency": Latency(median_ms=ms, p95_ms=2 * ms, frames=20, threads=1, runtime="none", machine=MACHINE),
        "quality": quality_of(psnr),
        "probe_psnr": 18.0,
        "probes": (Probe(path="probe_0.png", camera_to_world=POSE, focal=FOCAL, centre=CENTRE),),
        "provenance": Provenance(scene="none", teacher_sha256=DIGEST, seed=0, versions=()),
        "licence": "CC0-1.0",
        "files": (
            CardFile(path=model, bytes=size, sha256=DIGEST),
            CardFile(path="probe_0.png", bytes=1, sha256=DIGEST),
        ),
    }
    return ModelCard.model_validate(document | others)


def toy_offer(name: str, **figures: Any) -> Artefact:
    """An artefact of which there is only the card: enough to select by."""
    return Artefact(Path(name), toy_card(name, **figures))


@cache
def toy_graph(*, seed: int = 0, opset: int = 20, padding: int = 0, layers: int = 0) -> bytes:
    """A graph like a light field's: pose and intrinsics in, image [1 h w 3] out.

    padding: bytes of notes in it. layers: 256 wide, for the time they take.
    """
    generator = np.random.default_rng(seed)
    u, v = np.meshgrid((np.arange(WIDTH) + 0.5), (np.arange(HEIGHT) + 0.5))
    tensors = {
        "pixels": np.stack([u, v], -1).reshape(-1, 2).astype(np.float32),
        "colours": generator.normal(size=(3, 3)).astype(np.float32),
        "turned": np.array([1, HEIGHT, WIDTH, 3]),
        "rows": np.array([0]),
        "three": np.array([3]),
        "axis": np.array([1]),
        "ones": np.ones((HEIGHT * WIDTH, 1), np.float32),
        "widen": 0.01 * generator.normal(size=(3, 256)).astype(np.float32),
        "weights": 0.06 * generator.normal(size=(256, 256)).astype(np.float32),
        "narrow": 0.01 * generator.normal(size=(256, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["pixels", "centre"], ["shifted"]),
        helper.make_node("Div", ["shifted", "focal"], ["plane"]),
        helper.make_node("Concat", ["plane", "ones"], ["rays"], axis=1),
        helper.make_node("Slice", ["camera_to_world", "rows", "three", "axis"], ["rotation"]),
        helper.make_node("Transpose", ["rotation"], ["inverse"], perm=[1, 0]),
        helper.make_node("MatMul", ["rays", "inverse"], ["directions"]),
        helper.make_node("MatMul", ["directions", "colours"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "widen"], ["wide0"]),
        *(helper.make_node("MatMul", [f"wide{i}", "weights"], [f"wide{i + 1}"]) for i in range(layers)),
        helper.make_node("MatMul", [f"wide{layers}", "narrow"], ["more"]),
        helper.make_node("Add", ["mixed", "more"], ["summed"]),
        helper.make_node("Sigmoid", ["summed"], ["flat"]),
        helper.make_node("Reshape", ["flat", "turned"], ["image"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("camera_to_world", [3, 4]), ("focal", [2]), ("centre", [2]))
    ]
    output = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, HEIGHT, WIDTH, 3])
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items() if name in used]
    graph = helper.make_graph(nodes, "toy", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    model.opset_import[0].version = opset
    model.doc_string = "x" * padding
    return model.SerializeToString()


def toy_model(content: bytes) -> LocalModel:
    return light_field_model(content, width=WIDTH, height=HEIGHT, threads=1, name=Path("toy"))


def write_toy_artefact(
    root: Path,
    name: str = "toy",
    *,
    content: bytes | None = None,
    measured_as: LocalModel | None = None,
    file: str = "model.onnx",
    **others: Any,
) -> Artefact:
    """A real artefact of the toy graph, measured, under root/NAME.

    content: another model file, called `file`; measured_as: what is timed for it. others: fields of its card, true or
    not.
    """
    content = toy_graph() if content is None else content
    measured = measured_as or toy_model(toy_graph())
    with TemporaryDirectory() as folder:
        drafts = Path(folder)
        files = {file: drafts / "model"}
        (drafts / "model").write_bytes(content)
        probes = []
        for i, pose in enumerate((POSE, OTHER_POSE)):
            files[f"probe_{i}.png"] = drafts / f"probe_{i}.png"
            _probe_picture(measured, pose).save(files[f"probe_{i}.png"])
            probes.append(Probe(path=f"probe_{i}.png", camera_to_world=pose, focal=FOCAL, centre=CENTRE))
        described = [probe.model_dump() for probe in probes]
        timing = timed_on_probes(measured, drafts, described, frames=5)
        figures = {
            "model": file,
            "size": len(content),
            "width": measured.width,
            "height": measured.height,
            "probes": tuple(probes),
            "probe_psnr": probe_psnr(measured, drafts, described),
            "latency": latency_of(measured, timing),
            "files": card_files(files),
        }
        return write_artefact(toy_card(name, **figures | others), root, files=files)


def _probe_picture(model: LocalModel, pose: tuple[tuple[float, ...], ...]) -> Image.Image:
    """What the model shows, with the noise of a teacher that is not quite the model."""
    picture = model.render(np.array(pose), FOCAL, CENTRE, width=WIDTH, height=HEIGHT).astype(np.int16)
    noise = np.random.default_rng(0).integers(-16, 17, picture.shape)
    return Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))
