"""How good a field is after a budget of training, on any scene the package can read, and how good a peer's.

    python -m benchmarks.train --scene data/concert --seconds 120
    python -m benchmarks.train --scene FOX --downscale 8 --budgets all --seeds 3 --out benchmarks/results/fox.json
    python -m benchmarks.train --scene FOX --downscale 8 --budgets 10,60 --peer opensplat

Every budget and every seed is a run of its own, in a fresh process, since schedules depend on the budget. The clock
counts training steps alone: kernels are compiled before, held-out views are rendered outside it. Figures are means over
the seeds; psnr_worst is the worst seed's. PSNR is pooled over all pixels of the views, raw and after a per-image affine
fit of the colours.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.conditions import conditions, finish, print_table
from benchmarks.peers.nerfacto import python_of_nerfstudio, run_nerfacto
from benchmarks.peers.opensplat import opensplat_program, run_opensplat
from benchmarks.peers.project import PeerRun, ScenePoints, through_ideal_lenses, triangulated
from benchmarks.trial import Trial, judged, prepared, run_trial
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.files import write_json
from crowdnerf_lab.scene import PosedScene

BUDGETS = (5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
"""Seconds of training in the benchmark's table: --budgets all."""
FIGURES = ("psnr", "psnr_affine", "ssim", "flip", "train_seconds", "samples_per_second", "fps_256", "warmup_seconds")
"""What is averaged over the seeds, where a run has it."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING)
    budgets = [given.seconds] if given.budgets is None else given.budgets
    seeds = range(given.seed, given.seed + given.seeds)
    try:
        scene = _read(given)
        if given.peer is None:
            runs = _own_runs(scene.downscaled(given.downscale), given, budgets=budgets, seeds=seeds)
            cold = None if given.no_cold else _cold_start(scene, given)
        else:
            runs, cold = _peer_runs(scene, given, budgets=budgets, seeds=seeds), None
    except (ValueError, OSError) as error:
        parser.exit(2, f"{type(error).__name__}: {error}\n")
    scene = scene.downscaled(given.downscale)
    rows = [_row(budget, [run for run in runs if run["budget"] == budget]) for budget in budgets]
    print_table(rows, f"{given.peer or given.tier} on {scene.name}, {given.split} views")
    if given.curve:
        for run in runs:
            print_table(run["curve"], f"over time: {run['budget']:g} s, seed {run['seed']} (PSNR of 4096 pixels)")
    figures = {
        "scene": scene.name,
        "size": f"{int(scene.cameras.width[0])}x{int(scene.cameras.height[0])}",
        "trainer": given.peer or "crowdnerf_lab",
        "tier": None if given.peer else given.tier,
        "photos": len(scene.train),
        "views": len(scene.held_out),
        "split": given.split,
        "ideal": _ideal(given),
        **{name: value for name, value in rows[-1].items() if name != "budget"},
        "warmup_cold_seconds": cold,
        "seed": given.seed,
        "seeds": given.seeds,
        "threads": given.threads,
        "device": given.device,
        "appearance": runs[-1].get("appearance", not given.no_appearance),
        "robust": not given.no_robust,
        "poses": given.poses,
        "budgets": rows,
        "runs": runs if given.curve else [{k: v for k, v in run.items() if k != "curve"} for run in runs],
        "conditions": conditions(given.seed, given.threads),
    }
    if cold is not None:
        print(f"\nwarm-up with nothing compiled yet: {cold:.1f} s")
    if given.out is not None:
        write_json(given.out, figures)
    finish(figures, given.json)


def _read(given: argparse.Namespace) -> PosedScene:
    """The scene with the photos that the runs need, at full size."""
    if given.peer == "opensplat":
        opensplat_program()
    if given.peer == "nerfacto":
        python_of_nerfstudio()
    scene = read_scene(
        given.scene,
        held_out_every=given.held_out,
        poses=given.poses,
        photos=given.photos,
        screened=not given.unscreened,
    )
    scene = prepared(scene, split=given.split, views=given.views)
    return through_ideal_lenses(scene) if _ideal(given) else scene


def _ideal(given: argparse.Namespace) -> bool:
    """Whether photos are resampled to ideal lenses: peers know no others."""
    return given.ideal or given.peer is not None


def _own_runs(
    scene: PosedScene, given: argparse.Namespace, *, budgets: Sequence[float], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    runs = []
    for budget in budgets:
        for seed in seeds:
            runs.append({"budget": budget, **run_trial(scene, _trial(given, seconds=budget, seed=seed))})
            _tell(runs[-1])
    return runs


def _peer_runs(
    full: PosedScene, given: argparse.Namespace, *, budgets: Sequence[float], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """A peer on the same photos, judged by the same metrics. OpenSplat gets points from the photos at full size."""
    scene, clock = full.downscaled(given.downscale), None
    points = triangulated(full, threads=given.threads) if given.peer == "opensplat" else None
    runs = []
    for budget in budgets:
        for seed in seeds:
            if points is not None:
                run, clock = run_opensplat(scene, seconds=budget, threads=given.threads, points=points, clock=clock)
            else:
                run = run_nerfacto(scene, seconds=budget, threads=given.threads, seed=seed)
            runs.append({"budget": budget, "seed": seed, **_figures_of(run, scene, points)})
            _tell(runs[-1])
    return runs


def _figures_of(run: PeerRun, scene: PosedScene, points: ScenePoints | None) -> dict[str, Any]:
    return {
        **judged(scene, run.renders),
        "train_seconds": round(run.seconds, 2),
        "steps": run.steps,
        "scene_points": None if points is None else len(points.positions),
        "peak_mb": run.peak_mb,
        "options": run.options,
        "curve": [],
    }


def _tell(run: dict[str, Any]) -> None:
    print(f"{run['budget']:g} s, seed {run['seed']}: {run['psnr']:.2f} dB", file=sys.stderr, flush=True)


def _trial(given: argparse.Namespace, *, seconds: float | None, seed: int, steps: int | None = None) -> Trial:
    return Trial(
        tier=given.tier,
        seconds=seconds,
        steps=steps,
        seed=seed,
        threads=given.threads,
        appearance=False if given.no_appearance else None,
        robust=False if given.no_robust else None,
        device=given.device,
    )


def _cold_start(scene: PosedScene, given: argparse.Namespace) -> float:
    """Seconds until the first step where nothing was ever compiled."""
    few = prepared(scene, split="held-out", views=1).downscaled(_shrink_to(scene, 32))
    return run_trial(few, _trial(given, seconds=None, steps=1, seed=given.seed), cold=True)["warmup_seconds"]


def _shrink_to(scene: PosedScene, side: int) -> int:
    return max(int(torch.minimum(scene.cameras.width, scene.cameras.height).min()) // side, 1)


def _row(budget: float, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table: a budget over all seeds."""

    def mean(name: str) -> float | None:
        values = [run[name] for run in runs if run.get(name) is not None]
        return round(float(np.mean(values)), 4) if values else None

    return {
        "budget": budget,
        "psnr": mean("psnr"),
        "psnr_worst": min(run["psnr"] for run in runs),
        **{name: mean(name) for name in FIGURES if name != "psnr"},
        "peak_mb": max((run["peak_mb"] for run in runs if run.get("peak_mb") is not None), default=None),
    }


