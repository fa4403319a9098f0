"""A crowd of UEs in one process: who comes when, for a model or for a view, and how long each one waits.

Latencies count from the moment at which a UE wanted to be served, not from when the driver got round to it: a driver
that falls behind makes its figures worse, never better (coordinated omission, Tene 2013).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

Kind = Literal["model", "view"]
Arrivals = Literal["burst", "even", "poisson"]
Serve = Callable[[], Awaitable[int]]
"""What one UE does when its time has come; it returns the bytes that it received, and raises when it was not served."""


@dataclass(frozen=True)
class Visit:
    """When a UE wants to be served, seconds after the crowd began to come, and with what."""

    at_s: float
    kind: Kind


@dataclass(frozen=True)
class Served:
    """How one UE fared. seconds: from when it wanted to be served; infinite, and why, when it was not."""

    kind: Kind
    seconds: float
    bytes: int
    error: str | None = None


@dataclass(frozen=True)
class CrowdReport:
    """How a crowd fared. seconds: from the first arrival until the last UE was done."""

    served: tuple[Served, ...]
    seconds: float

    def quantile_s(self, share: float, *, kind: Kind | None = None) -> float:
        """The latency that so large a share of the UEs did not exceed; those not served waited for ever."""
        waited = sorted(one.seconds for one in self.served if kind in (None, one.kind))
        return waited[max(0, int(np.ceil(share * len(waited))) - 1)] if waited else 0.0

    @property
    def errors(self) -> tuple[str, ...]:
        """Why UEs were not served, each reason once."""
        return tuple(dict.fromkeys(one.error for one in self.served if one.error is not None))

    @property
    def refused(self) -> int:
        """How many UEs were not served."""
        return sum(one.error is not None for one in self.served)

    @property
    def bytes(self) -> int:
        """Received by all of them."""
        return sum(one.bytes for one in self.served)


def visits(
    count: int, *, seconds: float = 1.0, arrivals: Arrivals = "even", view_share: float = 0.1, seed: int = 0
) -> tuple[Visit, ...]:
    """A crowd of `count` UEs: all at once ("burst"), one after another within `seconds` ("even"), or at random times of
    a Poisson process of that rate ("poisson"). view_share: of them want a view, the others a model, in random order."""
    draw = np.random.default_rng(seed)
    if arrivals == "burst":
        times = np.zeros(count)
    elif arrivals == "even":
        times = seconds * np.arange(count) / max(count, 1)
    else:
        times = np.cumsum(draw.exponential(seconds / max(count, 1), count))
    kinds = np.array(["view"] * round(view_share * count) + ["model"] * (count - round(view_share * count)))
    return tuple(
        Visit(float(at), "view" if kind == "view" else "model")
        for at, kind in zip(times, draw.permutation(kinds), strict=True)
    )


async def crowd_of_ues(coming: Sequence[Visit], serve: Sequence[Serve], *, patience_s: float = 10.0) -> CrowdReport:
    """Let a crowd come: serve[i] is what UE i does at its time. patience_s: after which a UE gives up."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def visit(of: Visit, what: Serve) -> Served:
        wanted = begun + of.at_s
        await asyncio.sleep(wanted - loop.time())
        try:
            async with asyncio.timeout_at(wanted + patience_s):
                size = await what()
        except TimeoutError:
            return Served(of.kind, inf, 0, f"not served within {patience_s:g} s")
        except (OSError, ValueError) as error:
            return Served(of.kind, inf, 0, str(error))
        return Served(of.kind, loop.time() - wanted, size)

    served = await asyncio.gather(*(visit(of, what) for of, what in zip(coming, serve, strict=True)))
    return CrowdReport(tuple(served), loop.time() - begun)
