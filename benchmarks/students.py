"""What each trick of distillation is worth: students distilled with it and without it, in equal time.

    python -m benchmarks.students --scene data/concert --field runs/standard/field.safetensors --seconds 120

Rows of students say steps, decibels to the teacher and to the photos of held-out views, parameters, bytes, and
milliseconds of one thread in torch and in ONNX Runtime. Rows of tricks train one of them (--ablate) with one thing
changed. With --choosing, students are judged by every eighth training photo's pose, not by the held-out views: settings
are chosen so, and only then are the held-out views looked at.
"""

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.conditions import conditions, finish, print_table, run_options
from benchmarks.slabs import Conditions, measured
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.devices.measure import pooled_psnr
from crowdnerf_lab.devices.reference import Reference, reference_of
from crowdnerf_lab.distillation import Distillation, DistilSettings, distil
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.planes import planes_across, planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.light_fields.students import untrained_student

STUDENTS = ("ray_mlp XS", "ray_mlp S", "ray_mlp M", "plane_features XS", "plane_features S", "light_slab S")
SETTINGS = DistilSettings()
TRICKS: dict[str, DistilSettings] = {
    "as it is": SETTINGS,
    "last weights, not their mean": replace(SETTINGS, averaging=0),
    "windows drawn evenly": replace(SETTINGS, hard_share=0.0),
    "bf16": replace(SETTINGS, precision="bf16"),
    "all pixels of fewer windows": replace(SETTINGS, sparsity=1),
    "captured poses and between, no margin": replace(SETTINGS, margin=0, angle=0),
    "twice the rays a step": replace(SETTINGS, rays_per_step=2 * SETTINGS.rays_per_step),
    "twice the rate": replace(SETTINGS, rate=2 * SETTINGS.rate),
}
FRAMES = 12


def ray_mlps(same: Conditions) -> dict[str, LightField]:
    """Ray MLPs of size S that differ from 'ray_mlp S' in one thing each."""
    cameras, bounds = same.scene.cameras[same.scene.train], same.scene.bounds
    through = planes_through(same.field, cameras, bounds, seed=same.seed)
    size = {"view_size": (same.width, same.height), "seed": same.seed}
    return {
        "planes evenly through the bounds": RayMLP(planes_across(cameras, bounds), "S", **size),
        "GELU": RayMLP(through, "S", activation="gelu", **size),
        "transposed convolutions": RayMLP(through, "S", upsampling="conv_transpose", **size),
        "super-resolution x4": RayMLP(through, "S", cell=4, **size),
        "no super-resolution (R2L)": RayMLP(through, "S", cell=1, **size),
        "12 planes": RayMLP(planes_through(same.field, cameras, bounds, points=12, seed=same.seed), "S", **size),
        "8 frequencies": RayMLP(through, "S", frequencies=8, **size),
    }


def distilled(student: LightField, same: Conditions, *, seconds: float, settings: DistilSettings) -> Distillation:
    """A student after so many seconds; views of other settings are kept in folders of their own."""
    kind = f"{settings.sparsity}_{settings.margin}_{settings.angle}_{same.views}_{same.width}x{same.height}_{same.seed}"
    return distil(
        same.field,
        same.scene,
        student=student,
        seconds=seconds,
        views=same.views,
        width=same.width,
        height=same.height,
        seed=same.seed,
        settings=settings,
        workspace=same.workspace / kind,
        threads=same.threads,
    )


def torch_ms(student: LightField, reference: Reference, *, width: int, height: int) -> float:
    """Median milliseconds of a frame in torch, on one thread."""
    before, times, views = torch.get_num_threads(), [], len(reference.cameras)
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for i in range(FRAMES):
                started = time.perf_counter()
                student(reference.cameras[i % views : i % views + 1], height, width)
                times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 1000 * median(times[2:])


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    scene = read_scene(arguments.scene)
    if arguments.choosing:
        held = scene.train[::8].tolist()
        scene = scene.with_split(scene.train.tolist(), held)
    field = sh_grid_of(load_field(arguments.field), arguments.field)
    reference = reference_of(field, scene)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        same = Conditions(
            field=field,
            scene=scene,
            width=arguments.width,
            height=arguments.height,
            views=arguments.views,
            threads=arguments.threads,
            seed=arguments.seed,
            workspace=arguments.workspace or Path(folder),
        )

        def row(name: str, trick: str, student: LightField, settings: DistilSettings) -> None:
            result = distilled(student, same, seconds=arguments.seconds, settings=settings)
            figures = measured(name, result, reference, Path(folder))
            ms = torch_ms(result.student, reference, width=same.width, height=same.height)
            rows.append({"student": name, "trick": trick, **figures, "ms_torch": round(ms, 2)})

        view_size = same.width, same.height
        for name in arguments.students:
            student = untrained_student(name, teacher=field, scene=scene, view_size=view_size, seed=same.seed)
            row(name, "as it is", student, SETTINGS)
        for name in arguments.ablate:
            for trick, settings in TRICKS.items():
                if trick != "as it is" or name not in arguments.students:
                    student = untrained_student(name, teacher=field, scene=scene, view_size=view_size, seed=same.seed)
                    row(name, trick, student, settings)
        if "ray_mlp S" in arguments.ablate:
            for trick, student in ray_mlps(same).items():
                row("ray_mlp S", trick, student, SETTINGS)
    print_table([{k: v for k, v in row.items() if k != "architecture"} for row in rows], f"students of {scene.name}")
    finish(
        {
            "scene": scene.name,
            "views": len(reference.photos),
            "teacher_psnr": round(pooled_psnr(reference.teacher, reference.photos), 3),
            "rows": rows,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=Path("data/concert"), help="a crowd bundle or transforms.json")
    parser.add_argument("--field", type=Path, required=True, help="the teacher: a trained field (.safetensors)")
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), help="a family and a size each, in quotes")
    parser.add_argument("--ablate", nargs="*", default=[], help="students to train with one thing changed each time")
    parser.add_argument("--choosing", action="store_true", help="judge by training photos' poses, to choose settings")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, for every row")
    parser.add_argument("--views", type=int, default=100, help="views' worth of pixels that the teacher renders")
    parser.add_argument("--workspace", type=Path, help="folder that keeps the teacher's views for the next run")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    run_options(parser, threads_of="training; frames are timed on one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
