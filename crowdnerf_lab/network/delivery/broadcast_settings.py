"""Where and how fast a service broadcasts."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import Field

from crowdnerf_lab.network.delivery.objects import Code


@dataclass(frozen=True)
class BroadcastSettings:
    """Where and how fast a service broadcasts.

    group, port: multicast destination (RFC 2365: 239.0.0.0/8 stays inside an organisation). interface: address of the
    network interface it leaves by; hops: routers it may pass. rate_mbit_s: of one event, headers included. code:
    "flute" for receivers of others. most_bytes: of the objects on one carousel; the smallest models come first.
    expires_s: after which UEs need not wait for a session any more.
    """

    group: str = "239.255.77.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 9771
    interface: str = "127.0.0.1"
    hops: Annotated[int, Field(ge=0, le=255)] = 1
    rate_mbit_s: Annotated[float, Field(gt=0, le=10_000)] = 10.0
    code: Code = "raptorq"
    most_bytes: Annotated[int, Field(ge=1)] = 32 << 20
    expires_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0

    def __post_init__(self) -> None:
        if not IPv4Address(self.group).is_multicast:
            raise ValueError(f"group {self.group} is no multicast address; use one of 239.0.0.0/8")
        IPv4Address(self.interface)
