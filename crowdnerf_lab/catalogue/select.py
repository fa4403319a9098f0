"""select: which artefact fits a UE and its target, or "ask the network"."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.devices.profile import DeviceProfile, Precision, Runtime

RUNTIME_OF: dict[str, Runtime] = {"light_field": "onnxruntime", "baked_field": "numba"}
"""What a UE needs to run each kind of model."""
WORKING_SET = 4
"""Memory that a model takes while it runs, in multiples of its file (weights as float32, activations)."""


class Capability(BaseModel):
    """What a UE says of itself when it asks for a model; a JSON document. Megabytes, Mbit/s, milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtimes: tuple[Runtime, ...] = ()
    precisions: tuple[Precision, ...] = ()
    memory_mb: float = Field(gt=0)
    link_mbit_s: float = Field(gt=0)
    rtt_ms: float = Field(ge=0)

    @classmethod
    def from_profile(cls, profile: DeviceProfile) -> "Capability":
        """What a device of this class would say."""
        return cls(
            runtimes=profile.runtimes,
            precisions=profile.precisions,
            memory_mb=profile.memory_mb,
            link_mbit_s=profile.link_mbit_s,
            rtt_ms=profile.rtt_ms,
        )


@dataclass(frozen=True)
class Target:
    """What a UE will accept; None is no limit.

    max_bytes: of the download. max_ms: median time of a frame, as the card measured it. max_download_s: time until the
    model has arrived over the UE's link. min_psnr: dB against held-out photos.
    """

    max_bytes: int | None = None
    max_ms: float | None = None
    max_download_s: float | None = None
    min_psnr: float | None = None


@dataclass(frozen=True)
class Selection:
    """The artefact for this UE and why; artefact None means: ask the network for views."""

    artefact: Artefact | None
    reason: str


def select(artefacts: Iterable[Artefact], capability: Capability, target: Target) -> Selection:
    """The artefact of the highest PSNR that the UE can run within its target; of equals the smaller one.

    When none fits, the reason names for each artefact the first limit that it breaks.
    """
    judged = [(artefact, refusal(artefact, capability, target)) for artefact in artefacts]
    fitting = [artefact for artefact, reason in judged if reason is None]
    if not fitting:
        listed = "; ".join(f"{artefact.card.name}: {reason}" for artefact, reason in judged)
        return Selection(None, f"ask the network: {listed or 'the event has no models yet'}")
    best = max(fitting, key=lambda artefact: (_psnr(artefact), -artefact.card.bytes, artefact.card.name))
    card = best.card
    return Selection(
        best,
        f"{card.name}: {_psnr(best):.1f} dB, {card.bytes / 1e6:.2f} MB, {card.latency.median_ms:.1f} ms a frame on "
        f"{card.latency.machine}; best of {len(fitting)} that fit out of {len(judged)}",
    )


def refusal(artefact: Artefact, capability: Capability, target: Target) -> str | None:
    """The first limit that an artefact breaks, with both numbers; None when it fits."""
    card = artefact.card
    size_mb, download_s = card.bytes / 1e6, download_seconds(card.bytes, capability)
    psnr, runtime = _psnr(artefact), RUNTIME_OF[card.kind]
    if runtime not in capability.runtimes:
        return f"needs {runtime}, the UE has {', '.join(capability.runtimes) or 'no runtime'}"
    if card.computes_in not in capability.precisions:
        return f"computes in {card.computes_in}, the UE in {', '.join(capability.precisions) or 'nothing'}"
    if WORKING_SET * size_mb > capability.memory_mb:
        return f"takes about {WORKING_SET * size_mb:.1f} MB of memory, the UE has {capability.memory_mb:.1f}"
    if target.max_bytes is not None and card.bytes > target.max_bytes:
        return f"{card.bytes} bytes, more than {target.max_bytes}"
    if target.max_download_s is not None and download_s > target.max_download_s:
        return f"arrives after {download_s:.2f} s, later than {target.max_download_s:.2f}"
    if target.max_ms is not None and card.latency.median_ms > target.max_ms:
        return f"{card.latency.median_ms:.1f} ms a frame, more than {target.max_ms:.1f}"
    if target.min_psnr is not None and psnr < target.min_psnr:
        return f"{psnr:.1f} dB, less than {target.min_psnr:.1f}"
    return None


def download_seconds(size: int, capability: Capability) -> float:
    """Time until `size` bytes have arrived: one round trip to ask, then the link's rate."""
    return capability.rtt_ms / 1e3 + 8 * size / (capability.link_mbit_s * 1e6)


def _psnr(artefact: Artefact) -> float:
    """Against the held-out photos where there were any, else against the probe views."""
    quality = artefact.card.quality
    return artefact.card.probe_psnr if quality.psnr is None else quality.psnr
