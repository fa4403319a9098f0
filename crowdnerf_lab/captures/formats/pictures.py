"""Finding pictures and videos in a folder that somebody else made: names as files on another system spelt them."""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from crowdnerf_lab.captures.bundle import LeftOut
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.exif import ROTATED
from crowdnerf_lab.captures.photos import PhotoError, read_metadata
from crowdnerf_lab.files import FileError, inside

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".heic", ".heif", ".hif", ".avif")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mts", ".m2ts")
MOST_FILES = 200_000
"""A folder with more files than this is refused; depth below it is limited, too."""
DEEPEST = 12
_LONGEST_NAME = 255
_PHOTO_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"avif", b"avis")
"""What the ftyp box of HEIC and AVIF files names; others are videos."""
_JUNK = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "lost+found"}
_SHRUNK = re.compile(r"^(?P<folder>.+)_(?P<factor>[1-9][0-9]?)$")
"""nerfstudio and LLFF keep shrunk copies of images/ in images_2/, images_4/ and so on."""


@dataclass(frozen=True)
class Picture:
    """A picture that was found. file: its name within the root; width, height: upright, pixels; orientation: how EXIF
    says it is stored; shrunk: how many times smaller than the one that was asked for, by its folder's name."""

    file: str
    width: int
    height: int
    orientation: int = 1
    shrunk: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels as they are stored."""
        return (self.height, self.width) if self.orientation in ROTATED else (self.width, self.height)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder, found by the names that other tools give them."""

    root: Path
    _names: dict[Path, dict[str, str]] = field(default_factory=dict, repr=False)

    def find(self, name: str) -> Picture | LeftOut:
        """The picture called `name`, which may lack its suffix, differ in case, or be there in images_2/ only.

        Raises CaptureError for a name that leaves the folder.
        """
        if not name.strip(". /\\"):
            return LeftOut(name or "?", f"{name!r} names no file; name the photo, or drop the entry")
        if not is_writable(name) and not _has_control_letters(name):
            return LeftOut(ascii(name[:80]), f"{name[:80]!a} is no name for a file; correct it, or drop the entry")
        wanted = self._within(name.strip().replace("\\", "/"))
        found, shrunk = self._found(wanted), 1
        if found is None:
            found, shrunk = self._shrunk_copy(wanted)
        if found is None:
            return LeftOut(str(wanted), f"{self.root / wanted} does not exist; put the photo back or drop its entry")
        return self.opened(found, shrunk=shrunk)

    def opened(self, file: str, *, shrunk: int = 1) -> Picture | LeftOut:
        """A picture by its true name, with its size."""
        try:
            metadata = read_metadata(self._inside(file))
        except PhotoError as error:
            return LeftOut(file, str(error))
        return Picture(file, metadata.width, metadata.height, metadata.orientation, shrunk)

    def _within(self, name: str) -> PurePosixPath:
        """The name below the root; of an absolute one, from another machine, the longest end that is there."""
        wanted = PurePosixPath(name)
        parts = wanted.parts[1:]
        if not wanted.is_absolute() and not re.match(r"[A-Za-z]:$", wanted.parts[0]):
            return wanted
        ends = (PurePosixPath(*parts[start:]) for start in range(len(parts)) if ".." not in parts)
        return next((end for end in ends if self._found(end)), wanted)

    def _found(self, wanted: PurePosixPath) -> str | None:
        if self._inside(str(wanted)).is_file():
            return str(wanted)
        folder = self._folder(wanted.parent)
        if folder is None:
            return None
        names = self._names_in(folder)
        low = _folded(wanted.name)
        stem = low[: -len(PurePosixPath(low).suffix)] if PurePosixPath(low).suffix in PHOTO_SUFFIXES else low
        for spelling in (low, *(stem + suffix for suffix in (".png", *PHOTO_SUFFIXES))):
            if spelling in names:
                return str(folder / names[spelling])
        return None

    def _shrunk_copy(self, wanted: PurePosixPath) -> tuple[str | None, int]:
        """The picture in images_2/ where images/ is not there."""
        if len(wanted.parts) < 2 or self._folder(PurePosixPath(wanted.parts[0])) is not None:
            return None, 1
        copies = []
        for name in self._names_in(PurePosixPath(".")).values():
            match = _SHRUNK.match(name)
            if match and _folded(match["folder"]) == _folded(wanted.parts[0]):
                copies.append((int(match["factor"]), name))
        for factor, name in sorted(copies):
            if found := self._found(PurePosixPath(name, *wanted.parts[1:])):
                return found, factor
        return None, 1

    def _folder(self, wanted: PurePosixPath) -> PurePosixPath | None:
        """A folder as it is truly spelt."""
        folder = PurePosixPath(".")
        for part in wanted.parts:
            if self._inside(str(folder / part)).is_dir():
                folder /= part
            elif (true := self._names_in(folder).get(_folded(part))) and (self.root / folder / true).is_dir():
                folder /= true
            else:
                return None
        return folder

    def _names_in(self, folder: PurePosixPath) -> dict[str, str]:
        """Folded name to true name of what lies in a folder."""
        path = self.root / folder
        if path not in self._names:
            entries = sorted(os.listdir(path)) if path.is_dir() else []
            self._names[path] = {_folded(name): name for name in reversed(entries)}
        return self._names[path]

    def _inside(self, name: str) -> Path:
        if _has_control_letters(name):
            raise CaptureError(f"{name[:80]!r} is no name for a file: it holds control characters; correct it")
        try:
            return inside(self.root, name)
        except FileError as error:
            raise CaptureError(str(error)) from None


