"""DeviceProfile: what a class of devices can do, read from data/devices/*.toml and checked.

Profiles hold orders of magnitude from public knowledge, with their source; nothing in them was measured here.
"""

import os
import tomllib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdnerf_lab.findings import first_finding

Runtime = Literal["onnxruntime", "numba", "webgl", "executorch", "core_ml", "litert"]
"""What runs a model on the device: ONNX Runtime (its mobile and web builds too), ExecuTorch, Core ML and LiteRT a light
field, numba and a WebGL2 fragment shader a baked field."""
Precision = Literal["float32", "float16", "int8"]
"""What a device computes with. A model whose weights alone are int8 computes with float32."""
NARROWING: tuple[Precision, ...] = ("float32", "float16", "int8")
DeviceClass = Literal["phone", "glasses", "watch", "browser", "laptop", "server"]
OperatingSystem = Literal["android", "wear_os", "ios", "watchos", "linux", "macos", "windows", "web"]

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MINUTES_ON_BATTERY = 30
"""How long a device must at least last when it renders all the time."""
SYSTEMS_OF_RUNTIME: dict[str, frozenset[str]] = {
    "core_ml": frozenset({"ios", "macos", "watchos"}),
    "numba": frozenset({"linux", "macos", "windows"}),
    "executorch": frozenset({"android", "ios", "linux", "macos", "windows"}),
    "litert": frozenset({"android", "wear_os", "ios", "linux", "macos", "windows", "web"}),
}
"""Runtimes that exist on some operating systems only."""
MOST_WATTS: dict[str, float] = {
    "watch": 3,
    "glasses": 5,
    "phone": 20,
    "browser": 150,
    "laptop": 150,
    "server": 1500,
}
"""What no device of a class can turn into heat, with the generosity of a factor of two or more."""


class ProfileError(ValueError):
    """A device profile that cannot be used; the message names the file, the field and the remedy."""


