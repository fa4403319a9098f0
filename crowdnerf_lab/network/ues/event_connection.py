"""One UE's connection to one event of a service: its token, its requests, and answers of bounded length.

Connections are kept open between requests, and many UEs may share one `httpx.AsyncClient`. Redirects are not followed
and answers are not decompressed: both would let a server make more of a request than was asked.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from crowdnerf_lab.files import write_json
from crowdnerf_lab.network.ues.answers import (
    Joined,
    NetworkError,
    RefusedError,
    TokenEndedError,
    UntrustedAnswerError,
    link_within,
    read_answer,
    refusal_of,
)

log = logging.getLogger(__name__)

ANSWER_BYTES = 16 << 20
"""Most that an answer which is no file may take: a list of cards, a view."""
REFUSAL_BYTES = 1 << 16
RENEW_WITHIN = 0.2
"""Share of a token's life that is left when it is renewed."""
BUSY = frozenset({425, 429, 502, 503, 504})
"""Statuses of a service that may answer the same request a little later."""


@dataclass(frozen=True)
class Patience:
    """How a UE repeats a request: full jitter over an exponentially growing pause (Brooker, AWS 2015), seconds.

    attempts: in a row without any progress. most_s: the longest pause that is not the service's own Retry-After.
    """

    attempts: int = 6
    first_s: float = 0.2
    most_s: float = 8.0

    def pause_s(self, attempt: int, *, retry_after_s: float | None = None) -> float:
        """How long to wait after so many failed attempts; at least what the service asked for."""
        jittered = random.uniform(0, min(self.most_s, self.first_s * 2 ** min(attempt, 30)))
        return jittered if retry_after_s is None else retry_after_s + jittered / 4


@dataclass(frozen=True)
class Answer:
    """What came back, and the milliseconds until its first byte."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    waited_ms: float


def http_client(*, connections: int = 4, timeout_s: float = 20.0) -> httpx.AsyncClient:
    """A client for one UE, or for as many as may hold that many connections at once; each is kept open while it idles.

    timeout_s: of a connection that shows no sign of life.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60.0)
    timeout = httpx.Timeout(timeout_s, pool=None)
    return httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=False, trust_env=False)


