"""The figures: what they show is where it should be, every pixel of it, and small."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab import figures
from crowdnerf_lab.cameras import Cameras, look_at, pinhole, project
from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.screening import Check, ScreeningReport, ScreeningRow


@dataclass(frozen=True)
class Record:
    seconds: float
    held_out_psnr: float | None


def ring(count: int) -> Cameras:
    angle = torch.arange(count) * 2 * torch.pi / max(count, 1)
    eyes = torch.stack([10 * torch.cos(angle), 10 * torch.sin(angle), torch.full_like(angle, 2.0)], dim=-1)
    return pinhole(look_at(eyes, torch.zeros(count, 3)), torch.full((count,), 300.0), width=320, height=240)


def picture(height: int = 24, width: int = 32, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def embedded(figure, position: int = 0) -> np.ndarray:
    source = figure.layout.images[position].source
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


@given(st.integers(1, 5), st.floats(0.1, 20))
def test_frusta_reach_the_corners_of_their_images_at_the_given_depth(count: int, depth: float):
    cameras = ring(count)
    lines = torch.from_numpy(figures.frustum_lines(cameras, depth)).reshape(count, -1, 3)
    pixels, along = project(cameras, lines[:, 2])
    torch.testing.assert_close(along, torch.full((count,), depth), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pixels, torch.tensor([320.0, 240.0]).expand(count, 2), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(lines[:, 5], cameras.positions)


def test_a_map_draws_each_group_as_one_line_trace_with_equal_axes():
    figure = figures.capture_map({"kept": ring(40), "blurred": ring(3)}, points=torch.zeros(5, 3))
    assert [trace.name for trace in figure.data] == ["scene points", "kept (40)", "blurred (3)"]
    assert figure.layout.scene.aspectmode == "data"
    assert figure.data[1].line.color != figure.data[2].line.color


def test_a_map_of_two_thousand_cameras_stays_small():
    assert len(figures.capture_map({"crowd": ring(2000)}).to_json()) < 1_000_000


def test_point_colours_are_the_scene_s():
    points, colours = torch.zeros(2, 3), torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.0, 2.0]])
    figure = figures.capture_map({"kept": ring(2)}, points=points, point_colours=colours)
    assert list(figure.data[0].marker.color) == ["rgb(255,51,0)", "rgb(0,0,255)"]


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
    assert sheet.shape == (24, 2 * 32 + figures.GAP, 3)
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


def test_a_curve_keeps_only_what_was_measured():
    history = [Record(0.0, None), Record(1.0, 12.0), Record(2.0, None), Record(3.0, 15.5)]
    figure = figures.training_curve({"field": history, "nothing yet": [Record(0.0, None)]})
    assert list(figure.data[0].x) == [1.0, 3.0]
    assert figure.data[0].text[-1].strip() == "field 15.5 dB"
    assert list(figure.data[1].x) == []


def screening_row(photo: str, check: Check, *, measured: float, threshold: float, kept: bool) -> ScreeningRow:
    return ScreeningRow(
        ue="ue00",
        photo=photo,
        path=Path(photo),
        check=check,
        kept=kept,
        reason="" if kept else check,
        measured=measured,
        threshold=threshold,
    )


def test_margins_are_positive_inside_the_limit_whichever_way_the_limit_points():
    report = ScreeningReport(
        (
            screening_row("a", "direction", measured=math.radians(10), threshold=math.radians(30), kept=True),
            screening_row("b", "direction", measured=math.radians(90), threshold=math.radians(30), kept=False),
            screening_row("a", "blur", measured=-6.0, threshold=-7.0, kept=True),
            screening_row("a", "over", measured=0.5, threshold=0.1, kept=False),
        )
    )
    direction, dark, over, blur = figures.screening_margins(report).data
    assert list(direction.y) == pytest.approx([-60, 20])
    assert list(direction.text) == ["b", "a"]
    assert not dark.y
    assert list(over.y) == pytest.approx([-40])
    assert list(blur.y) == [1.0]
    assert direction.marker.color[1] == blur.marker.color[0] != direction.marker.color[0]


def test_the_crowd_is_mapped_by_what_the_screening_found():
    captures = concert()
    bad = captures.photos[4].file
    report = ScreeningReport(
        tuple(
            screening_row(photo.file, "blur", measured=0.0, threshold=1.0, kept=photo.file != bad)
            for photo in captures.photos
        )
    )
    figure = figures.crowd_map(captures, report)
    assert [trace.name for trace in figure.data] == [f"kept ({len(captures.photos) - 1})", "blurred (1)"]


def test_a_table_is_markdown_with_numbers_to_the_right():
    shown = figures.table([{"what": "a|b", "dB": 19.23456, "ok": True}, {"what": None, "dB": 7, "ok": False}])
    assert shown._repr_markdown_().splitlines() == [
        "| what | dB | ok |",
        "| :--- | ---: | ---: |",
        "| a\\|b | 19.23 | yes |",
        "| – | 7 | no |",
    ]


@pytest.mark.browser
def test_a_figure_becomes_a_png_for_pages_that_run_no_script():
    import kaleido

    content = kaleido.calc_fig_sync(
        figures.triptych(picture(), picture(seed=1)).to_dict(), opts={"format": "png", "scale": 1}
    )
    assert Image.open(io.BytesIO(content)).width == figures.WIDTH
