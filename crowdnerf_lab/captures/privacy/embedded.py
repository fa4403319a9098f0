"""What a picture's file carries beside its pixels: EXIF, thumbnails, comments, second pictures, anything appended.

The file's own structure is walked, not a library's idea of it: what cannot be named here is reported as well.
"""

from collections.abc import Iterator
from pathlib import Path

_PLAIN_JPEG = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""Application segments that describe the pixels only: the JFIF header (without thumbnail) and Adobe's colour kind."""
_JFIF_BYTES = 14
_PLAIN_PNG = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT"}
_PLAIN_WEBP = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PICTURE_SEGMENTS = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD}
"""Frame headers, Huffman and quantization tables, scans, restart intervals."""


def embedded_in(path: Path) -> tuple[str, ...]:
    """Names of everything in a JPEG, PNG or WebP file that is not its pixels; empty when there is nothing.

    Any other file, and one whose structure breaks off, is reported as a whole. Raises OSError when it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        if content.startswith(_JPEG):
            return tuple(_in_jpeg(content))
        if content.startswith(_PNG):
            return tuple(_in_png(content))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return tuple(_in_webp(content))
    except IndexError:
        return ("a structure that breaks off",)
    return ("a file of another kind",)


def _in_jpeg(content: bytes) -> Iterator[str]:
    position = 2
    while True:
        if content[position] != 0xFF:
            raise IndexError
        while content[position + 1] == 0xFF:
            position += 1
        marker = content[position + 1]
        position += 2
        if marker == _END_OF_IMAGE:
            break
        length = int.from_bytes(_exactly(content, position, 2))
        segment = _exactly(content, position + 2, length - 2)
        plain = marker in _PLAIN_JPEG and segment.startswith(_PLAIN_JPEG[marker]) and len(segment) <= _JFIF_BYTES
        if not plain and marker not in _PICTURE_SEGMENTS:
            label = segment[:16].split(b"\0")[0].decode("ascii", "replace")
            yield "a comment" if marker == 0xFE else f"segment {marker:#x} {label}".strip()
        position += length
        if marker == _START_OF_SCAN:
            position = _end_of_scan(content, position)
    if position < len(content):
        yield f"{len(content) - position} bytes after the picture"


def _end_of_scan(content: bytes, position: int) -> int:
    """Where the next marker begins: within a scan 0xFF is followed by 0 or by a restart marker."""
    while True:
        position = content.find(b"\xff", position)
        if position < 0:
            raise IndexError
        following = content[position + 1]
        if following and not 0xD0 <= following <= 0xD7:
            return position
        position += 2


def _in_png(content: bytes) -> Iterator[str]:
    position, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(_exactly(content, position, 4)), _exactly(content, position + 4, 4)
        if kind not in _PLAIN_PNG:
            yield f"chunk {kind.decode('ascii', 'replace')}"
        _exactly(content, position + 8, length + 4)
        position += length + 12
    if position < len(content):
        yield f"{len(content) - position} bytes after the picture"


def _in_webp(content: bytes) -> Iterator[str]:
    position, end = 12, 8 + int.from_bytes(content[4:8], "little")
    while position < end:
        kind = _exactly(content, position, 4)
        length = int.from_bytes(_exactly(content, position + 4, 4), "little")
        if kind not in _PLAIN_WEBP:
            yield f"chunk {kind.decode('ascii', 'replace').strip()}"
        _exactly(content, position + 8, length)
        position += 8 + length + length % 2
    if position < len(content):
        yield f"{len(content) - position} bytes after the picture"


def _exactly(content: bytes, position: int, count: int) -> bytes:
    """So many bytes; IndexError when the file ends before."""
    if count < 0 or position + count > len(content):
        raise IndexError
    return content[position : position + count]
