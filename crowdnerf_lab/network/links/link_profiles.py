"""What the links between a UE and the network are like: rates, round trips, jitter and losses, with their sources."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from crowdnerf_lab.network.delivery.losses import GilbertElliott, loss_model

Direction = Literal["up", "down"]


class LinkError(ValueError):
    """A link that cannot be; the message names the value and the remedy."""


@dataclass(frozen=True)
class LinkProfile:
    """A link as a UE meets it. down_mbit_s, up_mbit_s: rates, 10^6 bits a second. rtt_ms: round trip of a small packet
    without queue or jitter. jitter_ms: each packet is late by 0 to so much, evenly. loss: share of packets lost; burst:
    mean number lost in a row, packets. source: where the figures come from.
    """

    name: str
    title: str
    down_mbit_s: float
    up_mbit_s: float
    rtt_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    burst: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("down_mbit_s", "up_mbit_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise LinkError(f"link {self.name}: {name} is {getattr(self, name)}; give Mbit/s above 0")
        for name in ("rtt_ms", "jitter_ms"):
            if not 0 <= getattr(self, name) < 1e5:
                raise LinkError(f"link {self.name}: {name} is {getattr(self, name)}; give milliseconds, 0 or more")
        if not 0 <= self.loss < 1:
            raise LinkError(f"link {self.name}: loss is {self.loss}; give a fraction, 0 up to but not 1")
        loss_model(self.loss, self.burst)  # refuses bursts that cannot be

    @property
    def losses(self) -> GilbertElliott:
        """How packets get lost: independently, or in bursts where those are longer than chance has them."""
        return loss_model(self.loss, self.burst)

    def bytes_per_second(self, direction: Direction) -> float:
        return (self.down_mbit_s if direction == "down" else self.up_mbit_s) * 1e6 / 8


LINKS: MappingProxyType[str, LinkProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            LinkProfile(
                "5g_good",
                "5G, good",
                down_mbit_s=100,
                up_mbit_s=50,
                rtt_ms=20,
                jitter_ms=4,
                loss=0.001,
                source="ITU-R M.2410: 100 and 50 Mbit/s are what IMT-2020 demands for a user in a dense city; below 20 "
                "ms are the best mobile users of a CDN (arXiv 2507.18834). Jitter and loss are assumptions.",
            ),
            LinkProfile(
                "5g_poor",
                "5G, poor",
                down_mbit_s=20,
                up_mbit_s=5,
                rtt_ms=50,
                jitter_ms=10,
                loss=0.01,
                burst=3,
                source="An assumption: the edge of a cell. Most mobile users of a CDN get less than 50 Mbit/s (arXiv "
                "2507.18834); the profile of the mid-range phone assumes the same rate and round trip.",
            ),
            LinkProfile(
                "crowded_cell",
                "crowded cell",
                down_mbit_s=3,
                up_mbit_s=1,
                rtt_ms=120,
                jitter_ms=40,
                loss=0.03,
                burst=5,
                source="An assumption: a share of a full stadium's cell. Shafiq et al. (SIGMETRICS 2013) saw failures "
                "to connect grow a hundredfold at crowded events, with slower and lossier connections.",
            ),
            LinkProfile(
                "wifi",
                "Wi-Fi",
                down_mbit_s=50,
                up_mbit_s=50,
                rtt_ms=10,
                jitter_ms=8,
                loss=0.005,
                burst=2,
                source="An assumption: one's share of a venue's access point, with a server in the same building.",
            ),
        )
    }
)
"""The links of the latency account, best first outdoors."""
