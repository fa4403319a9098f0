"""Figures of a ladder: every model is where it was measured, fronts hold nothing that another beats, proxies say so."""

import math
from itertools import pairwise
from typing import Any

import pytest

from crowdnerf_lab import figures
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.devices.profile import device_profile, device_profiles
from crowdnerf_lab.figures.rungs import card_proxy, front
from crowdnerf_lab.figures.style import COLOUR_OF_DEVICE, NAME_OF_FORMAT, SYMBOL_OF_FORMAT
from tests.toy_catalogue import toy_card

WORK = {"flops": 900_000_000, "bytes_moved": 50_000_000, "parameters": 400_000}


def card(size: str, *, kilobytes: int, psnr: float | None, ms: float, **others: Any) -> ModelCard:
    family = "baked_field" if others.get("kind") == "baked_field" else "ray_mlp"
    return toy_card(f"toy.{family}.{size}.{kilobytes}", size=1000 * kilobytes, psnr=psnr, ms=ms, **WORK, **others)


def coded(psnr: float, *, before: float) -> dict[str, Any]:
    steps = ({"step": "trained", "psnr": before}, {"step": "coded", "psnr": psnr})
    return {"coding": "progressive", "bytes_uncoded": 1_900_000, "steps": steps}


def prefixes(*ends: tuple[int, float]) -> dict[str, Any]:
    return {"layers": tuple({"bytes": 1000 * end, "psnr": psnr, "sha256": "0" * 64} for end, psnr in ends)}


CARDS = [
    card("S", kilobytes=1900, psnr=18.0, ms=25.0),
    card("S", kilobytes=300, psnr=17.9, ms=24.0, **coded(17.9, before=18.0), **prefixes((100, 14.0), (300, 17.9))),
    card("S", kilobytes=2000, psnr=17.5, ms=12.0),
    card("1MB", kilobytes=900, psnr=19.5, ms=70.0, kind="baked_field"),
]


@pytest.mark.row("S37", "S44")
def test_a_front_holds_what_no_smaller_model_equals() -> None:
    assert [each.bytes for each in front(CARDS)] == [300_000, 900_000]
    assert [each.bytes for each in front(CARDS, max_ms=30)] == [300_000, 1_900_000]
    assert [each.bytes for each in front(CARDS, max_ms=15)] == [2_000_000]
    assert front(CARDS, max_ms=1) == []
    best = front(CARDS)
    for beaten in CARDS:
        assert any(each.bytes <= beaten.bytes and each.quality.psnr >= beaten.quality.psnr for each in best)


@pytest.mark.row("S37", "S44", "S50")
def test_pareto_shows_every_model_in_the_colour_of_its_time_and_a_front_for_each_budget() -> None:
    figure = figures.pareto(CARDS, teacher_psnr=20.0, budgets_ms=(15.0, 100.0))
    models = [trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]
    points = {
        (x, y): colour for trace in models for x, y, colour in zip(trace.x, trace.y, trace.marker.color, strict=True)
    }
    assert set(points) == {(each.bytes / 1e3, each.quality.psnr) for each in CARDS}
    assert points[900.0, 19.5] == pytest.approx(math.log10(70.0))
    quick, any_time = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(quick.x[:-1]) == [2000.0]
    assert list(any_time.x[:-1]) == [300.0, 900.0]
    assert quick.line.shape == "hv"
    said = " ".join(note.text for note in figure.layout.annotations)
    assert "the field itself, 20.0 dB" in said
    assert "baked 1MB" in said
    assert len({trace.marker.symbol for trace in models}) == 2


def test_labels_of_a_crowded_front_do_not_overlap() -> None:
    crowded = [card("S", kilobytes=300 + i, psnr=18.0 + i / 1000, ms=5.0) for i in range(80)]
    figure = figures.pareto(crowded)
    low, high = figure.layout.yaxis.range
    heights = sorted((note.y - low) / (high - low) for note in figure.layout.annotations)
    assert 5 < len(heights) < 80
    assert all(above - below > 0.04 for below, above in pairwise(heights))


