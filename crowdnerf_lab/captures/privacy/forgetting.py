"""forget: remove one contributor from captures, from what was published of them, and from caches.

Models are not touched: those that learned from the contributor are named, to be trained again or withdrawn.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.captures.bundle import MANIFEST
from crowdnerf_lab.captures.privacy.erasure import Erased, ForgetError, delete, erase, finish, knows, noted, pixels_of
from crowdnerf_lab.captures.privacy.publishing import publications_of, write_ledger
from crowdnerf_lab.captures.privacy.tombstones import set_tombstone, was_forgotten
from crowdnerf_lab.catalogue.verification import CARD
from crowdnerf_lab.contributors import contributors_in

__all__ = ["ForgetError", "ForgetReport", "forget", "was_forgotten"]

logger = logging.getLogger(__name__)

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
CACHED = PICTURES | {".npy", ".npz", ".db", ".db-wal", ".db-shm", ".bin", ".txt", ".json", ".ply", ".partial"}
"""Kinds of files that caches consist of. A folder that holds others is no cache, and is not touched."""
WEIGHTS = {".safetensors", ".onnx"}
Paths = Path | str | Sequence[Path | str]


@dataclass(frozen=True)
class ForgetReport:
    """What became of one contributor.

    removed: files that are gone; shared: files with the same bytes that another contributor has sent too, which stay;
    caches: what was deleted of them; published: folders that are clean; unreached: published folders that are not
    where they were written. trained: models that learned from the contributor; silent: models that do not say whom they
    learned from. earlier: the contributor had been forgotten before.
    """

    removed: tuple[Path, ...]
    shared: tuple[Path, ...]
    caches: tuple[Path, ...]
    published: tuple[Path, ...]
    unreached: tuple[Path, ...]
    trained: tuple[Path, ...]
    silent: tuple[Path, ...]
    earlier: bool

    def summary(self) -> str:
        """One line, without the name."""
        return (
            f"{len(self.removed)} files removed, {len(self.caches)} caches deleted, {len(self.published)} published "
            f"folders clean and {len(self.unreached)} not found; {len(self.trained)} models learned from them (train "
            f"them again or withdraw them), {len(self.silent)} do not say whom they learned from"
        )


def forget(
    ue: str,
    captures: Paths,
    *,
    caches: Paths = (),
    published: Paths = (),
    models: Paths = (),
    tombstone: bool = True,
) -> ForgetReport:
    """Remove the contributor `ue` from folders of captures (each with a manifest.json) and from what came of them.

    Publications are found through the captures' ledger; published: where those are that have been moved since. caches:
    folders of structure from motion and of pseudo views; what holds a picture of theirs, or no picture to judge by, is
    deleted and can be made again. models: folders searched for models. tombstone: remember a salted hash, so that
    `was_forgotten` tells when the name comes back. Killed at any moment, the same call finishes the work.

    Raises ForgetError, and removes nothing, for a name that no folder knows, for a manifest that names files outside of
    its folder and for caches that are none; CaptureError for a damaged manifest; FileError when something cannot be
    removed: call it again then.
    """
    roots = _paths(captures)
    units = [unit for cache in _paths(caches) for unit in _units(cache)]
    known = [root for root in roots if knows(root, ue) or any(True for _ in _publications(root, ue, ()))]
    earlier = any(was_forgotten(root, ue) for root in roots)
    if not known and not earlier:
        raise ForgetError(f"{', '.join(map(str, roots))}: there is no contributor {ue!r}; give one of their pseudonyms")
    notes = [noted(root, ue) for root in known]
    erased, clean, unreached = [], [], []
    for root, note in zip(known, notes, strict=True):
        erased.append(erase(root, note))
        for folder, pseudonym in _publications(root, ue, _paths(published)):
            if not (folder / MANIFEST).is_file():
                unreached.append(folder)
                continue
            erased.append(_erased_copy(folder, pseudonym))
            clean.append(folder)
            _strike(root, ue, pseudonym)
    pixels = {digest for note in notes for digest in note.pixels}
    cleared = [unit for unit in units if known and _clear(unit, pixels)]
    for root in known:
        if tombstone:
            set_tombstone(root, ue)
        finish(root, ue)
    trained, silent = _models(_paths(models), ue)
    report = ForgetReport(
        removed=tuple(path for part in erased for path in part.removed),
        shared=tuple(path for part in erased for path in part.shared),
        caches=tuple(path for unit in cleared for path in unit),
        published=tuple(clean),
        unreached=tuple(unreached),
        trained=trained,
        silent=silent,
        earlier=earlier,
    )
    logger.info("forgotten: %s", report.summary())
    return report


def _paths(given: Paths) -> list[Path]:
    return [Path(given)] if isinstance(given, (str, Path)) else [Path(path) for path in given]


def _publications(root: Path, ue: str, moved: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The folders that the contributor was published in, where they are now, and under what name."""
    for publication in publications_of(root):
        pseudonym = publication.pseudonyms.get(ue)
        if pseudonym is not None:
            here = (folder for folder in moved if (folder / MANIFEST).is_file() and knows(folder, pseudonym))
            yield next(here, Path(publication.folder)), pseudonym


def _erased_copy(folder: Path, pseudonym: str) -> Erased:
    if not knows(folder, pseudonym):
        return Erased((), ())
    erased = erase(folder, noted(folder, pseudonym))
    finish(folder, pseudonym)
    return erased


def _strike(root: Path, ue: str, pseudonym: str) -> None:
    """Take the contributor out of the ledger's entry for one publication."""
    publications = []
    for publication in publications_of(root):
        kept = {name: other for name, other in publication.pseudonyms.items() if (name, other) != (ue, pseudonym)}
        publications.append(publication.model_copy(update={"pseudonyms": kept}))
    write_ledger(root, tuple(publications))


def _units(cache: Path) -> Iterator[tuple[Path, ...]]:
    """What a cache consists of, each part made and deleted as a whole: its folders, and the files beside them."""
    if not cache.is_dir():
        return
    for path in cache.rglob("*"):
        if path.is_file() and (path.suffix not in CACHED or path.name in (MANIFEST, CARD)):
            raise ForgetError(f"{cache} holds {path.name}, so it is no cache; nothing was removed, name caches alone")
    children = sorted(cache.iterdir())
    yield from ((child,) for child in children if child.is_dir())
    if files := tuple(child for child in children if not child.is_dir()):
        yield files


def _clear(unit: tuple[Path, ...], pixels: set[str]) -> bool:
    """Delete part of a cache if it shows one of these pictures, or no picture at all by which to tell. Did it?

    The tell-tale pictures go last, so that a kill leaves something to tell by.
    """
    files = [file for path in unit for file in (sorted(path.rglob("*")) if path.is_dir() else (path,))]
    shown = {file: digest for file in files if file.suffix in PICTURES and (digest := pixels_of(file))}
    if shown and not pixels & set(shown.values()):
        return False
    for path in sorted(files, key=lambda file: shown.get(file) in pixels):
        if not path.is_dir():
            delete(path)
    for path in unit:
        delete(path)
    return True


def _models(folders: Sequence[Path], ue: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Models that learned from a contributor, and those that do not say; an artefact is its folder."""
    told: dict[Path, tuple[str, ...] | None] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.name == CARD:
                told[path.parent] = contributors_in(path)
            elif path.suffix in WEIGHTS and not (path.parent / CARD).is_file():
                told[path] = contributors_in(path)
    return (
        tuple(path for path, names in told.items() if names is not None and ue in names),
        tuple(path for path, names in told.items() if names is None),
    )
