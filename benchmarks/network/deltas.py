"""Deltas: what a UE that holds one version fetches in place of the next, and what that costs the picture.

    python -m benchmarks.network.deltas

A field learns from 60 % of the concert's captures and is refined on more of them, version after version; a student
(ray_mlp S, int8 weights, progressive, as a running event offers it) follows by a few seconds of distillation. Every
version is coded twice: following the version before, which makes the delta, and independently, to compare with. PSNR is
against held-out photos; a loss is what following costs against the independent file of the same version. Since each
version follows the one before, losses that added up would show in the last one.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.catalogue.card import Format
from crowdnerf_lab.catalogue.delta import apply_delta, delta_of
from crowdnerf_lab.coding.baked_stream import encode_baked
from crowdnerf_lab.coding.coded_graph import encode_graph
from crowdnerf_lab.coding.quantization import Importance as WeightImportance
from crowdnerf_lab.coding.quantization import step_for_psnr
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import as_colour, pictures_of, pooled_psnr
from crowdnerf_lab.devices.quantize import convert
from crowdnerf_lab.devices.reference import calibration_feeds, through_ideal_lens
from crowdnerf_lab.devices.rungs import importances_of, parameters_of
from crowdnerf_lab.distillation import distil
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.importance import Importance, ImportanceSettings, importance_of
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.fields.storage import sh_grid_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.storage import load_light_field
from crowdnerf_lab.network.ue import baked_model, light_field_model
from crowdnerf_lab.network.updates.building import FOLLOWING
from crowdnerf_lab.refinement import Learned, refine
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import fit

DATA = Path("data/concert")
STUDENT = Path("runs/standard/students/ray_mlp_S.safetensors")
FORMAT: Format = "onnx_int8_weights"
FAITHFUL_DB = 38.0
TIERS = {"200kB": 200_000, "1MB": 1_000_000}
SIZE = (320, 240)
BAKED_SIZE = (160, 120)
JUDGED = 4
"""Held-out photos."""


@dataclass(frozen=True)
class Version:
    """A version's models before they are coded."""

    field: SHGrid
    student: LightField
    importance: Importance
    importances: Mapping[str, WeightImportance]


def measure(*, quick: bool) -> dict[str, Any]:
    """delta_fraction: the largest delta of the student over its independent file; the same of the fields; losses in dB;
    and a row for every model and version."""
    shares = (0.6, 0.8, 1.0) if quick else (0.6, 0.7, 0.8, 0.9, 1.0)
    whole = read_scene(DATA).downscaled(2)
    whole = whole.with_split(whole.train.tolist(), whole.held_out[:JUDGED].tolist())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="deltas.") as folder:
        home = Path(folder)
        before: dict[str, Path] = {}
        learned, student = None, load_light_field(STUDENT)
        for number, share in enumerate(shares, 1):
            scene = _captures(whole, share)
            learned = _learned(learned, scene, seconds=(8 if quick else 15) if learned is None else (2 if quick else 4))
            field = sh_grid_of(learned.field, "the refined field")
            student = _followed(student, field, scene, seconds=2 if quick else 4)
            version = Version(
                field,
                student,
                importance_of(field, scene.cameras[scene.train], settings=ImportanceSettings(poses=200, batches=8)),
                importances_of(student, scene, seed=0),
            )
            for model in ("student S", *TIERS):
                if model == "1MB" and number > 2:
                    continue
                rows += _coded(version, model, before, scene=scene, number=number, home=home)
    students = [row for row in rows if row["model"] == "student S" and row["delta kB"] is not None]
    fields = [row for row in rows if row["model"] != "student S" and row["delta kB"] is not None]
    return {
        "delta_fraction": max(row["of the file"] for row in students),
        "delta_loss_db": max(row["loss dB"] for row in students),
        "delta_loss_db_last": students[-1]["loss dB"],
        "delta_fraction_fields": max(row["of the file"] for row in fields),
        "delta_loss_db_fields": max(row["loss dB"] for row in fields),
        "deltas": rows,
    }


def _captures(scene: PosedScene, share: float) -> PosedScene:
    """The photos of the first captures."""
    known = round(share * len(scene.captures))
    rows = [row for row in scene.train.tolist() if int(scene.capture_of_image[row]) < known]
    return scene.with_split(rows, scene.held_out.tolist())


