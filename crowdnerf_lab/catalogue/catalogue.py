"""Catalogue: the versions of an event's models on disk, each whole or absent, and an index that can be made anew.

    files/ab/abcd...                          every file once, by its SHA-256
    events/EVENT/000001/version.json          one version: when, why, which artefacts
                       /withdrawn.json        there once the version was withdrawn, with the reason
                       /NAME/card.json, ...   an artefact's folder, as a UE loads it; its files are links into files/
    index.sqlite                              what the folders say, to be asked quickly
    lock.sqlite                               held by whoever writes; SQLite frees it when its holder dies

The folders are the truth. A version appears by one rename, so a publisher that dies leaves a draft, which the next one
removes, or a version that the index lacks, which the next reader adds. Local disks only: SQLite's locks need them.
"""

import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.index import Index, IndexedRow, IndexedVersion
from crowdnerf_lab.catalogue.verification import CARD
from crowdnerf_lab.files import FileError, sha256_of, write_atomically, write_json

log = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "crowdnerf_lab.catalogue_version", 1
EVENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
NUMBERED = re.compile(r"\d{6,}")
PATIENCE_S = 60.0
"""How long a writer waits for another one."""


class CatalogueError(ValueError):
    """A catalogue that cannot do what was asked; the message names the event, the version and the remedy."""


@dataclass(frozen=True)
class Version:
    """One published state of an event's models. published: Unix time. withdrawn: why it must no longer be given out."""

    event: str
    number: int
    published: float
    note: str
    artefacts: tuple[str, ...]
    withdrawn: str | None = None


