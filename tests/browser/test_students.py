"""Students in a real browser: the pictures that WebAssembly draws are ONNX Runtime's."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from playwright.sync_api import Error, Page

from benchmarks.browser.site import site_of
from crowdnerf_lab.coding.coded_graph import packed_graph
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.quantize import convert
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.light_fields.light_slab import LightSlab, slabs_of
from crowdnerf_lab.light_fields.plane_features import layout_of, plane_features
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.light_fields.surfaces import seen_surfaces
from crowdnerf_lab.network.models.browser_models import packed, plain_graph
from crowdnerf_lab.scene import bounds_of
from crowdnerf_lab.widgets.built import RUNTIME, built_file
from tests.browser.chromium import Pages
from tests.toy_field import ToyField, toy_cameras

WIDTH, HEIGHT = 48, 40
INPUTS = ("camera_to_world", "focal", "centre")
CAMERAS = toy_cameras(3, width=WIDTH, height=HEIGHT)
FLOAT, INTEGER = 1e-3, 0.05
"""Largest differences of colours in [0, 1]. Integers of another order of summation may round to the next step."""

DRAW = """async ([name, cameras, threads = 1]) => {
  const { StudentRenderer } = await import("/renderers.js");
  const got = async (file) => new Uint8Array(await (await fetch(file)).arrayBuffer());
  const [runtime, model] = await Promise.all([got("/ort-wasm-simd-threaded.wasm.gz"), got("/" + name)]);
  const student = await StudentRenderer.open({ runtime, model, threads });
  try {
    const drawn = await Promise.all(cameras.map((camera) => student.render(camera)));
    const asLists = ({ ms, image, pixels }) => ({ ms, image: [...image], pixels: [...pixels], ...student.opened });
    return drawn.map(asLists);
  } finally {
    student.close();
  }
}"""


def ray_mlp(**settings: Any) -> LightField:
    return RayMLP(planes_across(CAMERAS, bounds_of(CAMERAS)), "XS", view_size=(WIDTH, HEIGHT), **settings)


def small_planes() -> LightField:
    layout = replace(layout_of("XS"), points=4, columns=12, rows=8)
    return plane_features(ToyField(), CAMERAS, bounds_of(CAMERAS), layout=layout, view_size=(WIDTH, HEIGHT))


def light_slab() -> LightField:
    return LightSlab(slabs_of(seen_surfaces(ToyField(), CAMERAS, rays=4096)), "XS", view_size=(WIDTH, HEIGHT))


STUDENTS: dict[str, Callable[[], LightField]] = {
    "ray_mlp": ray_mlp,
    "ray_mlp of the paper": lambda: ray_mlp(activation="gelu", upsampling="conv_transpose"),
    "plane_features": small_planes,
    "light_slab": light_slab,
}


@dataclass
class Shelf:
    """Graphs by name, made when they are first asked for, and the page of the site that offers them, gzip'd."""

    folder: Path
    pages: Pages
    page: Page
    offered: dict[str, bytes] = field(default_factory=dict)

    def graph(self, student: str) -> Path:
        """The float32 graph of a student."""
        path = self.folder / student
        return path if path.exists() else export_onnx(STUDENTS[student](), path, width=WIDTH, height=HEIGHT)

    def drawn(self, graph: bytes, *, enlarged: tuple[int, ...] = (1,)) -> list[dict[str, Any]]:
        """What the browser draws of the first camera, asked for at so many times the size."""
        self.offered["student"] = packed(graph)
        return self.page.evaluate(DRAW, ["student", [camera_of(0, enlarged=times) for times in enlarged]])


def camera_of(index: int, *, enlarged: int = 1) -> dict[str, Any]:
    """A camera as JavaScript has it."""
    focal, centre = (enlarged * each[index] for each in (CAMERAS.focal, CAMERAS.centre))
    return {
        "cameraToWorld": CAMERAS.camera_to_world[index].flatten().tolist(),
        "focal": focal.tolist(),
        "centre": centre.tolist(),
        "width": enlarged * WIDTH,
        "height": enlarged * HEIGHT,
    }


