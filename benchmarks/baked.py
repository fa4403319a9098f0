"""Baked fields, tier by tier: PSNR against bytes and against milliseconds, and what each idea in them is worth.

    python -m benchmarks.baked --scene data/concert --field runs/standard/field.safetensors --json

Every row is a coded file that was decoded and marched as a UE does, at the photos' size with one thread, on the scene's
held-out views, which nothing here was tuned on. Rows: the tiers; one file cut off after every layer; the tiers baked
for one seat block alone, and those for the whole crowd, on what that block sees; and with ideas left out: importance
(every number that is seen counts the same), choice by rate and distortion (rounded rows, with levels and bits cut
instead), the view-dependent colours. make_s is the time to bake and code; the importance, measured once, comes first.
"""

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.conditions import conditions, finish, print_table, run_options
from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.catalogue.remeasurement import timed
from crowdnerf_lab.coding.baked_stream import KIND, coded_baked, decode_baked
from crowdnerf_lab.coding.layered_file import read_layers
from crowdnerf_lab.devices.measure import pooled_psnr
from crowdnerf_lab.devices.reference import Reference, reference_of
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import TIERS, bake, view_cell
from crowdnerf_lab.fields.importance import Importance, importance_of
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.metrics import quality
from crowdnerf_lab.scene import PosedScene

ROUNDED = ((5, 8), (5, 6), (5, 4), (4, 8), (4, 4), (3, 8), (3, 4))
"""Levels and bits of the rows without rate-distortion choices."""
PREFIXED_BYTES = 1_000_000
"""Size of the file that is cut off after every layer."""
BLOCK_RADIUS = 6.0
"""Metres around a seat block's middle."""


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    torch.set_num_threads(arguments.threads)
    field = sh_grid_of(load_field(arguments.field), arguments.field)
    scene = read_scene(arguments.scene)
    reference = reference_of(field, scene, views=arguments.views)
    crowd = scene.cameras[scene.train]
    started = time.perf_counter()
    importance = importance_of(field, crowd, seed=arguments.seed)
    importance_seconds = time.perf_counter() - started

    bench = _Bench(field, reference, frames=arguments.frames)
    teacher = quality(list(reference.teacher), list(reference.photos))
    tiers = [bench.row(tier.name, importance, max_bytes=tier.max_bytes) for tier in TIERS]
    print_table(tiers, f"tiers of {scene.name}; teacher {teacher.psnr:.3f} dB; importance {importance_seconds:.1f} s")
    prefixes = bench.prefixes(importance)
    print_table(prefixes, f"a file of {PREFIXED_BYTES} bytes, cut off")
    cells = _view_cells(bench, scene, importance, arguments.seed)
    print_table(cells, f"what a seat block of {BLOCK_RADIUS:g} m sees")
    ablations = [] if arguments.brief else _ablations(bench, importance)
    if ablations:
        print_table(ablations, "ideas left out")
    finish(
        {
            "scene": scene.name,
            "views": len(reference.photos),
            "teacher_psnr": round(teacher.psnr, 3),
            "teacher_ssim": round(teacher.ssim, 4),
            "importance_s": round(importance_seconds, 2),
            "tiers": tiers,
            "prefixes": prefixes,
            "view_cells": cells,
            "ablations": ablations,
            "conditions": conditions(arguments.seed, arguments.threads),
        },
        arguments.json,
    )


