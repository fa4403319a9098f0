"""The march in a real browser: textures filled in the page are those of numba, and so are the shader's pictures."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Error, Page

from benchmarks.browser.site import site_of
from crowdnerf_lab.cameras import look_at
from crowdnerf_lab.fields.array_files import arrays_file, read_arrays
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baked_rows import rows_file
from crowdnerf_lab.network.models.browser_models import packed
from tests.browser.chromium import Pages
from tests.toy_baked_field import ball, degree_0, thinned

WIDTH, HEIGHT = 56, 44
MEAN = 0.6 / 255
"""Mean difference of colours allowed; rounding to bytes alone makes 0.25 / 255."""

OPEN = """async ([name, spoiled, numbers]) => {
  const { texturesOfRows, FieldRenderer } = await import("/renderers.js");
  const bytesOf = async (name) => (await fetch("/" + name)).arrayBuffer();
  self.textures = { ...await texturesOfRows(new Uint8Array(await bytesOf(name))), ...numbers };
  for (const name of spoiled) textures[name] = new textures[name].constructor(await bytesOf(name));
  document.querySelector("canvas")?.remove();
  const canvas = document.body.appendChild(document.createElement("canvas"));
  self.renderer = new FieldRenderer(canvas, textures);
}"""
TEXTURES = """async () => {
  const { cells, bricks, cellsASide, bricksShape, ...uniforms } = textures;
  const reader = new FileReader();
  const read = new Promise((resolve) => (reader.onload = resolve));
  reader.readAsDataURL(new Blob([cells, bricks]));
  await read;
  const uniform = ([name, value]) => [name, typeof value === "number" ? value : [...value]];
  return {
    bytes: reader.result.split(",")[1],
    uniforms: Object.fromEntries(Object.entries(uniforms).map(uniform)),
    shapes: [[cellsASide, cellsASide, cellsASide, 4], [...bricksShape, 4]],
  };
}"""
DRAW = """async ([camera, scale]) => {
  await renderer.draw(camera, { scale });
  const { rgba, width, height } = renderer.pixels();
  return { rgba: [...rgba], width, height };
}"""
PICK_ALL = """({ width, height }) => Array.from({ length: width * height }, (_, i) => {
  const { distance, opacity } = renderer.pick(((i % width) + 0.5) / width, (Math.floor(i / width) + 0.5) / height);
  return [distance, opacity];
})"""
SHOWN = """async (camera) => {
  await renderer.draw(camera);
  const copy = new OffscreenCanvas(camera.width, camera.height).getContext("2d");
  copy.drawImage(document.querySelector("canvas"), 0, 0);
  return [...copy.getImageData(0, 0, camera.width, camera.height).data];
}"""
LOSE_AND_RESTORE = """async () => {
  const canvas = document.querySelector("canvas");
  const taken = canvas.getContext("webgl2").getExtension("WEBGL_lose_context");
  const happened = (event) => new Promise((resolve) => canvas.addEventListener(event, resolve, { once: true }));
  const lost = happened("webglcontextlost");
  taken.loseContext();
  await lost;
  await new Promise((resolve) => setTimeout(resolve));  // it may be given back once every listener was told
  const whileLost = renderer.lost;
  const restored = happened("webglcontextrestored");
  taken.restoreContext();
  await restored;
  return [whileLost, renderer.lost];
}"""


@dataclass(frozen=True)
class View:
    """A camera by where it stands and what it looks at, in metres; focal, centre in pixels."""

    eye: tuple[float, float, float]
    at: tuple[float, float, float]
    focal: tuple[float, float] = (60.0, 60.0)
    centre: tuple[float, float] = (WIDTH / 2, HEIGHT / 2)

    @property
    def pose(self) -> np.ndarray:
        """Camera-to-world [3 4]."""
        eye, at = torch.tensor([[self.eye, self.at]], dtype=torch.float32).unbind(1)
        return look_at(eye, at)[0].numpy()

    def by_numba(self, field: BakedField) -> Any:
        """The renderer's picture of it."""
        return field.render_image(self.pose, self.focal, centre=self.centre, width=WIDTH, height=HEIGHT, threads=1)

    @property
    def in_page(self) -> dict[str, Any]:
        """As JavaScript has it."""
        numbers = {"cameraToWorld": self.pose.ravel().tolist(), "focal": self.focal, "centre": self.centre}
        return numbers | {"width": WIDTH, "height": HEIGHT}