class Compute(BaseModel):
    """What the device's processor can do at best, for a roofline (Williams et al. 2009) and an estimate of energy.

    unit: graphs of convolutions run on any; what numba compiles runs on a cpu alone. peak_gops: 10^9 operations a
    second by precision, a multiply and an add being two. memory_gb_s: 10^9 bytes a second between memory and processor.
    attained: the fraction of the peak that small networks reach. picojoule_per_op: energy of one operation with all
    that surrounds it, by precision; picojoule_per_byte: of one byte from or to memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str = Field(min_length=3, max_length=100)
    unit: Literal["cpu", "gpu", "npu"]
    peak_gops: dict[Precision, Annotated[float, Field(ge=0.1, le=1e7, allow_inf_nan=False)]] = Field(min_length=1)
    memory_gb_s: Positive = Field(ge=0.05, le=20_000)
    attained: Positive = Field(ge=0.001, le=1)
    picojoule_per_op: dict[Precision, Annotated[float, Field(ge=0.01, le=10_000, allow_inf_nan=False)]]
    picojoule_per_byte: Positive = Field(ge=1, le=10_000)
    source: str = Field(min_length=20, description="where the numbers come from")

    def frame_mj(self, *, flops: float, bytes_moved: float, precision: Precision) -> float:
        """Millijoules that the declared energies of an operation and of a byte make of a frame."""
        return (flops * self.picojoule_per_op[precision] + bytes_moved * self.picojoule_per_byte) * 1e-9

    @model_validator(mode="after")
    def _hangs_together(self) -> "Compute":
        if set(self.picojoule_per_op) != set(self.peak_gops):
            raise ValueError(
                f"peak_gops knows {_names(self.peak_gops)}, picojoule_per_op {_names(self.picojoule_per_op)}; "
                "give both for the same precisions"
            )
        peaks = [(name, self.peak_gops[name]) for name in NARROWING if name in self.peak_gops]
        for (wide, slower), (narrow, faster) in pairwise(peaks):
            if faster < slower:
                raise ValueError(
                    f"peak_gops is {faster:g} for {narrow} and {slower:g} for {wide}; no processor computes narrower "
                    "numbers slower at its best, correct one of the two"
                )
        return self

    @property
    def watts(self) -> dict[Precision, float]:
        """Power at the peak, by precision."""
        return {name: gops * self.picojoule_per_op[name] / 1e3 for name, gops in self.peak_gops.items()}


class DeviceProfile(BaseModel):
    """One class of devices. Sizes in pixels and megabytes, times in milliseconds, energies in joules and watt hours.

    memory_mb: what a model may take while it runs. frame_ms: time a frame may take. frame_joules: energy it may take.
    compute: the processor's peaks, where they are public; without them an unmeasured device has no proxy.
    view_width, view_height: what the device shows of the event. battery_wh: absent where a mains lead or host feeds it.
    threads: CPU threads that measurements for this profile are pinned to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: str = Field(min_length=1, max_length=100)
    device_class: DeviceClass
    platform: str = Field(min_length=1, max_length=100)
    operating_systems: tuple[OperatingSystem, ...] = Field(min_length=1)
    runtimes: tuple[Runtime, ...] = Field(min_length=1)
    precisions: tuple[Precision, ...] = Field(min_length=1)
    threads: int = Field(ge=1, le=256)
    memory_mb: Positive = Field(le=1e7)
    frame_ms: Positive = Field(ge=1, le=10_000)
    view_width: int = Field(ge=16, le=8192)
    view_height: int = Field(ge=16, le=8192)
    link_mbit_s: Positive = Field(le=1e6)
    rtt_ms: Positive = Field(le=10_000)
    frame_joules: Positive = Field(le=1000)
    battery_wh: Positive | None = Field(default=None, le=1000)
    source: str = Field(min_length=20, description="where the numbers come from")
    compute: Compute | None = None

    @model_validator(mode="after")
    def _runtimes_exist(self) -> "DeviceProfile":
        for runtime in self.runtimes:
            systems = SYSTEMS_OF_RUNTIME.get(runtime)
            if systems is not None and not systems & set(self.operating_systems):
                raise ValueError(
                    f"runtime {runtime} runs on {', '.join(sorted(systems))}, the profile's operating_systems are "
                    f"{', '.join(self.operating_systems)}; correct one of the two"
                )
        return self

    @model_validator(mode="after")
    def _heat(self) -> "DeviceProfile":
        """Neither the frame budget nor the processor at its peak may give more heat than such a device can carry."""
        most = MOST_WATTS[self.device_class]
        drawn = self.frame_joules / (self.frame_ms / 1e3)
        if drawn > most:
            raise ValueError(
                f"frame_joules {self.frame_joules} every {self.frame_ms} ms are {drawn:.3g} W, more than the "
                f"{most:g} W that a {self.device_class} can carry; correct one of the two"
            )
        for precision, watts in self.compute.watts.items() if self.compute else ():
            if watts > most:
                raise ValueError(
                    f"compute: peak_gops and picojoule_per_op of {precision} make {watts:.3g} W, more than the "
                    f"{most:g} W that a {self.device_class} can carry; correct one of the two"
                )
        return self

    @model_validator(mode="after")
    def _peaks_of_its_precisions(self) -> "DeviceProfile":
        absent = [name for name in self.precisions if self.compute and name not in self.compute.peak_gops]
        if absent:
            raise ValueError(f"compute: peak_gops lacks {', '.join(absent)}, in which the device computes; add it")
        return self

    @model_validator(mode="after")
    def _an_hour_on_battery(self) -> "DeviceProfile":
        """A frame budget that empties the battery within minutes is a slip of the pen."""
        if self.battery_wh is not None:
            minutes = self.battery_wh * 3600 / (self.frame_joules * 1000 / self.frame_ms) / 60
            if minutes < MINUTES_ON_BATTERY:
                raise ValueError(
                    f"frame_joules {self.frame_joules} every {self.frame_ms} ms empties {self.battery_wh} Wh in "
                    f"{minutes:.0f} minutes, less than {MINUTES_ON_BATTERY}; correct one of the three"
                )
        return self


def read_profile(path: Path) -> DeviceProfile:
    """One profile. Raises ProfileError naming the file, the field, the value and the remedy."""
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        profile = DeviceProfile.model_validate(document)
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}; give a profile's .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not TOML ({error}); correct the line") from error
    except ValidationError as error:
        raise ProfileError(f"{path}: {first_finding(error)}") from error
    if profile.name != path.stem:
        raise ProfileError(f"{path}: name is {profile.name!r}; call the file {profile.name}.toml or correct the name")
    return profile


def device_profiles() -> tuple[DeviceProfile, ...]:
    """The bundled profiles: data/devices of a checkout, or of the folder that the variable CROWDNERF_DATA names."""
    setting = os.environ.get("CROWDNERF_DATA")
    folder = (Path(setting) if setting else Path(__file__).resolve().parents[2] / "data") / "devices"
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ProfileError(f"no profiles in {folder}; work in a checkout, or set CROWDNERF_DATA to its data folder")
    return tuple(read_profile(file) for file in files)


def device_profile(name: str) -> DeviceProfile:
    """The bundled profile called `name`."""
    profiles = {profile.name: profile for profile in device_profiles()}
    if name not in profiles:
        raise ProfileError(f"no device profile {name!r}; choose one of {', '.join(profiles)}")
    return profiles[name]


def _names(precisions: Iterable[str]) -> str:
    return ", ".join(precisions) or "nothing"
