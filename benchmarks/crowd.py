"""What a crowd does to a field, and what the field gives back to the crowd, on captures whose truth is known.

    python -m benchmarks.crowd --seconds 120 --out benchmarks/results/crowd.json
    python -m benchmarks.crowd --seconds 10 --downscale 4 --photos 24 --only enhanced

Every number is against the truth of a simulated event. Held-out views are neutral: no photo's appearance is fitted to
them before they are rendered, and none of them is seen in training. Their PSNR is pooled over all pixels, raw and after
a per-image affine fit of the colours (the fit for reporting alone; it sets exposure aside).

enhanced: every photo that looks the right way, rejected by the screening or not, against its clean twin, both fitted;
gain_db_median is over the spoiled ones (occluded by more than 5 %, blurred, dark, over-exposed), gain_db_worst over
all. occluder_ap: average precision of the doubt maps over all pixels of the training photos (chance: their occluded
share). bad: 30 % of the captures of a clean crowd spoiled (captures.spoiling), screened and trained robustly; its cost
is against the clean crowd, after the affine fit. poses: the photos start 1 degree and 0.3 m off. ablations: one
ingredient left out at a time.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.conditions import conditions, finish, print_table
from benchmarks.trial import judged
from crowdnerf_lab.captures.bundle import CaptureSet, read_bundle
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.screening.screen import screen
from crowdnerf_lab.captures.spoiling import screened, with_bad_captures
from crowdnerf_lab.captures.study import clean_twin, is_spoiled, people_in_front, truth_of
from crowdnerf_lab.enhanced_views import enhanced_views, gain_of
from crowdnerf_lab.files import write_json
from crowdnerf_lab.pose_refinement import perturbed, pose_errors
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.robustness import average_precision
from crowdnerf_lab.scene import PosedScene
from crowdnerf_lab.training import Fit, fit

EXPERIMENTS = ("enhanced", "bad", "poses", "ablations")
OFF_TURN, OFF_SHIFT = math.radians(1), 0.3
"""How far the poses of the pose experiment start off: radians and metres."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    captures = read_bundle(given.scene)
    spoiled, _ = calibrate(captures, poses="truth", photos="spoiled", progress=False)
    spoiled = _held_out(spoiled, given.views).downscaled(given.downscale)
    kept = {photo.file for photo in screen(captures, progress=False)[0].photos}
    scene = _trained_on(spoiled, [row for row in spoiled.train.tolist() if spoiled.image_names[row] in kept])
    figures: dict[str, Any] = {
        "scene": scene.name,
        "size": f"{int(scene.cameras.width[0])}x{int(scene.cameras.height[0])}",
        "photos": len(scene.train),
        "views": len(scene.held_out),
        "seconds": given.seconds,
        "seed": given.seed,
        "threads": given.threads,
    }
    if "enhanced" in given.only:
        figures |= _enhanced(spoiled, scene, captures, given)
    if "bad" in given.only:
        clean, _ = calibrate(captures, poses="truth", photos="clean", progress=False)
        figures |= _bad(_held_out(clean, given.views).downscaled(given.downscale), given)
    if "poses" in given.only:
        figures |= _poses(scene, given)
    if "ablations" in given.only:
        figures["ablations"] = _ablations(spoiled, scene, given)
    if given.out is not None:
        write_json(given.out, figures | {"conditions": conditions(given.seed, given.threads)})
    finish(figures | {"conditions": conditions(given.seed, given.threads)}, given.json)


def _enhanced(spoiled: PosedScene, scene: PosedScene, captures: CaptureSet, given: argparse.Namespace) -> dict:
    """Every UE's photos, better; and the doubts behind it against the masks of the people in front."""
    trained = _fit(scene, given)
    photos = {photo.file: photo for photo in captures.photos}
    rows = [row for row in spoiled.train.tolist() if truth_of(photos[spoiled.image_names[row]]).spoiled_by != "wrong"]
    rows = rows[: given.photos or None]
    views = enhanced_views(trained.model, spoiled, rows, appearance=trained.appearance)
    gains, doubts, running, masks = [], [], [], []
    for row, view in zip(rows, views, strict=True):
        photo = photos[spoiled.image_names[row]]
        clean = clean_twin(captures, photo, downscale=given.downscale)
        gains.append((photo, gain_of(view.image, spoiled.image(row), clean=clean)))
        if bool((scene.train == row).any()):
            doubts.append(view.doubt.flatten())
            masks.append(people_in_front(captures, photo, downscale=given.downscale).flatten())
            if trained.trust is not None:
                running.append(1 - trained.trust.map_of(row).flatten())
    of_spoiled = [gain for photo, gain in gains if is_spoiled(photo)]
    of_good = [gain for photo, gain in gains if not is_spoiled(photo)]
    worst = min(gains, key=lambda pair: pair[1])
    figures = {
        "gain_db_median": round(statistics.median(of_spoiled), 2),
        "gain_db_worst": round(worst[1], 2),
        "worst_photo": worst[0].file,
        "worse_than_1_db": sum(gain < -1 for _, gain in gains),
        "gain_db_median_of_good": round(statistics.median(of_good), 2) if of_good else None,
        "spoiled_photos": len(of_spoiled),
        "enhanced_photos": len(gains),
        "occluder_ap": round(average_precision(torch.cat(doubts), torch.cat(masks)), 3),
        "occluder_ap_while_training": round(average_precision(torch.cat(running), torch.cat(masks)), 3)
        if running
        else None,
        "occluded_share": round(float(torch.cat(masks).float().mean()), 3),
        **judged(scene, _views(trained, scene)),
    }
    print_table([figures], "enhanced views")
    return figures | {"gains_db": {photo.file: round(gain, 2) for photo, gain in gains}}