def _learned(before: Learned | None, scene: PosedScene, *, seconds: float) -> Learned:
    if before is None:
        return Learned.of(fit(scene, seconds=seconds, progress=False), scene)
    return Learned.of(refine(before, scene, seconds=seconds, progress=False), scene)


def _followed(student: LightField, field: SHGrid, scene: PosedScene, *, seconds: float) -> LightField:
    width, height = SIZE
    return distil(
        field,
        scene.with_split(scene.train.tolist(), []),
        student=student,
        seconds=seconds,
        views=8,
        width=width,
        height=height,
        settings=FOLLOWING,
        progress=False,
    ).student


def _coded(
    version: Version, model: str, before: dict[str, Path], *, scene: PosedScene, number: int, home: Path
) -> list[dict[str, Any]]:
    """The row of one model in one version; `before` goes on to its file."""
    make = _student_file if model == "student S" else _field_file
    started = time.perf_counter()
    path = make(version, model, home / f"{number}.{model}.cnlf", scene=scene, after=before.get(model))
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"model": model, "version": number, "file kB": path.stat().st_size / 1e3}
    row |= dict.fromkeys(("alone kB", "delta kB", "of the file", "dB alone", "dB", "loss dB", "apply ms"))
    row |= {"dB": _psnr(path, model, scene), "coding s": seconds}
    old = before.get(model)
    before[model] = path
    if old is None:
        return [row]
    alone = make(version, model, home / f"{number}.{model}.alone.cnlf", scene=scene, after=None)
    delta = delta_of(old, path, home / f"{number}.{model}.delta")
    content = path.read_bytes() if delta is None else delta.read_bytes()
    started = time.perf_counter()
    if delta is not None and apply_delta(old.read_bytes(), content, name=delta) != path.read_bytes():
        raise RuntimeError(f"the delta of {model} does not give version {number}")
    apply_ms = 1e3 * (time.perf_counter() - started)
    psnr = _psnr(alone, model, scene)
    size = alone.stat().st_size
    row |= {"alone kB": size / 1e3, "delta kB": len(content) / 1e3, "of the file": len(content) / size}
    return [row | {"dB alone": psnr, "loss dB": psnr - row["dB"], "apply ms": apply_ms}]


def _student_file(version: Version, model: str, path: Path, *, scene: PosedScene, after: Path | None) -> Path:
    width, height = SIZE
    trained, graph = path.with_suffix(".trained.onnx"), path.with_suffix(".onnx")
    export_onnx(version.student, trained, width=width, height=height)
    convert(trained, graph, stored_as=FORMAT, feeds=calibration_feeds(scene, width=width, height=height))
    return encode_graph(
        graph,
        path,
        coding="progressive",
        step=step_for_psnr(FAITHFUL_DB, weights=parameters_of(version.student)),
        importances=version.importances,
        after=after,
    )


def _field_file(version: Version, model: str, path: Path, *, scene: PosedScene, after: Path | None) -> Path:
    field = bake(
        version.field,
        cameras=scene.cameras[scene.train],
        max_bytes=TIERS[model],
        importance=version.importance,
        after=None if after is None else BakedField.load(after.with_suffix(".safetensors")),
    )
    field.save(path.with_suffix(".safetensors"))
    return encode_baked(field, path)


def _psnr(path: Path, model: str, scene: PosedScene) -> float:
    """Of the model as a UE draws it, against the held-out photos."""
    width, height = SIZE if model == "student S" else BAKED_SIZE
    open_model = light_field_model if model == "student S" else baked_model
    drawn = open_model(path.read_bytes(), width=width, height=height, threads=1, name=path, coded=True)
    judged = scene.cameras[scene.held_out]
    cameras = replace(judged, distortion=torch.zeros_like(judged.distortion))
    photos = [through_ideal_lens(scene.image(row), scene.cameras, row) for row in scene.held_out.tolist()]
    return pooled_psnr([as_colour(picture) for picture in pictures_of(drawn, cameras)], photos)


if __name__ == "__main__":
    from benchmarks.parts import run_parts

    run_parts("benchmarks.network", ("deltas",), about=__doc__ or "")
