"""The benchmark of coding: every point decodes, renders and says what it cost."""

import numpy as np
import pytest

import benchmarks.coding as benchmark
from crowdnerf_lab.coding.nncodec import VARIABLE
from crowdnerf_lab.coding.weights import importance_of
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import as_colour
from crowdnerf_lab.devices.reference import Reference
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.scene import bounds_of
from tests.toy_field import toy_cameras

CAMERAS = toy_cameras(2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    student = RayMLP(planes_across(CAMERAS, bounds_of(CAMERAS)), "XS", view_size=(48, 40)).eval()
    graph = export_onnx(student, tmp_path_factory.mktemp("coding") / "student.onnx", width=48, height=40)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    blank = Reference(CAMERAS, photos=(), teacher=())
    plain = benchmark.Point("float32", graph.read_bytes(), coded=False, exact=True)
    shown = benchmark._shown(plain, student, blank)
    noise = np.random.default_rng(0)
    photos = tuple(as_colour(np.clip(p + noise.normal(0, 20, p.shape), 0, 255).astype(np.uint8)) for p in shown)
    reference = Reference(CAMERAS, photos=photos, teacher=photos)
    importances = importance_of(student, CAMERAS)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(VARIABLE, raising=False)
        patched.setattr(benchmark, "_int8_points", lambda *_: iter(()))
        patched.setattr(benchmark, "PSNRS", (40, 28))
        patched.setattr(benchmark, "RELATIVE_STEPS", (0.2,))
        points = list(benchmark._points(graph, student, None, importances, parameters, None))
    return [benchmark._row(p, len(plain.content), parameters, shown, student, reference) for p in points]


def test_exact_points_show_the_same_pictures_and_lossy_ones_say_what_was_lost(rows):
    assert {row["codec"] for row in rows} >= {"float32", "zstd", "range, exact", "range, for 40 dB"}
    for row in rows:
        if row["exact"]:
            assert row["psnr_float32"] is None
            assert row["lost_db"] == 0
    lossy = [row for row in rows if row["codec"] in ("range, for 28 dB", "progressive, for 40 dB: 1 of 3 layers")]
    assert len(lossy) == 2
    assert all(row["psnr_float32"] > 20 for row in lossy)


def test_points_made_for_a_psnr_come_near_it_and_take_fewer_bytes_the_lower_it_is(rows):
    points = {int(row["codec"].split()[-2]): row for row in rows if row["codec"].startswith("range, for")}
    assert set(points) == {28, 40}
    for psnr, row in points.items():
        assert row["psnr_float32"] is None or row["psnr_float32"] > psnr - 4
    sizes = [points[psnr]["bytes"] for psnr in sorted(points)]
    assert sizes == sorted(sizes)


def test_without_nncodec_its_points_are_left_out(rows):
    assert not [row for row in rows if row["codec"].startswith("NNC")]
