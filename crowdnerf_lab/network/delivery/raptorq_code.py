"""RaptorQ (RFC 6330) behind a small interface: the object's own symbols first, then repair symbols without end.

A receiver needs any K symbols of a block, and once in a hundred times one more. Objects of more than 7,000 symbols are
cut into source blocks as section 4.4.1.2 says, each coded on its own, and sent in turns, so that a burst of losses
touches all of them a little.
"""

from collections.abc import Iterator
from typing import Any

from raptorq import Decoder, Encoder  # pyright: ignore[reportAttributeAccessIssue] -- compiled, without stubs

from crowdnerf_lab.network.delivery.objects import (
    MOST_ESI,
    PAYLOAD_IDENTIFIER,
    BroadcastSession,
    DeliveryError,
    block_sizes,
    packet_header,
)

LARGEST_BATCH_BYTES = 2 * 1024 * 1024
"""Repair symbols of a block that are kept, if they are no fewer than K; then a carousel begins with the first again."""


class BlockEncoder:
    """Symbols of one source block, `size` bytes of them each. Source symbols are the block itself."""

    def __init__(self, block: bytes, *, symbol_bytes: int) -> None:
        self.symbol_bytes = symbol_bytes
        self.source_symbols = -(-len(block) // symbol_bytes)
        self._block = block.ljust(self.source_symbols * symbol_bytes, b"\0")
        self._encoder: Any = None
        self._repair: list[bytes] = []
        self._most_repair = max(self.source_symbols, LARGEST_BATCH_BYTES // symbol_bytes)

    def symbol(self, esi: int) -> bytes:
        """The symbol of this ESI; repair symbols begin at K."""
        if esi < self.source_symbols:
            return self._block[esi * self.symbol_bytes : (esi + 1) * self.symbol_bytes]
        repair = esi - self.source_symbols
        if repair >= self.repair_symbols:
            raise DeliveryError(f"symbol {esi} of a block; there are {self.source_symbols + self.repair_symbols}")
        if repair >= len(self._repair):
            self._make_repair(repair + 1)
        return self._repair[repair]

    @property
    def repair_symbols(self) -> int:
        """Different repair symbols that this encoder makes, for the memory's sake: at least K."""
        return min(self._most_repair, MOST_ESI + 1 - self.source_symbols)

    def _make_repair(self, least: int) -> None:
        """The binding makes symbols from the first on, so it is asked for twice as many each time."""
        if self._encoder is None:
            self._encoder = Encoder.with_defaults(self._block, self.symbol_bytes)
        wanted = min(self.repair_symbols, max(least, 2 * len(self._repair), 64))
        packets = self._encoder.get_encoded_packets(wanted)
        self._repair = [packet[PAYLOAD_IDENTIFIER.size :] for packet in packets[self.source_symbols :]]


def block_encoders(content: bytes, session: BroadcastSession) -> tuple[BlockEncoder, ...]:
    """One encoder for each source block."""
    encoders, start = [], 0
    for symbols in block_sizes(session.source_symbols, session.source_blocks):
        end = start + symbols * session.symbol_bytes
        encoders.append(BlockEncoder(content[start:end], symbol_bytes=session.symbol_bytes))
        start = end
    return tuple(encoders)


def raptorq_packets(content: bytes, session: BroadcastSession) -> Iterator[bytes]:
    """Packets without end: all source symbols, then fresh repair symbols, block by block in turns.

    Only after 2 MiB of repair symbols of a block (never fewer than K) do they come again. Code "none" repeats the
    source symbols instead.
    """
    header, encoders = packet_header(session), block_encoders(content, session)
    repair = session.code == "raptorq"

    def packet(block: int, esi: int) -> bytes:
        return header + PAYLOAD_IDENTIFIER.pack(block << 24 | esi) + encoders[block].symbol(esi)

    def in_turns(source: bool) -> Iterator[bytes]:
        counts = [encoder.source_symbols if source else encoder.repair_symbols for encoder in encoders]
        for number in range(max(counts)):
            for block, count in enumerate(counts):
                if number < count:
                    yield packet(block, number if source else encoders[block].source_symbols + number)

    yield from in_turns(source=True)
    while True:
        yield from in_turns(source=not repair)


class BlockDecoder:
    """Collects symbols of one source block: never more than K and a few, whoever sends them."""

    SPARE = 32
    """Symbols above K that are tried before the block must hold a forged one: the code fails then with 10^-64."""

    def __init__(self, source_symbols: int, *, symbol_bytes: int, coded: bool = True) -> None:
        self.source_symbols, self.symbol_bytes, self.coded = source_symbols, symbol_bytes, coded
        self.symbols: dict[int, bytes] = {}
        self.block: bytes | None = None

    def add(self, esi: int, symbol: bytes) -> bool:
        """Keep a symbol; whether it was wanted."""
        if self.block is not None or esi in self.symbols or len(symbol) != self.symbol_bytes:
            return False
        if len(self.symbols) >= self.source_symbols + self.SPARE or (esi >= self.source_symbols and not self.coded):
            return False
        self.symbols[esi] = symbol
        return True

    @property
    def wanting(self) -> int:
        """Symbols that are too few to try."""
        return 0 if self.block is not None else max(0, self.source_symbols - len(self.symbols))

    @property
    def missing(self) -> list[int]:
        """Source symbols that did not arrive."""
        return [] if self.block is not None else [n for n in range(self.source_symbols) if n not in self.symbols]

    @property
    def hopeless(self) -> bool:
        """Whether so many symbols say no block at all that some must be forged."""
        return self.block is None and len(self.symbols) >= self.source_symbols + self.SPARE

    def solve(self) -> bool:
        """Whether the block is there: its own symbols, or K of any kind that decode."""
        if self.block is None and not self.wanting:
            if not self.missing:
                self.block = b"".join(self.symbols[esi] for esi in range(self.source_symbols))
            else:
                self.block = self._decoded()
        if self.block is not None:
            self.symbols.clear()
        return self.block is not None

    def _decoded(self) -> bytes | None:
        decoder = Decoder.with_defaults(self.source_symbols * self.symbol_bytes, self.symbol_bytes)
        for esi, symbol in self.symbols.items():
            block = decoder.decode(PAYLOAD_IDENTIFIER.pack(esi) + symbol)
            if block is not None:
                return bytes(block)
        return None
