"""JSON documents that somebody else may have written: read with limits, refused in one clear sentence."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

DOCUMENT_BYTES = 64 << 20
"""Largest document that is read: the manifest of about 50,000 photos."""
FileName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=1024)]


class CaptureError(ValueError):
    """Captures that cannot be used; the message names the file, the field and the remedy."""


def read_document(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A JSON object's text and what it holds, unvalidated. Raises CaptureError when the file holds no such thing."""
    if not path.is_file():
        raise CaptureError(f"{path} does not exist; give a folder that holds a {path.name}, or the file itself")
    if path.stat().st_size > DOCUMENT_BYTES:
        raise CaptureError(f"{path} has {path.stat().st_size} bytes, more than {DOCUMENT_BYTES}; split the event")
    text = path.read_bytes()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{path} is not JSON ({error}); write it again with the tool that made it") from None
    if not isinstance(document, dict):
        raise CaptureError(
            f"{path} holds a {type(document).__name__}, not an object; write it again with the tool that made it"
        )
    return text, document


def explained(path: Path, document: dict[str, Any], *, error: ValidationError, named_by: str) -> CaptureError:
    """The first of pydantic's findings as one sentence. `named_by`: the field in which a record names its picture."""
    first, count = error.errors()[0], error.error_count()
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    picture = _innermost(document, first["loc"], named_by)
    about = f" ({picture})" if picture else ""
    more = f" ({count - 1} more fields are wrong)" if count > 1 else ""
    remedy = {
        "missing": "add it",
        "extra_forbidden": "remove it, or update the package if a newer one wrote it",
    }.get(first["type"], "correct it, or drop the entry")
    seen = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r:.80}"
    return CaptureError(f"{path}: {field}{about}: {first['msg']}{seen}; {remedy}{more}")


def _innermost(document: Any, location: tuple[int | str, ...], field: str) -> str | None:
    """What the deepest record on the way to `location` has in `field`."""
    found = None
    for part in location:
        if isinstance(document, dict):
            found = document[field] if isinstance(document.get(field), str) else found
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
    return found
