"""One container for everything that travels coded: a header, then layers, the most needed first.

Whoever holds the beginning of the file holds whole layers and can start; the rest refines. Layout, little-endian:

    b"CNLF", version, CRC-32 of the contents, their bytes        13 bytes
    contents    zlib'd JSON: kind, header, and of each layer its name, bytes and CRC-32
    layers      each: bytes of its header, its header as zlib'd JSON, its payload

Needs numpy and the standard library at most: a UE reads it.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from crowdnerf_lab.files import write_bytes

MAGIC, VERSION = b"CNLF", 1
_FRONT, _LENGTH = struct.Struct("<4sBII"), struct.Struct("<I")
CONTENTS_LIMIT = 1 << 20
"""Bytes that zlib'd JSON may take in a file; unpacked it may take JSON_LIMIT."""
JSON_LIMIT = 1 << 23
LAYERS_LIMIT = 1 << 12


class CodedFileError(ValueError):
    """A coded file that is damaged, hostile or of another kind; the message names it and the remedy."""


@dataclass(frozen=True)
class Layer:
    """One step of a coded file: what it is called, what its decoder must know (JSON), and the coded bytes."""

    name: str
    payload: bytes
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LayeredFile:
    """What was read: layers in the order of the file; `complete` when none is missing.

    ends: where each layer of the whole file ends, bytes, also of those that are not here yet: the first `ends[k]` bytes
    of the file hold layers 0 to k.
    """

    kind: str
    header: Mapping[str, Any]
    layers: tuple[Layer, ...]
    complete: bool
    ends: tuple[int, ...]


def write_layers(path: Path, *, kind: str, header: Mapping[str, Any], layers: Sequence[Layer]) -> Path:
    """Write a coded file atomically. Raises CodedFileError for what `read_layers` would refuse."""
    return write_bytes(Path(path), packed_layers(kind=kind, header=header, layers=layers))


def packed_layers(*, kind: str, header: Mapping[str, Any], layers: Sequence[Layer]) -> bytes:
    """A coded file's bytes, at least one layer. The same arguments give the same bytes."""
    if not 0 < len(layers) <= LAYERS_LIMIT:
        raise CodedFileError(f"a coded file of {len(layers)} layers cannot be written; give 1 to {LAYERS_LIMIT}")
    bodies = [_packed_json(layer.header, layer.name) + layer.payload for layer in layers]
    table = [[layer.name, len(body), zlib.crc32(body)] for layer, body in zip(layers, bodies, strict=True)]
    contents = _packed_json({"kind": kind, "header": dict(header), "layers": table}, kind)[_LENGTH.size :]
    return b"".join([_FRONT.pack(MAGIC, VERSION, zlib.crc32(contents), len(contents)), contents, *bodies])


def read_layers(content: bytes, *, kind: str, name: Path | str) -> LayeredFile:
    """Read a coded file of this `kind`, or any beginning of one that reaches beyond its first layer.

    name: what to call it in errors. A truncated tail makes `complete` False; a layer that is here but damaged, a wrong
    magic, kind or length raises CodedFileError.
    """
    contents, start = _contents(content, name)
    try:
        found, header, table = contents["kind"], contents["header"], contents["layers"]
        if not isinstance(header, dict) or not isinstance(table, list) or not 0 < len(table) <= LAYERS_LIMIT:
            raise TypeError("its table of layers is malformed")
        rows = [_row(row) for row in table]
    except (KeyError, TypeError) as error:
        raise _damaged(name, f"its contents cannot be read ({error})") from error
    if found != kind:
        raise CodedFileError(f"{name} holds {found!r}, not {kind!r}; give the right file")
    ends = tuple(accumulate((length for _, length, _ in rows), initial=start))
    layers = [
        _layer(content[begin:end], layer_name, checksum, name)
        for (layer_name, _, checksum), begin, end in zip(rows, ends, ends[1:], strict=False)
        if end <= len(content)
    ]
    if not layers:
        raise CodedFileError(
            f"{name}: {len(content)} bytes end before the first layer does (byte {ends[1]}); receive more of the file"
        )
    if len(content) > ends[-1]:
        raise _damaged(name, f"{len(content) - ends[-1]} bytes follow its last layer")
    return LayeredFile(kind, header, tuple(layers), len(layers) == len(rows), ends[1:])