def is_writable(name: str) -> bool:
    """Whether a name can stand in a manifest: valid Unicode without control characters, of a length files have."""
    try:
        lengths = [len(part.encode()) for part in re.split(r"[/\\]", name)]
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= 1024 and max(lengths) <= _LONGEST_NAME and not _has_control_letters(name)


def _has_control_letters(name: str) -> bool:
    return any(ord(letter) < 32 for letter in name)


def is_junk(name: str) -> bool:
    """Files that systems leave behind and nobody sent on purpose: hidden ones, thumbnails, archives' leftovers."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK


def is_photo(path: Path) -> bool:
    """By its name; a file without a suffix by its first bytes."""
    return path.suffix.lower() in PHOTO_SUFFIXES or (not path.suffix and _starts_like(path) == "photo")


def is_video(path: Path) -> bool:
    """By its name; a file without a suffix by its first bytes."""
    return path.suffix.lower() in VIDEO_SUFFIXES or (not path.suffix and _starts_like(path) == "video")


def _starts_like(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")) or start[8:12] == b"WEBP":
        return "photo"
    if start[4:8] == b"ftyp":
        return "photo" if start[8:12] in _PHOTO_BRANDS else "video"
    return "video" if start.startswith(b"\x1a\x45\xdf\xa3") else ""


def media_in(root: Path) -> tuple[list[str], list[str]]:
    """Photos and videos below a folder, sorted by name as people count, and the other files, relative to it.

    Links are not followed and count as other files. Raises CaptureError for more than MOST_FILES files.
    """
    media, others = [], []
    for count, (path, is_link) in enumerate(_walked(root, depth=0)):
        if count == MOST_FILES:
            raise CaptureError(f"{root} holds more than {MOST_FILES} files; give a folder with the captures alone")
        relative = path.relative_to(root).as_posix()
        (media if not is_link and (is_photo(path) or is_video(path)) else others).append(relative)
    return sorted(media, key=natural_order), sorted(others)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without junk."""
    return sorted(path for path in folder.iterdir() if not is_junk(path.name))


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts frame 2 before frame 10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((1, int(part), part) if part.isdecimal() and part.isascii() else (0, 0, part) for part in parts)


def _walked(folder: Path, *, depth: int) -> Iterator[tuple[Path, bool]]:
    if depth > DEEPEST:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_junk(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(Path(entry.path), depth=depth + 1)
            else:
                yield Path(entry.path), not entry.is_file(follow_symlinks=False)


def _folded(name: str) -> str:
    """Case and composition of letters (macOS decomposes them) do not tell names apart."""
    return unicodedata.normalize("NFC", name).casefold()
