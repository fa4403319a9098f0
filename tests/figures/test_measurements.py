"""Tables and curves: they show what was measured, and all of it."""

from dataclasses import dataclass

import pytest

from crowdnerf_lab import figures
from crowdnerf_lab.figures.style import COLOUR_OF_DEVICE
from crowdnerf_lab.network.latency_account import InferencePath, crossover
from crowdnerf_lab.network.link_profiles import LINKS


@dataclass(frozen=True)
class Record:
    seconds: float
    held_out_psnr: float | None


def test_a_curve_keeps_only_what_was_measured():
    history = [Record(0.0, None), Record(1.0, 12.0), Record(2.0, None), Record(3.0, 15.5)]
    figure = figures.training_curve({"field": history, "nothing yet": [Record(0.0, None)]})
    assert list(figure.data[0].x) == [1.0, 3.0]
    assert figure.data[0].text[-1].strip() == "field 15.5 dB"
    assert list(figure.data[1].x) == []


def test_a_table_is_markdown_with_numbers_to_the_right():
    shown = figures.table(
        [{"what": "a|b", "dB": 19.23456, "n": 4194304, "ok": True}, {"what": None, "dB": 24576.0, "n": 0, "ok": False}]
    )
    assert shown._repr_markdown_().splitlines() == [
        "| what | dB | n | ok |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 19.23 | 4,194,304 | yes |",
        "| – | 24,576 | 0 | no |",
    ]


def test_the_bytes_of_both_paths_cross_where_the_download_pays_off():
    paths = {
        "network": InferencePath("network", bytes_per_view=10_000, render_ms=50.0, decode_ms=1.0),
        "device": InferencePath("device", bytes_once=1_000_000, frame_ms=20.0),
    }
    network, device = figures.bytes_over_views(paths).data
    cheaper = [count for count, sent, kept in zip(network.x, network.y, device.y, strict=True) if sent < kept]
    crossing = crossover(paths["device"], paths["network"], link=LINKS["5g_poor"])
    assert max(cheaper) < crossing.views_by_bytes == 100
    assert network.y[network.x.index(100)] == device.y[0] == pytest.approx(1.0)
    assert network.text[-1].strip() == "network"
    assert network.line.color == COLOUR_OF_DEVICE["server"]
