"""A UE's uploads over tus 1.0.0: resumed after a dropped connection, a restarted service or a restarted UE.

What is uploaded names itself: the Idempotency-Key is made of the file's SHA-256 and of what is said about it, so that a
UE that knows nothing of an earlier attempt, not even whether it was answered, reaches the same upload by asking again.
"""

import asyncio
import base64
import hashlib
import json
import logging
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.network.ues.answers import NetworkError, RefusedError, TokenEndedError, UntrustedAnswerError
from crowdnerf_lab.network.ues.event_connection import BUSY, EventConnection, Patience

if TYPE_CHECKING:
    from crowdnerf_lab.captures.bundle import Clip, Photo

log = logging.getLogger(__name__)

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK_BYTES = 1 << 20
"""Sent at once, with a checksum of its own: what a broken connection costs at most."""
OFFSET_UNKNOWN = frozenset({409, 423, 460})
"""Statuses after which the service is asked how much it has: another offset, a lock, a checksum that failed."""
GONE = frozenset({404, 410})
SAID_OF_A_CAPTURE = ("time_s", "focal_px", "reported", "gps", "camera")
MORE_MEDIA_TYPES = {".heic": "image/heic", ".heif": "image/heif", ".avif": "image/avif", ".webp": "image/webp"}


@dataclass(frozen=True)
class Uploaded:
    """An upload that the service has acknowledged whole. interruptions: from which it was resumed."""

    id: str
    bytes: int
    sha256: str
    interruptions: int


def capture_of(photo: "Photo | Clip") -> dict[str, Any]:
    """What an upload says of a bundle's photo or clip: when, where and with which lens it was taken; nothing else."""
    said = photo.model_dump(mode="json", include=set(SAID_OF_A_CAPTURE), exclude_none=True)
    return {name: said[name] for name in SAID_OF_A_CAPTURE if name in said}


async def upload_file(
    connection: EventConnection,
    path: Path,
    *,
    capture: Mapping[str, Any],
    chunk_bytes: int = CHUNK_BYTES,
    patience: Patience | None = None,
) -> Uploaded:
    """Upload a photo or clip, however often that breaks off, and return once the service has all of it.

    Raises NetworkError when there is no progress any more, RefusedError when the service does not want it.
    """
    path, patience = Path(path), patience or Patience()
    try:
        size, digest = path.stat().st_size, await asyncio.to_thread(sha256_of, path)
    except OSError as error:
        raise NetworkError(
            f"uploading {path.name}: it cannot be read ({error.strerror}); give a photo or clip"
        ) from error
    if size == 0:
        raise NetworkError(f"uploading {path.name}: it is empty; give a photo or clip")
    upload = _Upload(connection, path, size, digest, dict(capture), chunk_bytes)
    failed = interruptions = 0
    while True:
        before, retry_after_s = upload.furthest, None
        try:
            await upload.proceed()
            return Uploaded(upload.id, size, digest, interruptions)
        except (TokenEndedError, UntrustedAnswerError):
            raise
        except RefusedError as error:
            if error.status in GONE and upload.url is not None:
                upload.url = None
            elif error.status not in BUSY | OFFSET_UNKNOWN:
                raise
            failure, retry_after_s = error, error.retry_after_s
        except NetworkError as error:
            failure = error
        interruptions += 1
        failed = 0 if upload.furthest > before else failed + 1
        if failed >= patience.attempts:
            raise failure
        log.info("%s; resuming", failure)
        upload.offset = None
        await asyncio.sleep(patience.pause_s(failed, retry_after_s=retry_after_s))


class _Upload:
    """One upload's state: where it is, how much of it the service has (None: ask), and the most it ever had."""

    def __init__(
        self,
        connection: EventConnection,
        path: Path,
        size: int,
        sha256: str,
        capture: dict[str, Any],
        chunk_bytes: int,
    ) -> None:
        self._connection, self._path, self._size, self._chunk = connection, path, size, chunk_bytes
        self._asked = f"uploading {path.name}"
        said = json.dumps(capture, sort_keys=True, allow_nan=False)
        kind = mimetypes.guess_type(path.name)[0] or MORE_MEDIA_TYPES.get(path.suffix.lower())
        metadata = {
            "filename": path.name,
            "filetype": kind or "application/octet-stream",
            "sha256": sha256,
            "capture": said,
        }
        self._metadata = ",".join(f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in metadata.items())
        self._key = hashlib.sha256(f"{sha256} {said}".encode()).hexdigest()
        self.url: str | None = None
        self.offset: int | None = None
        self.furthest = 0

    @property
    def id(self) -> str:
        """Also the contribution's."""
        return (self.url or "").rstrip("/").rpartition("/")[2]

    async def proceed(self) -> None:
        """From wherever it is to the end."""
        if self.url is None:
            await self._create()
        if self.offset is None:
            self.offset = await self._offset_there()
        while self.offset < self._size:
            await self._send(self.offset)

    async def _create(self) -> None:
        content = await self._read(0)
        headers = {"Upload-Length": str(self._size), "Upload-Metadata": self._metadata, "Idempotency-Key": self._key}
        answer = await self._request("POST", self._connection.path("uploads"), headers, content)
        location = answer.get("location")
        if not location:
            raise UntrustedAnswerError(f"{self._asked}: the service does not say where the upload is; is this its URL?")
        self.url = self._connection.link(location)
        self._note(answer)

    async def _offset_there(self) -> int:
        assert self.url is not None
        self._note(await self._request("HEAD", self.url, {}, None))
        if self.offset is None:
            raise UntrustedAnswerError(f"{self._asked}: the service does not say how much it has (Upload-Offset)")
        return self.offset

    async def _send(self, offset: int) -> None:
        assert self.url is not None
        content = await self._read(offset)
        self._note(await self._request("PATCH", self.url, {"Upload-Offset": str(offset)}, content))
        if self.offset is None or not offset < self.offset <= offset + len(content):
            raise UntrustedAnswerError(
                f"{self._asked}: after bytes {offset} to {offset + len(content)} the service says it has {self.offset}"
            )

    async def _request(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None
    ) -> Mapping[str, str]:
        if content is not None:
            checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
            headers = {**headers, "Content-Type": "application/offset+octet-stream"}
            headers["Upload-Checksum"] = f"sha256 {checksum}"
        answer = await self._connection.ask(
            method, url, asked=self._asked, headers={**TUS, **headers}, content=content, repeats=0
        )
        return answer.headers

    def _note(self, headers: Mapping[str, str]) -> None:
        """What the service says it has."""
        said = headers.get("upload-offset")
        self.offset = None
        if said is not None:
            if not said.isdecimal() or not 0 <= int(said) <= self._size:
                raise UntrustedAnswerError(f"{self._asked}: the service claims {said:.40} of {self._size} bytes")
            self.offset = int(said)
            self.furthest = max(self.furthest, self.offset)

    async def _read(self, offset: int) -> bytes:
        def read() -> bytes:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(self._chunk)

        content = await asyncio.to_thread(read)
        if not content:
            raise NetworkError(f"{self._asked}: the file has become shorter than {self._size} bytes; upload it again")
        return content
