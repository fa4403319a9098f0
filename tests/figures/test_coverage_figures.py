"""Figures of coverage and of doubt: every request is there with its reason, and what is drawn is what was found."""

import numpy as np
import pytest
import torch

from crowdnerf_lab.captures.coverage import Coverage, CoverageSettings, Request
from crowdnerf_lab.figures.coverage import box_lines, coverage_map, coverage_plan, sparsification
from crowdnerf_lab.scene import Bounds
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


@pytest.mark.parametrize(("photos", "cells", "points"), [(144, 40, 4706), (20_000, 64, 400_000)])
def test_the_view_in_space_stays_below_3_mb_at_any_size_of_crowd(photos, cells, points):
    shape = (cells, cells, cells // 2)
    random = torch.Generator().manual_seed(0)
    checkered = (torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(0) % 2).bool()
    dense = Coverage(
        photos=torch.randint(0, photos, shape, generator=random) * torch.randint(0, 2, shape, generator=random)
        + (~checkered).long(),
        spread=torch.rand(shape, generator=random),
        matter=checkered,
        low=torch.rand(3, generator=random),
        size=torch.rand(3, generator=random),
        settings=CoverageSettings(),
    )
    figure = coverage_map(
        dense,
        cameras=toy_cameras(photos),
        asked=ASKED * 10,
        points=torch.randn(points, 3, generator=random),
        stage=Bounds(centre=torch.zeros(3), half_size=torch.tensor([10.0, 4.0, 3.0]), closed=True),
    )
    names = {trace.name for trace in figure.data}
    assert {"scene points", "the stage", f"the crowd ({photos})", "matter that no photo shows"} <= names
    assert 200_000 < len(figure.to_json()) < 3_000_000


def test_the_stage_is_outlined_by_the_edges_of_its_box():
    rows = box_lines(
        Bounds(centre=torch.tensor([1.0, 2.0, 3.0]), half_size=torch.tensor([10.0, 4.0, 3.0]), closed=True)
    )
    edges = rows.reshape(12, 3, 3)
    assert np.isnan(edges[:, 2]).all()
    lengths = sorted(np.linalg.norm(edges[:, 0] - edges[:, 1], axis=-1))
    assert lengths == pytest.approx([6] * 4 + [8] * 4 + [20] * 4)


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
