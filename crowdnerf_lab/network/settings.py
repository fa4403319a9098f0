"""Settings of the service: plain numbers with their units, read from CROWDNERF_* variables of the environment.

Every process of a service (API, rendering, training) sees the same environment, so that none needs arguments.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.updates.update_settings import UpdateSettings

MIB = 1 << 20
PREFIX = "CROWDNERF_"
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(ValueError):
    """A setting that cannot be; the message names it, the value seen and the remedy."""


@dataclass(frozen=True)
class ServiceSettings:
    """How a service treats those who use it. In the environment each has its name in capitals after CROWDNERF_.

    home: folder of everything that the service keeps. events: made when the service starts, open to everybody who
    reaches it; events with a join code are made over HTTP. token_hours: for which a UE's token is good.
    upload_hours: for which an upload may lie unfinished.
    max_upload_bytes: of one photo or clip. quota_bytes, quota_files: of all that one UE contributes to an event.
    joins_per_minute: from one address; many phones may share one. requests_per_second: of one UE in the long run,
    burst: at once. refused_per_minute: requests without a good token from one address, before it has to wait.
    view_processes: that render, of each API process; 0: no views. view_deadline_ms: after which a view is too late,
    unless its request says otherwise. max_view_pixels: of one view. train: whether a worker turns contributions into
    versions, and updates: how.
    broadcast: where and how fast the latest versions go on the air; None: not at all.
    memory_cache_bytes: of model files that an API process keeps in memory; larger ones are read as they are sent.
    """

    home: Path
    events: tuple[str, ...] = ()
    token_hours: Amount = 24.0
    upload_hours: Amount = 24.0
    max_upload_bytes: Count = 512 * MIB
    quota_bytes: Count = 2048 * MIB
    quota_files: Count = 500
    joins_per_minute: Count = 600
    requests_per_second: Amount = 50.0
    burst: Count = 200
    refused_per_minute: Count = 600
    view_processes: Annotated[int, Field(ge=0)] = 2
    view_deadline_ms: Amount = 1000.0
    max_view_pixels: Count = 2048 * 2048
    train: bool = True
    memory_cache_bytes: Count = 256 * MIB
    updates: UpdateSettings = field(default_factory=UpdateSettings)
    broadcast: BroadcastSettings | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServiceSettings":
        """The settings that CROWDNERF_HOME and its like give; lists and nested ones are JSON. Raises SettingsError."""
        given = os.environ if environment is None else environment
        if not given.get(PREFIX + "HOME"):
            raise SettingsError("CROWDNERF_HOME is not set; give the folder in which the service keeps its state")
        document: dict[str, Any] = {
            each.name: given[name] for each in fields(cls) if (name := _variable(each.name)) in given
        }
        for name in {"events", *NESTED} & set(document):
            document[name] = _from_json(document[name], variable=_variable(name))
        for name, kind in NESTED.items():
            unknown = set(document.get(name) or ()) - {each.name for each in fields(kind)}
            if unknown:
                raise SettingsError(f"{_variable(name)} has no setting {sorted(unknown)[0]!r:.80}; correct its name")
        try:
            return _CHECKED.validate_python(document)
        except ValidationError as error:
            raise SettingsError(f"settings in the environment ({PREFIX}...): {first_finding(error)}") from error

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` makes these settings of."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["events"] = json.dumps(self.events)
        values |= {name: json.dumps(values[name] and asdict(values[name])) for name in NESTED}
        return {_variable(name): str(value) for name, value in values.items()}


NESTED = {"updates": UpdateSettings, "broadcast": BroadcastSettings}
"""Settings that are JSON objects in the environment."""


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _from_json(text: str, *, variable: str) -> list[Any] | dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{variable} is not JSON ({error}); it says {text!r:.80}") from error
    if not isinstance(document, list | dict | None):
        raise SettingsError(f"{variable} is no JSON list or object; it says {text!r:.80}")
    return document


_CHECKED = TypeAdapter(ServiceSettings)
