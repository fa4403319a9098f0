"""What is delivered to a crowd, and its description: the JSON a UE reads over HTTPS before it listens to anything.

The description is the root of trust. It binds everything that comes over UDP or from a peer to the object's SHA-256 and
to those of its pieces, so nothing on the air has to be believed.

Letters: F bytes of the object, T bytes of a symbol, Z source blocks, K source symbols of the whole object, ESI the
number of a symbol within its block (RFC 6330).
"""

import hashlib
import secrets
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crowdnerf_lab.findings import first_finding

SYMBOL_BYTES = 1024
"""With 22 bytes in front and IPv4's and UDP's 28, a symbol fits the 1,400 bytes that mobile networks carry whole."""
BLOCK_SYMBOLS = 7000
"""Most source symbols of a block, 7 MB: what the `raptorq` package codes without sub-blocks. A receiver of a single
block needs no symbol more than K; of several, some blocks get more than they need before the others are complete."""
MOST_BYTES = 1 << 28
"""Largest object that may be described: receivers keep it in memory."""
MOST_PIECES, LEAST_PIECE_BYTES = 256, 16 * 1024
"""A description lists at most so many hashes (16 kB of them); smaller pieces than 16 KiB are not worth a request."""

Code = Literal["raptorq", "flute", "none"]
Kind = Literal["model", "delta", "view"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Content = bytes
"""The bytes themselves; `bytes` is their number in a description, as on a card."""


class DeliveryError(ValueError):
    """An object that could not be described, sent or received; the message names it, and the remedy."""


class Described(BaseModel):
    """A part of a description. Fields that a newer service added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Pieces(Described):
    """SHA-256 of each piece of an object: `bytes` each, the last one what remains."""

    bytes: int = Field(ge=1)
    sha256: tuple[Sha256, ...] = Field(min_length=1, max_length=MOST_PIECES)

    def span(self, piece: int, *, size: int) -> tuple[int, int]:
        """First byte of a piece of an object of `size` bytes, and the byte after its last."""
        return piece * self.bytes, min((piece + 1) * self.bytes, size)

    def holds(self, piece: int, content: Content) -> bool:
        """Whether these bytes are that piece."""
        return hashlib.sha256(content).hexdigest() == self.sha256[piece]


class Address(Described):
    """Where one receiver listens, for networks without multicast."""

    host: IPv4Address
    port: Port


class FluteParameters(Described):
    """Session of RFC 6726: transport session and object identifiers, Reed-Solomon block (RFC 5510) of `block_symbols`
    source and `parity_symbols` repair symbols, and the File Delivery Table's packets (base64) out of band, so that no
    table from the air decides about anything. Without them the table is taken from the air."""

    tsi: int = Field(ge=1, lt=1 << 32)
    toi: int = Field(ge=1, lt=1 << 32)
    block_symbols: int = Field(ge=1, le=254)
    parity_symbols: int = Field(ge=0, le=254)
    table: tuple[str, ...] = Field(default=(), max_length=64)


class BroadcastSession(Described):
    """One object on its way to a crowd.

    kind, name, event, version: what it is; name is also the file's, in the receiver's folder. since: the version that a
    delta leads on from. view: the camera of a popular view, as POST /views takes it. bytes, sha256, pieces: of the
    object, which may be the first layers of a progressive file (then the object is a beginning of what href names).
    source_symbols K, source_blocks Z and oti (hex, RFC 6330 sections 3.3.2 and 3.3.3) follow from bytes and
    symbol_bytes. group: IPv4 multicast group; addresses: receivers served one by one instead. source: the only sender
    to listen to. rate_mbit_s: of the sender, headers included. rounds: symbols sent per source symbol; None goes on
    until expires (Unix time). priority: lower numbers go first in every round. href: path of the same bytes at the
    service, where Range requests repair.
    """

    format: Literal["crowdnerf_lab.broadcast"] = "crowdnerf_lab.broadcast"
    format_version: Literal[1] = 1
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    object: int = Field(ge=0, lt=1 << 16)
    kind: Kind = "model"
    name: Name
    event: str = Field(min_length=1, max_length=128)
    version: int = Field(ge=0, lt=1 << 32)
    media_type: str = Field(default="application/octet-stream", max_length=128)
    bytes: int = Field(ge=1, le=MOST_BYTES)
    sha256: Sha256
    pieces: Pieces
    code: Code = "raptorq"
    symbol_bytes: int = Field(default=SYMBOL_BYTES, ge=8, le=1400, multiple_of=8)
    source_symbols: int = Field(ge=1)
    source_blocks: int = Field(ge=1, le=255)
    oti: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")] | None = None
    flute: FluteParameters | None = None
    group: IPv4Address | None = None
    addresses: tuple[Address, ...] = ()
    port: Port
    source: IPv4Address | None = None
    rate_mbit_s: float = Field(gt=0, le=10_000)
    rounds: float | None = Field(default=None, gt=0, le=1e6)
    expires: float = Field(gt=0, allow_inf_nan=False)
    priority: int = Field(default=0, ge=0, le=9)
    href: Annotated[str, Field(pattern=r"^/[^/\\]", max_length=1024)] | None = None
    since: int | None = Field(default=None, ge=0, lt=1 << 32)
    view: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "BroadcastSession":
        pieces = -(-self.bytes // self.pieces.bytes)
        if pieces != len(self.pieces.sha256):
            raise ValueError(f"{self.bytes} bytes are {pieces} pieces, but {len(self.pieces.sha256)} are listed")
        symbols, blocks = symbols_and_blocks(self.bytes, symbol_bytes=self.symbol_bytes)
        if (self.source_symbols, self.source_blocks) != (symbols, blocks):
            raise ValueError(f"source_symbols and source_blocks must be {symbols} and {blocks}")
        if (self.code == "raptorq") != (self.oti is not None) or (self.code == "flute") != (self.flute is not None):
            raise ValueError(
                f"code {self.code} does not go with the parameters given; raptorq has oti, flute has flute"
            )
        if self.oti is not None and self.oti != object_transmission_information(
            self.bytes, symbol_bytes=self.symbol_bytes
        ):
            raise ValueError("oti describes another object")
        if self.group is not None and not self.group.is_multicast:
            raise ValueError(f"group {self.group} is no multicast address; use one of 239.0.0.0/8")
        return self


def read_session(document: str | bytes | dict[str, Any]) -> BroadcastSession:
    """A description as the service gave it. Raises DeliveryError."""
    try:
        if isinstance(document, dict):
            return BroadcastSession.model_validate(document)
        return BroadcastSession.model_validate_json(document)
    except ValidationError as error:
        raise DeliveryError(f"session description: {first_finding(error)}; ask the service again") from error


def describe(
    content: bytes,
    *,
    name: str,
    event: str,
    version: int,
    kind: Kind = "model",
    code: Code = "raptorq",
    port: int,
    group: str | None = None,
    addresses: Sequence[tuple[str, int]] = (),
    source: str | None = None,
    rate_mbit_s: float = 10.0,
    rounds: float | None = None,
    expires_in_s: float = 3600.0,
    symbol_bytes: int = SYMBOL_BYTES,
    parity_fraction: float = 0.3,
    object_number: int = 0,
    session: str | None = None,
    priority: int = 0,
    href: str | None = None,
    media_type: str = "application/octet-stream",
    since: int | None = None,
    view: dict[str, Any] | None = None,
) -> BroadcastSession:
    """The description of these bytes, ready to be served as JSON and broadcast. Raises DeliveryError.

    parity_fraction: repair symbols per source symbol of FLUTE's Reed-Solomon blocks; RaptorQ makes them without end.
    """
    if not 1 <= len(content) <= MOST_BYTES:
        raise DeliveryError(f"{name}: {len(content)} bytes cannot be broadcast; give 1 to {MOST_BYTES}")
    symbols, blocks = symbols_and_blocks(len(content), symbol_bytes=symbol_bytes)
    document: dict[str, Any] = {
        "session": session or secrets.token_hex(8),
        "object": object_number,
        "kind": kind,
        "name": name,
        "event": event,
        "version": version,
        "media_type": media_type,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "pieces": pieces_of(content),
        "code": code,
        "symbol_bytes": symbol_bytes,
        "source_symbols": symbols,
        "source_blocks": blocks,
        "group": group,
        "addresses": [{"host": host, "port": number} for host, number in addresses],
        "port": port,
        "source": source,
        "rate_mbit_s": rate_mbit_s,
        "rounds": rounds,
        "expires": time.time() + expires_in_s,
        "priority": priority,
        "href": href,
        "since": since,
        "view": view,
    }
    if code == "raptorq":
        document["oti"] = object_transmission_information(len(content), symbol_bytes=symbol_bytes)
    if code == "flute":
        from crowdnerf_lab.network.delivery.flute import flute_parameters

        document["flute"] = flute_parameters(
            content, name=name, symbol_bytes=symbol_bytes, parity_fraction=parity_fraction, expires_in_s=expires_in_s
        )
    try:
        return BroadcastSession.model_validate(document)
    except ValidationError as error:
        raise DeliveryError(f"{name}: {first_finding(error)}") from error


def pieces_of(content: bytes) -> Pieces:
    """Pieces of at least 16 KiB, at most 256 of them, and their SHA-256."""
    size = max(LEAST_PIECE_BYTES, -(-len(content) // MOST_PIECES))
    cuts = [content[start : start + size] for start in range(0, len(content), size)]
    return Pieces(bytes=size, sha256=tuple(hashlib.sha256(cut).hexdigest() for cut in cuts))


def symbols_and_blocks(size: int, *, symbol_bytes: int) -> tuple[int, int]:
    """Source symbols K and source blocks Z of an object of `size` bytes."""
    symbols = -(-size // symbol_bytes)
    return symbols, -(-symbols // BLOCK_SYMBOLS)


def block_sizes(symbols: int, blocks: int) -> tuple[int, ...]:
    """Source symbols of each block: Partition[Kt, Z] of RFC 6330, section 4.4.1.2; the longer blocks come first."""
    long = symbols - symbols // blocks * blocks
    return (symbols // blocks + 1,) * long + (symbols // blocks,) * (blocks - long)


def object_transmission_information(size: int, *, symbol_bytes: int) -> str:
    """FEC Object Transmission Information (RFC 6330, 3.3.2 and 3.3.3) in hex: F and T, then Z, N = 1 and Al = 8."""
    _, blocks = symbols_and_blocks(size, symbol_bytes=symbol_bytes)
    return struct.pack("!5sBHBHB", size.to_bytes(5, "big"), 0, symbol_bytes, blocks, 1, 8).hex()


HEADER = struct.Struct("!4s8sHI")
"""In front of a symbol's payload identifier: mark, session, object, version."""
MARK = b"CNB1"
PAYLOAD_IDENTIFIER = struct.Struct("!I")
"""Source block number (8 bits), then ESI (24 bits): RFC 6330, section 3.2."""
MOST_ESI = (1 << 24) - 1


def packet_header(session: BroadcastSession) -> bytes:
    """What every packet of an object begins with."""
    return HEADER.pack(MARK, bytes.fromhex(session.session), session.object, session.version)


def read_packet(packet: bytes, *, header: bytes, symbol_bytes: int) -> tuple[int, int, bytes] | None:
    """Block, ESI and symbol of a packet of this object; None for any other packet."""
    start = HEADER.size + PAYLOAD_IDENTIFIER.size
    if len(packet) != start + symbol_bytes or not packet.startswith(header):
        return None
    (identifier,) = PAYLOAD_IDENTIFIER.unpack_from(packet, HEADER.size)
    return identifier >> 24, identifier & MOST_ESI, packet[start:]
