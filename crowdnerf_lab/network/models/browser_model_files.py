"""What browsers run of artefacts, as the service keeps it: made when the first browser asks, once for all."""

from pathlib import Path

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.fields.baked_rows import FORMAT as BAKED_ROWS
from crowdnerf_lab.network.models.downloads import StoredFile
from crowdnerf_lab.network.models.made_files import MadeFiles
from crowdnerf_lab.network.models.negotiation import Coding

LAYOUT = f"2.{BAKED_ROWS.rpartition('/')[2]}"
"""In the files' names, so that nothing older is given out: of how they are made here (counts up), and of rows."""


class BrowserModelFiles:
    """Files of `browser_models`, and gzip'd ones beside them, in a folder that may be removed at any time."""

    def __init__(self, folder: Path) -> None:
        module = "crowdnerf_lab.network.models.browser_models"
        self._files = MadeFiles(folder, module=module, media_type="application/octet-stream")

    async def of(self, artefact: Artefact, model: StoredFile, *, wait_s: float) -> StoredFile | None:
        """What a browser runs of an artefact with this model; None when no browser can run it, and while it is not
        there after so many seconds."""
        what = f"{artefact.card.name} for browsers"
        return await self._files.made(_name(model), (artefact.folder,), what=what, wait_s=wait_s)

    def under_way(self, model: StoredFile) -> bool:
        """Whether what a browser runs of this model is being made."""
        return self._files.under_way(_name(model))

    async def coded(self, file: StoredFile, coding: Coding, *, wait: bool = False) -> StoredFile | None:
        """One of these files in a coding; gzip is always there, others never. wait: makes no difference."""
        packed = file.path.with_name(file.path.name + ".gz")
        if coding != "gzip" or not packed.is_file():
            return None
        return StoredFile(packed, packed.stat().st_size, f"{file.sha256}.gzip", file.media_type)

    async def close(self) -> None:
        """Stop making files."""
        await self._files.close()


def _name(model: StoredFile) -> str:
    return f"{model.sha256}.{LAYOUT}"
