"""Artefacts of the toy scene, fitted and measured in seconds: a random small SH grid and an untrained student."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.limits import RUNTIME_OF
from crowdnerf_lab.devices.ladder import Ladder
from crowdnerf_lab.devices.predictions import computes_in_of
from crowdnerf_lab.devices.profile import DeviceProfile, device_profile
from crowdnerf_lab.fields.baking import Tier
from crowdnerf_lab.fields.importance import ImportanceSettings
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.scene import PosedScene
from tests.toy_field import toy_scene

WIDTH, HEIGHT = 48, 40


@cache
def small_scene() -> PosedScene:
    return toy_scene(width=WIDTH, height=HEIGHT)


@cache
def random_grid() -> SHGrid:
    """An SH grid of coloured fog: renders something everywhere."""
    generator = torch.Generator().manual_seed(3)
    grid = SHGrid(small_scene().bounds, shape=SHGridShape(resolutions=(4, 8), log2_rows=9, occupancy_cells=8, steps=24))
    grid.table.data.copy_(torch.randn(grid.table.shape, generator=generator))
    return grid


@cache
def untrained_student() -> RayMLP:
    scene = small_scene()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        planes = planes_across(scene.cameras, scene.bounds)
        return RayMLP(planes, "XS", view_size=(WIDTH, HEIGHT)).eval()


def small_profile(name: str = "laptop_cpu", **changes: object) -> DeviceProfile:
    """A bundled profile that shows the toy scene's small views."""
    return device_profile(name).model_copy(update={"view_width": WIDTH, "view_height": HEIGHT, **changes})


def toy_ladder(root: Path, **settings: Any) -> Ladder:
    """The toy scene's field and student in three formats, uncoded, and the whole field baked; settings: a Ladder's.

    Where its UEs look is asked of a few pixels only: nothing is cut off a whole field.
    """
    few: dict[str, Any] = {
        "tiers": (Tier("full", None),),
        "resolutions": ((WIDTH, HEIGHT),),
        "formats": ("onnx_float32", "onnx_int8_qdq", "onnx_int8_weights"),
        "codings": ("none",),
        "importance": ImportanceSettings(poses=8, batches=2, rays=256),
        "frames": 2,
        "licence": "CC-BY-4.0",
    }
    arguments = {"scene": small_scene(), "root": root} | few | settings
    return Ladder(random_grid(), arguments.pop("students", [untrained_student()]), **arguments)


def fitted(profile: DeviceProfile, root: Path) -> list[Artefact]:
    """Of the toy ladder what a device can run at all."""
    ladder = toy_ladder(root)
    suited = [
        candidate
        for candidate in ladder.candidates()
        if RUNTIME_OF[candidate.kind] in profile.runtimes and computes_in_of(candidate) in profile.precisions
    ]
    return list(ladder.build_all(suited, progress=False))
