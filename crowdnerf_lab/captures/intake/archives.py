"""Uploads in archives, unpacked as if their sender meant harm: whole and inside one new folder, or not at all.

Refused: more bytes, entries or compression than the limits; entries that overlap (Fifield, A better zip bomb, 2019);
names that are absolute, climb out, name a Windows device or stream, or meet each other in a file system that folds case
or accents; links, devices, sparse and encrypted entries. Archives within an archive are not unpacked, only reported;
so is what a Mac adds of its own. Sizes are counted as they are written: what headers declare is not believed.
"""

import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from crowdnerf_lab.captures.bundle import LeftOut

ZIP_SUFFIXES = (".zip", ".r3d")
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
OTHER_SUFFIXES = (".7z", ".rar", ".zst", ".tar.zst", ".gz", ".bz2", ".xz", ".cab", ".iso", ".dmg", ".jar", ".apk")
"""Archives that are recognised in order to be refused."""
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
_MAC_EXTRAS = ("__MACOSX", ".DS_Store")
_CHUNK = 1 << 20
_LOCAL_HEADER = 30
"""Bytes of a zip entry's own header before its name."""
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # also of a compression that Python cannot undo
    ValueError,
    OverflowError,
)


class ArchiveError(ValueError):
    """An archive that is not unpacked; the message names the archive, the entry and the remedy."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold. total_bytes and entry_bytes: unpacked; entries: files and folders together; ratio:
    unpacked over packed bytes (deflate reaches 1032, photos stay near 1, logs near 30); depth: folders in folders."""

    total_bytes: int = 16 << 30
    entry_bytes: int = 4 << 30
    entries: int = 20_000
    ratio: float = 200.0
    depth: int = 16


@dataclass(frozen=True)
class Unpacked:
    """The folder that an archive was unpacked into, and what was left in the archive."""

    folder: Path
    left_out: tuple[LeftOut, ...]


def is_archive(path: Path | str) -> bool:
    """Whether a file calls itself an archive, of a kind that can be unpacked or not."""
    path = Path(path)
    return path.is_file() and path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES + OTHER_SUFFIXES)


def unpack(archive: Path | str, into: Path | str, *, limits: ArchiveLimits = ArchiveLimits()) -> Unpacked:
    """Unpack a .zip, .r3d or .tar (plain, gz, bz2, xz) into the folder `into`, which must not exist yet.

    Raises ArchiveError for anything that the module refuses; then nothing is left behind.
    """
    archive, into = Path(archive), Path(into)
    if into.exists():
        raise ArchiveError(f"{archive}: {into} exists already; unpack into a new folder")
    if not archive.is_file():
        raise ArchiveError(f"{archive} does not exist; give a .zip or .tar file")
    into.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}.", suffix=".partial"))
    try:
        unpacking = _Unpacking(archive, building, limits=limits)
        if archive.name.lower().endswith(ZIP_SUFFIXES):
            _unzip(unpacking)
        elif archive.name.lower().endswith(TAR_SUFFIXES):
            _untar(unpacking)
        else:
            raise ArchiveError(f"{archive} is an archive of a kind that is not unpacked; send a .zip or .tar.gz")
        os.replace(building, into)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Unpacked(folder=into, left_out=tuple(unpacking.left_out))


@dataclass
class _Unpacking:
    """An archive on its way into a folder, and what has been counted so far."""

    archive: Path
    folder: Path
    limits: ArchiveLimits
    left_out: list[LeftOut] = field(default_factory=list)
    entries: int = 0
    total: int = 0
    taken: dict[str, str] = field(default_factory=dict)
    """Folded path -> 'file' or 'folder'."""

    def error(self, entry: str, problem: str) -> ArchiveError:
        return ArchiveError(f"{self.archive}: entry {entry!r:.200} {problem}")

    def admitted(self, entry: str, *, is_folder: bool) -> PurePosixPath | None:
        """Where an entry goes inside the folder, or None when it is left out. Raises ArchiveError for unsafe names."""
        self.entries += 1
        if self.entries > self.limits.entries:
            raise ArchiveError(
                f"{self.archive} has more than {self.limits.entries} entries; send it in several archives"
            )
        name = self._checked(entry)
        if not name.parts and is_folder:
            return None
        if not name.parts:
            raise self.error(entry, "has no name; pack again")
        if name.parts[0] == "__MACOSX" or name.name in _MAC_EXTRAS or name.name.startswith("._"):
            return None
        if not is_folder and name.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES + OTHER_SUFFIXES):
            problem = "an archive inside an archive is not unpacked; send it by itself"
            self.left_out.append(LeftOut(f"{self.archive.name}/{name}", problem))
            return None
        self._claim(entry, name, is_folder=is_folder)
        return name

    def write(self, entry: str, name: PurePosixPath, read: Callable[[int], bytes]) -> None:
        """Copy an entry's bytes into the folder, counting."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size, packed = 0, max(self.archive.stat().st_size, 1)
        with path.open("xb") as target:
            while chunk := read(_CHUNK):
                size, self.total = size + len(chunk), self.total + len(chunk)
                if size > self.limits.entry_bytes:
                    raise self.error(entry, f"has more than {self.limits.entry_bytes} bytes; cut or shrink it")
                if self.total > self.limits.total_bytes:
                    raise self.error(
                        entry, f"brings the archive beyond {self.limits.total_bytes} bytes; send several archives"
                    )
                if self.total > 10 * _CHUNK and self.total / packed > self.limits.ratio:
                    raise self.error(
                        entry,
                        f"unpacks to more than {self.limits.ratio:g} times the archive's size, as bombs do; "
                        "send the files in another way",
                    )
                target.write(chunk)

    def _checked(self, entry: str) -> PurePosixPath:
        text = unicodedata.normalize("NFC", entry.replace("\\", "/"))
        name = PurePosixPath(text)
        if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text) or "\x7f" in text:
            raise self.error(entry, "has control characters in its name; rename it and pack again")
        if name.is_absolute() or ".." in name.parts or text.startswith("~"):
            raise self.error(entry, "leaves the folder it is unpacked into; pack with relative names only")
        if ":" in text:
            raise self.error(entry, "has ':' in its name, a drive or a stream on Windows; rename it and pack again")
        for part in name.parts:
            if part != part.rstrip(". ") or part.split(".")[0].rstrip().lower() in _WINDOWS_DEVICES:
                raise self.error(entry, f"has {part!r} in its name, which Windows cannot hold; rename it")
            if len(part.encode()) > 255:
                raise self.error(entry, "has a name longer than 255 bytes; rename it and pack again")
        if len(name.parts) > self.limits.depth:
            raise self.error(entry, f"lies more than {self.limits.depth} folders deep; pack it flatter")
        return name

    def _claim(self, entry: str, name: PurePosixPath, *, is_folder: bool) -> None:
        """Raise ArchiveError when an entry meets another one's name, as a folding file system sees it."""
        meets = self.error(entry, "has the name of another entry (case and accents do not count); rename one of them")
        for folder in (*name.parents, *([name] if is_folder else ())):
            if self.taken.setdefault(_folded(folder), "folder") == "file":
                raise meets
        if not is_folder:
            if _folded(name) in self.taken:
                raise meets
            self.taken[_folded(name)] = "file"


