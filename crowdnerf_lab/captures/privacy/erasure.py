"""One contributor removed from one folder of captures, so that a kill at any moment leaves the rest to the next call.

First a note says what is to go; then the manifest, and the journal of an ingest, are replaced by ones without the
contributor; then the files go, with copies of them under other names. The note goes last.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from crowdnerf_lab.captures.bundle import MANIFEST, Manifest
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.privacy.records import read_record
from crowdnerf_lab.files import FileError, inside, sha256_of, write_bytes, write_json

INGEST_JOURNAL = ".ingest.jsonl"
"""What an interrupted ingest leaves beside the manifest: one line of JSON a file, with its `ue` and its `photos`."""


class ForgetError(ValueError):
    """A contributor who cannot be forgotten as asked for; the message says why and what to do."""


class Note(BaseModel):
    """What is to go from one folder. sizes: bytes of the files by their SHA-256; pixels: hashes of what they show."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ue: str
    files: tuple[str, ...]
    sizes: dict[str, int]
    pixels: tuple[str, ...]


@dataclass(frozen=True)
class Erased:
    """removed: what is gone from a folder; shared: files with the same bytes that others have sent too, which stay."""

    removed: tuple[Path, ...]
    shared: tuple[Path, ...]


def knows(root: Path, ue: str) -> bool:
    """Whether a folder still has something of a contributor, or a note on it. CaptureError: a damaged manifest."""
    manifest = _manifest(root)
    return (
        note_path(root, ue).is_file()
        or any(record.ue == ue for record in (*manifest.captures, *manifest.views))
        or any(entry.get("ue") == ue for _, entry in _ingested(root))
    )


def note_path(root: Path, ue: str) -> Path:
    """Where the note on a contributor lies while there is one."""
    return Path(root) / f".forgetting-{hashlib.sha256(ue.encode()).hexdigest()[:16]}.json"


def noted(root: Path, ue: str) -> Note:
    """The note on what is to go: that of a call that was killed, or a new one, on disk.

    Raises ForgetError for a manifest that names files outside of the folder, CaptureError for a damaged one.
    """
    path = note_path(root, ue)
    if path.is_file():
        return read_record(path, Note)
    manifest = _manifest(root)
    theirs = [record for record in (*manifest.captures, *manifest.views) if record.ue == ue]
    files = {file for record in theirs for file in _files_in(record.model_dump(mode="json"))}
    files |= {file for _, entry in _ingested(root) if entry.get("ue") == ue for file in _files_in(entry.get("photos"))}
    files |= set(_own_folder(root, ue, _without(manifest, ue)))
    entries = [_entry(root, file) for file in sorted(files)]
    present = [entry for entry in entries if entry.is_file() and not entry.is_symlink()]
    note = Note(
        ue=ue,
        files=tuple(sorted(files)),
        sizes={sha256_of(entry): entry.stat().st_size for entry in present},
        pixels=tuple({digest for entry in present if (digest := pixels_of(entry))}),
    )
    write_json(path, note.model_dump(mode="json"))
    return note


def erase(root: Path, note: Note) -> Erased:
    """Carry out a note; what is done already is passed over.

    Raises ForgetError, before anything goes, for a manifest that names files outside of the folder; FileError for a
    file that cannot be removed.
    """
    entries = [_entry(root, file) for file in note.files]
    manifest = _manifest(root)
    rest = _without(manifest, note.ue)
    if rest != manifest:
        write_json(root / MANIFEST, rest.model_dump(mode="json"))
    lines = list(_ingested(root))
    kept = [line for line, entry in lines if entry.get("ue") != note.ue]
    if len(kept) < len(lines):
        write_bytes(root / INGEST_JOURNAL, b"".join(kept))
    for path in entries:
        delete(path)
        _delete_empty(path.parent, root)
    named = {_entry(root, file) for file in _files_in(rest.model_dump(mode="json"))}
    copies = [path for path in sorted(root.rglob("*")) if _is_among(path, note.sizes)]
    for path in copies:
        if path not in named:
            delete(path)
    gone = (*entries, *(path for path in copies if path not in named))
    return Erased(tuple(dict.fromkeys(gone)), tuple(path for path in copies if path in named))


def finish(root: Path, ue: str) -> None:
    """Remove the note, after what killed calls have left half-written."""
    for partial in root.rglob(".*.partial"):
        delete(partial)
    delete(note_path(root, ue))


def delete(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a folder; nothing to do when it is gone. FileError."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"could not remove {path}: {error.strerror or error}; allow it and forget again") from error


def pixels_of(path: Path) -> str | None:
    """A hash of what a picture shows, the same for every lossless copy; None for what is no picture."""
    try:
        image = read_photo(path)
    except PhotoError:
        return None
    return hashlib.sha256(repr(tuple(image.shape)).encode() + image.numpy().tobytes()).hexdigest()


def _manifest(root: Path) -> Manifest:
    """The manifest alone: files may be missing, as after a kill."""
    return read_record(Path(root) / MANIFEST, Manifest)


def _without(manifest: Manifest, ue: str) -> Manifest:
    captures = tuple(capture for capture in manifest.captures if capture.ue != ue)
    return manifest.model_copy(
        update={"captures": captures, "views": tuple(view for view in manifest.views if view.ue != ue)}
    )


def _files_in(record: Any) -> Iterator[str]:
    """Every file that a record names, whatever its field: `file`, `..._file`, and the clip that a frame comes from."""
    if isinstance(record, dict):
        for field, value in record.items():
            if isinstance(value, str) and (field in ("file", "from_clip") or field.endswith("_file")):
                yield value
            else:
                yield from _files_in(value)
    elif isinstance(record, list):
        for item in record:
            yield from _files_in(item)


def _own_folder(root: Path, ue: str, rest: Manifest) -> Iterator[str]:
    """What lies in a folder that is named after the contributor, as ingest does, unless others have files in it."""
    folder = _entry(root, ue)
    others = any(PurePosixPath(file).parts[0] == ue for file in _files_in(rest.model_dump(mode="json")))
    if folder.is_dir() and not folder.is_symlink() and not others:
        yield from (
            path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
        )


def _entry(root: Path, file: str) -> Path:
    """Where a named file lies within the folder; of a link, the link itself. ForgetError for a name that leads out."""
    name = PurePosixPath(file.replace("\\", "/"))
    try:
        folder = inside(root, str(name.parent)) if len(name.parts) > 1 else Path(root)
    except FileError as error:
        raise ForgetError(f"{root}: {error}; correct the manifest, nothing was removed") from None
    if name.name in ("", "..") or "\0" in file:
        raise ForgetError(f"{root}: {file!r} names no file; correct the manifest, nothing was removed")
    return folder / name.name


def _ingested(root: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of an ingest's journal, and what they say; a torn line says nothing."""
    path = Path(root) / INGEST_JOURNAL
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {}
        yield line, entry if isinstance(entry, dict) else {}


def _is_among(path: Path, sizes: dict[str, int]) -> bool:
    """Whether a file has one of these contents."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size not in sizes.values():
        return False
    return sha256_of(path) in sizes


def _delete_empty(folder: Path, root: Path) -> None:
    """Remove folders that are left with nothing, up to the root."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
