"""Every artefact of a scene for every device profile: bytes, milliseconds and decibels.

    python -m benchmarks.devices --scene data/concert --preset standard

Trains the field, distils the student, bakes and quantizes as the preset says, and measures each artefact as a UE runs
it, with the profile's threads on this machine: for any other machine the milliseconds are a proxy.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from benchmarks.conditions import conditions, finish, print_table
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.devices.fitting import fit_to, reference_of
from crowdnerf_lab.devices.measure import pooled_psnr
from crowdnerf_lab.devices.profile import device_profiles
from crowdnerf_lab.distillation import distil
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.presets import preset
from crowdnerf_lab.training import fit


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    sizes = preset(arguments.preset)
    scene = read_scene(arguments.scene, downscale=sizes.photo_downscale)
    if arguments.field is not None:
        field = sh_grid_of(load_field(arguments.field), arguments.field)
    else:
        trained = fit(scene, seconds=sizes.fit_seconds, seed=arguments.seed, threads=arguments.threads).model
        field = sh_grid_of(trained, scene.name)
    distillation = distil(
        field,
        scene,
        size=arguments.size,
        seconds=sizes.distil_seconds,
        views=sizes.distil_views,
        width=sizes.view_width,
        height=sizes.view_height,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    reference = reference_of(field, scene, views=arguments.views)
    with tempfile.TemporaryDirectory() as root:
        rows = [
            _row(artefact)
            for profile in device_profiles()
            for artefact in fit_to(
                profile,
                field=field,
                students=[distillation.student],
                scene=scene,
                root=Path(root),
                reference=reference,
                frames=sizes.timed_frames,
                seed=arguments.seed,
            )
        ]
    last = distillation.history[-1]
    print_table(rows, f"artefacts of {scene.name}")
    finish(
        {
            "scene": scene.name,
            "preset": sizes.name,
            "views": len(reference.photos),
            "teacher_psnr": round(pooled_psnr(reference.teacher, reference.photos), 3),
            "student": arguments.size,
            "distil_steps": last.step,
            "distil_seconds": round(last.seconds, 1),
            "pseudo_view_seconds": round(distillation.render_seconds, 1),
            "rows": rows,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


def _row(artefact: Artefact) -> dict[str, str | int | float | None]:
    card = artefact.card
    return {
        "profile": card.profile,
        "format": card.stored_as,
        "size": f"{card.width}x{card.height}",
        "computes_in": card.computes_in,
        "bytes": card.bytes,
        "ms_median": round(card.latency.median_ms, 2),
        "ms_p95": round(card.latency.p95_ms, 2),
        "threads": card.latency.threads,
        "psnr": _rounded(card.quality.psnr),
        "psnr_before": _rounded(card.quality.psnr_before),
        "psnr_teacher": _rounded(card.quality.psnr_teacher),
    }


def _rounded(psnr: float | None) -> float | None:
    return None if psnr is None else round(psnr, 3)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle or a folder with transforms.json")
    parser.add_argument("--preset", choices=["tiny", "standard", "full"], default="standard")
    parser.add_argument("--field", type=Path, help="a trained field (.safetensors) instead of training one")
    parser.add_argument("--size", choices=["XS", "S"], default="S", help="of the student")
    parser.add_argument("--views", type=int, default=0, help="held-out views to judge by; 0: all")
    parser.add_argument("--threads", type=int, default=2, help="of training and distillation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
