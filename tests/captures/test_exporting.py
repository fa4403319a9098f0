"""What is written comes back: by the package's own readers, and in pycolmap's hands with the same pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crowdnerf_lab.cameras import Cameras, project
from crowdnerf_lab.captures.exporting import write_colmap, write_transforms
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.scene import PosedScene
from tests.toy_field import toy_scene

POINTS = torch.tensor([[-1.2, 0.0, 0.0], [0.9, 0.5, 0.4], [0.2, -0.6, -0.7]])
COLOURS = torch.tensor([[255, 0, 0], [0, 200, 0], [1, 2, 3]], dtype=torch.uint8)


@pytest.fixture(scope="module")
def scene() -> PosedScene:
    return toy_scene()


def distorted(scene: PosedScene) -> PosedScene:
    """The same with a lens that is not ideal, unequal focal lengths and a principal point off the middle."""
    cameras = scene.cameras
    lens = torch.tensor([0.05, -0.01, 0.002, -0.001]).expand(len(scene), 4)
    return replace(
        scene,
        cameras=replace(
            cameras,
            focal=cameras.focal * torch.tensor([1.0, 1.02]),
            centre=cameras.centre + torch.tensor([1.5, -0.75]),
            distortion=lens.clone(),
        ),
    )


def pixels(cameras: Cameras, index: int) -> torch.Tensor:
    return project(cameras[torch.full((len(POINTS),), index)], POINTS)[0]


@pytest.mark.parametrize("lens", ["ideal", "distorted"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_colmap_model_comes_back(tmp_path, scene, lens, binary):
    scene = distorted(scene) if lens == "distorted" else scene
    model = write_colmap(scene, tmp_path, points=POINTS, colours=COLOURS, binary=binary)
    assert model == tmp_path / "sparse" / "0"
    captures = read_captures(tmp_path)
    assert captures.source.left_out == ()
    back = scene_of_given(captures, held_out_every=0)
    assert len(back) == len(scene)
    torch.testing.assert_close(back.cameras.camera_to_world, scene.cameras.camera_to_world, atol=1e-5, rtol=0)
    for name in ("focal", "centre", "distortion", "width", "height"):
        assert torch.equal(getattr(back.cameras, name), getattr(scene.cameras, name))
    assert all(torch.equal(a, b) for a, b in zip(back.images, scene.images, strict=True))


@pytest.mark.colmap
@pytest.mark.parametrize("lens", ["ideal", "distorted"])
@pytest.mark.parametrize("binary", [True, False])
def test_pycolmap_sees_the_same_pixels(tmp_path, scene, lens, binary):
    import pycolmap

    scene = distorted(scene) if lens == "distorted" else scene
    model = write_colmap(scene, tmp_path, points=POINTS, colours=COLOURS, binary=binary)
    found = pycolmap.Reconstruction(str(model))
    assert len(found.images) == len(scene)
    assert {camera.model.name for camera in found.cameras.values()} == {"PINHOLE" if lens == "ideal" else "OPENCV"}
    assert len(found.cameras) == 1
    for image in found.images.values():
        camera = found.cameras[image.camera_id]
        seen = [camera.img_from_cam(image.cam_from_world() * point) for point in POINTS.double().numpy()]
        expected = pixels(scene.cameras, image.image_id - 1)
        torch.testing.assert_close(torch.from_numpy(np.array(seen)).reshape(-1, 2).float(), expected, atol=1e-3, rtol=0)
    cloud = {tuple(round(float(c), 4) for c in p.xyz): p.color.tolist() for p in found.points3D.values()}
    assert cloud[(0.9, 0.5, 0.4)] == [0, 200, 0]


@pytest.mark.colmap
def test_what_pycolmap_writes_is_read(tmp_path, scene):
    import pycolmap

    scene = distorted(scene)
    found = pycolmap.Reconstruction(str(write_colmap(scene, tmp_path, points=POINTS)))
    for index, write in enumerate((found.write_binary, found.write_text)):
        again = tmp_path / f"again{index}"
        (again / "sparse" / "0").mkdir(parents=True)
        (tmp_path / "images").rename(again / "images")
        write(str(again / "sparse" / "0"))
        back = scene_of_given(read_captures(again), held_out_every=0)
        torch.testing.assert_close(back.cameras.camera_to_world, scene.cameras.camera_to_world, atol=1e-5, rtol=0)
        assert torch.equal(back.cameras.distortion, scene.cameras.distortion)
        (again / "images").rename(tmp_path / "images")


def test_transforms_and_colmap_say_the_same(tmp_path, scene):
    scene = distorted(scene)
    write_transforms(scene, tmp_path / "a")
    write_colmap(scene, tmp_path / "b")
    first = scene_of_given(read_captures(tmp_path / "a"), held_out_every=0).cameras
    second = scene_of_given(read_captures(tmp_path / "b"), held_out_every=0).cameras
    for index in range(len(scene)):
        torch.testing.assert_close(pixels(first, index), pixels(second, index), atol=1e-3, rtol=0)
