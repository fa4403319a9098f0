"""Captures of any kind, recognised by what lies in their folder.

Known are the lab's own folders; transforms.json of nerfstudio, instant-ngp and Blender; COLMAP models; LLFF;
Phototourism tables; Polycam, Record3D, 3D Scanner App, Stray Scanner, ARKitScenes and other logs of ARKit and ARCore;
and folders of photos and videos as they come off phones. Each has a module in `formats` that says how its poses are
understood. Cameras that another tool found become `Photo.camera`, what a phone's GPS and compass said `Photo.gps`.
"""

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from crowdnerf_lab.captures.bundle import MANIFEST, CaptureSet, Consent, read_bundle
from crowdnerf_lab.captures.documents import CaptureError, read_document
from crowdnerf_lab.captures.formats import (
    arkitscenes,
    colmap,
    llff,
    phone_folder,
    phototourism,
    polycam,
    pose_log,
    record3d,
    scanner_app,
    stray_scanner,
    transforms,
)
from crowdnerf_lab.captures.formats.pictures import visible
from crowdnerf_lab.captures.intake.archives import ArchiveError, is_archive, unpack

logger = logging.getLogger(__name__)

_POSED_FORMATS: tuple[ModuleType, ...] = (
    transforms,
    phototourism,
    colmap,
    llff,
    polycam,
    record3d,
    scanner_app,
    stray_scanner,
    arkitscenes,
    pose_log,
)
"""Asked in this order: a folder often holds several, and the earlier say more about lenses and names."""
_FOLDERS_LOOKED_INTO = 50
"""A folder with more subfolders is a crowd's: one subfolder a UE."""
_NAMES_SHOWN = 5


def read_captures(path: Path | str, *, consent: Consent | None = None, licence: str = "unknown") -> CaptureSet:
    """Read captures of any kind: a folder or a file in it. What it was recognised as is in `source`, and logged.

    consent, licence: what holds for captures that do not carry their own; by default they may be trained on and not
    published. Pictures are not decoded and stay where they are. Raises CaptureError for a broken file, and for a path
    with nothing usable, naming what was looked for.
    """
    path = Path(path) if Path(path).name else Path(path).resolve()
    if not path.exists():
        raise CaptureError(f"{path} does not exist; give a folder of captures or of photos with a transforms.json")
    try:
        captures = _read(path, consent=consent, licence=licence)
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error}); check its permissions, or copy it again") from None
    logger.info("%s: recognised %s", path, summary(captures))
    return captures


def summary(captures: CaptureSet) -> str:
    """One line: what captures were recognised as, how many there are and how many were left out."""
    photos, clips = len(captures.photos), sum(len(capture.clips) for capture in captures.captures)
    left_out = len(captures.source.left_out)
    return (
        f"{captures.source.kind}: {photos} photos and {clips} clips of {len(captures.captures)} UEs"
        f" ({captures.source.convention}){f'; left out {left_out}' if left_out else ''}"
    )


def _read(path: Path, *, consent: Consent | None, licence: str) -> CaptureSet:
    place = _unpacked(path)
    bundle = next((folder for folder in (place, _unwrapped(place)) if _is_bundle(folder)), None)
    if path.name == MANIFEST or bundle:
        return read_bundle(bundle or path)
    return _licensed(_read_foreign(place), consent=consent, licence=licence)


def _is_bundle(folder: Path) -> bool:
    """Whether a folder's manifest.json is the lab's, or broken: other programs have files of that name, too."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        _, manifest = read_document(folder / MANIFEST)
    except CaptureError:
        return True
    return "format" in manifest or "captures" in manifest


def _read_foreign(path: Path) -> CaptureSet:
    for place in dict.fromkeys((path, _unwrapped(path))):
        if form := _posed_format(place):
            return form.read(place)
    if scene := _only_scene_within(path):
        return _read_foreign(scene)
    if phone_folder.recognises(path):
        return phone_folder.read(path)
    looked_for = ", ".join(form.LOOKED_FOR for form in (*_POSED_FORMATS, phone_folder))
    raise CaptureError(f"{path} holds neither {looked_for}; {_advice(path)}")


def _advice(path: Path) -> str:
    """What to give instead of a path with nothing usable."""
    within = visible(path) if path.is_dir() else []
    if archives := [entry.name for entry in within if is_archive(entry)]:
        return f"give the archive itself: {archives[0]}"
    names = ", ".join(entry.name for entry in within[:_NAMES_SHOWN])
    return f"give the file or the folder that holds it (here are {names})" if names else "it is empty, or hidden"


def _posed_format(place: Path) -> ModuleType | None:
    return next((form for form in _POSED_FORMATS if form.recognises(place)), None)


def _only_scene_within(path: Path) -> Path | None:
    """The subfolder with poses where the rest is no captures: a scene with a note beside it. None where there is none.

    Raises CaptureError for several: their worlds have nothing to do with each other.
    """
    if not path.is_dir():
        return None
    within = visible(_unwrapped(path))
    folders = [folder for folder in within if folder.is_dir() and not folder.is_symlink()]
    if len(folders) > _FOLDERS_LOOKED_INTO:
        return None
    scenes = [folder for folder in folders if _posed_format(_unwrapped(folder))]
    if len(scenes) > 1:
        names = ", ".join(scene.name for scene in scenes[:5])
        raise CaptureError(f"{path} holds {len(scenes)} scenes with poses of their own ({names}); give one of them")
    others = [entry for entry in within if entry not in scenes]
    return scenes[0] if scenes and not any(phone_folder.recognises(other) for other in others) else None


def _unpacked(path: Path) -> Path:
    """For an archive (.r3d, .zip, .tar) the folder beside it that it is unpacked into, once; else the path itself."""
    if not is_archive(path):
        return path
    folder = path.with_name(f"{path.stem}_unpacked")
    if not folder.exists():
        try:
            unpack(path, folder)
        except ArchiveError as error:
            raise CaptureError(str(error)) from None
        logger.info("%s: unpacked into %s", path, folder)
    return folder


def _unwrapped(path: Path) -> Path:
    """The folder that an unpacked archive really means: as long as a folder holds one folder alone, that one."""
    while path.is_dir() and len(within := visible(path)) == 1 and within[0].is_dir() and not within[0].is_symlink():
        path = within[0]
    return path


def _licensed(captures: CaptureSet, *, consent: Consent | None, licence: str) -> CaptureSet:
    update = {"licence": licence} | ({"consent": consent} if consent else {})
    return replace(
        captures,
        licence=licence,
        captures=tuple(capture.model_copy(update=update) for capture in captures.captures),
    )
