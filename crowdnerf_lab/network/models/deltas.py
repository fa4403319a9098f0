"""Deltas between versions, made when the first UE asks, once for all, in a process of its own beside the service.

    python -m crowdnerf_lab.network.models.deltas OLD NEW DELTA

makes one, at the lowest priority; it ends by itself whatever becomes of the service.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from crowdnerf_lab.catalogue.delta import delta_of
from crowdnerf_lab.files import sha256_of, write_bytes
from crowdnerf_lab.network.models.downloads import StoredFile

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/vnd.crowdnerf.delta"
AT_ONCE = 1
"""Made at the same time."""
LONGEST_S = 120.0
NICENESS = 10


class Deltas:
    """What makes one file of another, in a folder that may be removed at any time. An empty file: no delta pays."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._making: dict[Path, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._known: dict[Path, StoredFile] = {}
        self._failed: set[Path] = set()

    async def between(self, old: StoredFile, new: StoredFile, *, wait_s: float) -> StoredFile | None:
        """The delta from one file to another; None when none pays, and while it is not there after so many seconds."""
        path = self._path(old, new)
        if not path.exists() and path not in self._failed:
            if path not in self._making:
                self._making[path] = asyncio.create_task(self._make(old.path, new.path, path))
                self._making[path].add_done_callback(lambda _: self._making.pop(path, None))
            await asyncio.wait([self._making[path]], timeout=wait_s)
        return await self._stored(path)

    def under_way(self, old: StoredFile, new: StoredFile) -> bool:
        """Whether this delta is being made."""
        return self._path(old, new) in self._making

    async def close(self) -> None:
        """Stop making deltas."""
        making = tuple(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    def _path(self, old: StoredFile, new: StoredFile) -> Path:
        return self.folder / f"{old.sha256}-{new.sha256}.delta"

    async def _stored(self, path: Path) -> StoredFile | None:
        try:
            size = path.stat().st_size
            if size > 0 and path not in self._known:
                sha256 = await asyncio.to_thread(sha256_of, path)
                self._known[path] = StoredFile(path, size, sha256, MEDIA_TYPE)
        except OSError:
            return None
        return self._known[path] if size > 0 else None

    async def _make(self, old: Path, new: Path, path: Path) -> None:
        async with self._turn:
            command = (sys.executable, "-m", "crowdnerf_lab.network.models.deltas", str(old), str(new), str(path))
            process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
            try:
                async with asyncio.timeout(LONGEST_S):
                    status = await process.wait()
            except TimeoutError:
                status = None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if status != 0:
                self._failed.add(path)
                log.warning("no delta from %s to %s: its process ended with %s", old.name, new.name, status)


def main(old: Path, new: Path, path: Path) -> None:
    """Make a delta, or the empty file that says that none pays."""
    os.nice(NICENESS)
    if delta_of(old, new, path) is None:
        write_bytes(path, b"")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
