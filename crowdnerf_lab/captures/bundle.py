"""A crowd's captures on disk: photos and clips beside one versioned manifest.json.

Reading opens no picture: the manifest is validated, every file it names must exist inside the folder, and no two
entries may name the same file. Poses are camera-to-world 3x4, OpenCV axes; the world is what `coordinates` says.
"""

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from crowdnerf_lab.cameras import invalid_poses
from crowdnerf_lab.captures.documents import CaptureError, FileName, explained, read_document
from crowdnerf_lab.files import FileError, inside, sha256_of, write_copy, write_json

FORMAT = "crowdnerf_lab.captures"
VERSION = 2
READ_VERSIONS = (1, 2)
"""Version 2 adds what phones bring (GPS, clips, clocks) and cameras that other tools found; all of it may be absent."""
MANIFEST = "manifest.json"


def _is_rotation(rows: tuple[tuple[float, float, float, float], ...]) -> tuple[tuple[float, float, float, float], ...]:
    if bool(invalid_poses(torch.tensor([rows], dtype=torch.float64))):
        raise ValueError(f"the left 3x3 part is not a rotation: {[row[:3] for row in rows]}")
    return rows


Row = tuple[float, float, float, float]
Pose = Annotated[tuple[Row, Row, Row], AfterValidator(_is_rotation)]
"""Camera-to-world: a rotation and, in the last column, the camera's centre in metres."""
Pixels = Annotated[int, Field(ge=1, le=1 << 16)]
Focal = Annotated[float, Field(gt=0)]
Pseudonym = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Box = tuple[float, float, float, float]
Metres3 = tuple[float, float, float]
Coordinates = Literal["enu", "metric", "arbitrary"]
"""What the poses of an event stand in. enu: metres east, north, up of `origin_wgs84`; metric: metres, z up, heading
unknown (a phone's own tracking); arbitrary: unit and up are those of the tool that wrote them."""
Wgs84 = tuple[Annotated[float, Field(ge=-90, le=90)], Annotated[float, Field(ge=-180, le=180)], float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Consent(_Record):
    """What a contributor allows: training models on the photos, publishing the photos themselves."""

    train: bool
    publish: bool


class ReportedPose(_Record):
    """The phone's own idea of where it was: GPS position and the attitude from compass and accelerometers."""

    camera_to_world: Pose


class GpsFix(_Record):
    """Where a phone's GPS put it: east, north, up in metres; None where unknown.

    accuracy_m: the phone's own estimate of its horizontal error, one standard deviation. heading: radians clockwise
    from true north in [0, 2 pi), of the direction the camera looked.
    """

    position: Metres3
    accuracy_m: Annotated[float, Field(gt=0)] | None = None
    heading: Annotated[float, Field(ge=0, lt=2 * math.pi)] | None = None


class GivenCamera(_Record):
    """A camera that another tool calibrated: its pose, focal lengths, principal point (pixels of the photo) and lens.

    distortion: k1, k2, p1, p2 as in OpenCV.
    """

    camera_to_world: Pose
    focal_px: tuple[Focal, Focal]
    centre_px: tuple[float, float]
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Truth(_Record):
    """What a simulated photo is known to be; for study only, never used to screen or calibrate.

    exposure_ev: stops; white_balance: gains of red, green, blue in linear light; blur_px: length of the motion blur;
    occluded: fraction of the pixels covered by people in front; clean_file: the same view without spoiling.
    """

    camera_to_world: Pose
    exposure_ev: float
    white_balance: tuple[Focal, Focal, Focal]
    blur_px: Annotated[float, Field(ge=0)]
    spoiled_by: Literal["blur", "over", "dark", "wrong"] | None = None
    occluded: Annotated[float, Field(ge=0, le=1)]
    clean_file: FileName | None = None
    occluder_mask_file: FileName | None = None


class Photo(_Record):
    """One picture and its metadata. focal_px and centre_px refer to width x height; centre_px None is the middle.

    time_s: seconds since the event began. reported: position and full attitude; gps: when the phone knew no attitude.
    camera: calibrated before, by another tool. split: the part that tool gave the photo to. from_clip: the video whose
    frame it is. faces: how many were made unrecognisable; None when nobody has looked for any. filled: their boxes, as
    left, top, right, bottom in pixels: what is there now is not the scene, and is not trained on.
    """

    file: FileName
    width: Pixels
    height: Pixels
    focal_px: Focal | None = None
    centre_px: tuple[float, float] | None = None
    time_s: float
    reported: ReportedPose | None = None
    gps: GpsFix | None = None
    camera: GivenCamera | None = None
    split: Literal["train", "val", "test"] | None = None
    from_clip: FileName | None = None
    faces: Annotated[int, Field(ge=0)] | None = None
    filled: tuple[Box, ...] | None = None
    truth: Truth | None = None


class Clip(_Record):
    """One video; time_s: seconds since the event began at its first frame.

    width, height: of the upright picture. duration_s: of the pictures; audio: whether it has sound.
    """

    file: FileName
    time_s: float
    reported: ReportedPose | None = None
    gps: GpsFix | None = None
    width: Pixels | None = None
    height: Pixels | None = None
    duration_s: Annotated[float, Field(ge=0)] | None = None
    focal_px: Focal | None = None
    audio: bool | None = None


class Clock(_Record):
    """How a UE's clock was set to the event's: its times have been moved by offset_s (seconds, positive: later).

    method: 'audio', by the sound that several UEs heard; 'device', as the phone says, nothing moved. confidence: in
    [0, 1]; error_s: what is left, one standard deviation, None when unknown.
    """

    method: Literal["audio", "device"]
    offset_s: float
    confidence: Annotated[float, Field(ge=0, le=1)]
    error_s: Annotated[float, Field(ge=0)] | None = None


class Capture(_Record):
    """One UE's contribution, under a pseudonym."""

    ue: Pseudonym
    device: str
    consent: Consent
    licence: str
    photos: tuple[Photo, ...]
    clips: tuple[Clip, ...] = ()
    clock: Clock | None = None


class ReferenceView(_Record):
    """A view that the study compares against and that nothing trains on.

    split: 'test' lies between the UEs, 'test_beyond' outside where they stood, 'moment' is what one UE saw at one
    moment of the moving event. depth_file: 16-bit PNG, millimetres along the optical axis.
    """

    file: FileName
    split: Literal["test", "test_beyond", "moment"]
    width: Pixels
    height: Pixels
    focal_px: Focal
    camera_to_world: Pose
    depth_file: FileName | None = None
    time_s: float = 0.0
    ue: Pseudonym | None = None


class Manifest(_Record):
    """manifest.json. origin_wgs84: latitude, longitude (degrees), altitude (m) of the ENU origin.

    began: when time_s is 0.
    """

    format: Literal["crowdnerf_lab.captures"] = FORMAT
    version: Literal[1, 2] = VERSION
    name: str
    licence: str
    coordinates: Coordinates = "enu"
    origin_wgs84: Wgs84 | None = None
    began: AwareDatetime | None = None
    captures: tuple[Capture, ...]
    views: tuple[ReferenceView, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A file or an entry that could not be used, and why, with the remedy."""

    file: str
    problem: str


@dataclass(frozen=True)
class Source:
    """What a path was recognised as. kind: the format, as people call it; convention: how its poses were understood."""

    kind: str
    convention: str
    left_out: tuple[LeftOut, ...] = ()


OWN = Source(kind="captures of crowdnerf_lab", convention="camera-to-world, OpenCV axes, metres east, north, up")


@dataclass(frozen=True)
class CaptureSet:
    """The captures of one event, in a folder. Pictures stay on disk until they are asked for.

    source: what the captures were read from; the lab's own folders unless said. began: when time_s is 0; None when
    unknown.
    """

    root: Path
    name: str
    licence: str
    origin_wgs84: tuple[float, float, float] | None
    captures: tuple[Capture, ...]
    views: tuple[ReferenceView, ...] = ()
    coordinates: Coordinates = "enu"
    source: Source = OWN
    began: datetime | None = None

    @property
    def photos(self) -> tuple[Photo, ...]:
        """Every photo, UE after UE."""
        return tuple(photo for capture in self.captures for photo in capture.photos)

    def path_of(self, file: str) -> Path:
        """Where a file named by the manifest lies. Raises FileError for a path that leaves the folder."""
        return inside(self.root, file)

    def keeping(self, files: Collection[str]) -> "CaptureSet":
        """The same event with these photos only; UEs that are left with nothing are dropped."""
        kept = (
            capture.model_copy(update={"photos": tuple(photo for photo in capture.photos if photo.file in files)})
            for capture in self.captures
        )
        return replace(self, captures=tuple(capture for capture in kept if capture.photos or capture.clips))


def read_bundle(path: Path | str) -> CaptureSet:
    """Read and validate a folder of captures (or its manifest.json). No picture is opened.

    Raises CaptureError naming the manifest, the field and the remedy: not JSON, another format or version, a field that
    is missing, unknown or out of range, a pose that is NaN or no rotation, a file that is absent, doubled or outside.
    """
    path = Path(path)
    manifest_path = path / MANIFEST if path.is_dir() else path
    text, document = read_document(manifest_path)
    _check_format(manifest_path, document)
    try:
        manifest = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise explained(manifest_path, document, error=error, named_by="file") from None
    captures = CaptureSet(
        root=manifest_path.parent,
        name=manifest.name,
        licence=manifest.licence,
        origin_wgs84=manifest.origin_wgs84,
        captures=manifest.captures,
        views=manifest.views,
        coordinates=manifest.coordinates,
        began=manifest.began,
    )
    _check_files(captures, manifest_path)
    return captures


def write_captures(captures: CaptureSet, root: Path | str) -> Path:
    """Write captures as a folder that stands alone: files not yet there are copied, the manifest is written last.

    Returns the manifest's path. Raises CaptureError for files that are missing, doubled or outside; FileError when the
    disk is full.
    """
    root = Path(root)
    _check_files(captures, root / MANIFEST)
    if root.resolve() != captures.root.resolve():
        for _, file in _named_files(captures):
            write_copy(inside(root, file), captures.path_of(file))
    return write_json(root / MANIFEST, _manifest_of(captures))


def captures_digest(captures: CaptureSet) -> str:
    """SHA-256 of the manifest and of every file that it names: two folders with the same captures have the same.

    Raises CaptureError for a file that is missing.
    """
    digest = hashlib.sha256(json.dumps(_manifest_of(captures), sort_keys=True).encode())
    for _, file in _named_files(captures):
        try:
            digest.update(sha256_of(captures.path_of(file)).encode())
        except OSError as error:
            raise CaptureError(f"cannot read {captures.path_of(file)}: {error.strerror}; bring it back") from error
    return digest.hexdigest()


def concert() -> CaptureSet:
    """The bundled concert: data/concert of a checkout, or of the folder that the variable CROWDNERF_DATA names."""
    setting = os.environ.get("CROWDNERF_DATA")
    data = Path(setting) if setting else Path(__file__).resolve().parents[2] / "data"
    if not (data / "concert" / MANIFEST).is_file():
        raise CaptureError(
            f"no concert at {data / 'concert'}; work in a checkout, or set CROWDNERF_DATA to its data folder"
        )
    return read_bundle(data / "concert")


def _manifest_of(captures: CaptureSet) -> dict[str, Any]:
    """Captures as their manifest says them."""
    manifest = Manifest(
        name=captures.name,
        licence=captures.licence,
        origin_wgs84=captures.origin_wgs84,
        captures=captures.captures,
        views=captures.views,
        coordinates=captures.coordinates,
        began=captures.began,
    )
    return manifest.model_dump(mode="json", exclude_none=True)


def _check_format(path: Path, document: dict[str, Any]) -> None:
    if document.get("format") != FORMAT:
        raise CaptureError(
            f"{path}: format is {document.get('format')!r} instead of {FORMAT!r}; "
            "a transforms.json of nerfstudio, instant-ngp or Blender is read by read_captures"
        )
    if document.get("version") not in READ_VERSIONS:
        raise CaptureError(
            f"{path}: version is {document.get('version')!r}, this package reads versions 1 and 2; "
            "update the package, or write the captures again with this one"
        )


def _named_files(captures: CaptureSet) -> Iterator[tuple[str, str]]:
    """Every file the manifest names, with the field that names it."""
    for capture in captures.captures:
        for photo in capture.photos:
            yield f"photo of {capture.ue}", photo.file
            if photo.truth and photo.truth.clean_file:
                yield f"clean_file of {photo.file}", photo.truth.clean_file
            if photo.truth and photo.truth.occluder_mask_file:
                yield f"occluder_mask_file of {photo.file}", photo.truth.occluder_mask_file
        for clip in capture.clips:
            yield f"clip of {capture.ue}", clip.file
    for view in captures.views:
        yield f"{view.split} view", view.file
        if view.depth_file:
            yield f"depth_file of {view.file}", view.depth_file


def _check_files(captures: CaptureSet, manifest_path: Path) -> None:
    """Raise CaptureError unless pseudonyms and file names are unique and every file exists inside the folder."""
    seen_ues: set[str] = set()
    for capture in captures.captures:
        if capture.ue in seen_ues:
            raise CaptureError(f"{manifest_path}: two captures are called {capture.ue!r}; merge or rename one of them")
        seen_ues.add(capture.ue)
    seen: dict[PurePosixPath, str] = {}
    missing = []
    for field, file in _named_files(captures):
        try:
            path = captures.path_of(file)
        except FileError as error:
            raise CaptureError(f"{manifest_path}: {field}: {error}") from None
        name = PurePosixPath(file)
        if name in seen:
            raise CaptureError(
                f"{manifest_path}: {file} is named twice, as {seen[name]} and as {field}; name each file once"
            )
        seen[name] = field
        if not path.is_file():
            missing.append(f"{file} ({field})")
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CaptureError(
            f"{manifest_path}: missing {', '.join(missing[:3])}{more}; put the files back, or drop the entries"
        )
