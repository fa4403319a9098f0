"""What a UE will accept, what its task demands, and by how much an artefact misses either."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import Kind, ModelCard
from crowdnerf_lab.devices.profile import SYSTEMS_OF_RUNTIME, Runtime

RUNTIME_OF: dict[Kind, Runtime] = {"light_field": "onnxruntime", "baked_field": "numba"}
"""What a UE needs to run each kind of model."""
WORKING_SET = 4
"""Memory of a model whose peak was not measured, in multiples of its uncoded file (float32 weights, activations)."""
FRAMES_A_SECOND, MOST_FRAMES_A_SECOND = 30.0, 60.0
"""How often a view is drawn again: where a target does not say, and at most, however little time a frame may take."""

Task = Literal["novel_view", "enhanced_view", "preview"]
"""What the UE wants to do with a model; `DEMANDS` says what each takes."""


@dataclass(frozen=True)
class Target:
    """What a UE will accept; None is no limit.

    max_bytes: of the download. max_ms: median time of a frame. max_download_s: time until the model has arrived over
    the UE's link. min_psnr, min_ssim: against held-out photos, PSNR in dB. within_db: of the event's best model.
    frames_per_s: how often it draws, which turns power into energy of a frame; None: as max_ms suggests.
    """

    max_bytes: int | None = None
    max_ms: float | None = None
    max_download_s: float | None = None
    min_psnr: float | None = None
    min_ssim: float | None = None
    within_db: float | None = None
    frames_per_s: float | None = None

    @property
    def rate(self) -> float:
        """Frames a second that power has to suffice for."""
        if self.frames_per_s is not None or self.max_ms is None:
            return self.frames_per_s or FRAMES_A_SECOND
        return min(1e3 / self.max_ms, MOST_FRAMES_A_SECOND)


@dataclass(frozen=True)
class Demand:
    """What a task demands beyond the UE's target. kinds: of model. soonest: the first picture matters, not the best."""

    kinds: tuple[Kind, ...]
    max_first_picture_s: float | None = None
    max_ms: float | None = None
    soonest: bool = False


DEMANDS: dict[Task, Demand] = {
    # Any pose, as good as can be had.
    "novel_view": Demand(("light_field", "baked_field")),
    # The photo's own pose, wherever it was taken, with depth and opacity: only a field has these.
    "enhanced_view": Demand(("baked_field",)),
    # Something to see at once: within the second that the use case allows from request to picture.
    "preview": Demand(("light_field", "baked_field"), max_first_picture_s=1.0, max_ms=100.0, soonest=True),
}

Constraint = Literal[
    "task",
    "runtime",
    "precision",
    "place",
    "memory",
    "bytes",
    "download",
    "first_picture",
    "latency",
    "energy",
    "quality",
]


@dataclass(frozen=True)
class Miss:
    """A limit that an artefact breaks. by: how far, as log2 of the factor that is missing (6 dB count as one); infinite
    where no number helps. says: both numbers, in words."""

    constraint: Constraint
    by: float
    says: str


def misses(
    card: ModelCard,
    capability: Capability,
    target: Target,
    *,
    task: Task = "novel_view",
    best_psnr: float | None = None,
) -> tuple[Miss, ...]:
    """Every limit that an artefact breaks on this UE; empty when it fits. best_psnr: of the event, for `within_db`."""
    demand = DEMANDS[task]
    found = [*_cannot_run(card, capability, demand, task), *_away(card, capability)]
    found += _exceeded(card, capability, target, demand)
    return tuple(found + _too_poor(card, target, best_psnr))


def psnr_of(card: ModelCard) -> float:
    """Against the held-out photos where there were any, else against the probe views, dB."""
    return card.probe_psnr if card.quality.psnr is None else card.quality.psnr


def memory_mb(card: ModelCard) -> float:
    """What the model takes while it runs: measured, or WORKING_SET times its file."""
    return card.peak_memory_mb or WORKING_SET * (card.bytes_uncoded or card.bytes) / 1e6


def frame_ms(card: ModelCard, capability: Capability) -> float:
    """Median time of a frame: the card's, by the UE's own declaration of its speed and of what else it does.

    A proxy for every machine but the card's; never to be shown as a measurement.
    """
    return card.latency.median_ms * _slowdown(capability)


def frame_mj(card: ModelCard, capability: Capability) -> float | None:
    """Estimated energy of a frame: of the UE's processor where it says what that spends, else what the card assumes.
    None where neither is known."""
    compute, flops, moved = capability.compute, card.flops, card.bytes_moved
    if compute is None or flops is None or moved is None or card.computes_in not in compute.picojoule_per_op:
        return None if card.energy is None else card.energy.frame_mj
    return compute.frame_mj(flops=flops, bytes_moved=moved, precision=card.computes_in)


def download_seconds(size: int, capability: Capability) -> float:
    """Time until `size` bytes have arrived: one round trip to ask, then the link's rate."""
    return capability.rtt_ms / 1e3 + 8 * size / (capability.link_mbit_s * 1e6)


