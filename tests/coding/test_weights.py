"""Importances: what they promise of a student's pictures is what happens to them."""

import numpy as np
import pytest
import torch

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.coding.coded_graph import decode_graph, packed_graph
from crowdnerf_lab.coding.quantization import Importance
from crowdnerf_lab.coding.weights import PREFIX, importance_of
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.light_fields.planes import SamplingPlanes
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.scene import Bounds

SIZE = (64, 48)


def student(upsampling: str = "pixel_shuffle") -> RayMLP:
    bounds = Bounds(torch.zeros(3), torch.full((3,), 2.0))
    planes = SamplingPlanes(bounds, torch.tensor([0.0, 0.0, 1.0]), torch.linspace(-2, 2, 4))
    network = RayMLP(planes, "XS", upsampling=upsampling, view_size=SIZE, frequencies=3, seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1.5
    return network.eval()


def cameras(count: int, *, seed: int) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    pose = torch.eye(3, 4).repeat(count, 1, 1)
    pose[:, :, 3] = torch.randn(count, 3, generator=generator) * 0.5 + torch.tensor([0.0, 0.0, -5.0])
    width, height = SIZE
    return Cameras(
        pose,
        torch.full((count, 2), 60.0),
        torch.tensor([[width / 2, height / 2]]).repeat(count, 1),
        torch.full((count,), width),
        torch.full((count,), height),
        torch.zeros(count, 4),
    )


@pytest.fixture(scope="module")
def network() -> RayMLP:
    return student()


@pytest.fixture(scope="module")
def importances(network) -> dict[str, Importance]:
    return importance_of(network, cameras(12, seed=0), draws=6)


@torch.no_grad()
def squared_change(network: RayMLP, name: str, error: torch.Tensor) -> float:
    """Mean squared change of the pictures of other views when a parameter errs."""
    views, (width, height) = cameras(6, seed=9), SIZE
    before = network(views, height, width)
    parameter = dict(network.named_parameters())[name]
    parameter += error
    after = network(views, height, width)
    parameter -= error
    return float((after - before).square().mean())


@pytest.mark.parametrize("name", ["head.0.weight", "body.1.first.weight", "body.3.second.weight", "tail.0.weight"])
def test_the_promised_error_of_the_picture_is_the_one_that_is_seen(network, importances, name):
    importance = importances[PREFIX + name]
    shape = dict(network.named_parameters())[name].shape
    rng, promised, seen = np.random.default_rng(0), 0.0, 0.0
    for _ in range(8):
        error = rng.normal(0, 1e-3, shape[:2])
        promised += (importance.outputs * np.einsum("ri,ij,rj->r", error, importance.inputs, error)).sum()
        seen += squared_change(network, name, torch.from_numpy(error).float().reshape(shape))
    assert 0.5 < seen / promised < 2


def test_every_parameter_has_an_importance_under_its_name_in_the_graph(network, importances, tmp_path):
    graph = export_onnx(network, tmp_path / "g.onnx", width=SIZE[0], height=SIZE[1])
    assert set(importances) == {PREFIX + name for name, _ in network.named_parameters()}
    exact = decode_graph(packed_graph(graph), name="g").initializers
    lossy = decode_graph(packed_graph(graph, step=1e-3, importances=importances), name="g").initializers
    changed = {name for name in exact if not np.array_equal(exact[name], lossy[name])}
    assert changed
    assert changed <= set(importances)
    assert {name for name in exact if name.endswith("weight")} <= changed


def test_layers_that_see_their_neighbours_have_importances_too():
    network = student("conv_transpose")
    importances = importance_of(network, cameras(2, seed=0))
    for name, parameter in network.named_parameters():
        importance = importances[PREFIX + name]
        rows = parameter.shape[0] if parameter.ndim > 1 else 1
        assert importance.outputs.shape == (rows,)
        assert importance.inputs.shape[0] == parameter.numel() // rows
        assert (importance.outputs >= 0).all()


def test_the_same_seed_gives_the_same_importances(network):
    first, again = (importance_of(network, cameras(2, seed=0), seed=4) for _ in range(2))
    assert all(np.array_equal(first[name].outputs, again[name].outputs) for name in first)


def test_measuring_leaves_the_student_as_it_was(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    importance_of(network, cameras(1, seed=0))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
