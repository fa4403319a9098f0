"""The tus protocol's headers, read strictly: what cannot be understood is refused, never guessed.

tus 1.0.0, https://tus.io/protocols/resumable-upload, with creation, creation-with-upload, checksum, termination and
expiration. Bearers of names below: `headers` are a request's.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers

from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.uploads.contributions import CaptureMetadata
from crowdnerf_lab.network.uploads.media_kinds import DECLARED

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
ALGORITHMS = ("sha1", "sha256")
CONTENT_TYPE = "application/offset+octet-stream"
CHECKSUM_MISMATCH = 460
METADATA_LETTERS = 8192
"""Longest Upload-Metadata."""
MOST_BYTES = 1 << 53
"""No length or offset is larger: what JSON's numbers can tell exactly."""
NAME_LETTERS = 255
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,64}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Creation:
    """What a UE says of an upload before it sends it. metadata: the Upload-Metadata header, word for word.

    sha256: of the whole file, hexadecimal. capture: None when the UE says nothing.
    """

    length: int
    metadata: str = ""
    filename: str = ""
    media_type: str = "application/octet-stream"
    sha256: str | None = None
    capture: CaptureMetadata | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Checksum:
    """What one request's body must hash to."""

    algorithm: str
    digest: bytes

    def hasher(self) -> Any:
        """A new hash to feed the body to."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def check_version(headers: Headers) -> None:
    """Raise Problem 412 unless the client speaks this version."""
    spoken = _one(headers, "Tus-Resumable")
    if spoken != VERSION:
        said = "is missing" if spoken is None else f"is {spoken!r:.40}"
        raise Problem(
            412,
            "Precondition Failed",
            f"Tus-Resumable {said}; this service speaks tus {VERSION}: send 'Tus-Resumable: {VERSION}'",
            kind="tus-version",
            headers={"Tus-Version": VERSION},
        )


def creation_of(headers: Headers, *, most_bytes: int) -> Creation:
    """What a creation request announces. Raises Problem 400, 413, 415 or 422."""
    if "Upload-Defer-Length" in headers:
        raise _bad("Upload-Defer-Length", "is not supported; say the file's size in Upload-Length")
    if "Upload-Concat" in headers:
        raise _bad("Upload-Concat", "is not supported; send the file as one upload")
    length = _count(headers, "Upload-Length")
    if length == 0:
        raise _bad("Upload-Length", "is 0, and an empty file is no photo or clip; send one that has bytes")
    if length > most_bytes:
        raise too_large(length, most_bytes)
    key = _one(headers, "Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise _bad("Idempotency-Key", f"is {key!r:.80}; use 1 to 255 printable ASCII characters without spaces")
    metadata = _one(headers, "Upload-Metadata") or ""
    values = metadata_of(metadata)
    return Creation(
        length=length,
        metadata=metadata,
        filename=_shown_name(values.get("filename", b"")),
        media_type=_declared_type(values.get("filetype", b"")),
        sha256=_declared_sha256(values.get("sha256")),
        capture=_declared_capture(values.get("capture")),
        idempotency_key=key,
    )


def offset_of(headers: Headers) -> int:
    """Where a PATCH goes on. Raises Problem 400."""
    return _count(headers, "Upload-Offset")


def checksum_of(headers: Headers) -> Checksum | None:
    """What the body must hash to, if the client says. Raises Problem 400."""
    given = _one(headers, "Upload-Checksum")
    if given is None:
        return None
    algorithm, _, encoded = given.partition(" ")
    if algorithm not in ALGORITHMS:
        raise _bad("Upload-Checksum", f"uses {algorithm!r:.40}; use one of {', '.join(ALGORITHMS)}")
    digest = _decoded(encoded)
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size
    if digest is None or len(digest) != size:
        raise _bad("Upload-Checksum", f"is {given!r:.120}; send '{algorithm} ' and the base64 of {size} bytes")
    return Checksum(algorithm, digest)


def is_offset_stream(headers: Headers) -> bool:
    """Whether the body is a piece of an upload as it is, by its Content-Type and Content-Encoding."""
    plain = headers.get("Content-Encoding", "identity").strip().lower() == "identity"
    return plain and headers.get("Content-Type", "").partition(";")[0].strip().lower() == CONTENT_TYPE


def body_announced(headers: Headers) -> bool:
    """Whether a request has a body, by its headers (RFC 9110, 6.4)."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0").strip("0") != ""