def _budgets(text: str) -> list[float]:
    budgets = list(BUDGETS) if text == "all" else [float(part) for part in text.split(",")]
    if any(budget <= 0 for budget in budgets):
        raise ValueError
    return budgets


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch sees no CUDA device on this machine; leave --device out")
    return name


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle or a folder with transforms.json")
    parser.add_argument("--downscale", type=_count, default=1, help="shrink the photos this many times")
    parser.add_argument("--held-out", type=int, default=8, help="hold out every N-th photo of scenes without a split")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of training")
    parser.add_argument("--budgets", type=_budgets, help="several budgets, a run each: 5,10,30 or all")
    parser.add_argument("--curve", action="store_true", help="PSNR over time within each run, too")
    parser.add_argument("--threads", type=_count, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=_count, default=1, help="so many seeds from --seed on: mean and worst")
    parser.add_argument("--tier", choices=["fast", "best", "vanilla"], default="fast", help="fit's quality")
    parser.add_argument("--device", type=_device, choices=["cpu", "cuda"], default="cpu", help="where to train")
    parser.add_argument(
        "--split",
        choices=["held-out", "validation"],
        default="held-out",
        help="judge by held-out views, or by photos cut from the training photos: the latter for tuning",
    )
    parser.add_argument("--views", type=int, default=25, help="judge by so many views, evenly chosen; 0: all")
    parser.add_argument("--poses", choices=["truth", "metadata", "calibrated"], default="truth")
    parser.add_argument("--photos", choices=["spoiled", "clean"], default="spoiled")
    parser.add_argument("--unscreened", action="store_true", help="train on what the screening would reject, too")
    parser.add_argument("--no-appearance", action="store_true", help="one look for all captures")
    parser.add_argument("--no-robust", action="store_true", help="squared error for every ray")
    parser.add_argument("--no-cold", action="store_true", help="do not time a start with nothing compiled")
    parser.add_argument("--ideal", action="store_true", help="photos resampled to ideal lenses, as peers get them")
    parser.add_argument("--peer", choices=["opensplat", "nerfacto"], help="run a peer's trainer on the same photos")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


if __name__ == "__main__":
    main()
