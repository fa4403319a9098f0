"""Messages between a service and its render processes, and of the view stream: lengths, a JSON header, and bytes.

Between processes: header length and body length (4 bytes each, big-endian), header, body. Needs Python alone.
"""

import asyncio
import json
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True)
class Message:
    """header: a JSON object; body: bytes."""

    header: dict[str, Any]
    body: bytes = b""


def packed(message: Message) -> bytes:
    """A message as bytes."""
    header = json.dumps(message.header).encode()
    return _LENGTHS.pack(len(header), len(message.body)) + header + message.body


def read_message(stream: BinaryIO) -> Message | None:
    """The next message of a blocking stream; None when it has ended, also amidst a message."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_length, body_length = _LENGTHS.unpack(lengths)
    content = stream.read(header_length + body_length)
    if len(content) < header_length + body_length:
        return None
    return Message(json.loads(content[:header_length]), content[header_length:])


async def next_message(stream: asyncio.StreamReader) -> Message | None:
    """As `read_message`, from an asyncio stream."""
    try:
        header_length, body_length = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
        header = await stream.readexactly(header_length)
        return Message(json.loads(header), await stream.readexactly(body_length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
