"""Plane features: what a lookup reads, that cells stand alone, and that a device's graph draws the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError, cell_rays
from crowdnerf_lab.light_fields.plane_features import LAYOUTS, PlaneFeatures, layout_of, plane_features
from crowdnerf_lab.scene import bounds_of
from tests.toy_field import ToyField, toy_cameras

CAMERAS = toy_cameras(6)
SMALL = replace(layout_of("XS"), points=4, columns=12, rows=8)


def student(**changes: int) -> PlaneFeatures:
    layout = replace(SMALL, **changes)
    return plane_features(ToyField(), CAMERAS, bounds_of(CAMERAS), layout=layout, view_size=(48, 40)).eval()


NETWORK = student()


@pytest.mark.parametrize("cell", [4, 8])
@pytest.mark.parametrize("size", [(48, 40), (61, 43)])
def test_one_pass_gives_images_of_any_size(cell: int, size: tuple[int, int]) -> None:
    width, height = size
    network = student(cell=cell)
    assert isinstance(network, LightField)
    images = network(CAMERAS, height, width)
    assert images.shape == (6, height, width, 3)
    assert images.min() >= 0
    assert images.max() <= 1


def test_every_cell_is_drawn_for_itself() -> None:
    network = student()
    whole = network(CAMERAS, 40, 48)
    origins, directions = cell_rays(CAMERAS, 10, 12, cell=4)
    alone = network.from_rays(origins, directions[:, :, 3:4, 5:6]).permute(0, 2, 3, 1)
    torch.testing.assert_close(alone, whole[:, 12:16, 20:24], atol=1e-5, rtol=0)
    assert network.cells_are_independent


def test_a_lookup_reads_the_picture_at_its_texels_and_between_them() -> None:
    network = student()
    u, v = torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 8)
    places = torch.stack(torch.meshgrid(u, v, indexing="xy")).expand(2, 4, 2, 8, 12).clone()
    read = network.features_at(places).unflatten(1, (4, -1))
    torch.testing.assert_close(read, network.pictures.expand_as(read), atol=1e-5, rtol=0)
    between = network.features_at((places[..., 1:] + places[..., :-1]) / 2).unflatten(1, (4, -1))
    torch.testing.assert_close(between, (read[..., 1:] + read[..., :-1]) / 2, atol=1e-5, rtol=0)


@given(st.floats(-3, 3))
def test_places_do_not_depend_on_where_along_the_ray_the_camera_stands(shift: float) -> None:
    network = NETWORK
    origins, directions = cell_rays(CAMERAS, 5, 6, cell=8)
    moved = network.places(origins + shift * directions, directions)
    torch.testing.assert_close(moved, network.places(origins, directions), atol=1e-3, rtol=1e-3)


def test_a_device_s_graph_draws_the_same(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = student()
    path = export_onnx(network, tmp_path / "student.onnx", width=46, height=38)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    views = CAMERAS.resized(46, 38)
    feeds = {name: getattr(views, name)[1].numpy() for name in ("camera_to_world", "focal", "centre")}
    drawn = session.run(None, feeds)[0]
    np.testing.assert_allclose(drawn, network(CAMERAS[1:2], 38, 46).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize(("size", "kilobytes"), [("XS", 100), ("S", 300), ("M", 1000)])
def test_a_size_fits_its_bytes_at_eight_bits(size: str, kilobytes: int) -> None:
    layout = layout_of(size)
    network = plane_features(ToyField(), CAMERAS, bounds_of(CAMERAS), layout=layout)
    assert sum(p.numel() for p in network.parameters()) < 1000 * kilobytes
    assert f"{layout.points} planes of {layout.columns} x {layout.rows}" in network.architecture


def test_unknown_sizes_and_wrong_planes_are_refused() -> None:
    with pytest.raises(
        LightFieldError, match="'XXL' is not known; choose one of " + ", ".join(of.size for of in LAYOUTS)
    ):
        layout_of("XXL")
    network = student()
    with pytest.raises(LightFieldError, match="needs 5 planes, not 4"):
        PlaneFeatures.from_tensors(
            network.state_dict(),
            network.header() | {"layout": network.header()["layout"].replace(': 4, "col', ': 5, "col')},
        )
