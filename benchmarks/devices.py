"""The ladder of a scene: bytes, milliseconds and decibels of every artefact, on its card and measured again.

    python -m benchmarks.devices --preset standard

Trains the field and distils the students as the preset says (or takes them from files), builds the ladder's rungs,
each measured as a UE runs it on one thread of this machine, and then verifies every card as a receiver would: for any
other machine the milliseconds are a proxy.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from benchmarks.conditions import conditions, finish, print_table, run_options
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.verify import verify
from crowdnerf_lab.devices.ladder import Ladder
from crowdnerf_lab.devices.measure import pooled_psnr
from crowdnerf_lab.devices.reference import reference_of
from crowdnerf_lab.distillation import distil
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.storage import load_light_field, save_light_field
from crowdnerf_lab.light_fields.students import untrained_student
from crowdnerf_lab.presets import Preset, preset
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import fit

STUDENTS = (
    "ray_mlp XS",
    "ray_mlp S",
    "ray_mlp M",
    "plane_features XS",
    "plane_features S",
    "plane_features M",
    "light_slab S",
)
FRACTION_OF_XS = 5 / 8
"""Of a view's sides that a student of size XS draws: 200 x 150 of 320 x 240."""


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    sizes = preset(arguments.preset)
    scene = read_scene(arguments.scene, downscale=sizes.photo_downscale)
    field = _field(arguments, scene, sizes)
    students, distillations = _students(arguments, scene, field, sizes)
    reference = reference_of(field, scene, views=arguments.views)
    with tempfile.TemporaryDirectory() as temporary:
        ladder = Ladder(
            field,
            students,
            scene=scene,
            root=arguments.artefacts or Path(temporary),
            reference=reference,
            resolutions=((sizes.view_width, sizes.view_height),),
            frames=sizes.timed_frames,
            seed=arguments.seed,
        )
        artefacts = ladder.build_all(ladder.candidates() if arguments.all else ladder.shortlist())
        rows = [_row(artefact, teacher=pooled_psnr(reference.teacher, reference.photos)) for artefact in artefacts]
    print_table(distillations, "students")
    print_table(rows, f"artefacts of {scene.name}")
    finish(
        {
            "scene": scene.name,
            "preset": sizes.name,
            "views": len(reference.photos),
            "teacher_psnr": round(pooled_psnr(reference.teacher, reference.photos), 3),
            "students": distillations,
            "rows": rows,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


def _field(arguments: argparse.Namespace, scene: PosedScene, sizes: Preset) -> SHGrid:
    if arguments.field is not None:
        return sh_grid_of(load_field(arguments.field), arguments.field)
    trained = fit(scene, seconds=sizes.fit_seconds, seed=arguments.seed, threads=arguments.threads).model
    return sh_grid_of(trained, scene.name)


def _students(
    arguments: argparse.Namespace, scene: PosedScene, field: SHGrid, sizes: Preset
) -> tuple[list[LightField], list[dict[str, str | int | float | None]]]:
    """The students, and a row for each that was distilled here; with a folder, taken from it and kept there."""
    students, rows = [], []
    with tempfile.TemporaryDirectory() as workspace:
        for name in arguments.students:
            kept = arguments.keep / f"{name.replace(' ', '_')}.safetensors" if arguments.keep else None
            if kept is not None and kept.exists():
                students.append(load_light_field(kept))
                continue
            width, height = _size_of(name, sizes)
            distillation = distil(
                field,
                scene,
                student=untrained_student(name, teacher=field, scene=scene, view_size=(width, height)),
                seconds=arguments.distil_seconds or sizes.distil_seconds,
                views=arguments.distil_views or sizes.distil_views,
                width=width,
                height=height,
                seed=arguments.seed,
                workspace=Path(workspace) / f"{width}x{height}",
                threads=arguments.threads,
            )
            students.append(distillation.student)
            last = distillation.history[-1]
            rows.append(
                {
                    "student": name,
                    "size": f"{width}x{height}",
                    "steps": last.step,
                    "seconds": round(last.seconds, 1),
                    "teacher_views_seconds": round(distillation.render_seconds, 1),
                    "psnr_to_teacher": None if last.held_out_psnr is None else round(last.held_out_psnr, 3),
                }
            )
            if kept is not None:
                save_light_field(distillation.student, kept)
    return students, rows


def _size_of(student: str, sizes: Preset) -> tuple[int, int]:
    """Of the views that a student is distilled for."""
    fraction = FRACTION_OF_XS if student.endswith(" XS") else 1.0
    return round(sizes.view_width * fraction), round(sizes.view_height * fraction)


def _row(artefact: Artefact, *, teacher: float) -> dict[str, str | int | float | bool | None]:
    """What the card says, and what a receiver finds."""
    card, found = artefact.card, verify(artefact)
    trained = next((step.psnr for step in card.steps if step.step == "trained"), card.quality.psnr)
    return {
        "family": card.family,
        "model": card.name.split(".")[2],
        "stored_as": card.stored_as,
        "coding": card.coding,
        "size": f"{card.width}x{card.height}",
        "computes_in": card.computes_in,
        "bytes_fp32": card.bytes_float32,
        "bytes_coded": card.bytes,
        "teacher_psnr": round(teacher, 3),
        "psnr_trained": _rounded(trained),
        "psnr": _rounded(card.quality.psnr),
        "ssim": _rounded(card.quality.ssim),
        "ms_median": round(card.latency.median_ms, 2),
        "ms_p95": round(card.latency.p95_ms, 2),
        "cold_ms": _rounded(card.cold_start_ms),
        "memory_mb": _rounded(card.peak_memory_mb),
        "psnr_card": round(found.psnr_card, 3),
        "psnr_remeasured": round(found.psnr_remeasured, 3),
        "ms_remeasured": round(found.ms_remeasured, 2),
        "believed": found.agrees,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=Path("data/concert"), help="anything that read_scene reads")
    parser.add_argument("--preset", choices=["tiny", "standard", "full"], default="standard")
    parser.add_argument("--field", type=Path, help="a trained field (.safetensors) instead of training one")
    parser.add_argument("--students", nargs="+", default=STUDENTS, metavar="'FAMILY SIZE'", help="students to distil")
    parser.add_argument("--distil-seconds", type=float, help="of each student, instead of the preset's")
    parser.add_argument("--distil-views", type=int, help="views that the teacher renders, instead of the preset's")
    parser.add_argument("--keep", type=Path, help="folder with students distilled before; new ones are added to it")
    parser.add_argument("--artefacts", type=Path, help="folder that keeps the artefacts, and is gone on with")
    parser.add_argument("--all", action="store_true", help="every format in every coding, not the shortlist alone")
    parser.add_argument("--views", type=int, default=0, help="held-out views to judge by; 0: all")
    run_options(parser, threads_of="training and distillation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
