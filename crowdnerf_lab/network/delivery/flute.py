"""FLUTE (RFC 6726) with Reed-Solomon blocks (RFC 5510) through `flute-alc`: the mode that other receivers understand.

Its packets go over the wire unchanged. The File Delivery Table travels in the session description as well, so that our
receivers need none from the air and trust none.
"""

import base64
import binascii
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from flute import receiver, sender  # pyright: ignore[reportAttributeAccessIssue] -- compiled, without stubs

from crowdnerf_lab.network.delivery.objects import BroadcastSession, DeliveryError, FluteParameters, block_sizes

logging.getLogger("flute").setLevel(logging.CRITICAL)  # it logs every damaged packet

TRANSPORT_SESSION = 1
BLOCK_SYMBOLS, MOST_BLOCK_SYMBOLS = 120, 255
"""Source symbols of a Reed-Solomon block over GF(2^8), and most symbols of one with its repair."""
TABLE = 0
"""Transport object identifier of the File Delivery Table: RFC 6726, section 3.3."""


def flute_parameters(
    content: bytes, *, name: str, symbol_bytes: int, parity_fraction: float, expires_in_s: float = 3600.0
) -> FluteParameters:
    """How these bytes are coded, and the table that says so. Raises DeliveryError when they are too many for the code.

    parity_fraction: repair symbols per source symbol, at most what a block of 255 has room for.
    """
    parity = round(BLOCK_SYMBOLS * parity_fraction)
    if not 0 <= parity <= MOST_BLOCK_SYMBOLS - BLOCK_SYMBOLS:
        most = (MOST_BLOCK_SYMBOLS - BLOCK_SYMBOLS) / BLOCK_SYMBOLS
        raise DeliveryError(f"{name}: parity_fraction {parity_fraction}; Reed-Solomon blocks take 0 to {most}")
    draft = FluteParameters(tsi=TRANSPORT_SESSION, toi=1, block_symbols=BLOCK_SYMBOLS, parity_symbols=parity)
    packets = _packets(content, name=name, symbol_bytes=symbol_bytes, parameters=draft, expires_in_s=expires_in_s)
    table = []
    for packet in packets:
        if receiver.LCTHeader(packet).toi != TABLE:
            break
        table.append(base64.b64encode(packet).decode())
    source = table[: max(1, len(table) - parity)]
    return draft.model_copy(update={"table": tuple(source)})


def flute_packets(content: bytes, session: BroadcastSession) -> Iterator[bytes]:
    """Packets without end: the table and all symbols of all blocks, again and again."""
    if session.flute is None:
        raise DeliveryError(f"{session.name}: no FLUTE parameters; describe it with code 'flute'")
    packets = list(
        _packets(
            content,
            name=session.name,
            symbol_bytes=session.symbol_bytes,
            parameters=session.flute,
            expires_in_s=3600.0,
        )
    )
    while True:
        yield from packets


def _packets(
    content: bytes, *, name: str, symbol_bytes: int, parameters: FluteParameters, expires_in_s: float
) -> Iterator[bytes]:
    """One round of a session."""
    code = sender.Oti.new_reed_solomon_rs28(symbol_bytes, parameters.block_symbols, parameters.parity_symbols)
    if len(content) > code.max_transfer_length:
        raise DeliveryError(
            f"{name}: {len(content)} bytes are more than Reed-Solomon blocks carry ({code.max_transfer_length}); "
            "use RaptorQ"
        )
    config = sender.Config()
    config.fdt_duration_ms = int(expires_in_s * 1000)
    session = sender.Sender(parameters.tsi, code, config)
    session.add_object_from_buffer(content, "application/octet-stream", f"file:///{name}", None)
    session.publish()
    while (packet := session.read()) is not None:
        yield bytes(packet)


class FluteReceiver:
    """Hands the packets of one object to `flute-alc`, which writes into a private folder; close() removes it."""

    def __init__(self, session: BroadcastSession) -> None:
        if session.flute is None:
            raise DeliveryError(f"{session.name}: no FLUTE parameters in its description; ask the service again")
        self._parameters, self._name, self._bytes = session.flute, session.name, session.bytes
        self._symbol_bytes = session.symbol_bytes
        blocks = -(-session.source_symbols // self._parameters.block_symbols)
        self._block_sizes = block_sizes(session.source_symbols, blocks)
        self._folder = TemporaryDirectory(prefix="flute_")
        config = receiver.Config()
        config.object_timeout_ms = None
        self._receiver = receiver.Receiver(
            receiver.UDPEndpoint(str(session.group or "0.0.0.0"), session.port),
            self._parameters.tsi,
            receiver.ObjectWriterBuilder(self._folder.name),
            config,
        )
        for packet in self._parameters.table:
            try:
                self._push(base64.b64decode(packet, validate=True))
            except binascii.Error as error:
                raise DeliveryError(f"{session.name}: its table is no base64; ask the service again") from error

    def push(self, packet: bytes) -> bool:
        """Whether the packet belonged to the object. Tables from the air count only where the description has none."""
        try:
            header = receiver.LCTHeader(packet)
        except TypeError:  # what the binding raises for packets that are none
            return False
        if header.tsi != self._parameters.tsi or header.toi not in (TABLE, self._parameters.toi):
            return False
        if header.toi == TABLE and self._parameters.table:
            return False
        return self._push(packet) and header.toi != TABLE

    def source_symbol(self, packet: bytes) -> tuple[int, bytes] | None:
        """Number within the object, and content, of the source symbol that a packet of the object carries, if it does.

        An LCT header says its length in words (RFC 5651); four bytes of payload identifier follow (RFC 5510, 5.1).
        """
        header = receiver.LCTHeader(packet)
        sizes = self._block_sizes
        if header.sbn >= len(sizes) or header.esi >= sizes[header.sbn]:
            return None
        symbol = packet[4 * packet[2] + 4 :]
        return sum(sizes[: header.sbn]) + header.esi, symbol.ljust(self._symbol_bytes, b"\0")

    def partial(self) -> bytes:
        """What was written so far."""
        path = Path(self._folder.name) / self._name
        return path.read_bytes() if path.is_file() and path.stat().st_size <= self._bytes else b""

    @property
    def written(self) -> int:
        """Bytes written so far."""
        path = Path(self._folder.name) / self._name
        return path.stat().st_size if path.is_file() else 0

    def close(self) -> None:
        """Remove the private folder."""
        self._folder.cleanup()

    def _push(self, packet: bytes) -> bool:
        try:
            self._receiver.push(packet)
        except TypeError:
            return False
        return True
