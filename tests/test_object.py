"""The bundled object is complete and what its README says, and its generator draws it."""

import hashlib
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.scene import PosedScene

OBJECT = Path(__file__).resolve().parent.parent / "data" / "object"


@pytest.fixture(scope="module")
def scene() -> PosedScene:
    return read_scene(OBJECT)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_object", OBJECT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_has_its_checksum_and_all_are_small() -> None:
    lines = (line.split("  ") for line in (OBJECT / "SHA256SUMS").read_text().splitlines())
    recorded = {name: checksum for checksum, name in lines}
    pictures = {
        f"{folder}/{path.name}" for folder in ("train", "val", "test", "depth") for path in (OBJECT / folder).iterdir()
    }
    assert recorded.keys() == pictures | {f"transforms_{share}.json" for share in ("train", "val", "test")}
    assert {name: hashlib.sha256((OBJECT / name).read_bytes()).hexdigest() for name in recorded} == recorded
    assert sum((OBJECT / name).stat().st_size for name in recorded) < 3_200_000


def test_the_split_is_the_file_s_own_and_the_background_white(scene: PosedScene) -> None:
    assert (len(scene), len(scene.train), len(scene.held_out)) == (140, 100, 20)
    assert all(scene.image_names[i].startswith("train/") for i in scene.train)
    assert all(scene.image_names[i].startswith("test/") for i in scene.held_out)
    assert {tuple(image.shape) for image in scene.images} == {(200, 200, 3)}
    assert all(image[0, 0].tolist() == [255, 255, 255] for image in scene.images)


def test_cameras_stand_on_the_upper_half_of_a_sphere_and_look_at_the_origin(scene: PosedScene) -> None:
    positions = scene.cameras.positions
    torch.testing.assert_close(torch.linalg.vector_norm(positions, dim=-1), torch.full((140,), 4.0))
    assert positions[:, 2].min() > 0.2
    torch.testing.assert_close(scene.cameras.forward, -positions / 4, atol=1e-5, rtol=0)


def test_the_bounds_are_the_object_s(scene: PosedScene, generator: ModuleType) -> None:
    reach = np.abs(np.array([solid.centre for solid in generator.everything()])).max(0)
    low, high = scene.bounds.centre - scene.bounds.half_size, scene.bounds.centre + scene.bounds.half_size
    assert (low < -0.75 * torch.tensor(reach)).all()
    assert (high > 0.75 * torch.tensor(reach)).all()
    assert scene.bounds.half_size.max() < 1.2


def test_depth_agrees_with_where_the_cameras_stand() -> None:
    alpha = np.asarray(Image.open(OBJECT / "test" / "r_0.png").getchannel("A"))
    depth = np.asarray(Image.open(OBJECT / "depth" / "r_0.png")) / 10_000
    assert (depth[alpha == 0] == 0).all()
    assert (depth[alpha == 255] > 0).all()
    assert 2.5 < depth[depth > 0].min() < depth.max() < 5.5


def test_the_generator_draws_the_bundled_picture(generator: ModuleType) -> None:
    frame = json.loads((OBJECT / "transforms_train.json").read_text())["frames"][0]
    rng = np.random.default_rng(2026)
    pose = generator.viewpoints(100, rng)[0]
    np.testing.assert_allclose(pose, frame["transform_matrix"], atol=1e-12)
    rgba, _ = generator.rendered(generator.Stage(generator.everything()), pose, size=50, grid=3)
    bundled = Image.open(OBJECT / "train" / "r_0.png")
    alpha = np.asarray(bundled.getchannel("A").reduce(4), float)
    assert np.abs(rgba[..., 3] - alpha).mean() < 3
    over = rgba[..., :3] * (rgba[..., 3:] / 255.0)
    expected = np.asarray(
        Image.alpha_composite(Image.new("RGBA", (200, 200), "black"), bundled).convert("RGB").reduce(4), float
    )
    assert np.abs(over - expected).mean() < 3


def test_hits_are_where_the_solids_are(generator: ModuleType) -> None:
    material = generator.BLACK
    solids = [
        generator.Solid(generator.BOX, (0.0, 0.0, 0.0), (0.5, 0.4, 0.3), material, generator.UPRIGHT),
        generator.Solid(generator.CYLINDER, (3.0, 0.0, 0.0), (0.2, 0.2, 1.0), material, generator.UPRIGHT),
        generator.Solid(generator.BALL, (-3.0, 0.0, 0.0), (0.5, 0.5, 0.25), material, generator.UPRIGHT),
    ]
    down = np.array([[0.0, 0.0, -1.0]] * 3)
    origins = np.array([[0.1, 0.1, 2.0], [3.1, 0.0, 2.0], [-3.0, 0.0, 2.0]])
    distance, solid, normal = generator.Stage(solids).hits(origins, down)
    np.testing.assert_allclose(distance, [1.7, 1.0, 1.75])
    assert solid.tolist() == [0, 1, 2]
    np.testing.assert_allclose(normal, [[0, 0, 1]] * 3, atol=1e-12)
    sideways = np.array([[1.0, 0.0, 0.0]])
    distance, solid, normal = generator.Stage(solids).hits(np.array([[2.0, 0.0, 0.5]]), sideways)
    assert (distance[0], solid[0]) == (pytest.approx(0.8), 1)
    np.testing.assert_allclose(normal, [[-1, 0, 0]], atol=1e-12)
    missed, none, _ = generator.Stage(solids).hits(np.array([[2.0, 0.0, 1.5]]), sideways)
    assert (missed[0], none[0]) == (math.inf, -1)
