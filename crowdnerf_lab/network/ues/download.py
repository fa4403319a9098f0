"""Files that a UE fetches: by their SHA-256, resumed where they broke off, verified before anybody sees them.

ROOT/ab/abcd...            whole and verified
ROOT/ab/abcd....partial    what has arrived so far; the next attempt asks for the rest (RFC 9110, 14)
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import httpx

from crowdnerf_lab.files import FileError, sha256_of, write_bytes
from crowdnerf_lab.network.ues.answers import NetworkError, RefusedError, UntrustedAnswerError
from crowdnerf_lab.network.ues.event_connection import BUSY, EventConnection, Patience

log = logging.getLogger(__name__)

SLOWEST_BYTES_PER_S = 4_000
"""A download is given up when it takes longer than at this rate and LEAST_S: no server can hold a UE for ever."""
LEAST_S = 60.0


class FileStore:
    """Verified files by their SHA-256 under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, sha256: str) -> Path:
        """Where the file is, once it is whole."""
        return self.root / sha256[:2] / sha256

    def partial(self, sha256: str) -> Path:
        """Where the file grows while it arrives."""
        return self.root / sha256[:2] / f"{sha256}.partial"

    def holds(self, sha256: str, *, size: int) -> bool:
        """Whether the whole file is here."""
        path = self.path(sha256)
        return path.is_file() and path.stat().st_size == size

    def add(self, content: bytes, *, sha256: str) -> Path:
        """Keep bytes whose checksum was verified."""
        return write_bytes(self.path(sha256), content)

    def finish(self, sha256: str) -> Path | None:
        """Verify what has arrived and call it whole; None, and nothing is left, when it is another file."""
        partial = self.partial(sha256)
        if sha256_of(partial) != sha256:
            self.forget(sha256)
            return None
        os.replace(partial, self.path(sha256))
        return self.path(sha256)

    def forget(self, sha256: str) -> None:
        """Remove the file, whole or not."""
        self.path(sha256).unlink(missing_ok=True)
        self.partial(sha256).unlink(missing_ok=True)

    def prune(self, keep: set[str]) -> None:
        """Remove every file but these."""
        for path in self.root.glob("??/*"):
            if path.name.removesuffix(".partial") not in keep:
                path.unlink(missing_ok=True)


async def fetch(
    connection: EventConnection,
    href: str,
    *,
    size: int,
    sha256: str,
    store: FileStore,
    begun: Callable[[Path], None] = lambda _path: None,
    arrived: Callable[[int], None] = lambda _size: None,
    patience: Patience | None = None,
) -> Path:
    """A file of `size` bytes with this SHA-256, from the store or from `href`; what broke off is resumed.

    begun: called with the file that grows, before anything is added; arrived: with the bytes that are there. Raises
    NetworkError when it does not come, UntrustedAnswerError when what comes is another file.
    """
    if store.holds(sha256, size=size):
        return store.path(sha256)
    allowed_s = LEAST_S + size / SLOWEST_BYTES_PER_S
    name = f"downloading {Path(href.partition('?')[0]).name or href}"
    try:
        async with asyncio.timeout(allowed_s):
            return await _fetched(connection, href, size, sha256, store, name, begun, arrived, patience or Patience())
    except TimeoutError as error:
        raise NetworkError(
            f"{name}: {size} bytes did not arrive within {allowed_s:.0f} s; try a better link"
        ) from error
    except OSError as error:
        if isinstance(error, NetworkError | FileError):
            raise
        raise FileError(f"{name}: cannot write to {store.root} ({error.strerror}); free some space") from error


async def _fetched(
    connection: EventConnection,
    href: str,
    size: int,
    sha256: str,
    store: FileStore,
    asked: str,
    begun: Callable[[Path], None],
    arrived: Callable[[int], None],
    patience: Patience,
) -> Path:
    partial, failed, spoiled, furthest = store.partial(sha256), 0, 0, 0
    url = connection.link(href)
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        if have == size:
            finished = await asyncio.to_thread(store.finish, sha256)
            if finished is not None:
                return finished
            spoiled += 1  # perhaps only what an earlier attempt had left: once more from the start
            log.warning("%s: the bytes do not have the SHA-256 that was announced", asked)
            if spoiled > 1:
                raise UntrustedAnswerError(f"{asked}: what comes is not the file announced; nothing of it is kept")
            continue
        if have > size:
            partial.unlink()
            continue
        partial.touch()
        begun(partial)
        retry_after_s = None
        try:
            await _rest(connection, url, partial, have=have, size=size, sha256=sha256, asked=asked, arrived=arrived)
        except UntrustedAnswerError:
            raise
        except RefusedError as error:
            if error.status == 416 and have:
                partial.unlink()
                continue
            if error.status not in BUSY:
                raise
            retry_after_s, failure = error.retry_after_s, error
        except NetworkError as error:
            failure = error
        else:
            failure = NetworkError(f"{asked}: the service ended it early")
        now = partial.stat().st_size
        if now == size:
            continue
        failed = 0 if now > max(have, furthest) else failed + 1
        furthest = max(furthest, now)
        if failed >= patience.attempts:
            raise failure
        await asyncio.sleep(patience.pause_s(failed, retry_after_s=retry_after_s))


async def _rest(
    connection: EventConnection,
    url: str,
    partial: Path,
    *,
    have: int,
    size: int,
    sha256: str,
    asked: str,
    arrived: Callable[[int], None],
) -> None:
    """Append what is missing, or begin again when the service sends the whole file."""
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'} if have else {}
    async with connection.streamed("GET", url, asked=asked, headers=headers) as (response, _waited_ms):
        start = _start_of(response, have=have, size=size, asked=asked)
        with partial.open("r+b", buffering=0) as file:
            file.seek(start)
            total = start
            async for piece in response.aiter_raw():
                if total == start:
                    file.truncate(start)  # only now: an answer that breaks off at once costs nothing
                total += len(piece)
                connection.bytes_received += len(piece)
                if total > size:
                    file.truncate(0)
                    raise UntrustedAnswerError(f"{asked}: more than the {size} bytes announced; nothing of it is kept")
                file.write(piece)
                arrived(total)


def _start_of(response: httpx.Response, *, have: int, size: int, asked: str) -> int:
    """Where the bytes of an answer belong: after those that are here, or at the beginning."""
    if response.status_code == 200:
        return 0
    found = response.headers.get("content-range", "")
    if response.status_code == 206 and have and found == f"bytes {have}-{size - 1}/{size}":
        return have
    raise UntrustedAnswerError(
        f"{asked}: bytes from {have} of {size} were asked for, the service sent {response.status_code} {found!r}"
    )
