"""Captures made fit to leave the lab: only what their contributors let out, without faces, names, homes and seats.

What remains: poses that other tools found are exact among themselves, about an origin known to a coarse grid only. Who
recognises the venue in the pictures can place them on a map all the same.
"""

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tqdm.auto import tqdm

from crowdnerf_lab.captures.bundle import (
    Box,
    Capture,
    CaptureSet,
    LeftOut,
    Photo,
    ReferenceView,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.privacy.coarsening import coarse_day, coarse_device, coarse_fix, coarse_origin, coarse_time
from crowdnerf_lab.captures.privacy.embedded import embedded_in
from crowdnerf_lab.captures.privacy.faces import USUAL, Face, FaceSearch
from crowdnerf_lab.captures.privacy.protection import PrivacyError, protected, write_pixels
from crowdnerf_lab.captures.privacy.records import read_record
from crowdnerf_lab.files import write_copy, write_json

logger = logging.getLogger(__name__)

LEDGER = "publications.json"
"""Beside the manifest of the captures, and never published: who is called what in which published folder."""


class PublishedFolder(BaseModel):
    """One publication. pseudonyms: the name of each contributor at home and in the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    folder: str
    pseudonyms: dict[str, str]


class Ledger(BaseModel):
    """publications.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["crowdnerf_lab.publications"] = "crowdnerf_lab.publications"
    version: Literal[1] = 1
    publications: tuple[PublishedFolder, ...] = ()


@dataclass(frozen=True)
class Publication:
    """captures: what was published, read back; left_out: what was not, in the names used at home."""

    captures: CaptureSet
    left_out: tuple[LeftOut, ...]


def published(
    captures: CaptureSet,
    root: Path | str,
    *,
    grid_m: float = 1000.0,
    time_step_s: float = 1.0,
    look_again: bool = True,
    search: FaceSearch = USUAL,
    progress: bool = True,
) -> Publication:
    """Write a copy of captures that may leave the lab, as the new folder `root`; the manifest is written last.

    Only contributors who consent to publishing, under new random pseudonyms, each with its licence. Photos hold nothing
    but pixels. look_again: look for faces also where the captures say that it was done, since anybody can write that.
    The origin lies on a grid of `grid_m` metres or more, and so do the phones' positions about it; times are whole
    steps of `time_step_s`, the date is a day; of devices the maker stays. Videos and what only a simulation knows are
    left out.

    The ledger of the captures' own folder says who is called what, so that `forget` reaches the copy. Raises
    PrivacyError when `root` is not new or nobody consents; FaceError, CaptureError, FileError as what it calls.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise PrivacyError(f"{root} is not empty; publish into a new folder")
    willing = [capture for capture in captures.captures if capture.consent.publish and capture.photos]
    if not willing:
        raise PrivacyError(f"{captures.name}: no contributor consents to publishing; ask them, or publish models only")
    pseudonyms = {capture.ue: f"ue-{secrets.token_hex(8)}" for capture in willing}
    _note(captures.root, PublishedFolder(folder=str(root.resolve()), pseudonyms=pseudonyms))
    copier = _Copier(captures, root, grid_m=grid_m, time_step_s=time_step_s, look_again=look_again, search=search)
    entries = [
        copier.capture(capture, pseudonyms[capture.ue])
        for capture in tqdm(willing, desc="publishing", unit="UE", disable=not progress)
    ]
    views = [copier.view(view, pseudonyms) for view in captures.views if view.ue is None or view.ue in pseudonyms]
    copy = replace(
        captures,
        root=root,
        captures=tuple(sorted(entries, key=lambda capture: capture.ue)),
        views=tuple(views),
        origin_wgs84=captures.origin_wgs84 and coarse_origin(captures.origin_wgs84, grid_m=grid_m),
        began=coarse_day(captures.began),
    )
    write_captures(copy, root)
    left_out = tuple(_left_out(captures))
    logger.info("%s: published %d of %d contributors in %s", captures.name, len(willing), len(captures.captures), root)
    return Publication(read_bundle(root), left_out)


def publications_of(root: Path) -> tuple[PublishedFolder, ...]:
    """The publications that the captures in this folder have gone into. Raises CaptureError for a damaged ledger."""
    path = Path(root) / LEDGER
    return read_record(path, Ledger).publications if path.is_file() else ()


def write_ledger(root: Path, publications: tuple[PublishedFolder, ...]) -> Path:
    """Replace the ledger of the captures in this folder."""
    return write_json(Path(root) / LEDGER, Ledger(publications=publications).model_dump(mode="json"))


def _note(root: Path, publication: PublishedFolder) -> None:
    """Before anything leaves, so that no contributor is in a folder that `forget` does not know of."""
    write_ledger(root, (*publications_of(root), publication))


@dataclass(frozen=True)
class _Copier:
    """Makes the files and the records of a publication."""

    captures: CaptureSet
    root: Path
    grid_m: float
    time_step_s: float
    look_again: bool
    search: FaceSearch

    def capture(self, capture: Capture, pseudonym: str) -> Capture:
        photos = tuple(self._photo(photo, f"{pseudonym}/{index:05d}") for index, photo in enumerate(capture.photos))
        return Capture(
            ue=pseudonym,
            device=coarse_device(capture.device),
            consent=capture.consent,
            licence=capture.licence,
            photos=photos,
        )

    def view(self, view: ReferenceView, pseudonyms: Mapping[str, str]) -> ReferenceView:
        """A view that models are judged by, with the depth that belongs to it when that holds nothing else."""
        name = f"views/{secrets.token_hex(8)}"
        file, _ = self._picture(view.file, name, hidden=None)
        depth = None
        if view.depth_file and not embedded_in(self.captures.path_of(view.depth_file)):
            depth = self._copied(view.depth_file, f"{name}_depth")
        return view.model_copy(
            update={
                "file": file,
                "depth_file": depth,
                "time_s": coarse_time(view.time_s, step_s=self.time_step_s),
                "ue": view.ue and pseudonyms[view.ue],
            }
        )

    def _photo(self, photo: Photo, name: str) -> Photo:
        hidden = None if photo.faces is None else photo.filled or ()
        file, found = self._picture(photo.file, name, hidden=hidden)
        return Photo(
            file=file,
            width=photo.width,
            height=photo.height,
            focal_px=photo.focal_px,
            centre_px=photo.centre_px,
            time_s=coarse_time(photo.time_s, step_s=self.time_step_s),
            gps=coarse_fix(photo, grid_m=self.grid_m),
            camera=photo.camera,
            split=photo.split,
            faces=(photo.faces or 0) + len(found),
            filled=(*(photo.filled or ()), *found) or None,
        )

    def _picture(self, file: str, name: str, *, hidden: Sequence[Box] | None) -> tuple[str, tuple[Box, ...]]:
        """Bring a picture over, as it is if it can be; hidden: faces filled before, None when nobody has looked.

        Returns the file, and the faces that were found and filled now.
        """
        source = self.captures.path_of(file)
        found: tuple[Face, ...] = ()
        image = None
        if hidden is None or self.look_again:
            safe = protected(read_photo(source), search=self.search)
            image, found = safe.image, safe.faces
        if not found and not embedded_in(source):
            return self._copied(file, name), ()
        target = f"{name}{'.png' if source.suffix.lower() == '.png' else '.jpg'}"
        write_pixels(read_photo(source) if image is None else image, self.root / target)
        return target, tuple((face.left, face.top, face.right, face.bottom) for face in found)

    def _copied(self, file: str, name: str) -> str:
        source = self.captures.path_of(file)
        target = f"{name}{source.suffix.lower()}"
        write_copy(self.root / target, source)
        return target


def _left_out(captures: CaptureSet) -> Iterator[LeftOut]:
    for capture in captures.captures:
        if not capture.consent.publish:
            yield LeftOut(capture.ue, "does not consent to publishing; ask again, or leave it out")
        for clip in capture.clips:
            yield LeftOut(clip.file, "videos are not published, for their sound and faces; publish chosen frames")
