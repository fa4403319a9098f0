"""A student and its graphs, made once for the tests of this folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crowdnerf_lab.light_fields.ray_mlp import RayMLP

WIDTH, HEIGHT = 61, 43


@pytest.fixture(scope="session")
def student() -> "RayMLP":
    """A ray MLP of size XS with random weights, large enough to give a picture with contrast."""
    import torch

    from crowdnerf_lab.light_fields.planes import planes_across
    from crowdnerf_lab.light_fields.ray_mlp import RayMLP
    from crowdnerf_lab.scene import bounds_of
    from tests.toy_field import toy_cameras

    cameras = toy_cameras(6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RayMLP(planes_across(cameras, bounds_of(cameras)), "XS", view_size=(WIDTH, HEIGHT)).eval()
    with torch.no_grad():
        network.tail[0].weight.mul_(8)
    return network


@pytest.fixture(scope="session")
def graph(student: "RayMLP", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's float32 graph for 61 x 43 pixels: neither divides by 8."""
    from crowdnerf_lab.devices.export import export_onnx

    return export_onnx(student, tmp_path_factory.mktemp("graph") / "float32.onnx", width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="session")
def ladder_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy ladder: int8 in every coding, float32 and the baked field plain and progressive."""
    from tests.toy_artefacts import toy_ladder

    root = tmp_path_factory.mktemp("ladder")
    codings = ("none", "zstd", "range", "progressive")
    ladder = toy_ladder(root, formats=("onnx_float32", "onnx_int8_qdq"), codings=codings)
    chosen = [
        rung
        for rung in ladder.candidates()
        if rung.stored_as == "onnx_int8_qdq" or rung.coding in ("none", "progressive")
    ]
    assert len(ladder.build_all(chosen, progress=False)) == len(chosen)
    return root
