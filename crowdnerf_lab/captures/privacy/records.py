"""Small JSON documents that the lab keeps beside captures, read with the limits and the errors of all documents."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from crowdnerf_lab.captures.documents import explained, read_document

_Record = TypeVar("_Record", bound=BaseModel)


def read_record(path: Path, kind: type[_Record]) -> _Record:
    """A document of one kind. Raises CaptureError naming the file and the field when it is absent or damaged."""
    text, document = read_document(path)
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise explained(path, document, error=error, named_by="file") from None
