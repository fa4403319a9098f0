"""How good a field is after a budget of training, on any scene the package can read.

    python -m benchmarks.train --scene data/concert --seconds 120

The clock counts training steps alone: kernels are compiled before, held-out views are rendered outside it.
"""

import argparse
import resource
from pathlib import Path

from benchmarks.conditions import conditions, finish, print_table
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.metrics import quality
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.training import fit


def main() -> None:
    arguments = _arguments()
    scene = read_scene(
        arguments.scene,
        downscale=arguments.downscale,
        held_out_every=arguments.held_out,
        poses=arguments.poses,
        photos=arguments.photos,
        screened=not arguments.unscreened,
    )
    result = fit(
        scene,
        seconds=arguments.seconds,
        seed=arguments.seed,
        threads=arguments.threads,
        appearance=not arguments.no_appearance,
        robust=not arguments.no_robust,
    )
    views = scene.held_out.tolist()
    renders = [render_view(result.model, scene.cameras, index).colour for index in views]
    reached = quality(renders, [scene.image(index) for index in views])
    figures = {
        "scene": scene.name,
        "tier": arguments.tier,
        "photos": len(scene.train),
        "views": len(views),
        "psnr": round(reached.psnr, 3),
        "psnr_affine": round(reached.psnr_affine, 3),
        "ssim": round(reached.ssim, 4),
        "flip": round(reached.flip, 4),
        "train_seconds": round(result.seconds, 2),
        "warmup_seconds": round(result.warmup_seconds, 2),
        "samples_per_second": round(result.samples / result.seconds),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seed": arguments.seed,
        "threads": arguments.threads,
        "appearance": not arguments.no_appearance,
        "robust": not arguments.no_robust,
        "poses": arguments.poses,
    }
    print_table([figures], "training")
    finish(figures | {"conditions": conditions(arguments.seed, arguments.threads)}, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle or a folder with transforms.json")
    parser.add_argument("--downscale", type=int, default=1, help="shrink the photos this many times")
    parser.add_argument("--held-out", type=int, default=8, help="hold out every N-th photo of scenes without a split")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tier", choices=["sh_grid"], default="sh_grid", help="kind of field")
    parser.add_argument("--poses", choices=["truth", "metadata", "calibrated"], default="truth")
    parser.add_argument("--photos", choices=["spoiled", "clean"], default="spoiled")
    parser.add_argument("--unscreened", action="store_true", help="train on what the screening would reject, too")
    parser.add_argument("--no-appearance", action="store_true", help="one look for all captures")
    parser.add_argument("--no-robust", action="store_true", help="squared error for every ray")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
