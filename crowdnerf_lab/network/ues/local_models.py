"""The models that a UE holds: verified folders on its disk, and those of them that are loaded.

ROOT/000003/NAME/card.json    version 3's NAME, as `load_artefact` reads it
                 model.cnlf   a link to the verified file, or to what of it has arrived
"""

import asyncio
import logging
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.limits import memory_mb
from crowdnerf_lab.catalogue.verification import CARD, ArtefactError, read_card
from crowdnerf_lab.files import inside, write_json
from crowdnerf_lab.network.ue import LocalModel, load_artefact
from crowdnerf_lab.network.ues.answers import Offer
from crowdnerf_lab.network.ues.download import FileStore

log = logging.getLogger(__name__)

VERSIONS_KEPT = 2
"""On disk: the newest, and the one before it, from which a delta may lead on or to which the event may go back."""


@dataclass(frozen=True)
class HeldModel:
    """A model on this UE's disk, of a version of the event."""

    version: int
    artefact: Artefact

    @property
    def name(self) -> str:
        return self.artefact.card.name

    @property
    def card(self) -> ModelCard:
        return self.artefact.card


class LocalModels:
    """What a UE holds under `root`. threads: of its processor that a model may use."""

    def __init__(self, root: Path, *, threads: int = 1) -> None:
        self.root, self.threads = Path(root), threads
        self.store = FileStore(self.root / "files")
        self._loaded: dict[tuple[int, str], LocalModel] = {}
        self._loading = threading.Lock()
        self._whole = [model for model in self._on_disk() if self._is_whole(model)]

    @property
    def held(self) -> tuple[HeldModel, ...]:
        """Whole models, the newest version first."""
        return tuple(sorted(self._whole, key=lambda model: (-model.version, model.name)))

    def find(self, version: int, name: str) -> HeldModel | None:
        """A whole model of this version and name."""
        return next((model for model in self._whole if (model.version, model.name) == (version, name)), None)

    def expect(self, offer: Offer, *, version: int) -> HeldModel:
        """Make the folder of a model that is to come, with its card."""
        folder = inside(self.root, f"{version:06d}/{offer.card.name}")
        write_json(folder / CARD, offer.card.model_dump(mode="json"))
        return HeldModel(version, Artefact(folder, offer.card))

    def link(self, model: HeldModel, path: Path, *, file: str | None = None) -> None:
        """Let a file of the model's folder be this one; one that still grows is seen growing."""
        target = inside(model.artefact.folder, file or model.card.model)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)
        except OSError:  # a file system without links: what has arrived so far, and again when all has
            shutil.copyfile(path, target)

    def keep(self, model: HeldModel, path: Path) -> HeldModel:
        """Count a model as held once its file is whole; older versions make room."""
        self.link(model, path)
        self._whole = [other for other in self._whole if (other.version, other.name) != (model.version, model.name)]
        self._whole.append(model)
        self._loaded.pop((model.version, model.name), None)
        versions = sorted({other.version for other in self._whole}, reverse=True)[:VERSIONS_KEPT]
        for old in [other for other in self._whole if other.version not in versions]:
            self.drop(old)
        self.store.prune({file.sha256 for held in self._whole for file in held.card.files})
        return model

    def drop(self, model: HeldModel) -> None:
        """Remove a model from memory and disk."""
        self._whole = [other for other in self._whole if other is not model]
        self._loaded.pop((model.version, model.name), None)
        shutil.rmtree(model.artefact.folder, ignore_errors=True)

    def loaded(self, model: HeldModel) -> LocalModel | None:
        """The model, if it is in memory."""
        return self._loaded.get((model.version, model.name))

    async def load(self, model: HeldModel, *, memory: float, partial: bool = False) -> LocalModel:
        """Verify and load a model, off the event loop; others are unloaded that do not fit into `memory` MB beside it.

        partial: the layers of a progressive file that are here. Raises ArtefactError; a file on disk that has been
        damaged is removed then.
        """
        ready = self.loaded(model)
        if ready is not None and (partial or ready.complete):
            return ready
        try:
            ready = await asyncio.to_thread(self._load, model.artefact.folder)
        except ArtefactError:
            if not partial:
                self.store.forget(next(f.sha256 for f in model.card.files if f.path == model.card.model))
                self.drop(model)
            raise
        self._loaded[(model.version, model.name)] = ready
        self.fit_into(memory, keeping=model)
        return ready

    def fit_into(self, memory: float, *, keeping: HeldModel | None = None) -> None:
        """Unload what does not fit into so many MB, oldest first; `keeping` last."""
        kept = (keeping.version, keeping.name) if keeping else None
        cards = {(model.version, model.name): model.card for model in self._whole}
        while sum(memory_mb(cards[key]) for key in self._loaded if key in cards) > memory:
            others = [key for key in sorted(self._loaded) if key != kept]
            if not others:
                return
            del self._loaded[others[0]]

    def unload(self) -> None:
        """Give all models' memory back; they stay on disk."""
        self._loaded.clear()

    def _load(self, folder: Path) -> LocalModel:
        # The pictures by which others measure a model need not be here: the prefix, or the whole, is verified alone.
        with self._loading:
            return load_artefact(folder, threads=self.threads, allow_partial=True)

    def _is_whole(self, model: HeldModel) -> bool:
        path = model.artefact.model
        return path.is_file() and path.stat().st_size == model.card.bytes

    def _on_disk(self) -> list[HeldModel]:
        found = []
        for card in sorted(self.root.glob(f"[0-9]*/*/{CARD}")):
            try:
                described = ModelCard.model_validate(read_card(card.parent))
                found.append(HeldModel(int(card.parent.parent.name), Artefact(card.parent, described)))
            except (ValidationError, ValueError) as error:
                log.warning("%s is left out: %s", card.parent, error)
        return found
