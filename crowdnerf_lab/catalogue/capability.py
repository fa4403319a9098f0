"""Capability: what a UE says of itself when it asks for models, as a JSON document that newer UEs may extend."""

import json
import logging
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdnerf_lab.devices.profile import Compute, DeviceProfile, OperatingSystem, Precision, Runtime
from crowdnerf_lab.findings import first_finding

log = logging.getLogger(__name__)

MAJOR, MINOR = 1, 0
"""Of the documents written here. The same major version is read: what a newer minor one adds is left out and logged."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CapabilityError(ValueError):
    """What a UE says of itself and cannot be understood; the message names the field and the remedy."""


class Capability(BaseModel):
    """What a UE can do now: it changes with place, energy, processor and memory. Megabytes, Mbit/s, milliseconds.

    memory_mb: what models may take while they run. position: where its viewer is, metres of the scene. relative_speed:
    how many times as fast as the machine of the cards it computes, by its own declaration; None: unknown, the cards'
    own times stand in. busy: the share of its processor that other work takes. compute: what an operation costs its
    processor; None: the cards' own estimates stand in. power_w: what it may spend on rendering. battery_wh: what is
    left, to last for battery_hours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[str, Field(pattern=rf"^{MAJOR}\.\d{{1,6}}$")] = f"{MAJOR}.{MINOR}"
    operating_system: OperatingSystem | None = None
    runtimes: tuple[Runtime, ...] = ()
    precisions: tuple[Precision, ...] = ()
    relative_speed: Positive | None = None
    busy: float = Field(default=0.0, ge=0, lt=1)
    memory_mb: Positive
    link_mbit_s: Positive
    rtt_ms: float = Field(ge=0, allow_inf_nan=False)
    position: tuple[float, float, float] | None = None
    compute: Compute | None = None
    power_w: Positive | None = None
    battery_wh: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    battery_hours: Positive = 2.0

    @classmethod
    def from_profile(cls, profile: DeviceProfile) -> "Capability":
        """What a device of this class would say, at rest and with a full battery."""
        systems = profile.operating_systems
        return cls(
            operating_system=systems[0] if len(systems) == 1 else None,
            runtimes=profile.runtimes,
            precisions=profile.precisions,
            memory_mb=profile.memory_mb,
            link_mbit_s=profile.link_mbit_s,
            rtt_ms=profile.rtt_ms,
            compute=profile.compute,
            power_w=profile.frame_joules / (profile.frame_ms / 1e3),
            battery_wh=profile.battery_wh,
        )

    @property
    def watts(self) -> float | None:
        """What rendering may draw: within power_w, and so that the battery lasts; None: no limit."""
        limits = [] if self.power_w is None else [self.power_w]
        limits += [] if self.battery_wh is None else [self.battery_wh / self.battery_hours]
        return min(limits, default=None)

    @model_validator(mode="before")
    @classmethod
    def _of_a_newer_minor_version(cls, document: Any) -> Any:
        """Leave out what only a newer minor version knows: fields, runtimes and precisions."""
        if not isinstance(document, dict) or not _is_newer(document.get("version")):
            return document
        known = {name: value for name, value in document.items() if name in cls.model_fields}
        for name, choices in (("runtimes", get_args(Runtime)), ("precisions", get_args(Precision))):
            if isinstance(known.get(name), list | tuple):
                known[name] = tuple(value for value in known[name] if value in choices)
        unknown = sorted(map(str, set(document) - set(known)))
        left_out = [name if name.isidentifier() else f"{name!r:.80}" for name in unknown]
        log.info("a capability of version %s: %s not understood", document["version"], ", ".join(left_out) or "nothing")
        return known


def read_capability(text: str | bytes) -> Capability:
    """The capability that a UE sent as JSON. Raises CapabilityError."""
    try:
        return Capability.model_validate(json.loads(text))
    except ValidationError as error:
        raise CapabilityError(f"capability: {first_finding(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CapabilityError(f"capability: not JSON ({error}); send one JSON object") from error


def _is_newer(version: Any) -> bool:
    major, _, minor = str(version).partition(".")
    return major == str(MAJOR) and minor.isdecimal() and len(minor) <= 6 and int(minor) > MINOR