def _bad(clean: PosedScene, given: argparse.Namespace) -> dict[str, Any]:
    """What 30 % bad captures cost."""
    spoiled = with_bad_captures(clean, fraction=0.3, seed=given.seed)
    kept = screened(spoiled.scene)
    scenes = {"clean": clean, "bad captures": kept, "bad captures, not screened": spoiled.scene}
    rows = []
    for name, scene in scenes.items():
        scores = judged(scene, _views(_fit(scene, given), scene))
        rows.append({"trained on": name, "photos": len(scene.train), **scores})
    print_table(rows, f"{len(spoiled.faults)} of {len(clean.train)} photos spoiled")
    return {
        "bad_capture_cost_db": round(rows[0]["psnr_affine"] - rows[1]["psnr_affine"], 3),
        "bad_capture_cost_db_raw": round(rows[0]["psnr"] - rows[1]["psnr"], 3),
        "bad_captures": rows,
    }


def _poses(scene: PosedScene, given: argparse.Namespace) -> dict[str, Any]:
    """From poses that are a little off back to where the photos were taken."""
    truth = scene.cameras.camera_to_world[scene.train]
    off = _with_cameras_off(scene, seed=given.seed)
    rows = []
    for name, start, refine in (
        ("off, kept", off, False),
        ("off, refined", off, True),
        ("true, kept", scene, False),
        ("true, refined", scene, True),
    ):
        trained = _fit(start, given, refine_poses=refine)
        errors = pose_errors(trained.cameras.camera_to_world[scene.train], truth, aligned=True)
        rows.append(
            {
                "poses": name,
                "median_deg": round(math.degrees(float(errors.rotation.median())), 3),
                "median_m": round(float(errors.position.median()), 3),
                **judged(scene, _views(trained, scene)),
            }
        )
    print_table(rows, "poses, against the truth after the best similarity")
    return {"pose_error_deg": rows[1]["median_deg"], "pose_error_m": rows[1]["median_m"], "poses": rows}


def _ablations(spoiled: PosedScene, scene: PosedScene, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One ingredient left out at a time."""
    variants: dict[str, tuple[PosedScene, dict[str, bool]]] = {
        "all": (scene, {}),
        "without appearance": (scene, {"appearance": False}),
        "without robust loss": (scene, {"robust": False}),
        "without screening": (spoiled, {}),
        "without any": (spoiled, {"appearance": False, "robust": False}),
    }
    rows = []
    for name, (photos, choices) in variants.items():
        trained = _fit(photos, given, **choices)
        rows.append({"trained": name, **judged(photos, _views(trained, photos))})
    print_table(rows, "ablations")
    return rows


def _fit(
    scene: PosedScene,
    given: argparse.Namespace,
    *,
    appearance: bool = True,
    robust: bool = True,
    refine_poses: bool = False,
) -> Fit:
    return fit(
        scene,
        seconds=given.seconds if given.steps is None else None,
        steps=given.steps,
        quality=given.tier,
        seed=given.seed,
        threads=given.threads,
        appearance=appearance,
        robust=robust,
        refine_poses=refine_poses,
        progress=False,
    )


def _views(trained: Fit, scene: PosedScene) -> list[torch.Tensor]:
    """The held-out views in neutral colours, from their true poses."""
    return [render_view(trained.model, scene.cameras, row).colour for row in scene.held_out.tolist()]


def _with_cameras_off(scene: PosedScene, *, seed: int) -> PosedScene:
    cameras = perturbed(scene.cameras, scene.train, turn=OFF_TURN, shift=OFF_SHIFT, seed=seed)
    return replace(scene, cameras=cameras)


def _held_out(scene: PosedScene, views: int) -> PosedScene:
    return scene.with_split(scene.train.tolist(), scene.held_out[: views or None].tolist())


def _trained_on(scene: PosedScene, rows: list[int]) -> PosedScene:
    return scene.with_split(rows, scene.held_out.tolist())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=Path("data/concert"), help="captures whose truth is known")
    parser.add_argument("--downscale", type=int, default=1, help="shrink the photos this many times")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of each training")
    parser.add_argument("--steps", type=int, default=None, help="budget in steps instead, for the same bits anywhere")
    parser.add_argument("--tier", choices=["fast", "best"], default="fast", help="kind of field")
    parser.add_argument("--photos", type=int, default=0, help="enhance this many photos (0: all)")
    parser.add_argument("--views", type=int, default=0, help="judge by this many held-out views (0: all)")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


if __name__ == "__main__":
    main()