VIEWS = {
    "outside the box": View((3.4, 0.5, 0.4), (0, 0, 0), focal=(36.0, 36.0)),
    "far away": View((-9.0, 7.0, 4.0), (0, 0, 0), focal=(140.0, 140.0)),
    "on an edge of the box": View((2.1, 1.8, 0.3), (0, 0, 0), focal=(30.0, 30.0)),
    "along a face of the box": View((2.1, 5.0, 0.1), (2.1, -5.0, 0.0), focal=(40.0, 40.0)),
    "inside the box, by the ball": View((0.3, -1.78, 0.2), (0, 0.4, 0), focal=(30.0, 30.0)),
    "through a lens off its centre": View((1.0, 3.2, 1.5), (0, 0, 0), focal=(48.0, 64.0), centre=(20.5, 31.0)),
}
FORMS = {
    "bricks of one kind": lambda: ball(),
    "bricks of all kinds": lambda: thinned(ball()),
    "SH degree 0": lambda: degree_0(ball()),
    "across the faces of the box": lambda: thinned(ball(radius=0.3, steps=160)),
}


Spoiled, Numbers = Mapping[str, np.ndarray], Mapping[str, float]
NOTHING: Mapping[str, Any] = {}


class Screen:
    """A page with a renderer, and the fields it was given."""

    def __init__(self, page: Page, offered: dict[str, bytes]) -> None:
        self.page, self._offered = page, offered

    def show(self, field: BakedField, *, spoiled: Spoiled = NOTHING, numbers: Numbers = NOTHING) -> None:
        """Have it open a field, with other textures and numbers than its own where they are given."""
        self.open(rows_file(field), spoiled=spoiled, numbers=numbers)

    def open(self, content: bytes, *, spoiled: Spoiled = NOTHING, numbers: Numbers = NOTHING) -> None:
        """Have it read a file, gzip'd on the way."""
        self._offered["field"] = packed(content)
        self._offered.update((name, texture.tobytes()) for name, texture in spoiled.items())
        self.page.evaluate(OPEN, ["field", list(spoiled), dict(numbers)])

    def textures(self) -> dict[str, Any]:
        """What it filled: cells and bricks, and the uniforms."""
        found = self.page.evaluate(TEXTURES)
        cells, bricks = found["shapes"]
        bytes_ = np.frombuffer(base64.b64decode(found["bytes"]), np.uint8)
        parts = bytes_[: np.prod(cells)], bytes_[np.prod(cells) :]
        return found["uniforms"] | {"cells": parts[0].reshape(cells), "bricks": parts[1].reshape(bricks)}

    def colours(self, view: View, *, scale: float = 1.0) -> np.ndarray:
        """What it draws of a view, [h w 3] in [0, 1]."""
        drawn = self.page.evaluate(DRAW, [view.in_page, scale])
        return np.array(drawn["rgba"]).reshape(drawn["height"], drawn["width"], 4)[..., :3] / 255


@pytest.fixture(scope="module")
def screen(pages: Pages) -> Iterator[Screen]:
    offered: dict[str, bytes] = {}
    with site_of(offered) as url:
        yield Screen(pages.open(url), offered)


@pytest.fixture(scope="module")
def field() -> BakedField:
    return thinned(ball())


@pytest.mark.parametrize("form", FORMS)
def test_the_shader_draws_what_numba_draws(screen: Screen, form: str) -> None:
    field = FORMS[form]()
    screen.show(field)
    for name, view in VIEWS.items():
        ours = view.by_numba(field).colour
        difference = np.abs(screen.colours(view) - ours)
        assert ours.std() > 0.02, name
        assert difference.mean() <= MEAN, name
        assert (difference > 8 / 255).mean() < 0.01, name


@pytest.mark.parametrize("form", FORMS)
def test_the_page_fills_the_textures_that_numba_fills(screen: Screen, form: str) -> None:
    """Byte by byte, but for one in 10 000 where float32 rounds the other way."""
    field = FORMS[form]()
    expected = field.textures()
    screen.show(field)
    found = screen.textures()
    np.testing.assert_array_equal(found["cells"], expected.cells)
    difference = np.abs(found["bricks"].astype(int) - expected.bricks)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4
    for name in set(vars(expected)) - {"cells", "bricks"}:
        np.testing.assert_array_equal(np.ravel(found[name]), np.ravel(getattr(expected, name)), err_msg=name)