class EventConnection:
    """Requests of one UE to one event. identity: the file that keeps its pseudonym and token; None: nowhere."""

    def __init__(self, url: str, *, event: str, client: httpx.AsyncClient, identity: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise NetworkError(f"{url!r} is no service's address; give one like https://event.example or its port")
        self.url = url.rstrip("/")
        self.event = event
        self.client = client
        self.bytes_received = 0
        self._identity = identity
        self._joined: Joined | None = None
        self._renew_at = float("inf")
        self._renewing = asyncio.Lock()
        self._recall()

    @property
    def ue(self) -> str | None:
        """The pseudonym under which this UE has joined."""
        return self._joined.ue if self._joined else None

    def path(self, *parts: str | int) -> str:
        """The address of something of this event."""
        return "/".join(
            [self.url, "events", quote(self.event, safe=""), *(quote(str(part), safe=":") for part in parts)]
        )

    def link(self, href: str) -> str:
        """Where a link of an answer leads, within this service."""
        return link_within(f"{self.url}/", href)

    async def join(self, document: Mapping[str, Any], *, anew: bool = False) -> Joined:
        """Join the event, or, with a token from before, renew that. anew: under a new pseudonym."""
        if self._joined is not None and not anew:
            return await self._renewed()
        self._joined = None
        asked = f"joining {self.event}"
        answer = await self.ask("POST", self.path("ues"), document=document, asked=asked, signed=False, repeats=0)
        return self._keep(read_answer(Joined, answer.content, asked=asked))

    async def leave(self) -> None:
        """End the token. What was contributed stays."""
        await self.ask("DELETE", self.path("ues", "me"), asked=f"leaving {self.event}")
        self.forget_token()

    def forget_token(self) -> None:
        """Drop the pseudonym and the token here."""
        self._joined = None
        if self._identity is not None:
            self._identity.unlink(missing_ok=True)

    async def authorization(self) -> dict[str, str]:
        """The header that a request carries; the token is renewed first when little of its life is left."""
        if self._joined is None:
            raise NetworkError(f"this UE has not joined {self.event}; `await ue.join()` first")
        if time.time() >= self._renew_at:
            async with self._renewing:
                if time.time() >= self._renew_at:
                    await self._renewed_or_kept()
        return {"Authorization": f"Bearer {self._joined.token}"}

    async def ask(
        self,
        method: str,
        url: str,
        *,
        asked: str,
        document: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        signed: bool = True,
        repeats: int = 2,
        timeout_s: float | None = None,
        most_bytes: int = ANSWER_BYTES,
    ) -> Answer:
        """One request and its whole answer. asked: what for, as errors say it. document: sent as JSON, else content.

        A request whose connection broke, or that a busy service put off, is repeated so often. Raises NetworkError when
        no answer comes, RefusedError for a status of 400 or more, UntrustedAnswerError for too long an answer.
        """
        kind = {}
        if document is not None:
            content, kind = json.dumps(document, allow_nan=False).encode(), {"Content-Type": "application/json"}
        patience, attempt = Patience(), 0
        while True:
            token = self._joined
            try:
                async with self.streamed(
                    method,
                    url,
                    asked=asked,
                    headers={**kind, **(headers or {})},
                    content=content,
                    signed=signed,
                    timeout_s=timeout_s,
                ) as (response, waited_ms):
                    body = await self._body(response, most=most_bytes, asked=asked)
                    return Answer(response.status_code, response.headers, body, waited_ms)
            except TokenEndedError:
                if token is None or self._joined is token:
                    raise
                continue  # it was renewed meanwhile, by another request
            except UntrustedAnswerError:
                raise
            except RefusedError as error:
                if attempt >= repeats or error.status not in BUSY:
                    raise
                pause_s = patience.pause_s(attempt, retry_after_s=error.retry_after_s)
            except NetworkError:
                if attempt >= repeats or (self._joined is None and signed):
                    raise
                # An idle connection that the other side has just closed: a new one is worth trying at once.
                pause_s = patience.pause_s(attempt - 1) if attempt else 0.0
            attempt += 1
            await asyncio.sleep(pause_s)

    @asynccontextmanager
    async def streamed(
        self,
        method: str,
        url: str,
        *,
        asked: str,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
        signed: bool = True,
        timeout_s: float | None = None,
    ) -> AsyncIterator[tuple[httpx.Response, float]]:
        """An answer whose body is still to be read, and the milliseconds until it began; raises as `ask` does."""
        sent = {"Accept-Encoding": "identity", **(headers or {}), **(await self.authorization() if signed else {})}
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s, pool=None)
        started = time.perf_counter()
        try:
            async with self.client.stream(
                method, url, headers=sent, content=content, timeout=timeout, follow_redirects=False
            ) as response:
                waited_ms = 1e3 * (time.perf_counter() - started)
                if response.status_code >= 300 and response.status_code != 304:
                    said = await self._body(response, most=REFUSAL_BYTES, asked=asked)
                    raise refusal_of(response.status_code, response.headers, said, asked=asked)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise UntrustedAnswerError(f"{asked}: the service compressed an answer that was to come as it is")
                yield response, waited_ms
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            what = str(error) or type(error).__name__
            raise NetworkError(f"{asked}: {self.url} does not answer ({what}); is it up, and reachable?") from error

    async def _body(self, response: httpx.Response, *, most: int, asked: str) -> bytes:
        """The whole body, which may have so many bytes."""
        pieces, size = [], 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > most:
                raise UntrustedAnswerError(f"{asked}: the service's answer is longer than {most} bytes; it is not read")
            pieces.append(piece)
        self.bytes_received += size
        return b"".join(pieces)

    async def _renewed_or_kept(self) -> None:
        """Renew; while the service cannot, the token from before may still do."""
        try:
            await self._renewed()
        except RefusedError as error:
            if error.status in (401, 403):
                raise
            log.warning("%s: the token could not be renewed: %s", self.event, error)
        except NetworkError as error:
            log.warning("%s: the token could not be renewed: %s", self.event, error)

    async def _renewed(self) -> Joined:
        self._renew_at = float("inf")  # the request below carries the token from before
        asked = f"renewing the token for {self.event}"
        try:
            answer = await self.ask("POST", self.path("ues", "me", "token"), asked=asked, repeats=1)
        except NetworkError:
            self._renew_at = time.time() + 5.0
            raise
        return self._keep(read_answer(Joined, self._named(answer.content), asked=asked))

    def _named(self, content: bytes) -> bytes:
        """A renewal need not repeat the pseudonym."""
        try:
            return json.dumps({"ue": self.ue} | json.loads(content)).encode()
        except (TypeError, ValueError):
            return content

    def _keep(self, joined: Joined) -> Joined:
        self._joined = joined
        self._schedule(joined)
        if self._identity is not None:
            self._identity.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            document = {"url": self.url, "ue": joined.ue, "token": joined.token, "expires": joined.expires_s}
            write_json(self._identity, document).chmod(0o600)
        return joined

    def _recall(self) -> None:
        """Take up the pseudonym and token of an earlier process, if they were this service's."""
        if self._identity is None or not self._identity.exists():
            return
        try:
            document = json.loads(self._identity.read_bytes())
            if document.get("url") == self.url:
                self._joined = Joined.model_validate(document)
                self._schedule(self._joined)
        except (OSError, ValueError, AttributeError) as error:
            log.warning("%s cannot be used (%s); the UE must join again", self._identity, error)

    def _schedule(self, joined: Joined) -> None:
        now = time.time()
        early_s = RENEW_WITHIN * max(joined.expires_s - now, 0.0)
        # The UE's clock may be wrong: whether a token has ended is for the service to say, once a second at most.
        self._renew_at = max(joined.expires_s - early_s, now + 1.0)
