"""Any scene from its folder: a crowd's captures, or photos that come with poses."""

from pathlib import Path
from typing import Literal

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.poses.calibration import Align, Poses, calibrate
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.screening.screen import screen
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
    """A scene to train on, from a folder of any kind that `read_captures` knows, or a file in it.

    downscale: shrink the photos this many times. Held out is what the scene itself sets apart, else every
    `held_out_every`-th photo by name, from the first on (0: none). Where another tool found the cameras, they are
    taken. poses, photos: for a crowd's captures; 'calibrated' is structure from motion, fitted to the truth if there is
    one, since the reference views stand in its frame; it is used for 'truth', too, where a crowd has none.
    screened: leave out a crowd's photos that the screening rejects.

    Raises CaptureError, CalibrationError or SceneError naming what is wrong with the folder.
    """
    if downscale < 1:
        raise ValueError(
            f"downscale is {downscale}; give 1 for full size, or how many times smaller the photos shall be"
        )
    captures = read_captures(path)
    simulated = any(photo.truth for photo in captures.photos)
    if any(photo.camera for photo in captures.photos) and not simulated:
        scene = scene_of_given(captures, held_out_every=held_out_every)
    else:
        kept = screen(captures)[0] if screened else captures
        scene = _of_a_crowd(kept, poses=poses if simulated or poses != "truth" else "calibrated", photos=photos)
        scene = scene if len(scene.held_out) else _every(scene, held_out_every)
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
