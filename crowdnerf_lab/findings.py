"""What pydantic found wrong with a document, said in one sentence."""

from pydantic import ValidationError

REMEDIES = {"missing": "add it", "extra_forbidden": "remove it, or update the package if a newer one wrote it"}


def first_finding(error: ValidationError) -> str:
    """The first wrong field, what is wrong, the value seen and the remedy; and how many more there are.

    Checks across fields speak for themselves: their own message is expected to name the fields and the remedy.
    """
    first, count = error.errors()[0], error.error_count()
    more = f" ({count - 1} more fields are wrong)" if count > 1 else ""
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ") + more
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    seen = "" if first["type"] == "missing" else f", not {first['input']!r:.80}"
    return f"{field}: {first['msg']}{seen}; {REMEDIES.get(first['type'], 'correct it')}{more}"
