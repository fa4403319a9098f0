"""Anonymised pictures: nothing of a face is left, nothing else is touched."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab.captures.privacy.anonymisation import anonymised, hidden_pixels
from crowdnerf_lab.captures.privacy.faces import Face, FaceSearch, find_faces

NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
FACE = Face(30, 20, 46, 42, score=0.9)


def inside(face: Face) -> tuple[slice, slice]:
    return slice(round(face.top), round(face.bottom)), slice(round(face.left), round(face.right))


@pytest.mark.row("S20")
def test_what_is_drawn_does_not_depend_on_the_face():
    """The strongest form of irreversible: two faces in the same surroundings give the same bits."""
    other = NOISE.clone()
    other[inside(FACE)] = torch.randint(0, 256, (22, 16, 3), dtype=torch.uint8)
    assert not torch.equal(other, NOISE)
    assert torch.equal(anonymised(NOISE, [FACE]), anonymised(other, [FACE]))


@pytest.mark.row("S20")
def test_a_found_face_is_no_longer_found():
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as picture:
        image = torch.from_numpy(np.array(picture.convert("RGB").resize((256, 256))))
    found = find_faces(image)
    face = found[0]
    for left in find_faces(anonymised(image, found), search=FaceSearch(enlarged=1.0)):
        x, y = (left.left + left.right) / 2, (left.top + left.bottom) / 2
        assert not (face.left < x < face.right and face.top < y < face.bottom)


def test_pixels_elsewhere_stay_bit_for_bit_and_those_that_change_are_told():
    result = anonymised(NOISE, [FACE])
    hidden = hidden_pixels([FACE], 80, 60)
    assert torch.equal(result[~hidden], NOISE[~hidden])
    assert bool(hidden[inside(FACE)].all())
    assert (result[hidden] != NOISE[hidden]).any(-1).float().mean() > 0.9
    assert 0 < float(hidden.float().mean()) < 0.3


def test_the_filling_has_the_colour_around_it_and_no_hard_edge():
    ramp = torch.zeros((60, 80, 3), dtype=torch.uint8)
    ramp[..., 0] = torch.arange(80) * 3
    ramp[..., 1] = torch.arange(60)[:, None] * 4
    result = anonymised(ramp, [FACE]).to(torch.float32)
    # A slope of 3 and 4 a pixel; the filling may be flatter or a little steeper, but has no step.
    assert float((result[:, 1:] - result[:, :-1]).abs().max()) < 16
    assert float((result[1:] - result[:-1]).abs().max()) < 16
    assert float((result - ramp.to(torch.float32)).abs().mean()) < 3
    flat = torch.full((60, 80, 3), 77, dtype=torch.uint8)
    assert torch.equal(anonymised(flat, [FACE]), flat)


def test_neighbouring_faces_do_not_colour_each_other():
    """One face's filling is taken from around both, never from the other face."""
    faces = [FACE, Face(47, 20, 63, 42, score=0.5)]
    other = NOISE.clone()
    for face in faces:
        other[inside(face)] = 255
    assert torch.equal(anonymised(NOISE, faces), anonymised(other, faces))


def test_a_face_that_fills_the_picture_becomes_grey():
    result = anonymised(NOISE, [Face(-5, -5, 85, 65, score=1.0)])
    assert torch.equal(result, torch.full_like(NOISE, 128))


def test_no_faces_change_nothing_and_the_input_is_left_alone():
    before = NOISE.clone()
    assert torch.equal(anonymised(NOISE, []), NOISE)
    assert not hidden_pixels([], 80, 60).any()
    anonymised(NOISE, [FACE])
    assert torch.equal(NOISE, before)


@given(
    st.tuples(*[st.floats(-30, 110)] * 2), st.tuples(*[st.floats(0.5, 90)] * 2), st.integers(1, 40), st.integers(1, 40)
)
def test_any_box_in_any_picture_is_covered(corner, size, width, height):
    face = Face(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1], score=0.5)
    image = torch.zeros((height, width, 3), dtype=torch.uint8)
    marked = image.clone()
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    box = (x > face.left) & (x < face.right) & (y > face.top) & (y < face.bottom)
    marked[box] = 255
    result = anonymised(marked, [face])
    expected = 0 if bool((~hidden_pixels([face], width, height)).any()) else 128
    assert not box.any() or set(result[box].unique().tolist()) <= {expected, 128}
