"""Figures of coverage and of doubt: every request is there with its reason, and what is drawn is what was found."""

import numpy as np
import pytest
import torch

from crowdnerf_lab.captures.coverage import Coverage, CoverageSettings, Request
from crowdnerf_lab.figures.coverage import coverage_map, coverage_plan, sparsification
from tests.toy_field import toy_cameras

ASKED = (
    Request(position=(1.0, 4.0, 1.6), target=(0.0, 0.0, 1.0), gain=9.0, unseen=4.0, why="behind the stage"),
    Request(position=(-3.0, 2.0, 1.6), target=(0.0, 0.0, 1.0), gain=5.0, unseen=1.0, why="the left wing"),
)


def covered() -> Coverage:
    photos = (torch.arange(24) - 6).clamp(min=0).reshape(4, 3, 2)
    return Coverage(
        photos=photos,
        spread=torch.full((4, 3, 2), 0.01),
        matter=photos < 6,
        low=torch.zeros(3),
        size=torch.tensor([1.0, 2.0, 0.5]),
        settings=CoverageSettings(),
    )


def test_matter_is_drawn_by_how_many_photos_show_it_and_requests_say_why():
    figure = coverage_map(covered(), cameras=toy_cameras(5), asked=ASKED)
    traces = {trace.name: trace for trace in figure.data}
    assert sorted(traces["matter that photos show"].marker.color) == list(range(1, 6))
    assert len(traces["matter that no photo shows"].x) == 1
    assert "the crowd (5)" in traces
    (numbers,) = [trace for trace in figure.data if trace.mode == "text"]
    assert list(numbers.text) == ["1", "2"]
    assert list(numbers.hovertext) == ["behind the stage", "the left wing"]


def test_a_map_without_requests_draws_none():
    figure = coverage_map(covered(), cameras=toy_cameras(5))
    assert all(trace.name != "views to ask for" for trace in figure.data)


def test_the_plan_sums_what_is_missing_over_heights():
    found = covered()
    figure = coverage_plan(found, cameras=toy_cameras(5), asked=ASKED)
    heat = figure.data[0]
    assert np.asarray(heat.z).shape == (3, 4)
    assert np.asarray(heat.z).sum() == pytest.approx(float(found.need.sum()) * found.cell_volume)
    assert list(heat.y) == [1.0, 3.0, 5.0]
    assert {note.hovertext for note in figure.layout.annotations} >= {"behind the stage", "the left wing"}


def test_curves_of_sparsification_begin_with_all_pixels():
    figure = sparsification({"doubt": np.linspace(0.2, 0.1, 100), "true error": np.linspace(0.2, 0.0, 100)})
    assert [trace.name for trace in figure.data] == ["doubt", "true error"]
    assert figure.data[0].x[0] == 0
    assert figure.data[0].x[-1] == 99
