"""Light slabs against ray MLPs at equal training time: decibels, bytes, and milliseconds of one thread.

    python -m benchmarks.slabs --scene data/concert --field runs/standard/field.safetensors --seconds 60 300 900

Every student is distilled anew for each budget from the same pseudo views, stored with weights of eight bits, entropy
coded, and then measured as a UE runs it: the decoded graph in ONNX Runtime on one thread. Rows of one `seconds` are at
equal training time; read equal latency along `ms`.

Not among the students, because it did not pay: a 4-D multiresolution hash encoding of (u, v, s, t) (8 levels of 2^16
lines of 2 features, 1.05 M weights) with a small MLP a pixel, trained in fused numba kernels on single random pixels of
the teacher's views. One thread trains on 0.2 M rays/s. On views between the concert's captured ones it came to 23.2 dB
to the teacher after 40 s of one thread and 23.5 dB after 60 s (9 views); the light slab S came to 24.5 dB after 40 s,
the ray MLP S to 23.0 dB (26 views, those 9 among them). It fits its own rays 1 dB better than new ones, and a frame of
320 x 240 takes 0.13 s.
"""

import argparse
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions, finish, print_table, run_options
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.coding.coded_graph import encode_graph
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import measure_latency, measure_quality, pooled_psnr
from crowdnerf_lab.devices.quantize import convert
from crowdnerf_lab.devices.reference import Reference, reference_of
from crowdnerf_lab.distillation import Distillation, DistilSettings, distil
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.light_fields.students import untrained_student
from crowdnerf_lab.network.ue import light_field_model
from crowdnerf_lab.scene import PosedScene

STUDENTS = ("ray_mlp S", "ray_mlp M", "light_slab XS", "light_slab S", "light_slab M", "plane_features S")
ROUNDS = 3
"""Rounds of timed frames; the least disturbed counts."""


@dataclass(frozen=True)
class Conditions:
    """What all students have in common: teacher and scene, size of the views in pixels, how many views' worth of pixels
    the teacher renders, threads of training, seed, and the folder that keeps the teacher's views."""

    field: SHGrid
    scene: PosedScene
    width: int
    height: int
    views: int
    threads: int
    seed: int
    workspace: Path


def distilled(name: str, same: Conditions, *, seconds: float, rays: int) -> Distillation:
    """A student of this name after so many seconds of training."""
    view_size = same.width, same.height
    return distil(
        same.field,
        same.scene,
        student=untrained_student(name, teacher=same.field, scene=same.scene, view_size=view_size, seed=same.seed),
        seconds=seconds,
        views=same.views,
        width=same.width,
        height=same.height,
        seed=same.seed,
        settings=DistilSettings(rays_per_step=rays),
        workspace=same.workspace,
        threads=same.threads,
    )


def measured(name: str, distillation: Distillation, reference: Reference, folder: Path) -> dict[str, Any]:
    """One row of the table. PSNR, dB, pooled over the held-out views: against the teacher and against the photos."""
    student, width, height = distillation.student, distillation.width, distillation.height
    plain = export_onnx(student, folder / "plain.onnx", width=width, height=height)
    stored = convert(plain, folder / "int8.onnx", stored_as="onnx_int8_weights").path
    coded = encode_graph(stored, folder / "coded")
    model = light_field_model(coded.read_bytes(), width=width, height=height, threads=1, name=coded, coded=True)
    quality = measure_quality(model, reference.cameras, photos=reference.photos, teacher=reference.teacher)
    latency = measure_latency(model, reference.cameras, rounds=ROUNDS)
    last = distillation.history[-1]
    return {
        "student": name,
        "seconds": round(last.seconds, 1),
        "steps": last.step,
        "psnr_teacher": _rounded(quality.psnr_teacher),
        "psnr": _rounded(quality.psnr),
        "ssim": _rounded(quality.ssim),
        "parameters": sum(weights.numel() for weights in student.parameters()),
        "bytes_fp32": plain.stat().st_size,
        "bytes_coded": coded.stat().st_size,
        "ms": round(latency.median_ms, 2),
        "architecture": student.architecture,
    }


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    scene = read_scene(arguments.scene)
    field = sh_grid_of(load_field(arguments.field), arguments.field)
    reference = reference_of(field, scene)
    with tempfile.TemporaryDirectory() as folder:
        same = Conditions(
            field=field,
            scene=scene,
            width=arguments.width,
            height=arguments.height,
            views=arguments.views,
            threads=arguments.threads,
            seed=arguments.seed,
            workspace=arguments.workspace or Path(folder) / "views",
        )
        rows = [
            measured(name, distilled(name, same, seconds=seconds, rays=arguments.rays), reference, Path(folder))
            for seconds in arguments.seconds
            for name in arguments.students
        ]
    print_table([{k: v for k, v in row.items() if k != "architecture"} for row in rows], f"students of {scene.name}")
    finish(
        {
            "scene": scene.name,
            "views": len(reference.photos),
            "teacher_psnr": _rounded(pooled_psnr(reference.teacher, reference.photos)),
            "rows": rows,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


def _rounded(decibels: float | None) -> float | None:
    return None if decibels is None else round(decibels, 3)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle or a folder with transforms.json")
    parser.add_argument("--field", type=Path, required=True, help="the teacher: a trained field (.safetensors)")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), help="a family and a size each, in quotes")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0], help="budgets of training")
    parser.add_argument("--rays", type=int, default=DistilSettings().rays_per_step, help="of a training step")
    parser.add_argument("--views", type=int, default=100, help="views' worth of pixels that the teacher renders")
    parser.add_argument("--workspace", type=Path, help="folder that keeps the teacher's views for the next run")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    run_options(parser, threads_of="training; frames are timed on one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
