"""Negotiation: what a request's headers ask of a file, by RFC 9110. Whatever they hold, it is understood or ignored."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from crowdnerf_lab.network.api.problems import Problem

Coding = Literal["identity", "zstd", "gzip"]
CODINGS: tuple[Coding, ...] = ("zstd", "gzip")
"""Content codings (RFC 9110, 8.4.1; RFC 8878), the better ones first."""
MOST_RANGES = 16
"""Of one request; more are answered with the whole file, as RFC 9110 (14.2) advises against many small ranges."""
Range = tuple[int, int]
"""First and last byte, inclusive."""


def accepted_codings(header: str | None) -> dict[Coding, float]:
    """Weights of the codings that Accept-Encoding allows (RFC 9110, 12.5.3): identity unless it is forbidden."""
    weights: dict[str, float] = {}
    for part in (header or "").split(","):
        name, _, parameters = part.strip().lower().partition(";")
        quality = re.fullmatch(r"\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", parameters)
        if name.strip():
            weights["gzip" if name.strip() == "x-gzip" else name.strip()] = float(quality[1]) if quality else 1.0
    others = weights.get("*", 0.0)
    allowed: dict[Coding, float] = {coding: weights.get(coding, others) for coding in CODINGS}
    allowed["identity"] = weights.get("identity", others if "*" in weights else 1.0)
    return {coding: weight for coding, weight in allowed.items() if weight > 0}


def ranges_of(header: str | None, size: int) -> Sequence[Range] | None:
    """The ranges of a Range header within `size` bytes, in its order, those that overlap joined; None: ignore it.

    Raises Problem 416 when it is well formed and none of it lies within the file.
    """
    unit, equals, specification = (header or "").partition("=")
    parts = [part.strip(" \t") for part in specification.split(",")]
    if not equals or unit.strip().lower() != "bytes" or not any(parts):
        return None
    ranges: list[Range] = []
    for part in filter(None, parts):
        matched = re.fullmatch(r"([0-9]*)-([0-9]*)", part)
        if matched is None or part == "-":
            return None
        first, last = (None if digits == "" else _position(digits) for digits in matched.groups())
        if first is None:
            first, last = max(size - (last or 0), 0), size - 1
        elif last is not None and last < first:
            return None
        if first < size:
            ranges.append((first, size - 1 if last is None else min(last, size - 1)))
    if not ranges:
        raise Problem(
            416,
            "Range Not Satisfiable",
            f"{header!r:.80} lies outside of the {size} bytes of the file; ask for bytes=0-{size - 1}",
            headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )
    ranges = _joined(ranges)
    return ranges if len(ranges) <= MOST_RANGES else None


def matches(header: str, tags: Sequence[str], *, weakly: bool) -> str | None:
    """The first of these entity tags that a list such as If-None-Match names, or any for '*'; None where none is."""
    if header.strip() == "*":
        return tags[0]
    for weak, tag in re.findall(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")', header):
        if tag in tags and (weakly or not weak):
            return tag
    return None


def _position(digits: str) -> int:
    return int(digits) if len(digits) <= 18 else 10**18


def _joined(ranges: list[Range]) -> list[Range]:
    """As they are when none overlaps another; else joined, in the order of the file."""
    ordered = sorted(ranges)
    if all(before[1] < after[0] for before, after in pairwise(ordered)):
        return ranges
    joined = [ordered[0]]
    for first, last in ordered[1:]:
        if first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
