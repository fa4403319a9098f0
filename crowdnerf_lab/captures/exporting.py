"""The ways out: a posed scene as nerfstudio's transforms.json or as a COLMAP model, beside its photos."""

from pathlib import Path
from typing import Any

from PIL import Image

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.axes import opencv_to_opengl
from crowdnerf_lab.files import write_atomically, write_json
from crowdnerf_lab.scene import PosedScene


def write_transforms(scene: PosedScene, folder: Path | str) -> Path:
    """Write a scene as nerfstudio's transforms.json beside its photos as PNG. Returns the path of the file."""
    folder = Path(folder)
    files = _write_photos(scene, folder)
    document: dict[str, Any] = {
        "camera_model": "OPENCV",
        "train_filenames": [files[index] for index in scene.train.tolist()],
        "test_filenames": [files[index] for index in scene.held_out.tolist()],
        "frames": [_frame_of(scene.cameras, index, file) for index, file in enumerate(files)],
    }
    return write_json(folder / "transforms.json", document)


def _write_photos(scene: PosedScene, folder: Path) -> list[str]:
    """The photos as PNG; their names relative to the folder."""
    files = [f"images/{index:05d}.png" for index in range(len(scene))]
    for file, image in zip(files, scene.images, strict=True):
        picture = Image.fromarray(image.numpy())
        write_atomically(folder / file, lambda partial, picture=picture: picture.save(partial, "PNG"))
    return files


def _frame_of(cameras: Cameras, index: int, file: str) -> dict[str, Any]:
    pose = opencv_to_opengl(cameras.camera_to_world[index])
    (fl_x, fl_y), (cx, cy) = cameras.focal[index].tolist(), cameras.centre[index].tolist()
    distortion = dict(zip(("k1", "k2", "p1", "p2"), cameras.distortion[index].tolist(), strict=True))
    size = {"w": int(cameras.width[index]), "h": int(cameras.height[index])}
    lens = {"fl_x": fl_x, "fl_y": fl_y, "cx": cx, "cy": cy, **size, **distortion}
    return {"file_path": file, "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]], **lens}
