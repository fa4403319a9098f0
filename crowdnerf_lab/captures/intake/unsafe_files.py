"""Files that are not only what they say: pictures that are also an archive, a document or a program, and EXIF bombs.

What decodes as a picture may still be something else to another program (Albertini, PoC||GTFO, on polyglots). A picture
is refused when it is a zip as well, when what follows its end begins like an archive, document, page or program, or
when a page's or script's code stands in its first bytes. Other trailers are let through: phones append whole pictures
(MPO, gain maps), short films (motion photos) and their makers' own blocks. A suffix that names another picture format
is let through too, since phones do that; nothing but pixels is ever taken over.

EXIF is refused when its directories loop or hold more entries or bytes than the block itself could: readers would
follow or allocate them.
"""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

PICTURE_BYTES = 128 << 20
"""More of a file is not read: no picture is so large, and a video's end is no matter."""
HEAD_BYTES = 1 << 12
"""Where programs that guess a file's kind look for code."""
TRAILER_BYTES = 1 << 12
"""So much of what follows a picture's end is looked at."""
EXIF_ENTRIES = 1024
"""Most tags of all directories together; phones write some 60, cameras up to about 200."""
EXIF_DIRECTORIES = 32
_CODE = (b"<script", b"<html", b"<!doctype", b"<?php", b"<svg", b"<iframe", b"#!/", b"%pdf-")
_TRAILERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
)
_TIFF_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
_EXIF_DIRECTORY_TAGS = (0x8769, 0x8825, 0xA005)
_STANDALONE = {0x01, *range(0xD0, 0xD8)}


class UnsafeFileError(ValueError):
    """A file that is more than it says; the message names it, what was found and the remedy."""


def refuse_unsafe(path: Path | str) -> None:
    """Raise UnsafeFileError for a picture that is something else as well, or whose EXIF is a bomb.

    Knows JPEG, PNG and WebP by structure and looks for code and archives in files of any kind. Files that are only
    damaged pass: whoever decodes them will say so.
    """
    path = Path(path)
    with path.open("rb") as file:
        content = file.read(PICTURE_BYTES)
    end, exif = _parts(content)
    if zipfile.is_zipfile(path):
        raise UnsafeFileError(f"{path} is a zip archive as well as a picture; save the picture again and send that")
    _refuse_trailer(path, content[end : end + TRAILER_BYTES] if end is not None else b"")
    _refuse_code(path, content[:HEAD_BYTES])
    for block in exif:
        _refuse_exif_bomb(path, block)


def _refuse_code(path: Path, head: bytes) -> None:
    lowered = head.lower()
    for code in _CODE:
        # Photoshop and phones write XML of their own (XMP), but never these.
        if lowered.lstrip().startswith(code) or (code != b"#!/" and code in lowered):
            raise UnsafeFileError(
                f"{path} holds {code.decode()!r} where a picture begins, as pages and scripts do; "
                "save the picture again and send that"
            )


def _refuse_trailer(path: Path, trailer: bytes) -> None:
    start = trailer.lstrip(b"\x00\xff \t\r\n")
    kinds = [kind for signature, kind in _TRAILERS if start.startswith(signature)]
    if start.lower().startswith(_CODE):
        kinds.append("a page or a script")
    if kinds:
        raise UnsafeFileError(f"{path} has {kinds[0]} behind the picture; save the picture again and send that")


def _parts(content: bytes) -> tuple[int | None, list[bytes]]:
    """Where the picture ends (None: it does not, or nobody knows), and its EXIF blocks, each from its TIFF header."""
    if content.startswith(b"\xff\xd8"):
        return _jpeg_parts(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _chunked_parts(content, start=8, layout=">I4s", padding=4, exif=b"eXIf", last=b"IEND")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        end = 8 + int.from_bytes(content[4:8], "little")
        _, exif = _chunked_parts(content[:end], start=12, layout="<4sI", padding=0, exif=b"EXIF", last=b"")
        return end, exif
    return None, []


def _jpeg_parts(content: bytes) -> tuple[int | None, list[bytes]]:
    """Segments up to the first scan; entropy-coded data holds no FF D9 but its own end (ITU-T T.81, B.1.1.5)."""
    position, exif = 2, []
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return position + 2, exif
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        segment = content[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xE1 and segment.startswith(b"Exif\x00\x00"):
            exif.append(segment[6:])
        if marker == 0xDA:
            break
    end = content.find(b"\xff\xd9", position)
    return (None if end < 0 else end + 2), exif


def _chunked_parts(
    content: bytes, *, start: int, layout: str, padding: int, exif: bytes, last: bytes
) -> tuple[int | None, list[bytes]]:
    """Chunks of PNG (length first, a checksum behind) or RIFF (name first, sizes made even)."""
    position, blocks = start, []
    while position + 8 <= len(content):
        fields = struct.unpack_from(layout, content, position)
        length, name = fields if isinstance(fields[0], int) else fields[::-1]
        if name == exif:
            blocks.append(content[position + 8 : position + 8 + length].removeprefix(b"Exif\x00\x00"))
        position += 8 + length + (padding or length % 2)
        if last and name == last:
            return position, blocks
    return None, blocks


def _refuse_exif_bomb(path: Path, block: bytes) -> None:
    """Walk the directories of a TIFF block (TIFF 6.0) as a reader would, with counts."""
    remedy = "save the picture again without metadata, or with those of another program"
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return
    waiting, seen, entries, claimed = [(struct.unpack_from(order + "I", block, 4)[0], True)], set(), 0, 0
    while waiting:
        offset, chained = waiting.pop()
        if offset == 0 or offset + 2 > len(block):
            continue
        if offset in seen or len(seen) >= EXIF_DIRECTORIES:
            raise UnsafeFileError(f"{path} has EXIF directories that lead to each other in a circle; {remedy}")
        seen.add(offset)
        for tag, size, value in _entries(block, offset, order):
            entries, claimed = entries + 1, claimed + (size if size > 4 else 0)
            if tag in _EXIF_DIRECTORY_TAGS:
                waiting.append((value, False))
        following = offset + 2 + 12 * struct.unpack_from(order + "H", block, offset)[0]
        # Only the main directories form a chain; behind the others some writers put no link at all.
        if chained and following + 4 <= len(block):
            waiting.append((struct.unpack_from(order + "I", block, following)[0], True))
        if entries > EXIF_ENTRIES:
            raise UnsafeFileError(f"{path} has more than {EXIF_ENTRIES} EXIF entries; {remedy}")
        if claimed > 2 * len(block) + 1024:
            raise UnsafeFileError(
                f"{path} has EXIF entries that claim {claimed} bytes of a block of {len(block)}; {remedy}"
            )


def _entries(block: bytes, offset: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Tag, bytes of the value, and the value or its place, of each entry that lies within the block."""
    count = struct.unpack_from(order + "H", block, offset)[0]
    for index in range(min(count, (len(block) - offset - 2) // 12)):
        tag, kind, number, value = struct.unpack_from(order + "HHII", block, offset + 2 + 12 * index)
        yield tag, number * (_TIFF_SIZES[kind] if kind < len(_TIFF_SIZES) else 1), value
