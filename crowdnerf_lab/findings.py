"""What pydantic found wrong with a document, said in one sentence."""

from pydantic import ValidationError

REMEDIES = {"missing": "add it", "extra_forbidden": "remove it, or update the package if a newer one wrote it"}


def first_finding(error: ValidationError) -> str:
    """The first wrong field, what is wrong, the value seen and the remedy; and how many more there are."""
    first, count = error.errors()[0], error.error_count()
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    seen = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r:.80}"
    more = f" ({count - 1} more fields are wrong)" if count > 1 else ""
    return f"{field or 'the document'}: {first['msg']}{seen}; {REMEDIES.get(first['type'], 'correct it')}{more}"
