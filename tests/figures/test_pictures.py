"""Pictures in figures: every pixel of them, in their proportions, with the right decibels."""

import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab import figures
from crowdnerf_lab.figures.style import GAP, WIDTH


def picture(height: int = 24, width: int = 32, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def embedded(figure, position: int = 0) -> np.ndarray:
    source = figure.layout.images[position].source
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_a_picture_in_a_figure_keeps_every_pixel():
    pixels = (picture() * 255).to(torch.uint8)
    figure = figures.image_strip({"a photo": pixels})
    np.testing.assert_array_equal(embedded(figure), pixels.numpy())


def test_floats_and_their_bytes_look_the_same():
    pixels = (picture() * 255).to(torch.uint8)
    as_float = pixels.to(torch.float32) / 255
    np.testing.assert_array_equal(
        embedded(figures.image_strip({"a": pixels})), embedded(figures.image_strip({"a": as_float.numpy()}))
    )


def test_pictures_keep_their_proportions():
    figure = figures.image_strip({"wide": picture(20, 40), "tall": picture(40, 20)})
    wide, tall = figure.layout.images
    assert wide.sizey / wide.sizex == pytest.approx(0.5)
    assert tall.sizey / tall.sizex == pytest.approx(2.0)
    width = figure.layout.xaxis.range[1]
    height = figure.layout.yaxis.range[0]
    margin = figure.layout.margin
    assert figure.layout.width - margin.l - margin.r == pytest.approx(width)
    assert figure.layout.height - margin.t - margin.b == pytest.approx(height, abs=1)


def test_a_strip_says_how_far_each_picture_is_from_the_truth():
    truth = torch.full((8, 8, 3), 0.5)
    figure = figures.image_strip(
        {"truth": truth, "off by a tenth": truth + 0.1, "smaller": truth[:4]},
        truth=truth,
        notes={"off by a tenth": "9 kB"},
    )
    words = [annotation.text for annotation in figure.layout.annotations]
    assert words == ["truth", "off by a tenth", "20.0 dB · 9 kB", "smaller"]


def test_a_triptych_shows_where_the_error_is():
    truth = torch.zeros(8, 8, 3)
    render = truth.clone()
    render[2, 3] = 1.0
    figure = figures.triptych(truth, render, name="field")
    error = embedded(figure, 2).astype(int).sum(-1)
    assert np.unravel_index(error.argmax(), error.shape) == (2, 3)
    assert any("18.1 dB" in annotation.text for annotation in figure.layout.annotations)


def test_pictures_side_by_side_keep_their_pixels_and_a_gap():
    left, right = (picture(seed=seed) for seed in (0, 1))
    sheet = np.asarray(figures.side_by_side([left, right]))
    assert sheet.shape == (24, 2 * 32 + GAP, 3)
    np.testing.assert_array_equal(sheet[:, :32], (left.numpy() * 255).round().astype(np.uint8))
    assert (sheet[:, 32:-32] == 255).all()
    assert figures.side_by_side([left], enlarge=2).size == (64, 48)


@given(st.floats(-2, 2), st.floats(0.1, 3))
def test_false_colour_spans_its_range_and_clips_outside(low: float, span: float):
    values = torch.tensor([[low - 1, low, low + span, low + span + 1]])
    dark, at_low, at_high, bright = figures.false_colour(values, low=low, high=low + span)[0].astype(int)
    assert (dark == at_low).all()
    assert (bright == at_high).all()
    assert at_low.sum() < at_high.sum()


def test_a_contact_sheet_frames_the_rejected_in_the_colour_of_the_reason():
    pictures = [picture(seed=seed) for seed in range(5)]
    figure = figures.contact_sheet(
        pictures, captions=list("abcde"), reasons=[None, "blur", "dark", None, "blur"], columns=3
    )
    assert len(figure.layout.images) == 5
    frames = [shape.line.color for shape in figure.layout.shapes]
    assert len(frames) == 3
    assert frames[0] == frames[2] != frames[1]
    assert list(figure.data[0].text) == ["a", "b: blur", "c: dark", "d", "e: blur"]


@pytest.mark.browser
def test_a_figure_becomes_a_png_for_pages_that_run_no_script():
    import kaleido

    content = kaleido.calc_fig_sync(
        figures.triptych(picture(), picture(seed=1)).to_dict(), opts={"format": "png", "scale": 1}
    )
    assert Image.open(io.BytesIO(content)).width == WIDTH