def joined(pieces: Sequence[bytes]) -> bytes:
    """Pieces of a layer's payload, each behind its length."""
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in pieces)


def pieces_of(payload: bytes) -> Iterator[bytes]:
    """Inverse of `joined`. Raises ValueError when more pieces are asked for than there are, or one is cut short."""
    at = 0
    while at + _LENGTH.size <= len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size + length
        if at > len(payload):
            raise ValueError(f"a piece of {length} bytes leaves its layer")
        yield payload[at - length : at]
    raise ValueError("a layer ends before its last piece")


def _contents(content: bytes, name: Path | str) -> tuple[dict[str, Any], int]:
    """What a file says it holds, and where its first layer begins."""
    if len(content) < _FRONT.size:
        raise _damaged(name, f"{len(content)} bytes are too few for a coded file")
    magic, version, checksum, length = _FRONT.unpack_from(content)
    if magic != MAGIC:
        raise CodedFileError(f"{name} is no coded file (it begins with {magic!r}, not {MAGIC!r}); give the right file")
    if version != VERSION:
        raise CodedFileError(f"{name} is of version {version}, this package reads {VERSION}; update the package")
    start = _FRONT.size + length
    if length > CONTENTS_LIMIT:
        raise _damaged(name, f"its contents claim {length} bytes, more than {CONTENTS_LIMIT}")
    if start > len(content):
        raise CodedFileError(f"{name}: {len(content)} bytes end before its header does (byte {start}); receive more")
    packed = content[_FRONT.size : start]
    if zlib.crc32(packed) != checksum:
        raise _damaged(name, "its contents fail their checksum")
    return _unpacked_json(packed, name), start


def _row(row: Any) -> tuple[str, int, int]:
    """Name, bytes and CRC-32 of one layer of the table."""
    if isinstance(row, list) and len(row) == 3:
        layer_name, length, checksum = row
        typed = isinstance(layer_name, str) and type(length) is int and type(checksum) is int
        if typed and _LENGTH.size < length < 1 << 48:
            return layer_name, length, checksum
    raise TypeError(f"row {str(row)[:60]} of its table of layers is malformed")


def _layer(body: bytes, layer_name: str, checksum: int, name: Path | str) -> Layer:
    where = f"{name}, layer {layer_name!r}"
    if zlib.crc32(body) != checksum:
        raise _damaged(where, "it fails its checksum")
    (length,) = _LENGTH.unpack_from(body)
    if length > min(CONTENTS_LIMIT, len(body) - _LENGTH.size):
        raise _damaged(where, f"its header claims {length} bytes")
    split = _LENGTH.size + length
    return Layer(layer_name, body[split:], _unpacked_json(body[_LENGTH.size : split], where))


def _packed_json(document: Mapping[str, Any], what: str) -> bytes:
    """zlib'd JSON behind its length."""
    text = json.dumps(dict(document), separators=(",", ":"), allow_nan=False).encode()
    packed = zlib.compress(text, 9)
    if len(text) > JSON_LIMIT or len(packed) > CONTENTS_LIMIT:
        raise CodedFileError(f"the header of {what!r} takes {len(text)} bytes; put arrays into the payload")
    return _LENGTH.pack(len(packed)) + packed


def _unpacked_json(packed: bytes, name: Path | str) -> dict[str, Any]:
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(packed, JSON_LIMIT)
        if inflate.unconsumed_tail or inflate.unused_data or not inflate.eof:
            raise ValueError("it is longer than it may be, or unfinished")
        document = json.loads(text, parse_constant=_refuse)
    except (zlib.error, ValueError, RecursionError) as error:
        raise _damaged(name, f"its header cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise _damaged(name, "its header is no JSON object")
    return document


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _damaged(name: Path | str, problem: str) -> CodedFileError:
    return CodedFileError(f"{name} is damaged: {problem}; fetch it again")
