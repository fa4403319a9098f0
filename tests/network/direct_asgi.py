"""A client that speaks ASGI to an application, without a server between: any header, any pieces, and going away."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp

OFFSET_STREAM = {"Content-Type": "application/offset+octet-stream"}


@dataclass(frozen=True)
class Answer:
    """status 0: nothing was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class DirectClient:
    """Keeps one event loop, so that the application's threads live on from request to request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self._runner = app, asyncio.Runner()

    def close(self) -> None:
        self._runner.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] = b"",
        broken: bool = False,
    ) -> Answer:
        """body: as one piece with its length, or as pieces of unknown length. broken: go away behind the last one."""
        return self._runner.run(self.asked(method, path, headers=headers, body=body, broken=broken))

    def run(self, awaitable: Any) -> Any:
        return self._runner.run(awaitable)

    async def asked(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] = b"",
        broken: bool = False,
        gate: asyncio.Event | None = None,
    ) -> Answer:
        """gate: what the last piece waits for."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        pieces = [body] if isinstance(body, bytes) else list(body)
        if isinstance(body, bytes) and body and not any(name.lower() == "content-length" for name, _ in pairs):
            pairs.append(("Content-Length", str(len(body))))
        elif not isinstance(body, bytes):
            pairs.append(("Transfer-Encoding", "chunked"))
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        sent: list[dict[str, Any]] = []
        waiting = [
            {"type": "http.request", "body": piece, "more_body": broken or index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]

        async def receive() -> dict[str, Any]:
            if gate is not None and len(waiting) == 1:
                await gate.wait()
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, send)  # type: ignore[arg-type]
        except Exception:
            if not sent or sent[0]["status"] < 500:
                raise
        if not sent:
            return Answer(0, {}, b"")
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))


class DirectUE:
    """One UE of an event, with its token, that uploads by tus."""

    def __init__(self, client: DirectClient, *, event: str = "concert") -> None:
        self.client, self.event = client, event
        join = json.dumps({"device": "a phone", "consent": {"train": True, "publish": False}}).encode()
        headers = {"Content-Type": "application/json"}
        self.joined = client.ask("POST", f"/events/{event}/ues", headers=headers, body=join).json
        self.name = self.joined["ue"]
        self.token = {"Authorization": f"Bearer {self.joined['token']}"}
        self.headers = self.token | {"Tus-Resumable": "1.0.0"}
        self.uploads = f"/events/{event}/uploads"
        self.contributions = f"/events/{event}/contributions"

    def create(self, length: int, *, body: bytes = b"", metadata: str | None = None, key: str | None = None) -> Answer:
        headers = self.headers | {"Upload-Length": str(length)}
        headers |= {} if metadata is None else {"Upload-Metadata": metadata}
        headers |= {} if key is None else {"Idempotency-Key": key}
        return self.client.ask("POST", self.uploads, headers=headers | (OFFSET_STREAM if body else {}), body=body)

    def send(
        self, upload: str, body: bytes | Sequence[bytes], *, offset: int, checksum: str = "", broken: bool = False
    ) -> Answer:
        headers = self.headers | OFFSET_STREAM | {"Upload-Offset": str(offset)}
        headers |= {"Upload-Checksum": checksum} if checksum else {}
        return self.client.ask("PATCH", upload, headers=headers, body=body, broken=broken)

    def offset(self, upload: str) -> int:
        answer = self.client.ask("HEAD", upload, headers=self.headers)
        assert answer.status == 200, answer
        return int(answer.headers["upload-offset"])

    def upload(self, content: bytes, *, metadata: str | None = None) -> str:
        """Send a file whole; its path."""
        answer = self.create(len(content), body=content, metadata=metadata)
        assert answer.status == 201, answer
        return answer.headers["location"]

    def status(self, upload: str) -> dict[str, Any]:
        return self.ask("GET", f"{self.contributions}/{upload.rpartition('/')[2]}").json

    def ask(self, method: str, path: str) -> Answer:
        return self.client.ask(method, path, headers=self.headers)


def metadata_of(**values: str | bytes) -> str:
    """Upload-Metadata that says these."""
    told = {key: value if isinstance(value, bytes) else value.encode() for key, value in values.items()}
    return ",".join(f"{key} {base64.b64encode(value).decode()}" for key, value in told.items())


def checksum_of(body: bytes, *, algorithm: str = "sha256") -> str:
    """Upload-Checksum of a body."""
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, body).digest()).decode()}"


def photo(size: int = 400, *, seed: int = 0) -> bytes:
    """Bytes that begin like a JPEG and are a photo to nobody else."""
    return b"\xff\xd8\xff\xe0" + hashlib.shake_128(seed.to_bytes(4, "big")).digest(size - 4)
