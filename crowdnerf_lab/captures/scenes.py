"""Any scene the package can read, from its folder: a crowd's captures, or photos that come with poses."""

from pathlib import Path
from typing import Literal

from crowdnerf_lab.captures.bundle import MANIFEST, CaptureSet, read_bundle
from crowdnerf_lab.captures.calibration import Align, Poses, calibrate
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.posed_formats import read_transforms
from crowdnerf_lab.captures.screening import screen
from crowdnerf_lab.scene import PosedScene, check_trainable


def read_scene(
    path: Path | str,
    *,
    downscale: int = 1,
    held_out_every: int = 8,
    poses: Literal["truth", "metadata", "calibrated"] = "truth",
    photos: Literal["spoiled", "clean"] = "spoiled",
    screened: bool = True,
) -> PosedScene:
    """A scene to train on, from a folder with manifest.json, transforms.json or transforms_train.json, or such a file.

    downscale: shrink the photos this many times. Held out is what the scene itself sets apart, else every
    `held_out_every`-th photo by name, from the first on (0: none). poses, photos: for a crowd's captures; 'calibrated'
    is structure from motion, fitted to the truth if there is one, since the reference views stand in its frame.
    screened: leave out a crowd's photos that the screening rejects.

    Raises CaptureError, CalibrationError or SceneError naming what is wrong with the folder.
    """
    if downscale < 1:
        raise ValueError(
            f"downscale is {downscale}; give 1 for full size, or how many times smaller the photos shall be"
        )
    path = Path(path)
    if not path.exists():
        raise CaptureError(f"{path} does not exist; give a folder of captures or of photos with a transforms.json")
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        captures = read_bundle(path)
        scene = _of_a_crowd(screen(captures)[0] if screened else captures, poses=poses, photos=photos)
        scene = scene if len(scene.held_out) else _every(scene, held_out_every)
    else:
        scene, _ = read_transforms(path, held_out_every=held_out_every)
    check_trainable(scene)
    return scene.downscaled(downscale)


def _of_a_crowd(captures: CaptureSet, *, poses: str, photos: Literal["spoiled", "clean"]) -> PosedScene:
    kinds: dict[str, tuple[Poses, Align]] = {
        "truth": ("truth", "truth"),
        "metadata": ("metadata", "metadata"),
        "calibrated": ("colmap", "truth" if all(photo.truth for photo in captures.photos) else "metadata"),
    }
    if poses not in kinds:
        raise CaptureError(f"there are no poses {poses!r}; choose one of {', '.join(kinds)}")
    source, align = kinds[poses]
    return calibrate(captures, poses=source, photos=photos, align=align)[0]


def _every(scene: PosedScene, step: int) -> PosedScene:
    """The scene with every `step`-th training photo by name held out."""
    if step == 0:
        return scene
    by_name = sorted(scene.train.tolist(), key=lambda row: scene.image_names[row])
    held_out = sorted(by_name[::step])
    train = sorted(set(by_name) - set(held_out))
    return scene.with_split(train, held_out)