def test_models_without_photos_are_left_out() -> None:
    figure = figures.pareto([*CARDS, card("XS", kilobytes=10, psnr=None, ms=1.0)])
    assert all(10.0 not in (trace.x or ()) for trace in figure.data)
    assert figures.pareto([]).data is not None


@pytest.mark.row("S47", "S50")
def test_rate_distortion_leads_from_the_file_as_it_runs_to_the_file_as_it_travels() -> None:
    figure = figures.rate_distortion(CARDS, teacher=(40_000.0, 19.7))
    points = [(trace.x[0], trace.y[0]) for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]
    assert sorted(points) == sorted((each.bytes / 1e3, each.quality.psnr) for each in CARDS)
    (line,) = [trace for trace in figure.data if trace.mode == "lines"]
    assert (list(line.x), list(line.y)) == ([1900.0, 300.0], [18.0, 17.9])
    legend = {trace.name for trace in figure.data if trace.showlegend is not False}
    assert legend == {
        "ray MLP S",
        "baked 1MB",
        NAME_OF_FORMAT["onnx_float32"],
        "baked field",
        "filled: coded for the air",
    }
    plain = next(trace for trace in figure.data if trace.mode == "markers" and trace.x[0] == 1900.0)
    assert plain.marker.symbol == SYMBOL_OF_FORMAT["onnx_float32"]
    travelling = next(trace for trace in figure.data if trace.mode == "markers" and trace.x[0] == 300.0)
    assert travelling.marker.symbol == SYMBOL_OF_FORMAT["onnx_float32"].removesuffix("-open")


@pytest.mark.row("S49")
def test_progressive_curves_are_the_measured_prefixes() -> None:
    figure = figures.progressive_curves(CARDS)
    (curve,) = figure.data
    assert (list(curve.x), list(curve.y)) == ([100.0, 300.0], [14.0, 17.9])
    assert [note.text for note in figure.layout.annotations] == ["ray MLP S · float32 · progressive 17.9 dB"]


@pytest.mark.row("S29", "S46")
def test_latency_bars_reach_from_the_median_to_the_95th_percentile() -> None:
    bars = figures.latency_bars(CARDS).data[0]
    assert list(bars.x) == [each.latency.median_ms for each in CARDS]
    assert list(bars.error_x.array) == pytest.approx([each.latency.p95_ms - each.latency.median_ms for each in CARDS])
    assert "measured here" in bars.name


@pytest.mark.row("S29", "S36")
def test_what_was_not_measured_is_open_and_called_a_proxy() -> None:
    profiles = [device_profile("mid_phone"), device_profile("smart_watch"), device_profile("ar_glasses")]
    figure = figures.latency_bars(CARDS, profiles)
    phone, watch = figure.data[1:]  # the glasses compute in int8 alone
    for trace, profile in ((phone, profiles[0]), (watch, profiles[1])):
        assert trace.name == f"{profile.title} (proxy)"
        assert trace.marker.symbol.endswith("-open")
        assert trace.marker.color == COLOUR_OF_DEVICE[profile.device_class]
        assert all("not measured" in text for text in trace.text)
        assert trace.x[0] == card_proxy(CARDS[0], profile).ms
    assert "proxies" in figure.layout.xaxis.title.text
    assert {note.text for note in figure.layout.annotations} == {"33.3 ms", "100 ms", "16.7 ms"}


def test_every_format_family_and_device_has_a_look_of_its_own() -> None:
    from typing import get_args

    from crowdnerf_lab.catalogue.card import Format

    assert set(get_args(Format)) == set(SYMBOL_OF_FORMAT) == set(NAME_OF_FORMAT)
    assert len(set(SYMBOL_OF_FORMAT.values())) == len(SYMBOL_OF_FORMAT)
    assert {profile.device_class for profile in device_profiles()} <= set(COLOUR_OF_DEVICE)