def wrong_content_type(headers: Headers) -> Problem:
    """Problem 415 for a body of another type."""
    return Problem(
        415,
        "Unsupported Media Type",
        f"Content-Type is {headers.get('Content-Type', 'missing')!r:.120}; send {CONTENT_TYPE}, without encoding it",
        headers={"Accept-Patch": CONTENT_TYPE},
    )


def too_large(length: int, most_bytes: int) -> Problem:
    """Problem 413 for a file over the limit."""
    return Problem(
        413,
        "Content Too Large",
        f"the file has {length} bytes, and one may have {most_bytes}; send a smaller photo or a shorter clip",
        kind="too-large",
        headers={"Tus-Max-Size": str(most_bytes)},
    )


def metadata_of(text: str) -> dict[str, bytes]:
    """Upload-Metadata: pairs of a key and the base64 of its value, separated by commas. Raises Problem 400."""
    if len(text) > METADATA_LETTERS:
        raise _bad("Upload-Metadata", f"has {len(text)} characters; use {METADATA_LETTERS} at most")
    values: dict[str, bytes] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, encoded = pair.strip(" \t").partition(" ")
        value = _decoded(encoded)
        if not _KEY.fullmatch(key) or value is None:
            raise _bad("Upload-Metadata", f"holds {pair!r:.80}; write 'key base64,key base64'")
        if key in values:
            raise _bad("Upload-Metadata", f"names {key!r} twice; name each key once")
        values[key] = value
    return values


def _shown_name(value: bytes) -> str:
    """A file's name as its UE is shown it again; nothing is ever stored under it."""
    name = value.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable())[:NAME_LETTERS]


def _declared_type(value: bytes) -> str:
    declared = value.decode("utf-8", "replace").partition(";")[0].strip().lower() or "application/octet-stream"
    if declared not in DECLARED:
        raise Problem(
            415,
            "Unsupported Media Type",
            f"filetype is {declared!r:.80}; send photos as JPEG, HEIC, AVIF, WebP or PNG, clips as MP4, MOV, MKV, WebM",
            kind="media-type",
        )
    return declared


def _declared_sha256(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("ascii", "replace")
    if not _SHA256.fullmatch(text):
        raise _bad("Upload-Metadata", f"says sha256 {text!r:.80}; give 64 hexadecimal digits")
    return text.lower()


def _declared_capture(value: bytes | None) -> CaptureMetadata | None:
    if value is None:
        return None
    try:
        return CaptureMetadata.model_validate_json(value, strict=True)
    except ValidationError as error:
        raise Problem(
            422, "Unprocessable Content", f"capture: {first_finding(error)}", kind="invalid-capture"
        ) from None


def _decoded(encoded: str) -> bytes | None:
    """Base64 with its padding; None for anything else."""
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None


def _count(headers: Headers, name: str) -> int:
    text = _one(headers, name)
    if text is None:
        raise _bad(name, "is missing; send it")
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > MOST_BYTES:
        raise _bad(name, f"is {text!r:.40}; send a number of bytes, in decimal digits, up to {MOST_BYTES}")
    return int(text)


def _one(headers: Headers, name: str) -> str | None:
    """The value of a header that may stand there once."""
    values = headers.getlist(name)
    if len(values) > 1:
        raise _bad(name, f"is there {len(values)} times; send it once")
    return values[0].strip(" \t") if values else None


def _bad(name: str, finding: str) -> Problem:
    return Problem(400, "Bad Request", f"{name} {finding}", kind="invalid-header")
