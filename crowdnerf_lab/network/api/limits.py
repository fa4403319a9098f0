"""Limits: how often somebody may ask, how much they may send; beyond them 429 and 413, before anything costs much.

Buckets of tokens: each refills at a rate and holds so many; every request takes one (Turner 1986). Each API process
counts for itself.
"""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crowdnerf_lab.network.api.problems import Problem

MOST_BUCKETS = 50_000
"""Kept; the one that was unused the longest goes first, which forgets a limit only for who had stayed away."""
MOST_HEADER_BYTES = 32 * 1024
"""Of all headers of a request together."""
UPLOADS = re.compile(r"/events/[^/]+/uploads(/|$)")
MOST_BODY_BYTES = 1 << 20
"""Of a request's body, but for uploads, which have their own limit."""


@dataclass
class _Bucket:
    tokens: float
    filled: float


class Rates:
    """Buckets of one kind, by who asks: `rate` requests a second in the long run, `burst` at once."""

    def __init__(self, *, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, who: str) -> float:
        """Take a token of somebody's bucket; seconds until there will be one where there is none, else 0.

        From any thread.
        """
        with self._lock:
            return self._wait_s(who, self._clock())

    def _wait_s(self, who: str, now: float) -> float:
        bucket = self._buckets.pop(who, None) or _Bucket(self.burst, now)
        bucket.tokens = min(bucket.tokens + (now - bucket.filled) * self.rate, self.burst)
        bucket.filled = now
        self._buckets[who] = bucket
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.rate
        bucket.tokens -= 1
        return 0.0

    def take(self, who: str, *, what: str) -> None:
        """Take a token of somebody's bucket. Raises a Problem 429 with Retry-After; what: of which there were many."""
        wait_s = self.wait_s(who)
        if wait_s > 0:
            raise Problem(
                429,
                "Too Many Requests",
                f"too many {what}; at most {60 * self.rate:.0f} a minute, {self.burst:.0f} at once; "
                f"try again in {wait_s:.1f} s",
                kind="rate-limited",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )


def address_of(connection: HTTPConnection) -> str:
    """The address that a request comes from, as the server sees it."""
    return connection.client.host if connection.client else "local"


class RequestLimits:
    """ASGI middleware: refuses headers and bodies that are too large, whether they say so or arrive in chunks.

    most_upload_bytes: of the bodies that carry captures.
    """

    def __init__(self, app: ASGIApp, *, most_upload_bytes: int) -> None:
        self.app, self.most_upload_bytes = app, most_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.most_upload_bytes if UPLOADS.match(scope["path"]) else MOST_BODY_BYTES
        try:
            length = _checked_length(scope)
            if length is not None and length > most:
                raise _too_large(length, most)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(received, most)
            return message

        await self.app(scope, receive if length is not None or _without_body(scope) else counted, send)


def _without_body(scope: Scope) -> bool:
    return not any(name == b"transfer-encoding" for name, _ in scope["headers"]) and scope["http_version"] < "2"


def _checked_length(scope: Scope) -> int | None:
    """Content-Length, where there is one. Raises a Problem for headers that are too many or contradict themselves."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES:
        raise Problem(
            431,
            "Request Header Fields Too Large",
            f"the headers have more than {MOST_HEADER_BYTES} bytes; send fewer",
            headers={"Connection": "close"},
        )
    lengths = {value.strip() for name, value in scope["headers"] if name == b"content-length"}
    if not lengths:
        return None
    (length, *others) = lengths
    if others or not length.isdigit() or len(length) > 18:
        raise Problem(
            400, "Bad Request", "Content-Length is not one whole number; send one", headers={"Connection": "close"}
        )
    return int(length)


def _too_large(size: int, most: int) -> Problem:
    return Problem(
        413,
        "Content Too Large",
        f"the body has {size} bytes or more, at most {most} are taken here; send less",
        kind="too-large",
        headers={"Connection": "close"},
    )
