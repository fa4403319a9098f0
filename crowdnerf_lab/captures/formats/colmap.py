"""A COLMAP project: a sparse model, binary or text, and the photos it was made from."""

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from crowdnerf_lab.captures.axes import inverse, pose_of_quaternion
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.colmap_model import Model, ModelImage, has_model, has_part, lens_of, read_model
from crowdnerf_lab.captures.formats.pictures import Pictures, visible

logger = logging.getLogger(__name__)

LOOKED_FOR = "a COLMAP model (cameras and images, .bin or .txt, here or in sparse/0)"
CONVENTION = "world-to-camera, OpenCV axes, world as in the model"
_PLACES = ("", "sparse", "colmap/sparse", "dense/sparse", "dense", "colmap", "undistorted/sparse", "distorted/sparse")
_IMAGE_FOLDERS = ("images", "input", "rgb", "photos", "image", "frames", "")
_NAMES_TRIED = 25
"""So many of a model's images are looked for to tell which folder they lie in."""


def recognises(path: Path) -> bool:
    """A folder with a model where COLMAP or its users put one, or one of the model's files."""
    return bool(_models(path))


def read(path: Path) -> CaptureSet:
    """The photos of the largest model below `path` with the cameras that COLMAP found; one UE a folder of photos.

    Images whose photo is absent or damaged, or whose lens is no pinhole, are left out and reported, as are smaller
    models. Raises CaptureError for a file that is cut or mangled, and when no photo is left.
    """
    model, others = largest_model(path)
    if model is None:
        raise CaptureError(f"{path} holds no COLMAP model; give the folder with sparse/0, or export the model again")
    root, folder = place_of_images(model, path)
    rest = (
        LeftOut(_short(other, root), f"{other} was not joined with the larger model {model.file}") for other in others
    )
    return captures_of(
        model.file,
        [*entries(model, Pictures(root), folder=folder), *rest],
        root=root,
        kind=f"COLMAP model ({model.file.suffix.lstrip('.').replace('bin', 'binary').replace('txt', 'text')})",
        convention=CONVENTION,
        coordinates="arbitrary",
        contributors="folders",
    )


def entries(model: Model, pictures: Pictures, *, folder: str) -> Iterator[Photo | LeftOut]:
    """The images of a model, with what could not be read."""
    yield from model.left_out
    for image in model.images:
        yield photo_of(model, image, pictures, folder=folder)


def photo_of(model: Model, image: ModelImage, pictures: Pictures, *, folder: str) -> Photo | LeftOut:
    """An image of the model whose photo lies in that folder of the pictures."""
    name = str(PurePosixPath(folder, image.name.replace("\\", "/")))
    try:
        picture = pictures.find(name)
    except CaptureError as error:
        raise CaptureError(f"{model.file}: {error}") from None
    if isinstance(picture, LeftOut):
        return picture
    camera = model.cameras.get(image.camera_id)
    if camera is None:
        return LeftOut(name, f"{model.file}: {name} has camera {image.camera_id}, which no line describes; add it")
    w, x, y, z = image.quaternion
    try:
        pose = inverse(pose_of_quaternion((x, y, z, w), image.translation))
        return calibrated_photo(picture, pose, lens_of(camera), file=model.file)
    except ValueError as error:
        return LeftOut(name, f"{model.file}: {name} {error}")


def place_of_images(model: Model, path: Path) -> tuple[Path, str]:
    """The root and the folder in it that hold a model's images; `path` and images/ when they are nowhere."""
    for root in _roots(model.file.parent, path):
        pictures = Pictures(root)
        copies = sorted(entry.name for entry in visible(root) if entry.is_dir() and entry.name.startswith("images_"))
        for folder in (*_IMAGE_FOLDERS, *copies):
            for image in model.images[:_NAMES_TRIED]:
                if not isinstance(pictures.find(str(PurePosixPath(folder, image.name))), LeftOut):
                    return root, folder
    return (path if path.is_dir() else path.parent), "images"


def _models(path: Path) -> list[Path]:
    """Folders with a model, the likeliest first."""
    if path.is_file():
        named = path.stem.lower() in ("cameras", "images", "points3d") and path.suffix.lower() in (".bin", ".txt")
        return [path.parent] if named and has_model(path.parent) else []
    places = [path / place for place in _PLACES if (path / place).is_dir()]
    numbered = [child for place in places for child in visible(place) if child.name.isdecimal() and child.is_dir()]
    found = list(dict.fromkeys((*places, *numbered)))
    # A lone images.txt means half a model in sparse/ only; elsewhere it may be anybody's list.
    halves = [place for place in found if place != path and has_part(place)]
    return [place for place in found if has_model(place)] or halves


def largest_model(path: Path) -> tuple[Model | None, list[Path]]:
    """The model with most images; of several as large, the first; and the folders of the others.

    Raises CaptureError when there are models and none can be read.
    """
    models, problems = [], []
    folders = _models(path)
    for folder in folders:
        try:
            models.append(read_model(folder))
        except CaptureError as error:
            problems.append(error)
    if not models:
        if problems:
            raise problems[0]
        return None, []
    largest = max(models, key=lambda model: len(model.images))
    return largest, [folder for folder in folders if folder != largest.file.parent]


def _roots(model: Path, path: Path) -> Iterator[Path]:
    """Folders that may hold the images, from the model's upwards: to `path`, or past it where its name is COLMAP's."""
    folder = model
    yield folder
    while _is_below(folder, path) or folder.name.isdecimal() or folder.name.lower().startswith(("sparse", "colmap")):
        folder = folder.parent
        yield folder


def _is_below(folder: Path, path: Path) -> bool:
    return folder != path and folder.is_relative_to(path)


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
