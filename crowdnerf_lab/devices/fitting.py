"""fit_to: the artefacts of a scene for one class of devices, each measured before it is offered."""

import hashlib
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, distorted, pixel_grid
from crowdnerf_lab.catalogue.artefact import Artefact, card_files, write_artefact
from crowdnerf_lab.catalogue.card import Contributor, Format, Kind, ModelCard, Probe, Provenance
from crowdnerf_lab.catalogue.remeasurement import probe_psnr
from crowdnerf_lab.contributors import contributors_of
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import (
    as_colour,
    intrinsics,
    measure_latency,
    measure_quality,
    pictures_of,
    pooled_psnr,
)
from crowdnerf_lab.devices.profile import DeviceProfile, Precision
from crowdnerf_lab.devices.quantize import Feed, computes_in, quantize_static_int8, weight_only_int8
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.network.ue import LocalModel, baked_model, light_field_model
from crowdnerf_lab.pseudo_views import viewing_cameras
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene

log = logging.getLogger(__name__)

PROBES = 2
CALIBRATION_VIEWS = 16
"""Captured poses over which int8 activations get their ranges; more changed nothing in 0.05 dB."""


@dataclass(frozen=True)
class Reference:
    """What models are measured against: held-out views, their photos, and the teacher's pictures of them."""

    cameras: Cameras
    photos: tuple[Float[Tensor, "_ _ 3"], ...]
    teacher: tuple[Float[Tensor, "_ _ 3"], ...]


def reference_of(field: SHGrid, scene: PosedScene, *, views: int = 0) -> Reference:
    """The scene's held-out views (`views` of them, evenly chosen; 0: all) as photos and as the teacher shows them.

    Devices draw the views of ideal lenses, so photos of others are resampled to one.
    """
    rows = scene.held_out
    if 0 < views < len(rows):
        rows = rows[torch.linspace(0, len(rows) - 1, views).round().long()]
    photographed = scene.cameras[rows]
    ideal = replace(photographed, distortion=torch.zeros_like(photographed.distortion))
    return Reference(
        cameras=ideal,
        photos=tuple(through_ideal_lens(scene.image(int(row)), scene.cameras, int(row)) for row in rows),
        teacher=tuple(render_view(field, ideal, i).colour for i in range(len(rows))),
    )


def through_ideal_lens(photo: Float[Tensor, "h w 3"], cameras: Cameras, index: int) -> Float[Tensor, "h w 3"]:
    """The photo of camera `index` as its lens without distortion would show it: bilinear, edges repeated."""
    height, width, _ = photo.shape
    focal, centre, distortion = cameras.focal[index], cameras.centre[index], cameras.distortion[index]
    if not bool(distortion.any()):
        return photo
    plane = (pixel_grid(width, height).to(focal) - centre) / focal
    seen = distorted(plane, distortion.expand(height, width, 4)) * focal + centre
    grid = 2 * seen / torch.tensor([width, height]).to(seen) - 1
    planes = torch.nn.functional.grid_sample(
        photo.permute(2, 0, 1)[None], grid[None], padding_mode="border", align_corners=False
    )
    return planes[0].permute(1, 2, 0)


