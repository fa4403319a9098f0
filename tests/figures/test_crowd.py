"""Maps of the crowd and of what the screening found: everything is where it should be, and small."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab import figures
from crowdnerf_lab.cameras import Cameras, look_at, pinhole, project
from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.screening.screen import Check, ScreeningReport, ScreeningRow
from crowdnerf_lab.figures.crowd import frustum_lines
from crowdnerf_lab.figures.style import COLOUR_OF


def ring(count: int) -> Cameras:
    angle = torch.arange(count) * 2 * torch.pi / max(count, 1)
    eyes = torch.stack([10 * torch.cos(angle), 10 * torch.sin(angle), torch.full_like(angle, 2.0)], dim=-1)
    return pinhole(look_at(eyes, torch.zeros(count, 3)), torch.full((count,), 300.0), width=320, height=240)


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


@given(st.integers(1, 5), st.floats(0.1, 20))
def test_frusta_reach_the_corners_of_their_images_at_the_given_depth(count: int, depth: float):
    cameras = ring(count)
    lines = torch.from_numpy(frustum_lines(cameras, depth)).reshape(count, -1, 3)
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


def test_points_keep_their_colours_and_mistaken_ones_far_away_are_left_out():
    points = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    colours = torch.tensor([1.0, 0.2, 0.0]).repeat(1000, 1)
    points[7], colours[7] = torch.tensor([0.0, 900.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    drawn = figures.capture_map({"kept": ring(2)}, points=points, point_colours=colours).data[0]
    assert 900 < len(drawn.x) == len(drawn.marker.color) < 1000
    assert max(drawn.y) < 10
    assert set(drawn.marker.color) == {"rgb(255,51,0)"}


def test_margins_are_positive_inside_the_limit_whichever_way_the_limit_points():
    report = ScreeningReport(
        (
            screening_row("a", "direction", measured=math.radians(10), threshold=math.radians(30), kept=True),
            screening_row("b", "direction", measured=math.radians(90), threshold=math.radians(30), kept=False),
            screening_row("a", "blur", measured=-6.0, threshold=-7.0, kept=True),
            screening_row("a", "over", measured=0.5, threshold=0.1, kept=False),
        )
    )
    figure = figures.screening_margins(report)
    direction, over, blur = figure.data
    titles = [annotation.text.partition(",")[0] for annotation in figure.layout.annotations]
    assert titles == ["wrong way", "over-exposed", "blurred"]
    assert list(direction.y) == pytest.approx([-60, 20])
    assert list(direction.text) == ["b", "a"]
    assert list(over.y) == pytest.approx([-40])
    assert list(blur.y) == [1.0]
    assert direction.marker.color[1] == blur.marker.color[0] != direction.marker.color[0]


def test_margins_are_shown_of_every_check_that_tells_photos_apart_up_to_ten():
    checks: tuple[Check, ...] = (
        *("small", "drawn", "framed", "display", "time", "place", "direction"),
        *("dark", "over", "blur", "noise", "position"),
    )
    rows = [
        screening_row(photo, check, measured=value, threshold=100.0, kept=(photo, check) != ("b", "noise"))
        for check in checks
        for photo, value in (("a", 0.0), ("b", 1.0))
    ]
    unknown = [screening_row(photo, "speed", measured=math.nan, threshold=12.0, kept=True) for photo in "ab"]
    even = [screening_row(photo, "attitude", measured=0.1, threshold=0.4, kept=True) for photo in "ab"]
    facts = [screening_row(photo, "duplicate", measured=1.0, threshold=1.0, kept=True) for photo in "ab"]
    figure = figures.screening_margins(ScreeningReport((*rows, *unknown, *even, *facts)))
    titles = [annotation.text.partition(",")[0] for annotation in figure.layout.annotations]
    assert titles == [figures.REASONS[check] for check in checks if check not in ("blur", "position")]
    assert len({(trace.xaxis, trace.yaxis) for trace in figure.data}) == 10


def test_margins_of_nothing_are_an_empty_figure():
    assert not figures.screening_margins(ScreeningReport(())).data


def test_every_check_has_a_word_and_a_colour_of_its_own():
    assert list(figures.REASONS) == list(get_args(Check))
    colours = [COLOUR_OF[word] for word in ("kept", *figures.REASONS.values())]
    assert len(set(colours)) == len(colours)


def test_the_sheet_shows_the_rejected_first_with_their_reasons(tmp_path):
    captures = concert()
    some = captures.keeping([photo.file for photo in captures.photos[:6]])
    rows = [
        ScreeningRow("ue", photo.file, tmp_path, "blur", photo.file != some.photos[4].file, "so blurred", 0.0, 1.0)
        for photo in some.photos[:5]
    ]
    lost = ScreeningRow("ue", some.photos[5].file, tmp_path, "readable", False, "it is gone", 0.0, 1.0)
    figure = figures.screening_sheet(some, ScreeningReport((*rows, lost)), columns=4)
    assert [note.text for note in figure.layout.annotations] == ["blurred", "unreadable"]
    captions = figure.data[-1].text
    assert captions[0].startswith(f"{some.photos[4].file}: so blurred")
    assert list(captions[2:]) == [photo.file for photo in some.photos[:4]]
    assert figure.layout.title.text == "2 rejected, 4 kept"


def test_a_sheet_of_a_hundred_and_forty_four_photos_stays_small_and_survives_unreadable_ones(tmp_path):
    captures = replace(concert(), root=tmp_path)
    rows = tuple(screening_row(photo.file, "blur", measured=1.0, threshold=0.0, kept=True) for photo in captures.photos)
    figure = figures.screening_sheet(captures, ScreeningReport(rows))
    assert len(figure.layout.images) == 144
    assert len(figure.to_json()) < 1_000_000


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