def test_another_field_is_told_apart(screen: Screen, field: BakedField) -> None:
    """The bound above can fail: neighbouring texels exchanged, steps taken whole, or a leap one cell too long."""
    view = VIEWS["outside the box"]
    textures, ours = field.textures(), view.by_numba(field).colour
    longer = textures.cells.copy()
    longer[..., 3] += (longer[..., 2] < 64).astype(np.uint8)
    for spoiled, numbers in (
        ({"bricks": np.roll(textures.bricks, 1, axis=2)}, {}),
        ({}, {"finest": 1}),
        ({"cells": longer}, {}),
    ):
        screen.show(field, spoiled=spoiled, numbers=numbers)
        assert np.abs(screen.colours(view) - ours).mean() > MEAN


def test_every_point_knows_how_far_it_is(screen: Screen, field: BakedField) -> None:
    view = VIEWS["outside the box"]
    screen.show(field)
    screen.colours(view)
    distance, opacity = np.array(screen.page.evaluate(PICK_ALL, view.in_page)).T.reshape(2, HEIGHT, WIDTH)
    ours = view.by_numba(field)
    solid = ours.opacity > 0.3
    assert 100 < solid.sum() < solid.size - 100
    np.testing.assert_allclose(distance[solid], ours.depth[solid], rtol=2e-3)
    np.testing.assert_allclose(opacity, ours.opacity, atol=2 / 255)


def test_the_canvas_shows_the_picture_upright(screen: Screen, field: BakedField) -> None:
    view = VIEWS["through a lens off its centre"]
    screen.show(field)
    shown = np.array(screen.page.evaluate(SHOWN, view.in_page)).reshape(HEIGHT, WIDTH, 4) / 255
    assert (shown[..., 3] == 1).all()
    np.testing.assert_array_equal(shown[..., :3], screen.colours(view))


def test_fewer_pixels_are_the_same_view(screen: Screen, field: BakedField) -> None:
    """At half the scale a pixel is the ray through the middle of four; the canvas stays as large as the view."""
    view = VIEWS["outside the box"]
    screen.show(field)
    half = screen.colours(view, scale=0.5)
    size = screen.page.evaluate("[document.querySelector('canvas').width, document.querySelector('canvas').height]")
    assert size == [WIDTH, HEIGHT]
    assert half.shape == (HEIGHT // 2, WIDTH // 2, 3)
    ours = view.by_numba(field).colour.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    assert np.abs(half - ours).mean() < 0.02


def test_a_graphics_processor_that_was_taken_away_draws_again(screen: Screen, field: BakedField) -> None:
    view = VIEWS["far away"]
    screen.show(field)
    before = screen.colours(view)
    assert screen.page.evaluate(LOSE_AND_RESTORE) == [True, False]
    np.testing.assert_array_equal(screen.colours(view), before)


def test_what_it_cannot_draw_it_refuses_in_words(screen: Screen, field: BakedField, tmp_path: Path) -> None:
    whole = rows_file(field)
    arrays, meta = read_arrays(whole, name=Path("rows"))
    fewer = {name: array[:-1] if name in ("values", "densities") else array for name, array in arrays.items()}
    other = arrays | {"kinds": arrays["kinds"] // 4 + 3}
    files = [
        (whole[: len(whole) // 2], "is truncated"),
        (b"", "is truncated"),
        (arrays_file(arrays | {"values": fewer["values"]}, meta), "numbers of rows instead of"),
        (arrays_file(arrays | {"densities": fewer["densities"]}, meta), "densities instead of"),
        (arrays_file(other, meta), "the atlas has room for"),
        (arrays_file(arrays | {"kinds": 0 * arrays["kinds"]}, meta), "a kind that does not exist"),
        (field.save(tmp_path / "baked").read_bytes(), "holds crowdnerf_lab.baked_field/2, not"),
    ]
    for content, words in files:
        with pytest.raises(Error, match=words):
            screen.open(content)


def test_a_browser_without_webgl_is_told_what_else_there_is(screen: Screen) -> None:
    open_without = """async () => {
      const { FieldRenderer } = await import("/renderers.js");
      const canvas = document.createElement("canvas");
      canvas.getContext("2d");
      new FieldRenderer(canvas, {});
    }"""
    with pytest.raises(Error, match="no WebGL2; choose a light field"):
        screen.page.evaluate(open_without)