def fit_to(
    profile: DeviceProfile,
    *,
    field: SHGrid,
    students: Sequence[RayMLP],
    scene: PosedScene,
    root: Path,
    reference: Reference | None = None,
    frames: int = 20,
    licence: str = "not stated",
    licences: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Artefact]:
    """Every model of the scene that a device of this class can run, measured and published as folders of `root`.

    With ONNX Runtime each student as float32, with int8 weights, and as int8 throughout, as far as the profile's
    precisions go; with numba the baked field, at the profile's view size. All are measured here, with the profile's
    threads: latency over `frames` frames, quality on `reference` (the held-out views). licence: of the models. For the
    cards: licences, of each contributor's photos (`licence` where not given); seed, the students'.

    Raises FileError when the artefacts cannot be written; an empty list means that the device has to ask the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(
            profile=profile,
            scene=scene,
            reference=reference or reference_of(field, scene),
            probes=_probes(field, scene, profile, Path(folder)),
            folder=Path(folder),
            root=Path(root),
            frames=frames,
            licence=licence,
            provenance=Provenance(
                scene=scene.name,
                teacher_sha256=_digest(field),
                seed=seed,
                versions=tuple(map(_version, MADE_WITH)),
                trained_on=tuple(
                    Contributor(ue=ue, licence=(licences or {}).get(ue, licence)) for ue in contributors_of(scene)
                ),
            ),
        )
        artefacts = []
        if "onnxruntime" in profile.runtimes:
            artefacts += [artefact for student in students for artefact in _light_fields(bench, student)]
        if "numba" in profile.runtimes and "float32" in profile.precisions:
            artefacts.append(_baked_field(bench, field))
    log.info("%s: %d artefacts in %s", profile.title, len(artefacts), root)
    return artefacts


MADE_WITH = ("crowdnerf-lab", "torch", "onnx", "onnxruntime", "numba")


@dataclass(frozen=True)
class _Bench:
    """What all artefacts of one call have in common."""

    profile: DeviceProfile
    scene: PosedScene
    reference: Reference
    probes: tuple[Probe, ...]
    folder: Path
    root: Path
    frames: int
    licence: str
    provenance: Provenance


def _light_fields(bench: _Bench, student: RayMLP) -> list[Artefact]:
    width, height = student.view_size
    plain = export_onnx(student, bench.folder / "float32.onnx", width=width, height=height)
    feeds = calibration_feeds(bench.scene, width=width, height=height)
    graphs: dict[Format, Path] = {
        "onnx_float32": plain,
        "onnx_int8_qdq": quantize_static_int8(plain, bench.folder / "int8_qdq.onnx", feeds=feeds),
        "onnx_int8_weights": weight_only_int8(plain, bench.folder / "int8_weights.onnx"),
    }
    computed: dict[Format, Precision] = {stored_as: computes_in(graph) for stored_as, graph in graphs.items()}

    def opened(graph: Path) -> LocalModel:
        return light_field_model(
            graph.read_bytes(), width=width, height=height, threads=bench.profile.threads, name=graph
        )

    pictures = pictures_of(opened(plain), bench.reference.cameras)
    before = _psnr([as_colour(picture) for picture in pictures], bench.reference)
    return [
        _published(
            bench,
            opened(graph),
            graph,
            kind="light_field",
            stored_as=stored_as,
            computes=computed[stored_as],
            size=student.size,
            architecture=f"ray MLP {student.size} ({student.activation}, {student.upsampling})",
            psnr_before=None if stored_as == "onnx_float32" else before,
        )
        for stored_as, graph in graphs.items()
        if computed[stored_as] in bench.profile.precisions
    ]


def _baked_field(bench: _Bench, field: SHGrid) -> Artefact:
    baked = bake(field)
    path = baked.save(bench.folder / "baked.safetensors")
    profile = bench.profile
    return _published(
        bench,
        baked_model(
            path.read_bytes(),
            width=profile.view_width,
            height=profile.view_height,
            threads=profile.threads,
            name=path,
        ),
        path,
        kind="baked_field",
        stored_as="baked",
        computes="float32",
        size=f"{baked.bits}bit",
        architecture=f"SH grid, levels {', '.join(map(str, baked.resolutions))}, {baked.bits} bits",
        psnr_before=_psnr(bench.reference.teacher, bench.reference),
    )


def _published(
    bench: _Bench,
    model: LocalModel,
    path: Path,
    *,
    kind: Kind,
    stored_as: Format,
    computes: Precision,
    size: str,
    architecture: str,
    psnr_before: float | None,
) -> Artefact:
    """Measure a model as a UE would run it, and publish it."""
    reference = bench.reference
    files = {f"model{path.suffix}": path} | {probe.path: bench.folder / probe.path for probe in bench.probes}
    card = ModelCard(
        name=".".join(_plain(part) for part in (bench.scene.name, bench.profile.name, size, stored_as)),
        profile=bench.profile.name,
        kind=kind,
        stored_as=stored_as,
        computes_in=computes,
        architecture=architecture,
        width=model.width,
        height=model.height,
        model=f"model{path.suffix}",
        bytes=path.stat().st_size,
        latency=measure_latency(model, bench.scene.cameras, frames=bench.frames),
        quality=measure_quality(
            model,
            reference.cameras,
            photos=reference.photos,
            teacher=reference.teacher,
            psnr_before=psnr_before,
        ),
        probe_psnr=probe_psnr(model, bench.folder, [probe.model_dump() for probe in bench.probes]),
        probes=bench.probes,
        provenance=bench.provenance,
        licence=bench.licence,
        files=card_files(files),
    )
    return write_artefact(card, bench.root, files=files)


def calibration_feeds(scene: PosedScene, *, width: int, height: int) -> list[Feed]:
    """Inputs of a light field's graph at captured poses: int8 activations get their ranges there."""
    rows = scene.train[torch.linspace(0, len(scene.train) - 1, CALIBRATION_VIEWS).round().long().unique()]
    cameras = viewing_cameras(scene, rows, width=width, height=height)
    return [
        {
            "camera_to_world": cameras.camera_to_world[i].numpy(),
            "focal": cameras.focal[i].numpy(),
            "centre": cameras.centre[i].numpy(),
        }
        for i in range(len(cameras))
    ]


def _psnr(pictures: Sequence[Float[Tensor, "_ _ 3"]], reference: Reference) -> float | None:
    return pooled_psnr(pictures, reference.photos) if reference.photos else None


def _probes(field: SHGrid, scene: PosedScene, profile: DeviceProfile, folder: Path) -> tuple[Probe, ...]:
    """Views that a receiver can measure with, as the teacher shows them; their pictures are written to the folder."""
    rows = (scene.held_out if len(scene.held_out) else scene.train)[:PROBES]
    cameras = viewing_cameras(scene, rows, width=profile.view_width, height=profile.view_height)
    probes = []
    for i in range(len(rows)):
        colour = render_view(field, cameras, i).colour
        path = f"probe_{i}.png"
        Image.fromarray((colour * 255).round().to(torch.uint8).numpy()).save(folder / path)
        pose, focal, centre = intrinsics(cameras, i, width=profile.view_width, height=profile.view_height)
        probes.append(Probe(path=path, camera_to_world=tuple(map(tuple, pose.tolist())), focal=focal, centre=centre))
    return tuple(probes)


def _digest(field: SHGrid) -> str:
    digest = hashlib.sha256()
    for name, tensor in field.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    return f"{package} {version(package)}"


def _plain(text: str) -> str:
    """Text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "scene"
