"""How fields are trained: every number that `fit` uses, and the settings that stand behind a quality."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from crowdnerf_lab.fields.appearance import AppearanceSettings
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLPShape
from crowdnerf_lab.fields.hash_grid import HashGridShape
from crowdnerf_lab.fields.occupancy import OccupancySettings
from crowdnerf_lab.fields.sh_grid import SHGridShape
from crowdnerf_lab.pose_refinement import PoseSettings
from crowdnerf_lab.robustness import RobustSettings

Quality = Literal["fast", "best", "vanilla"]
"""fast: the SH grid. best: what reaches most within the budget, by the rules below. vanilla: the NeRF of 2020, to
compare with."""

HASH_SECONDS_PER_MEGAPIXEL = 80.0
"""Seconds of training on two CPU cores for each million training pixels from which on the hash grid is chosen: it wins
when it has met every pixel often (`benchmarks.train`: on 1.4 million pixels before 100 s, on 10 million not within
600 s)."""
LARGE_SECONDS = 100.0
"""Seconds of training from which on a larger SH grid pays."""


@dataclass(frozen=True)
class Stage:
    """From step `from_step` on, `ray_steps` marching steps a whole ray and the first `levels` levels of the grid."""

    from_step: int
    ray_steps: int
    levels: int


@dataclass(frozen=True)
class FitSettings:
    """How a field is trained.

    shape: the kind of field and its sizes. stages: coarse to fine over levels and samples. pyramid: (fraction of the
    budget, downscale of the photos) pairs; small photos first let every part of the crowd's pixels count early.
    samples_per_step: samples of a step over all its rays; the number of rays follows.
    rate, appearance_rate: Adam's step sizes, rising over warm_steps and falling geometrically to rate_end of
    themselves over the budget.
    distortion: weight in the loss of how far a ray's weight is spread over log t; clears fog and floaters.
    occupancy, appearance, robust, poses: see there.
    """

    shape: SHGridShape | HashGridShape | FrequencyMLPShape = field(default_factory=SHGridShape)
    stages: tuple[Stage, ...] = (
        Stage(0, 64, 2),
        Stage(120, 64, 3),
        Stage(350, 96, 4),
        Stage(1500, 96, 5),
    )
    pyramid: tuple[tuple[float, int], ...] = ((0.0, 2), (0.5, 1))
    samples_per_step: int = 12288
    rate: float = 0.04
    rate_end: float = 0.02
    warm_steps: int = 20
    appearance_rate: float = 0.01
    distortion: float = 0.01
    occupancy: OccupancySettings = field(default_factory=OccupancySettings)
    appearance: AppearanceSettings = field(default_factory=AppearanceSettings)
    robust: RobustSettings = field(default_factory=RobustSettings)
    poses: PoseSettings = field(default_factory=PoseSettings)


def settings_for(quality: Quality, *, seconds: float | None = None, pixels: int = 0) -> FitSettings:
    """The settings behind a quality, for a budget of `seconds` (None: not one of time) and so many training pixels."""
    budget = math.inf if seconds is None else seconds
    if quality == "vanilla":
        return FitSettings(
            shape=FrequencyMLPShape(), stages=(Stage(0, 64, 1),), rate=5e-4, rate_end=0.1, samples_per_step=65536
        )
    if quality == "best" and budget >= HASH_SECONDS_PER_MEGAPIXEL * pixels / 1e6:
        return hash_grid_settings()
    if quality == "best" and budget >= LARGE_SECONDS:
        return large_settings()
    return FitSettings()


def hash_grid_settings() -> FitSettings:
    """A hash grid; its networks want all levels early and less samples a step."""
    return FitSettings(
        shape=HashGridShape(),
        stages=(Stage(0, 64, 4), Stage(100, 64, 6), Stage(200, 64, 8)),
        samples_per_step=8192,
        rate=0.02,
        rate_end=0.05,
        distortion=0.005,
    )


def large_settings() -> FitSettings:
    """An SH grid with a sixth level and twice the rows: 1.7 GB while training."""
    fast = FitSettings()
    return FitSettings(
        shape=SHGridShape(resolutions=(32, 64, 128, 256, 512, 1024), log2_rows=20),
        stages=(*fast.stages, Stage(3000, 128, 6)),
        samples_per_step=20000,
    )


def without_each(settings: FitSettings) -> dict[str, FitSettings]:
    """The settings of an SH grid with one ingredient left out at a time, by what is left out; for ablations."""
    if not isinstance(settings.shape, SHGridShape):
        raise ValueError(f"only an SH grid has these ingredients, not a {type(settings.shape).__name__}")
    shape, finest = settings.shape, settings.stages[-1]
    return {
        "coarse to fine": replace(settings, stages=(replace(finest, from_step=0),)),
        "small photos first": replace(settings, pyramid=((0.0, 1),)),
        "distortion loss": replace(settings, distortion=0.0),
        "witnesses": replace(settings, occupancy=replace(settings.occupancy, witnesses=0.0)),
        "divided steps": replace(settings, shape=replace(shape, refine=0)),
        "roulette": replace(settings, shape=replace(shape, roulette=0.0)),
    }
