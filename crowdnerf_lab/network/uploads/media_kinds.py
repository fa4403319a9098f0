"""Kinds of photos and clips that the lab reads, told by a file's first bytes: names and declarations may be wrong."""

from dataclasses import dataclass

HEAD_BYTES = 64
"""So many of a file's first bytes tell its kind."""


@dataclass(frozen=True)
class MediaKind:
    """A media type and the suffix that the lab's readers know it by."""

    media_type: str
    suffix: str


JPEG = MediaKind("image/jpeg", ".jpg")
PNG = MediaKind("image/png", ".png")
WEBP = MediaKind("image/webp", ".webp")
HEIC = MediaKind("image/heic", ".heic")
AVIF = MediaKind("image/avif", ".avif")
MP4 = MediaKind("video/mp4", ".mp4")
QUICKTIME = MediaKind("video/quicktime", ".mov")
MATROSKA = MediaKind("video/x-matroska", ".mkv")
WEBM = MediaKind("video/webm", ".webm")
KINDS = (JPEG, PNG, WEBP, HEIC, AVIF, MP4, QUICKTIME, MATROSKA, WEBM)
DECLARED = {kind.media_type for kind in KINDS} | {
    "image/jpg",
    "image/heif",
    "image/heic-sequence",
    "image/heif-sequence",
    "video/matroska",
    "video/x-m4v",
    "video/3gpp",
    "application/octet-stream",
}
"""What a UE may call them. application/octet-stream: it does not know."""
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def kind_of(head: bytes) -> MediaKind | None:
    """The kind of a file that begins like this (HEAD_BYTES of it, or all of a shorter one); None: none of these."""
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"webm" in head else MATROSKA if b"matroska" in head else None
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    # QuickTime files older than the ftyp box (ISO/IEC 14496-12, 4.3) begin with one of these.
    return QUICKTIME if head[4:8] in (b"wide", b"moov", b"mdat") else None


def _kind_of_brands(head: bytes) -> MediaKind:
    """By the major and the compatible brands of the ftyp box."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major, compatible = head[8:12], {head[start : start + 4] for start in range(16, end - 3, 4)}
    if major in _AVIF_BRANDS or (major in (b"mif1", b"msf1") and compatible & _AVIF_BRANDS):
        return AVIF
    if major in _HEIC_BRANDS:
        return HEIC
    return QUICKTIME if major == b"qt  " else MP4
