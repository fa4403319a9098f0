"""Bytes of an object from anywhere that serves them by ranges (RFC 9110, section 14): the origin, an edge, a peer.

Whoever asks checks what comes against the description; here only its length and its place are.
"""

import asyncio
from collections.abc import Mapping, Sequence

import httpx

from crowdnerf_lab.network.delivery.objects import DeliveryError

Span = tuple[int, int]
"""First byte, and the byte after the last."""
REQUESTS_AT_ONCE = 4
LEAST_S, SLOWEST_BYTES_PER_S = 5.0, 8_000
"""A transfer may take LEAST_S and its bytes' time at that rate: nobody holds another one up by trickling."""


def allowed_s(size: int) -> float:
    """Seconds after which the transfer of so many bytes is given up."""
    return LEAST_S + size / SLOWEST_BYTES_PER_S


class SpanError(DeliveryError):
    """Bytes that a source did not give. retry_after_s: when it asked to be asked again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


async def fetch_span(
    client: httpx.AsyncClient, url: str, span: Span, *, headers: Mapping[str, str] | None = None
) -> bytes:
    """Exactly the bytes of a span. Raises SpanError when the source has none, breaks off or sends others.

    A source without ranges sends the whole; reading stops at the span's end.
    """
    first, end = span
    asked = {"Range": f"bytes={first}-{end - 1}", "Accept-Encoding": "identity", **(headers or {})}
    try:
        async with asyncio.timeout(allowed_s(end - first)), client.stream("GET", url, headers=asked) as response:
            start = _start_of(response, span)
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) >= end - start:
                    break
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise SpanError(f"{_host(url)} did not give bytes {first} to {end}: {type(error).__name__}") from error
    wanted = bytes(content[first - start : end - start])
    if len(wanted) != end - first:
        raise SpanError(f"{_host(url)} gave {len(wanted)} of {end - first} bytes; ask another source")
    return wanted


async def fetch_spans(
    client: httpx.AsyncClient, url: str, spans: Sequence[Span], *, headers: Mapping[str, str] | None = None
) -> list[bytes]:
    """The bytes of several spans, a few requests at a time. Raises SpanError with the first that fails."""
    turn = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def one(span: Span) -> bytes:
        async with turn:
            return await fetch_span(client, url, span, headers=headers)

    tasks = [asyncio.create_task(one(span)) for span in spans]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def joined(spans: Sequence[Span], *, most_bytes: int) -> list[Span]:
    """The same bytes with neighbours asked for together, up to `most_bytes` a request."""
    together: list[Span] = []
    for first, end in sorted(spans):
        if together and together[-1][1] == first and end - together[-1][0] <= most_bytes:
            together[-1] = (together[-1][0], end)
        else:
            together.append((first, end))
    return together


def _start_of(response: httpx.Response, span: Span) -> int:
    """Where in the object the body begins."""
    first, end = span
    if response.status_code == 200:
        return 0
    found = response.headers.get("content-range", "")
    if response.status_code == 206 and found.startswith(f"bytes {first}-{end - 1}/"):
        return first
    wait = response.headers.get("retry-after", "")
    raise SpanError(
        f"{response.url.host} answered {response.status_code} {found!r:.80} when asked for bytes {first} to {end}",
        retry_after_s=min(float(wait), 60.0) if wait.isdigit() and len(wait) < 9 else None,
    )


def _host(url: str) -> str:
    """What of a URL may be told: never its query, where tokens may be."""
    try:
        return httpx.URL(url).host or "the source"
    except httpx.InvalidURL:
        return "the source"
