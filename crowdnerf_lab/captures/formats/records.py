"""A JSON file of another tool as one typed record: what its documentation lists; nothing else is looked at."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from crowdnerf_lab.captures.documents import explained, read_document


class Record(BaseModel):
    """Fields that are not listed are passed over; numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


def read_record(path: Path, kind: type[Kind], *, named_by: str) -> Kind:
    """The record in a file. Raises CaptureError naming the file, the field and the remedy.

    named_by: the field in which a record names its picture.
    """
    return record_of(path, read_document(path)[1], kind, named_by=named_by)


def record_of(path: Path, entry: Any, kind: type[Kind], *, named_by: str) -> Kind:
    """One entry of a file as a record. Raises CaptureError as `read_record` does."""
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        known = entry if isinstance(entry, dict) else {}
        raise explained(path, known, error=error, named_by=named_by) from None