class Catalogue:
    """The versions of every event's models under one folder; safe to read and to publish from several processes."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        try:
            for name in ("files", "events"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"cannot use {self.root} as a catalogue: {error.strerror}; choose another folder"
            ) from error
        self._index = Index(self.root / "index.sqlite")

    def publish(self, artefacts: Iterable[Artefact], *, event: str, note: str = "") -> Version:
        """Add a version of an event's models: all of these artefacts, verified, or nothing.

        Files that the catalogue holds already are not stored again. Raises ArtefactError when one is not what its card
        says, CatalogueError for names that cannot be, FileError when the disk is full.
        """
        if not EVENT.fullmatch(event):
            raise CatalogueError(f"event {event!r} cannot be a folder's name; use letters, digits, '_', '.' and '-'")
        offered = list(artefacts)
        names = tuple(sorted(artefact.card.name for artefact in offered))
        if not names or len(set(names)) != len(names):
            raise CatalogueError(f"a version of {event} needs artefacts of different names, not {list(names)}")
        try:
            with self._locked():
                return self._published(offered, event=event, note=note, names=names)
        except OSError as error:
            raise FileError(
                f"could not publish a version of {event} in {self.root}: {error.strerror or error}; free some space"
            ) from error

    def events(self) -> tuple[str, ...]:
        """Events that have versions."""
        return tuple(sorted(folder.name for folder in (self.root / "events").iterdir() if self._folders(folder.name)))

    def versions(self, event: str) -> tuple[Version, ...]:
        """All versions of an event, the first first, withdrawn ones too. CatalogueError for an event without any."""
        found = [Version(event, *row) for row in self._indexed(event)]
        if not found:
            known = ", ".join(self.events()) or "no event yet"
            raise CatalogueError(f"the catalogue {self.root} has no event {event!r}; it has {known}")
        return tuple(found)

    def latest(self, event: str) -> Version | None:
        """The newest version that was not withdrawn."""
        return next((version for version in reversed(self.versions(event)) if version.withdrawn is None), None)

    def artefacts(self, event: str, version: int | None = None) -> tuple[Artefact, ...]:
        """The artefacts of a version, by default the latest; none when all are withdrawn.

        They were verified when they were published; whoever loads one verifies it again.
        """
        chosen = self.latest(event) if version is None else self._version(event, version)
        if chosen is None:
            return ()
        folder = self._folder(event, chosen.number)
        cards = dict(self._index.cards(event, chosen.number))
        return tuple(Artefact(folder / name, ModelCard.model_validate_json(cards[name])) for name in chosen.artefacts)

    def withdraw(self, event: str, version: int, *, reason: str) -> Version | None:
        """Give a version out no longer, which makes the one before it the latest again. Returns the latest then.

        Its folder stays, for those who hold it; its number is never used again.
        """
        with self._locked():
            self._version(event, version)
            write_json(self._folder(event, version) / "withdrawn.json", {"reason": reason, "withdrawn": time.time()})
            self._index.put(event, [self._read(event, version)])
        log.info("%s: version %d withdrawn: %s", event, version, reason)
        return self.latest(event)

    def _published(self, offered: Sequence[Artefact], *, event: str, note: str, names: tuple[str, ...]) -> Version:
        """Under the lock: store what is new, link a draft together, verify it, rename it into place, and index it."""
        parent = self.root / "events" / event
        parent.mkdir(parents=True, exist_ok=True)
        for dead in parent.glob(".draft.*"):
            shutil.rmtree(dead, ignore_errors=True)
        number = 1 + max((number for number, _ in self._folders(event)), default=0)
        version = Version(event, number, time.time(), note, names)
        draft = Path(tempfile.mkdtemp(dir=parent, prefix=".draft."))
        try:
            for artefact in offered:
                self._link(open_artefact(artefact.folder), draft / artefact.card.name)
            document = {"format": FORMAT, "version": FORMAT_VERSION, "number": number, "published": version.published}
            write_json(draft / "version.json", document | {"note": note, "artefacts": list(names)})
            draft.chmod(0o755)
            _flush(draft)
            os.rename(draft, self._folder(event, number))
            _flush(parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._index.put(event, [self._read(event, number)])
        log.info("%s: version %d with %d artefacts", event, number, len(names))
        return version

    def _link(self, artefact: Artefact, folder: Path) -> None:
        """An artefact's folder in a draft: links to stored files, verified at the place where they will be read."""
        for listed in artefact.card.files:
            stored = self.root / "files" / listed.sha256[:2] / listed.sha256
            if not stored.exists() or sha256_of(stored) != listed.sha256:
                source = artefact.folder / listed.path
                write_atomically(stored, lambda temporary, source=source: _copied(source, temporary))
                stored.chmod(0o444)
            target = folder / listed.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(stored, target)
            except OSError:  # a file system without links, or with too many of this file
                shutil.copyfile(stored, target)
        write_json(folder / CARD, artefact.card.model_dump(mode="json"))
        open_artefact(folder)
        _flush(folder)

    def _version(self, event: str, number: int) -> Version:
        versions = self.versions(event)
        found = next((version for version in versions if version.number == number), None)
        if found is None:
            known = ", ".join(str(version.number) for version in versions)
            raise CatalogueError(f"{event} has no version {number}; it has {known}")
        return found

    def _folder(self, event: str, number: int) -> Path:
        return self.root / "events" / event / f"{number:06d}"

    def _folders(self, event: str) -> list[tuple[int, bool]]:
        """Numbers of the versions on disk, and whether each was withdrawn."""
        parent = self.root / "events" / event
        if not EVENT.fullmatch(event) or not parent.is_dir():
            return []
        numbered = [folder for folder in parent.iterdir() if NUMBERED.fullmatch(folder.name)]
        return sorted((int(folder.name), (folder / "withdrawn.json").exists()) for folder in numbered)

    def _indexed(self, event: str) -> list[IndexedRow]:
        """Rows of an event's versions, after the index was brought up to what is on disk."""
        rows = self._index.versions(event)
        if _known(rows) == self._folders(event):
            return rows
        with self._locked():
            known, there = set(_known(self._index.versions(event))), set(self._folders(event))
            gone = [number for number, _ in known - there]
            self._index.put(event, [self._read(event, number) for number, _ in there - known], forget=gone)
        return self._index.versions(event)

    def _read(self, event: str, number: int) -> IndexedVersion:
        folder = self._folder(event, number)
        document = _document(folder / "version.json")
        withdrawn = folder / "withdrawn.json"
        try:
            names = [str(name) for name in document["artefacts"]]
            published, note = float(document["published"]), str(document["note"])
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogueError(f"{folder / 'version.json'} is damaged ({error}); remove {folder}") from error
        return IndexedVersion(
            number=number,
            published=published,
            note=note,
            withdrawn=str(_document(withdrawn).get("reason", "")) if withdrawn.exists() else None,
            cards=tuple((name, (folder / name / CARD).read_text(encoding="utf-8")) for name in names),
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, whatever process it is in. A writer that dies lets go."""
        with closing(sqlite3.connect(self.root / "lock.sqlite", timeout=PATIENCE_S, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise CatalogueError(
                    f"somebody has been writing to {self.root} for {PATIENCE_S:.0f} s ({error}); try again later"
                ) from error
            yield


def _known(rows: Sequence[IndexedRow]) -> list[tuple[int, bool]]:
    """Numbers of the versions in the index, and whether each is withdrawn there."""
    return [(row[0], row[4] is not None) for row in rows]


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise CatalogueError(f"cannot read {path}: {error.strerror}; remove {path.parent}") from error
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{path} is not JSON ({error}); remove {path.parent}") from error
    if not isinstance(document, dict):
        raise CatalogueError(f"{path} is no JSON object; remove {path.parent}")
    return document


def _copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _flush(folder: Path) -> None:
    """Have a folder's entries survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
