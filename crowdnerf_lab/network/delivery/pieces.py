"""Pieces of an object, verified one by one, whoever sent them: what repairs, peers and edges have in common."""

import hashlib

from pydantic import ValidationError, model_validator

from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.delivery.objects import (
    BroadcastSession,
    DeliveryError,
    Described,
    Name,
    Pieces,
    Sha256,
    pieces_of,
)
from crowdnerf_lab.network.delivery.spans import Span


class SharedObject(Described):
    """An object that many places hold, and how to know it: its SHA-256 and its pieces', as the service gave them."""

    name: Name
    bytes: int
    sha256: Sha256
    pieces: Pieces

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "SharedObject":
        count = -(-self.bytes // self.pieces.bytes)
        if count != len(self.pieces.sha256):
            raise ValueError(f"{self.bytes} bytes are {count} pieces, but {len(self.pieces.sha256)} are listed")
        return self


def shared_object(name: str, content: bytes) -> SharedObject:
    """The description of these bytes. Raises DeliveryError."""
    return _described(name, len(content), hashlib.sha256(content).hexdigest(), pieces_of(content))


def object_of(session: BroadcastSession) -> SharedObject:
    """What a broadcast session carries."""
    return _described(session.name, session.bytes, session.sha256, session.pieces)


def _described(name: str, size: int, sha256: str, pieces: Pieces) -> SharedObject:
    try:
        return SharedObject(name=name, bytes=size, sha256=sha256, pieces=pieces)
    except ValidationError as error:
        raise DeliveryError(f"{name}: {first_finding(error)}") from error


class VerifiedPieces:
    """Pieces of one object whose SHA-256 agrees with its description."""

    def __init__(self, described: SharedObject) -> None:
        self.described = described
        self._pieces: dict[int, bytes] = {}

    @property
    def count(self) -> int:
        """Pieces of the whole object."""
        return len(self.described.pieces.sha256)

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the pieces that are here."""
        return tuple(sorted(self._pieces))

    def take(self, piece: int, content: bytes) -> bool:
        """Keep one piece if it is right; whether it is."""
        right = self.described.pieces.holds(piece, content)
        if right:
            self._pieces[piece] = content
        return right

    def take_span(self, span: Span, content: bytes) -> None:
        """Keep the pieces that lie inside a span and are right."""
        size = self.described.pieces.bytes
        for piece in range(-(-span[0] // size), self.count):
            first, end = self.span(piece)
            if end > span[1]:
                break
            if piece not in self._pieces:
                self.take(piece, content[first - span[0] : end - span[0]])

    def span(self, piece: int) -> Span:
        """Where a piece lies in the object."""
        return self.described.pieces.span(piece, size=self.described.bytes)

    def missing(self) -> list[int]:
        """Numbers of the pieces that are not here."""
        return [piece for piece in range(self.count) if piece not in self._pieces]

    def spans(self) -> dict[Span, bytes]:
        """What is here."""
        return {self.span(piece): content for piece, content in self._pieces.items()}

    def read(self, span: Span) -> bytes | None:
        """The bytes of a span; None when some of them are not here."""
        size = self.described.pieces.bytes
        first, last = span[0] // size, (span[1] - 1) // size
        if any(piece not in self._pieces for piece in range(first, last + 1)):
            return None
        joined = b"".join(self._pieces[piece] for piece in range(first, last + 1))
        return joined[span[0] - first * size : span[1] - first * size]

    def whole(self) -> bytes | None:
        """The object, when all of it is here."""
        if len(self._pieces) < self.count:
            return None
        content = b"".join(self._pieces[piece] for piece in range(self.count))
        return content if hashlib.sha256(content).hexdigest() == self.described.sha256 else None
