"""DeviceProfile: what a class of devices can do, read from data/devices/*.toml and checked.

Profiles hold orders of magnitude from public knowledge, with their source; nothing in them was measured here.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdnerf_lab.findings import first_finding

Runtime = Literal["onnxruntime", "numba"]
"""What runs a model on the device: ONNX Runtime (its mobile and web builds too) a light field, numba a baked field."""
Precision = Literal["float32", "float16", "int8"]
"""What a device computes with. A model whose weights alone are int8 computes with float32."""
DeviceClass = Literal["phone", "glasses", "browser", "laptop", "server"]

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MINUTES_ON_BATTERY = 30
"""How long a device must at least last when it renders all the time."""


class ProfileError(ValueError):
    """A device profile that cannot be used; the message names the file, the field and the remedy."""


class DeviceProfile(BaseModel):
    """One class of devices. Sizes in pixels and megabytes, times in milliseconds, energies in joules and watt hours.

    memory_mb: what a model may take while it runs. frame_ms: time a frame may take. frame_joules: energy it may take.
    view_width, view_height: what the device shows of the event. battery_wh: absent where a mains lead or host feeds it.
    threads: CPU threads that measurements for this profile are pinned to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: str = Field(min_length=1, max_length=100)
    device_class: DeviceClass
    platform: str = Field(min_length=1, max_length=100)
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