def by_onnx_runtime(graph: bytes) -> np.ndarray:
    """What ONNX Runtime draws of the first camera [h w 3]."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {name: getattr(CAMERAS, name)[0].numpy() for name in INPUTS}
    return np.asarray(session.run(["image"], feeds)[0])[0]


@pytest.fixture(scope="module")
def shelf(pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    offered: dict[str, bytes] = {}
    with site_of(offered) as url:
        yield Shelf(tmp_path_factory.mktemp("graphs"), pages, pages.open(url), offered)


@pytest.mark.row("S35")
@pytest.mark.parametrize("student", STUDENTS)
def test_the_browser_draws_what_onnx_runtime_draws(shelf: Shelf, student: str) -> None:
    graph = shelf.graph(student).read_bytes()
    (drawn,), expected = shelf.drawn(graph), by_onnx_runtime(graph)
    assert (drawn["width"], drawn["height"], drawn["threads"]) == (WIDTH, HEIGHT, 1)
    image = np.array(drawn["image"]).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(image - expected).max() < FLOAT
    assert expected.std() > 0.01  # a picture, not a wall
    pixels = np.array(drawn["pixels"]).reshape(HEIGHT, WIDTH, 4)
    assert np.abs(pixels[..., :3] - 255 * image).max() <= 0.5
    assert (pixels[..., 3] == 255).all()
    assert drawn["ms"] > 0


@pytest.mark.parametrize(
    ("stored_as", "tolerance"),
    [
        ("onnx_float16", FLOAT),
        ("onnx_int8_weights", FLOAT),
        ("onnx_int4_weights", FLOAT),
        ("onnx_int8_matmul", INTEGER),
        ("onnx_int8_qdq", INTEGER),
    ],
)
def test_every_form_of_a_student_shows_the_same_there(shelf: Shelf, stored_as: Any, tolerance: float) -> None:
    views = [{name: getattr(CAMERAS, name)[i].numpy() for name in INPUTS} for i in range(len(CAMERAS))]
    converted = convert(shelf.graph("ray_mlp"), shelf.folder / stored_as, stored_as=stored_as, feeds=views)
    graph = converted.path.read_bytes()
    image = np.array(shelf.drawn(graph)[0]["image"]).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(image - by_onnx_runtime(graph)).max() < tolerance


def test_the_camera_is_scaled_to_the_students_own_size(shelf: Shelf) -> None:
    once, twice = shelf.drawn(shelf.graph("ray_mlp").read_bytes(), enlarged=(1, 2))
    np.testing.assert_allclose(twice["image"], once["image"], atol=1e-6)


def test_a_coded_student_is_the_same_there_whether_fetch_unpacked_it_or_not(shelf: Shelf) -> None:
    path = shelf.graph("ray_mlp")
    graph = plain_graph(packed_graph(path, coding="progressive"), name=path)
    unpacked = {"student": graph, RUNTIME: gzip.decompress(built_file(RUNTIME).read_bytes())}
    with site_of(unpacked) as url:
        (drawn,) = shelf.pages.open(url).evaluate(DRAW, ["student", [camera_of(0)]])
    image = np.array(drawn["image"]).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(image - by_onnx_runtime(path.read_bytes())).max() < FLOAT


@pytest.mark.parametrize(("isolated", "threads"), [(True, 2), (False, 1)])
def test_threads_are_used_where_the_page_may_have_them(shelf: Shelf, isolated: bool, threads: int) -> None:
    graph = shelf.graph("ray_mlp").read_bytes()
    with site_of({"student": packed(graph)}, isolated=isolated) as url:
        (drawn,) = shelf.pages.open(url).evaluate(DRAW, ["student", [camera_of(0)], 2])
    assert drawn["threads"] == threads
    image = np.array(drawn["image"]).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(image - by_onnx_runtime(graph)).max() < FLOAT


def test_a_closed_student_draws_no_more(shelf: Shelf) -> None:
    closed = DRAW.replace("student.render(camera)", "(student.close(), student.render(camera))")
    shelf.offered["student"] = packed(shelf.graph("ray_mlp").read_bytes())
    with pytest.raises(Error, match=r"was closed; open it again"):
        shelf.page.evaluate(closed, ["student", [camera_of(0)]])


def test_what_is_no_student_is_refused(shelf: Shelf) -> None:
    with pytest.raises(Error, match=r"student|model"):
        shelf.drawn(b"nonsense")