def first_picture_seconds(card: ModelCard, capability: Capability) -> float:
    """Time from the request to something to see: the file, or a progressive one's first layer, arrives and draws."""
    size = card.layers[0].bytes if card.layers else card.bytes
    starting_ms = (card.cold_start_ms or card.latency.median_ms) * _slowdown(capability)
    return download_seconds(size, capability) + starting_ms / 1e3


def _slowdown(capability: Capability) -> float:
    return 1 / ((capability.relative_speed or 1.0) * (1 - capability.busy))


def _cannot_run(card: ModelCard, capability: Capability, demand: Demand, task: Task) -> Iterator[Miss]:
    runtime = RUNTIME_OF[card.kind]
    if card.kind not in demand.kinds:
        kinds = " or ".join(demand.kinds)
        yield Miss("task", math.inf, f"is a {card.kind}, and {task} takes a {kinds}")
    system, systems = capability.operating_system, SYSTEMS_OF_RUNTIME.get(runtime)
    if runtime not in capability.runtimes:
        has = ", ".join(capability.runtimes) or "no runtime"
        yield Miss("runtime", math.inf, f"needs {runtime}, the UE has {has}")
    elif system is not None and systems is not None and system not in systems:
        yield Miss("runtime", math.inf, f"needs {runtime}, which does not exist on {system}")
    if card.computes_in not in capability.precisions:
        has = ", ".join(capability.precisions) or "nothing"
        yield Miss("precision", math.inf, f"computes in {card.computes_in}, the UE in {has}")


def _away(card: ModelCard, capability: Capability) -> Iterator[Miss]:
    """Outside of the view cell that the model was made for it shows holes and blur."""
    cell = card.view_cell
    if cell is None:
        return
    if capability.position is None:
        yield Miss("place", math.inf, "was made for one view cell, and the UE does not say where it is")
        return
    distance = math.dist(cell.centre, capability.position)
    if distance > cell.radius:
        says = f"was made for {cell.radius:.1f} m around another place, {distance:.1f} m away"
        yield Miss("place", math.log2(distance / cell.radius), says)


def _exceeded(card: ModelCard, capability: Capability, target: Target, demand: Demand) -> Iterator[Miss]:
    """Sizes and times above their limits."""
    megabytes, milliseconds = memory_mb(card), frame_ms(card, capability)
    arrival = download_seconds(card.bytes, capability)
    first = first_picture_seconds(card, capability)
    max_ms = min((limit for limit in (target.max_ms, demand.max_ms) if limit is not None), default=None)
    proxy = f" (proxy: {card.latency.median_ms:.1f} on {card.latency.machine})" if _slowdown(capability) != 1 else ""
    amounts: list[tuple[Constraint, float, float | None, str]] = [
        (
            "memory",
            megabytes,
            capability.memory_mb,
            f"takes about {megabytes:.1f} MB of memory, the UE has {capability.memory_mb:.1f}",
        ),
        ("bytes", card.bytes, target.max_bytes, f"{card.bytes} bytes, more than {target.max_bytes}"),
        (
            "download",
            arrival,
            target.max_download_s,
            f"arrives after {arrival:.2f} s, later than {target.max_download_s or 0:.2f}",
        ),
        (
            "first_picture",
            first,
            demand.max_first_picture_s,
            f"shows its first picture after {first:.2f} s, later than {demand.max_first_picture_s or 0:.2f}",
        ),
        ("latency", milliseconds, max_ms, f"{milliseconds:.1f} ms a frame, more than {max_ms or 0:.1f}{proxy}"),
    ]
    spent = frame_mj(card, capability)
    if spent is not None and capability.watts is not None:
        allowed = 1e3 * capability.watts / target.rate
        says = f"about {spent:.2g} mJ a frame, more than the {allowed:.2g} that {capability.watts:.2g} W allow"
        amounts.append(("energy", spent, allowed, says))
    for constraint, value, limit, says in amounts:
        if limit is not None and value > limit:
            yield Miss(constraint, math.log2(value / limit) if limit > 0 else math.inf, says)


def _too_poor(card: ModelCard, target: Target, best_psnr: float | None) -> list[Miss]:
    psnr, ssim, found = psnr_of(card), card.quality.ssim, []
    if target.min_psnr is not None and psnr < target.min_psnr:
        found.append(Miss("quality", (target.min_psnr - psnr) / 6, f"{psnr:.1f} dB, less than {target.min_psnr:.1f}"))
    if target.within_db is not None and best_psnr is not None and psnr < best_psnr - target.within_db:
        short = best_psnr - psnr
        says = f"{psnr:.1f} dB, {short:.1f} below the event's best, more than {target.within_db:.1f}"
        found.append(Miss("quality", (short - target.within_db) / 6, says))
    if target.min_ssim is not None and (ssim is None or ssim < target.min_ssim):
        says = f"SSIM {'not measured' if ssim is None else f'{ssim:.3f}'}, {target.min_ssim:.3f} asked for"
        short = math.inf if ssim is None or target.min_ssim == 1 else math.log2((1 - ssim) / (1 - target.min_ssim))
        found.append(Miss("quality", short, says))
    return found
