"""Phototourism: a table of photos with their part (train or test) beside a COLMAP model of strangers' photos.

The table (.tsv) has the columns filename, id, split and dataset; id is the image's in the model. Every photo is taken
for a contributor's own: strangers share neither phone nor light.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import DOCUMENT_BYTES, CaptureError
from crowdnerf_lab.captures.formats.calibrated import captures_of
from crowdnerf_lab.captures.formats.colmap import largest_model, photo_of, place_of_images
from crowdnerf_lab.captures.formats.colmap_model import Model
from crowdnerf_lab.captures.formats.pictures import Pictures, visible

LOOKED_FOR = "a .tsv split table with a COLMAP model (Phototourism)"
CONVENTION = "COLMAP: world-to-camera, OpenCV axes; parts by the table"
_COLUMNS = {"filename", "id", "split"}
_SPLITS: dict[str, Literal["train", "val", "test"]] = {"train": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class _Row:
    line: int
    name: str
    image_id: int | None
    split: Literal["train", "val", "test"] | None


def recognises(path: Path) -> bool:
    """A folder with such a table, or the table."""
    return _table(path) is not None


def read(path: Path) -> CaptureSet:
    """The table's photos with the model's cameras. Raises CaptureError for a broken table, or when no photo is left."""
    file = _table(path)
    if file is None:
        raise CaptureError(f"{path} holds no .tsv with the columns {', '.join(sorted(_COLUMNS))}; put it back")
    model, others = largest_model(file.parent)
    if model is None:
        raise CaptureError(f"{file.parent} holds {file.name} but no COLMAP model; put dense/sparse back beside it")
    root, folder = place_of_images(model, file.parent)
    rest = [LeftOut(other.name, f"{other} was not joined with {model.file}") for other in others]
    return captures_of(
        file,
        [*model.left_out, *_entries(file, model, Pictures(root), folder), *rest],
        root=root,
        kind="Phototourism split table with a COLMAP model",
        convention=CONVENTION,
        coordinates="arbitrary",
        contributors="photos",
    )


def _table(path: Path) -> Path | None:
    files = [path] if path.is_file() else visible(path)
    for file in files:
        if file.suffix.lower() == ".tsv" and file.is_file():
            with file.open(encoding="utf-8-sig", errors="replace") as text:
                if {word.strip().lower() for word in text.readline(4096).split("\t")} >= _COLUMNS:
                    return file
    return None


def _entries(file: Path, model: Model, pictures: Pictures, folder: str) -> Iterator[Photo | LeftOut]:
    by_name = {PurePosixPath(image.name).name: image for image in model.images}
    by_id = {image.image_id: image for image in model.images}
    for row in _rows(file):
        image = by_name.get(row.name) or (by_id.get(row.image_id) if row.image_id is not None else None)
        if image is None:
            yield LeftOut(
                row.name, f"{file}, line {row.line}: {row.name} is not in the model {model.file}; drop the row"
            )
            continue
        if row.split is None:
            yield LeftOut(row.name, f"{file}, line {row.line}: {row.name} is in no part (train or test); give it one")
            continue
        photo = photo_of(model, image, pictures, folder=folder)
        yield photo if isinstance(photo, LeftOut) else photo.model_copy(update={"split": row.split})


def _rows(file: Path) -> Iterator[_Row]:
    """The rows that name a photo: published tables hold others, too."""
    if file.stat().st_size > DOCUMENT_BYTES:
        raise CaptureError(f"{file} has {file.stat().st_size} bytes, more than {DOCUMENT_BYTES}; split it")
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        try:
            for line, record in enumerate(csv.DictReader(text, delimiter="\t"), start=2):
                row = {(key or "").strip().lower(): (value or "").strip() for key, value in record.items() if key}
                if not row.get("filename") or row["filename"].lower() == "nan":
                    continue
                image_id = row.get("id", "").removesuffix(".0")
                split = _SPLITS.get(row.get("split", "").lower())
                yield _Row(line, row["filename"], int(image_id) if image_id.isdecimal() else None, split)
        except csv.Error as error:
            raise CaptureError(f"{file} is no table with tabs ({error}); write it again") from None
