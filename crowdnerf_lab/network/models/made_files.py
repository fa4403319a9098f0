"""Files made when the first UE asks, once for all, each in a process of its own beside the service."""

import asyncio
import logging
import sys
from pathlib import Path

from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.network.models.downloads import StoredFile

log = logging.getLogger(__name__)

AT_ONCE = 1
"""Made at the same time."""
LONGEST_S = 120.0


class MadeFiles:
    """Files that `python -m MODULE ARGUMENTS... PATH` makes, in a folder that may be removed at any time.

    The module writes an empty file where there is nothing worth having, and ends by itself whatever becomes of the
    service.
    """

    def __init__(self, folder: Path, *, module: str, media_type: str) -> None:
        self.folder, self.module, self.media_type = Path(folder), module, media_type
        self._making: dict[Path, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._known: dict[Path, StoredFile] = {}
        self._failed: set[Path] = set()

    async def made(self, name: str, arguments: tuple[Path, ...], *, what: str, wait_s: float) -> StoredFile | None:
        """The file of this name, made from these arguments; None when there is nothing worth having, when making it
        failed, and while it is not there after so many seconds. what: it is, for the log."""
        path = self.folder / name
        if not path.exists() and path not in self._failed:
            if path not in self._making:
                self._making[path] = asyncio.create_task(self._make(path, arguments, what))
                self._making[path].add_done_callback(lambda _: self._making.pop(path, None))
            await asyncio.wait([self._making[path]], timeout=wait_s)
        return await self._stored(path)

    def under_way(self, name: str) -> bool:
        """Whether this file is being made."""
        return self.folder / name in self._making

    async def close(self) -> None:
        """Stop making files."""
        making = tuple(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _stored(self, path: Path) -> StoredFile | None:
        try:
            size = path.stat().st_size
            if size > 0 and path not in self._known:
                sha256 = await asyncio.to_thread(sha256_of, path)
                self._known[path] = StoredFile(path, size, sha256, self.media_type)
        except OSError:
            return None
        return self._known[path] if size > 0 else None

    async def _make(self, path: Path, arguments: tuple[Path, ...], what: str) -> None:
        async with self._turn:
            command = (sys.executable, "-m", self.module, *map(str, arguments), str(path))
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
                log.warning("no %s: its process ended with %s", what, status)
