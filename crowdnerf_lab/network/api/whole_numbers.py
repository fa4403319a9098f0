"""Whole numbers in documents, as JSON Schema has them."""

from pydantic import BeforeValidator


def _whole(number: object) -> object:
    """JSON Schema's integers: 2000.0 is one; true and "2000" are none."""
    if isinstance(number, bool | str | bytes):
        raise ValueError("should be a whole number")
    return number


WHOLE = BeforeValidator(_whole)