def _folded(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFKC", str(name)).casefold()


@contextmanager
def _damage_named(unpacking: _Unpacking, entry: str = "") -> Iterator[None]:
    """What the standard library raises over a damaged archive becomes an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except _DAMAGE as error:
        about = f": entry {entry!r:.200}" if entry else ""
        raise ArchiveError(
            f"{unpacking.archive}{about} is damaged or of an unknown kind ({error}); pack and upload it again"
        ) from None


def _unzip(unpacking: _Unpacking) -> None:
    with _damage_named(unpacking), zipfile.ZipFile(unpacking.archive) as opened:
        entries = opened.infolist()
        if len(entries) > unpacking.limits.entries:
            raise ArchiveError(
                f"{unpacking.archive} has {len(entries)} entries, more than {unpacking.limits.entries}; "
                "send it in several archives"
            )
        _check_zip_entries(unpacking, entries, end=opened.start_dir)
        for entry in entries:
            is_folder = entry.filename.endswith("/")
            name = unpacking.admitted(entry.filename, is_folder=is_folder)
            if name is None:
                continue
            if is_folder:
                (unpacking.folder / name).mkdir(parents=True, exist_ok=True)
                continue
            with _damage_named(unpacking, entry.filename), opened.open(entry) as source:
                unpacking.write(entry.filename, name, source.read)


def _check_zip_entries(unpacking: _Unpacking, entries: list[zipfile.ZipInfo], *, end: int) -> None:
    """Refuse by the central directory what need not be opened: encrypted, linked, huge or overlapping entries."""
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise unpacking.error(entry.filename, "is encrypted; pack again without a password")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise unpacking.error(entry.filename, "is a link or a device; pack the file itself")
        if entry.file_size > unpacking.limits.entry_bytes:
            raise unpacking.error(entry.filename, f"has {entry.file_size} bytes; cut or shrink it")
    if sum(entry.file_size for entry in entries) > unpacking.limits.total_bytes:
        raise ArchiveError(
            f"{unpacking.archive} unpacks to more than {unpacking.limits.total_bytes} bytes; send several archives"
        )
    placed = sorted(entries, key=lambda entry: entry.header_offset)
    limits = [entry.header_offset for entry in placed[1:]] + [end]
    for entry, limit in zip(placed, limits, strict=True):
        if entry.header_offset + _LOCAL_HEADER + entry.compress_size > limit:
            raise unpacking.error(entry.filename, "overlaps another entry, as in zip bombs; pack again")


def _untar(unpacking: _Unpacking) -> None:
    with _damage_named(unpacking), tarfile.open(unpacking.archive, "r|*") as opened:
        for entry in opened:
            if entry.issparse() or not (entry.isreg() or entry.isdir()):
                raise unpacking.error(entry.name, "is a link, a device or a sparse file; pack the file itself")
            if entry.size > unpacking.limits.entry_bytes:
                raise unpacking.error(entry.name, f"has {entry.size} bytes; cut or shrink it")
            name = unpacking.admitted(entry.name, is_folder=entry.isdir())
            if name is None:
                continue
            if entry.isdir():
                (unpacking.folder / name).mkdir(parents=True, exist_ok=True)
                continue
            with _damage_named(unpacking, entry.name):
                source = opened.extractfile(entry)
                assert source is not None
                unpacking.write(entry.name, name, source.read)
