"""Deltas between versions, made when the first UE asks, once for all, in a process of its own beside the service.

    python -m crowdnerf_lab.network.models.deltas OLD NEW DELTA

makes one, at the lowest priority.
"""

import os
import sys
from pathlib import Path

from crowdnerf_lab.catalogue.delta import delta_of
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.network.models.downloads import StoredFile
from crowdnerf_lab.network.models.made_files import MadeFiles

MEDIA_TYPE = "application/vnd.crowdnerf.delta"
NICENESS = 10


class Deltas:
    """What makes one file of another, in a folder that may be removed at any time. An empty file: no delta pays."""

    def __init__(self, folder: Path) -> None:
        self._files = MadeFiles(folder, module="crowdnerf_lab.network.models.deltas", media_type=MEDIA_TYPE)

    async def between(self, old: StoredFile, new: StoredFile, *, wait_s: float) -> StoredFile | None:
        """The delta from one file to another; None when none pays, and while it is not there after so many seconds."""
        what = f"delta from {old.path.name} to {new.path.name}"
        return await self._files.made(_name(old, new), (old.path, new.path), what=what, wait_s=wait_s)

    def under_way(self, old: StoredFile, new: StoredFile) -> bool:
        """Whether this delta is being made."""
        return self._files.under_way(_name(old, new))

    async def close(self) -> None:
        """Stop making deltas."""
        await self._files.close()


def _name(old: StoredFile, new: StoredFile) -> str:
    return f"{old.sha256}-{new.sha256}.delta"


def main(old: Path, new: Path, path: Path) -> None:
    """Make a delta, or the empty file that says that none pays."""
    os.nice(NICENESS)
    if delta_of(old, new, path) is None:
        write_bytes(path, b"")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
