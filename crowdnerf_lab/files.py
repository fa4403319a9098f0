"""Files that are either whole or absent: atomic writes, checksums, and paths that stay inside their folder."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any


class FileError(OSError):
    """A file that cannot be read or written; the message names it and the remedy."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary neighbour of `path`, then move it into place: the old file or the new, never half.

    Raises FileError when the disk is full or the folder cannot be written; nothing half-written stays behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(
            f"could not write {path}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomically(path, lambda temporary: _fill(temporary, content))


def write_copy(path: Path, source: Path) -> Path:
    """Copy a file's bytes atomically."""
    return write_atomically(path, lambda temporary: _copied(source, temporary))


def write_json(path: Path, document: Any) -> Path:
    """Write a JSON document atomically, readable by people."""
    return write_bytes(path, (json.dumps(document, indent=1, sort_keys=False, allow_nan=False) + "\n").encode())


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, relative: str) -> Path:
    """`root/relative`, refused when `relative` is absolute, climbs out with '..', or leaves through a symbolic link."""
    parts = PurePosixPath(relative.replace("\\", "/"))
    if not parts.parts or "\0" in relative or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise FileError(f"path {relative!r} does not stay inside {root}; use a relative path without '..'")
    path = Path(root) / parts
    if not path.resolve().is_relative_to(Path(root).resolve()):
        raise FileError(f"path {relative!r} leaves {root} through a symbolic link; copy the file into the folder")
    return path


def _copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _fill(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
