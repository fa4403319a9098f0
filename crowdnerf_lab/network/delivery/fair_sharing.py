"""Many downloads over one link: everybody who is being served gets the same rate (processor sharing)."""

import heapq

import numpy as np
from numpy.typing import NDArray


def fair_share(
    begins: NDArray[np.floating], sizes: NDArray[np.floating], *, rate: float, most_each: float = np.inf
) -> NDArray[np.float64]:
    """When each of many downloads ends, s. begins: when they begin, s; sizes: bytes. rate: of the link, bytes/s, shared
    equally at each moment; most_each: what one receiver can take.

    Exact in O(n log n): a download ends when the service that everybody has had since it began reaches its size.
    """
    ends = np.array(begins, float)
    served, now = 0.0, 0.0
    running: list[tuple[float, int]] = []
    for number in np.argsort(begins, kind="stable"):
        served, now = _serve(running, ends, served, now, until=float(begins[number]), rate=rate, most_each=most_each)
        heapq.heappush(running, (served + float(sizes[number]), int(number)))
    _serve(running, ends, served, now, until=np.inf, rate=rate, most_each=most_each)
    return ends


def _serve(
    running: list[tuple[float, int]],
    ends: NDArray[np.float64],
    served: float,
    now: float,
    *,
    until: float,
    rate: float,
    most_each: float,
) -> tuple[float, float]:
    """Serve those who are running until a time, and note who ends: service given to each since the start, and time."""
    while running:
        each = min(most_each, rate / len(running))
        goal, number = running[0]
        if now + (goal - served) / each > until:
            return served + (until - now) * each, until
        now += (goal - served) / each
        served = goal
        ends[number] = now
        heapq.heappop(running)
    return served, max(now, until) if np.isfinite(until) else now
