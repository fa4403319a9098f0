"""When the bytes of a TCP connection arrive over a link, in virtual time.

A `Stream` is one direction of a connection: it waits for the rate that all connections of the UE share (`Lane`), for
the window of TCP's slow start, for the delay, and for what was lost to be sent again. `link` lets real bytes
follow that schedule; `transfer_ms` and `bytes_within` read it without any.

Losses are repaired below TCP, as a cell's link layer does (3GPP TS 38.322, acknowledged mode): a lost segment arrives
one round trip later, whatever follows it waits, and the sender's window does not shrink. Datagrams of a broadcast have
no such repair: they meet the same `LinkProfile.losses` bare.
"""

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from statistics import median

import numpy as np

from crowdnerf_lab.network.delivery.losses import fates
from crowdnerf_lab.network.links.link_profiles import Direction, LinkProfile

SEGMENT = 1460
"""Payload bytes of a TCP segment: 1,500 of Ethernet less 20 of IPv4 and 20 of TCP."""
FIRST_WINDOW = 10 * SEGMENT
"""Bytes that a new connection may send before the first acknowledgement (RFC 6928)."""
UNLIMITED = 1 << 40
"""A window that never holds anything back, bytes."""
DRAWS = 9
"""Of jitter and losses, where their median is asked for."""
REMEMBERED = 4096
"""Answers that are not computed again: an account of views asks for the same few sizes."""


class Lane:
    """One direction of a link: a rate that all connections of the UE share, first come, first served.

    free_at: when the last byte given to it will have left, seconds.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self.free_at = 0.0

    def sends(self, ready: float, size: int) -> float:
        """When `size` bytes that are ready at that time have left, s."""
        self.free_at = max(self.free_at, ready) + size / self.bytes_per_second
        return self.free_at


class Stream:
    """One direction of a TCP connection: when its bytes arrive, in order. Times are seconds of any one clock.

    opens_at: when its first byte may leave. window: bytes that may be on their way without acknowledgement; it grows by
    what is acknowledged (slow start, RFC 5681, up to no threshold: the lane's rate limits it) and is kept while the
    connection rests.
    """

    def __init__(
        self, lane: Lane, profile: LinkProfile, *, opens_at: float, seed: int, window: int = FIRST_WINDOW
    ) -> None:
        self._lane, self._window = lane, window
        self._round_trip, self._jitter = profile.rtt_ms / 1e3, profile.jitter_ms / 1e3
        self._fates, self._mean_loss = fates(profile.losses, seed=seed), profile.loss
        self._luck = np.random.default_rng(seed)
        self._ready = self._arrived = opens_at
        self._in_flight, self._unacknowledged = 0, deque[tuple[float, int]]()

    @property
    def bytes_per_second(self) -> float:
        """Of the lane."""
        return self._lane.bytes_per_second

    @property
    def busy_until(self) -> float:
        """When everything written so far will have left."""
        return max(self._ready, self._lane.free_at)

    def arrivals(self, now: float, size: int) -> Iterator[tuple[float, int]]:
        """For the next `size` bytes, written now: when each segment of them arrives, and its bytes."""
        while size > 0:
            segment = min(size, SEGMENT)
            size -= segment
            yield self._arrival(now, segment), segment

    def _arrival(self, now: float, size: int) -> float:
        self._ready = max(self._ready, now)
        while self._unacknowledged and (
            self._unacknowledged[0][0] <= self._ready or self._in_flight + size > self._window
        ):
            acknowledged_at, acknowledged = self._unacknowledged.popleft()
            self._ready = max(self._ready, acknowledged_at)
            self._in_flight -= acknowledged
            self._window += acknowledged
        left = self._lane.sends(self._ready, size)
        arrival = left + self._round_trip / 2 + self._jitter * self._luck.random()
        lost = next(self._fates)
        while lost:  # a round trip later a burst is over, so that what is sent again is lost by chance alone
            self._lane.sends(left, size)
            arrival += self._round_trip
            lost = self._luck.random() < self._mean_loss
        self._arrived = max(self._arrived, arrival)
        self._in_flight += size
        self._unacknowledged.append((self._arrived + self._round_trip / 2, size))
        return self._arrived


@lru_cache(REMEMBERED)
def transfer_ms(
    profile: LinkProfile, size: int, *, direction: Direction = "down", connected: bool = False, draws: int = DRAWS
) -> float:
    """Milliseconds from the first byte's leaving to the last one's arrival of `size` bytes on an idle link: the median
    of some draws of jitter and losses.

    connected: over a connection whose window has grown to what the link carries, instead of a new one.
    """
    streams = _alone(profile, direction, connected, draws)
    return 1e3 * median(max(at for at, _ in stream.arrivals(0.0, max(size, 1))) for stream in streams)


@lru_cache(REMEMBERED)
def bytes_within(
    profile: LinkProfile,
    milliseconds: float,
    *,
    direction: Direction = "down",
    connected: bool = False,
    ms_per_mb: float = 0.0,
    draws: int = DRAWS,
) -> int:
    """How many bytes arrive within a time after the first one left: the inverse of `transfer_ms`.

    ms_per_mb: what has arrived takes so long, for each 10^6 bytes of it, to be of use.
    """
    most = int(profile.bytes_per_second(direction) * max(milliseconds, 0.0) / 1e3) + SEGMENT
    arrived = []
    for stream in _alone(profile, direction, connected, draws):
        total = 0
        for at, size in stream.arrivals(0.0, most):
            if 1e3 * at + ms_per_mb * (total + size) / 1e6 > milliseconds:
                break
            total += size
        arrived.append(total)
    return int(median(arrived))


def _alone(profile: LinkProfile, direction: Direction, connected: bool, draws: int) -> Iterator[Stream]:
    """Streams that each have a link of their own."""
    window = UNLIMITED if connected else FIRST_WINDOW
    for seed in range(draws if profile.jitter_ms or profile.loss else 1):
        yield Stream(Lane(profile.bytes_per_second(direction)), profile, opens_at=0.0, seed=seed, window=window)
