"""What a receiver has of an object: symbols, blocks, verified pieces. No sockets; packets and repaired bytes go in.

Nothing is believed until the object's SHA-256 agrees. Where it does not, somebody sent forged symbols: pieces whose own
hash agrees are kept, the rest is thrown away and collected again, or fetched over unicast.
"""

import hashlib
from collections.abc import Sequence

from crowdnerf_lab.network.delivery.flute import FluteReceiver
from crowdnerf_lab.network.delivery.objects import (
    MARK,
    BroadcastSession,
    block_sizes,
    packet_header,
    read_packet,
)
from crowdnerf_lab.network.delivery.pieces import VerifiedPieces, object_of
from crowdnerf_lab.network.delivery.raptorq_code import BlockDecoder
from crowdnerf_lab.network.delivery.spans import Span


class SymbolReception:
    """One object, as far as it is here, by RaptorQ or by plain source symbols.

    content: the object once it is verified. symbols_received: packets of it that came until then, those twice received
    too. poisonings: how often what was decoded was not the object.
    """

    def __init__(self, session: BroadcastSession) -> None:
        self._session = session
        self._header = packet_header(session)
        self._sizes = block_sizes(session.source_symbols, session.source_blocks)
        self._starts = [sum(self._sizes[:block]) for block in range(len(self._sizes))]
        self._pieces = VerifiedPieces(object_of(session))
        self.symbols_received = self.poisonings = 0
        self.content: bytes | None = None
        self._start_over()

    def push(self, packet: bytes) -> bool:
        """Take a packet from anybody; whether it shows that the carousel still runs."""
        read = read_packet(packet, header=self._header, symbol_bytes=self._session.symbol_bytes)
        if read is None:
            return packet.startswith(MARK)
        block, esi, symbol = read
        if block >= len(self._blocks) or self.content is not None:
            return True
        self.symbols_received += 1
        if self._blocks[block].add(esi, symbol):
            self._solve(block)
        return True

    def take(self, symbol: int, content: bytes) -> None:
        """Take the object's n-th source symbol."""
        block, esi = self._place(symbol)
        if self._blocks[block].add(esi, content):
            self._solve(block)

    def distrust(self, decoded: bytes) -> None:
        """Throw away what led to these bytes, which are not the object, but for the pieces of it that are right."""
        self.poisonings += 1
        self._pieces.take_span((0, len(decoded)), decoded)
        self._start_over()
        size = self._session.symbol_bytes
        for (first, end), content in self._pieces.spans().items():
            for symbol in range(-(-first // size), end // size):
                block, esi = self._place(symbol)
                self._blocks[block].add(esi, content[symbol * size - first : (symbol + 1) * size - first])
        self.content = self._pieces.whole()

    def spans_to_repair(self) -> list[Span]:
        """As many missing source symbols as symbols are too few, the longest runs of them first: RaptorQ does the rest.

        After a poisoning whole pieces, because only those can be checked.
        """
        if self.poisonings:
            return [self._pieces.span(piece) for piece in self._pieces.missing()]
        spans = []
        for start, block in zip(self._starts, self._blocks, strict=True):
            too_few = max(1, block.wanting) if block.block is None else 0
            for first, end in _longest_runs(block.missing, total=too_few):
                spans.append(self._span(start + first, start + end))
        return spans

    def repair(self, span: Span, content: bytes) -> None:
        """Take the bytes of such a span, from a place that may lie as well."""
        if self.poisonings:
            self._pieces.take_span(span, content)
            self.content = self._pieces.whole()
            return
        size = self._session.symbol_bytes
        for first in range(span[0], span[1], size):
            block, esi = self._place(first // size)
            symbol = content[first - span[0] : first - span[0] + size].ljust(size, b"\0")
            self._blocks[block].add(esi, symbol)
        for block in range(len(self._blocks)):
            if self.content is None and not self.poisonings:
                self._solve(block)

    def close(self) -> None:
        """Let go of what was gathered."""
        self._blocks = []

    def packed(self) -> bytes:
        """What was gathered so far, to go on from later: packets, one after the other."""
        packets = []
        for number, block in enumerate(self._blocks):
            symbols = block.symbols
            if block.block is not None:
                size = self._session.symbol_bytes
                symbols = {esi: block.block[esi * size : (esi + 1) * size] for esi in range(self._sizes[number])}
            packets += [self._header + (number << 24 | esi).to_bytes(4, "big") + s for esi, s in symbols.items()]
        return b"".join(packets)

    def unpack(self, packed: bytes) -> None:
        """Go on from what was packed; what is damaged or foreign counts for nothing."""
        size = len(self._header) + 4 + self._session.symbol_bytes
        for start in range(0, len(packed) - size + 1, size):
            self.push(packed[start : start + size])

    def _solve(self, number: int) -> None:
        block = self._blocks[number]
        if block.hopeless:
            self.distrust(b"")
        elif block.solve() and all(block.block is not None for block in self._blocks):
            content = b"".join(block.block for block in self._blocks if block.block is not None)[: self._session.bytes]
            if hashlib.sha256(content).hexdigest() == self._session.sha256:
                self.content = content
            else:
                self.distrust(content)

    def _start_over(self) -> None:
        size, coded = self._session.symbol_bytes, self._session.code == "raptorq"
        self._blocks = [BlockDecoder(symbols, symbol_bytes=size, coded=coded) for symbols in self._sizes]

    def _place(self, symbol: int) -> tuple[int, int]:
        """Block and ESI of the object's n-th source symbol."""
        block = max(number for number, start in enumerate(self._starts) if start <= symbol)
        return block, symbol - self._starts[block]

    def _span(self, first: int, end: int) -> Span:
        """Bytes of the source symbols first to end - 1."""
        size = self._session.symbol_bytes
        return first * size, min(end * size, self._session.bytes)


class FluteReception:
    """One object, as far as it is here, by FLUTE: the same interface as SymbolReception.

    `flute-alc` decodes. The source symbols are kept beside it, so that repair has to fetch the others only.
    """

    def __init__(self, session: BroadcastSession) -> None:
        self._session = session
        self._flute = FluteReceiver(session)
        self._symbols = SymbolReception(session)
        self._forged = 0
        self.symbols_received = 0
        self._decoded: bytes | None = None

    @property
    def content(self) -> bytes | None:
        """The object, verified."""
        return self._decoded or self._symbols.content

    @property
    def poisonings(self) -> int:
        """How often what was decoded was not the object."""
        return self._forged + self._symbols.poisonings

    def push(self, packet: bytes) -> bool:
        """Take a packet from anybody; whether it belonged to the object."""
        if self.content is not None or not self._flute.push(packet):
            return False
        self.symbols_received += 1
        found = self._flute.source_symbol(packet)
        if found is not None:
            self._symbols.take(*found)
        if self._flute.written == self._session.bytes:
            self._check(self._flute.partial())
        return True

    def spans_to_repair(self) -> list[Span]:
        """Source symbols that are not here; after a poisoning whole pieces."""
        return self._symbols.spans_to_repair()

    def repair(self, span: Span, content: bytes) -> None:
        """Take the bytes of such a span, from a place that may lie as well."""
        self._symbols.repair(span, content)

    def packed(self) -> bytes:
        """What was gathered so far, to go on from later: the source symbols."""
        return self._symbols.packed()

    def unpack(self, packed: bytes) -> None:
        """Go on from what was packed; what is damaged or foreign counts for nothing."""
        self._symbols.unpack(packed)

    def close(self) -> None:
        """Let go of what was gathered."""
        self._flute.close()
        self._symbols.close()

    def _check(self, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() == self._session.sha256:
            self._decoded = content
            return
        self._forged += 1
        self._flute.close()
        self._flute = FluteReceiver(self._session)
        self._symbols.distrust(content)


Reception = SymbolReception | FluteReception


def reception_of(session: BroadcastSession) -> Reception:
    """An empty reception of an object."""
    return FluteReception(session) if session.code == "flute" else SymbolReception(session)


def _longest_runs(numbers: Sequence[int], *, total: int) -> list[Span]:
    """Runs of consecutive numbers, the longest first, together `total` numbers (or all there are)."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1]:
            runs[-1][1] = number + 1
        else:
            runs.append([number, number + 1])
    chosen = []
    for first, end in sorted(runs, key=lambda run: run[0] - run[1]):
        if total <= 0:
            break
        end = min(end, first + total)
        chosen.append((first, end))
        total -= end - first
    return chosen
