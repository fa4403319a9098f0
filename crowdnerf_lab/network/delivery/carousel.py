"""The sender: a carousel of objects over UDP, multicast or to a list of addresses, at the rate that was promised.

Every round goes through the objects in order of priority, the first layers of progressive files before the files; an
object's round is as many symbols as it has source symbols: first those, in later rounds fresh repair symbols. Whoever
joins late needs any K of them and waits for no particular one.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from crowdnerf_lab.network.delivery.flute import flute_packets
from crowdnerf_lab.network.delivery.objects import BroadcastSession, DeliveryError
from crowdnerf_lab.network.delivery.raptorq_code import raptorq_packets

log = logging.getLogger(__name__)

HEADERS_BYTES = 28
"""IPv4 and UDP in front of each packet."""
BURST_S = 0.01
"""The token bucket's depth, in seconds of the rate: what a sender that slept too long may catch up with at once."""
BREATH_PACKETS = 32
"""Packets after which the event loop's other work has its turn, where the rate never makes the sender wait."""


@dataclass(frozen=True)
class Sent:
    """What one object took. symbols: packets of it, each counted once however many addresses it went to (the tables of
    FLUTE too). lost: of them, lost on purpose. bytes: handed to the network, without headers."""

    symbols: int
    lost: int
    bytes: int
    seconds: float


@dataclass
class _Turn:
    """One object on the carousel."""

    session: BroadcastSession
    packets: Iterator[bytes]
    symbols: int = 0
    lost: int = 0
    bytes: int = 0

    def due(self, round_number: int) -> int:
        """Packets of this round; the last round may be a part of one."""
        rounds, symbols = self.session.rounds, self.session.source_symbols
        if rounds is None:
            return symbols
        return max(0, min((round_number + 1) * symbols, round(rounds * symbols)) - round_number * symbols)

    @property
    def expired(self) -> bool:
        return time.time() >= self.session.expires


@dataclass
class TokenBucket:
    """Paces bytes. rate: bytes/s."""

    rate: float
    tokens: float = 0.0
    filled: float = field(default_factory=time.monotonic)
    _breath: int = BREATH_PACKETS

    async def take(self, amount: int) -> None:
        """Wait until so many bytes may go."""
        while True:
            now = time.monotonic()
            most = max(self.rate * BURST_S, amount)
            self.tokens, self.filled = min(most, self.tokens + (now - self.filled) * self.rate), now
            if self.tokens >= amount:
                self.tokens -= amount
                self._breath -= 1
                if not self._breath:
                    self._breath = BREATH_PACKETS
                    await asyncio.sleep(0)
                return
            await asyncio.sleep((amount - self.tokens) / self.rate)


async def broadcast(
    session: BroadcastSession,
    content: bytes,
    *,
    loss_injection: Iterator[bool] | None = None,
    stop: asyncio.Event | None = None,
    interface: str = "127.0.0.1",
    hops: int = 1,
) -> Sent:
    """Send one object as its description says, until its rounds are over, it expires, or `stop` is set.

    loss_injection: whether each packet is lost on the way that all receivers share. interface: address of the network
    interface that multicast leaves by; hops: how many routers multicast may pass (its time to live).
    """
    (sent,) = await broadcast_together(
        [(session, content)], loss_injection=loss_injection, stop=stop, interface=interface, hops=hops
    )
    return sent


async def broadcast_together(
    objects: Sequence[tuple[BroadcastSession, bytes]],
    *,
    loss_injection: Iterator[bool] | None = None,
    stop: asyncio.Event | None = None,
    interface: str = "127.0.0.1",
    hops: int = 1,
) -> tuple[Sent, ...]:
    """Send several objects on one carousel, those of the lowest priority number first in every round.

    They share the rate of the slowest, addresses included. Raises DeliveryError when the network refuses.
    """
    if not objects:
        raise DeliveryError("nothing to broadcast; give at least one object")
    turns = [_Turn(session, packets_of(session, content)) for session, content in objects]
    bucket = TokenBucket(min(session.rate_mbit_s for session, _ in objects) * 1e6 / 8)
    began = time.monotonic()
    with contextlib.closing(sending_socket(interface=interface, hops=hops)) as outgoing:
        round_number = 0
        while True:
            due = [(turn, turn.due(round_number)) for turn in turns if not turn.expired]
            if not any(count for _, count in due):
                break
            for turn, packet in _interleaved(due):
                if (stop is not None and stop.is_set()) or turn.expired:
                    break
                turn.symbols += 1
                if loss_injection is not None and next(loss_injection):
                    turn.lost += 1
                    continue
                for address in _addresses(turn.session):
                    await bucket.take(len(packet) + HEADERS_BYTES)
                    await _send(outgoing, packet, address)
                    turn.bytes += len(packet)
            if stop is not None and stop.is_set():
                break
            round_number += 1
    seconds = time.monotonic() - began
    return tuple(Sent(turn.symbols, turn.lost, turn.bytes, seconds) for turn in turns)


def packets_of(session: BroadcastSession, content: bytes) -> Iterator[bytes]:
    """The packets of an object, without end. Raises DeliveryError when the content is not what was described."""
    if hashlib.sha256(content).hexdigest() != session.sha256:
        raise DeliveryError(f"{session.name}: these are not the bytes that were described; describe them again")
    return flute_packets(content, session) if session.code == "flute" else raptorq_packets(content, session)


def sending_socket(*, interface: str, hops: int) -> socket.socket:
    """A UDP socket whose multicast leaves by this interface and is heard on this machine too."""
    outgoing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        outgoing.setblocking(False)
        outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        outgoing.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
        outgoing.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        outgoing.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    except OSError as error:
        outgoing.close()
        raise DeliveryError(f"cannot multicast by {interface} ({error}); give an address of this machine") from error
    return outgoing


def _addresses(session: BroadcastSession) -> Sequence[tuple[str, int]]:
    if session.group is not None:
        return ((str(session.group), session.port),)
    if not session.addresses:
        raise DeliveryError(f"{session.name} has no destination; describe it with a multicast group or with addresses")
    return [(str(address.host), address.port) for address in session.addresses]


def _interleaved(due: Sequence[tuple[_Turn, int]]) -> Iterator[tuple[_Turn, bytes]]:
    """A round's packets: by priority; objects of equal priority in turns, so that they are complete together."""
    for priority in sorted({turn.session.priority for turn, _ in due}):
        equals = [(turn, count) for turn, count in due if turn.session.priority == priority]
        order = sorted((number / count, place) for place, (_, count) in enumerate(equals) for number in range(count))
        for _, place in order:
            turn = equals[place][0]
            yield turn, next(turn.packets)


async def _send(outgoing: socket.socket, packet: bytes, address: tuple[str, int]) -> None:
    """Hand a packet to the network; a receiver that went away, or a full queue that stays full, loses it."""
    for _ in range(100):
        try:
            outgoing.sendto(packet, address)
        except (BlockingIOError, InterruptedError):
            await asyncio.sleep(0.001)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOBUFS, errno.EHOSTUNREACH):
                return
            raise DeliveryError(
                f"the network refuses to send to {address[0]} ({error.strerror}); use another group or interface"
            ) from error
        else:
            return
    log.warning("the network's queue stays full; a packet to %s is lost", address[0])
