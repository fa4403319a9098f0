"""When a view will be ready: how long views take, learned from those before, and who is in front of it in the queue."""

import heapq
from collections.abc import Iterable

OVERHEAD_MS = 2.0
"""Encoding a small view and telling processes about it."""
GROWTH = 0.85
"""Work grows with the pixels to this power: measured on the concert, four times the pixels of 128 x 96 take 2.9 times
as long, and six times those of 256 x 192 take 5.5 times as long, since neighbouring rays share what they read."""
MEAN_GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / 8, 1 / 4, 2.0
"""As TCP predicts round trips (RFC 6298, with half its margin)."""


class RenderTimes:
    """Mean and mean deviation of the milliseconds that views take on one thread, for a unit of pixels^GROWTH."""

    def __init__(self, *, pixels: int, ms: float) -> None:
        self._mean = ms / pixels**GROWTH
        self._deviation = self._mean / 8

    def learn(self, *, pixels: int, ms: float) -> None:
        """Take in how long a view took."""
        unit = ms / pixels**GROWTH
        self._deviation += DEVIATION_GAIN * (abs(unit - self._mean) - self._deviation)
        self._mean += MEAN_GAIN * (unit - self._mean)

    def expected_ms(self, pixels: int) -> float:
        """Milliseconds that a view of so many pixels takes, on the mean."""
        return OVERHEAD_MS + self._mean * pixels**GROWTH

    def predicted_ms(self, pixels: int) -> float:
        """Milliseconds that a view of so many pixels hardly exceeds."""
        return OVERHEAD_MS + (self._mean + DEVIATIONS * self._deviation) * pixels**GROWTH


def finish_times(free_in_ms: Iterable[float], work_ms: Iterable[float]) -> list[float]:
    """Milliseconds until each of some views is ready, in the order of the queue, when they take so many milliseconds.

    free_in_ms: of each process (at least one), how long until it is idle; whoever is idle first takes the next view.
    """
    free = [max(0.0, ms) for ms in free_in_ms]
    heapq.heapify(free)
    finished = []
    for ms in work_ms:
        finished.append(free[0] + ms)
        heapq.heapreplace(free, finished[-1])
    return finished