class _Bench:
    """Bakes and measures rows of one field against one reference."""

    def __init__(self, field: SHGrid, reference: Reference, *, frames: int) -> None:
        self.field, self.reference, self.frames = field, reference, frames
        self.teacher_psnr = pooled_psnr(reference.teacher, reference.photos)

    def row(
        self,
        name: str,
        importance: Importance | None,
        *,
        max_bytes: int | None = None,
        levels: int | None = None,
        bits: int = 8,
        sh_degree: int = 1,
    ) -> dict[str, Any]:
        started = time.perf_counter()
        baked = bake(
            self.field, importance=importance, max_bytes=max_bytes, levels=levels, bits=bits, sh_degree=sh_degree
        )
        content = coded_baked(baked)
        return {"baked": name, "make_s": round(time.perf_counter() - started, 2)} | self.measured(content)

    def measured(self, content: bytes) -> dict[str, Any]:
        started = time.perf_counter()
        baked, _ = decode_baked(content, name="the benchmark's field")
        decode_seconds = time.perf_counter() - started
        cameras, photos = self.reference.cameras, list(self.reference.photos)
        against = quality(pictures(baked, cameras), photos)
        timing = timed(lambda i: picture(baked, cameras, i % len(cameras)), frames=self.frames)
        return {
            "bytes": len(content),
            "bytes_in_memory": baked.bytes,
            "rows": len(baked.values),
            "cells": len(baked.densities),
            "psnr": round(against.psnr, 3),
            "to_teacher": round(against.psnr - self.teacher_psnr, 3),
            "psnr_of_teacher": round(pooled_psnr(pictures(baked, cameras), self.reference.teacher), 2),
            "ssim": round(against.ssim, 4),
            "ms": round(timing.median_ms, 1),
            "decode_s": round(decode_seconds, 2),
        }

    def prefixes(self, importance: Importance) -> list[dict[str, Any]]:
        content = coded_baked(bake(self.field, importance=importance, max_bytes=PREFIXED_BYTES))
        file = read_layers(content, kind=KIND, name="the benchmark's field")
        return [
            {"up to": layer.name} | self.measured(content[:end])
            for layer, end in zip(file.layers, file.ends, strict=True)
        ]


def picture(baked: BakedField, cameras: Cameras, index: int) -> torch.Tensor:
    """The field's view of one camera, by one thread."""
    focal, centre = (tuple(part[index].tolist()) for part in (cameras.focal, cameras.centre))
    width, height = int(cameras.width[index]), int(cameras.height[index])
    pose = cameras.camera_to_world[index].numpy()
    image = baked.render_image(pose, focal, centre=centre, width=width, height=height, threads=1)
    return torch.from_numpy(image.colour)


def pictures(baked: BakedField, cameras: Cameras) -> list[torch.Tensor]:
    return [picture(baked, cameras, i) for i in range(len(cameras))]


def _view_cells(bench: _Bench, scene: PosedScene, importance: Importance, seed: int) -> list[dict[str, Any]]:
    """The crowd's tiers and those for the seat block around the first held-out view, on the held-out views there."""
    eye = bench.reference.cameras.positions
    apart = torch.linalg.vector_norm((eye - eye[0])[:, :2], dim=-1)
    inside = (apart <= BLOCK_RADIUS).nonzero().flatten()
    here = Reference(
        cameras=bench.reference.cameras[inside],
        photos=tuple(bench.reference.photos[int(i)] for i in inside),
        teacher=tuple(bench.reference.teacher[int(i)] for i in inside),
    )
    block = _Bench(bench.field, here, frames=bench.frames)
    own = importance_of(bench.field, view_cell(scene.cameras[scene.train], eye[0], radius=BLOCK_RADIUS), seed=seed)
    return [
        {"views": len(inside)} | block.row(f"{tier.name} for the {who}", whose, max_bytes=tier.max_bytes)
        for tier in TIERS[:2]
        for who, whose in (("crowd", importance), ("block", own))
    ]


def _ablations(bench: _Bench, importance: Importance) -> list[dict[str, Any]]:
    seen = np.asarray((importance.of_rows > 0).any(1))
    same = np.zeros_like(importance.of_rows)
    same[seen] = importance.of_rows[seen].mean(0)
    flat = replace(importance, of_rows=same)
    rows = [
        bench.row(f"{tier.name}, {name}", whose, max_bytes=tier.max_bytes, sh_degree=degree)
        for tier in TIERS[:2]
        for name, whose, degree in (("importance flat", flat, 1), ("colours without direction", importance, 0))
    ]
    for levels, bits in ROUNDED:
        rows.append(bench.row(f"rounded, {levels} levels, {bits} bits", None, levels=levels, bits=bits))
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=Path("data/concert"), help="a crowd bundle or posed photos")
    parser.add_argument("--field", type=Path, required=True, help="a trained SH grid (.safetensors)")
    parser.add_argument("--views", type=int, default=0, help="held-out views to judge by; 0: all")
    parser.add_argument("--frames", type=int, default=8, help="timed a row, one thread")
    parser.add_argument("--brief", action="store_true", help="without the ablations")
    run_options(parser, threads_of="torch when importance is measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
