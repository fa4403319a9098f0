"""Tables, curves and device figures: they show what was measured, and all of it."""

from dataclasses import dataclass

import pytest

from crowdnerf_lab import figures
from crowdnerf_lab.catalogue.card import CardFile, Format, Latency, MeasuredQuality, ModelCard, Probe, Provenance
from crowdnerf_lab.devices.profile import device_profile
from crowdnerf_lab.figures.style import COLOUR_OF_DEVICE, SYMBOL_OF_FORMAT
from crowdnerf_lab.network.view_engine import ViewAccount, break_even_views

DIGEST = "0" * 64


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


def card(profile: str, stored_as: Format, *, kilobytes: int, psnr: float, milliseconds: float) -> ModelCard:
    model, probe = ("field.safetensors" if stored_as == "baked" else "model.onnx"), "probes/0.png"
    return ModelCard(
        name=f"{profile}-{stored_as}",
        profile=profile,
        kind="baked_field" if stored_as == "baked" else "light_field",
        stored_as=stored_as,
        computes_in="int8" if stored_as == "onnx_int8_qdq" else "float32",
        architecture="for this test",
        width=320,
        height=240,
        model=model,
        bytes=kilobytes * 1000,
        latency=Latency(
            median_ms=milliseconds, p95_ms=2 * milliseconds, frames=3, threads=1, runtime="none", machine="none"
        ),
        quality=MeasuredQuality(
            views=1, psnr=psnr, psnr_affine=psnr, ssim=0.5, flip=0.5, psnr_teacher=psnr, psnr_before=psnr
        ),
        probe_psnr=psnr,
        probes=(
            Probe(path=probe, camera_to_world=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)), focal=(1, 1), centre=(1, 1)),
        ),
        provenance=Provenance(scene="none", teacher_sha256=DIGEST, seed=0, versions=()),
        licence="none",
        files=(
            CardFile(path=model, bytes=kilobytes * 1000, sha256=DIGEST),
            CardFile(path=probe, bytes=1, sha256=DIGEST),
        ),
    )


CARDS = [
    card("mid_phone", "onnx_float32", kilobytes=1900, psnr=18.0, milliseconds=25.0),
    card("laptop_cpu", "onnx_float32", kilobytes=1900, psnr=18.0, milliseconds=20.0),
    card("laptop_cpu", "baked", kilobytes=9000, psnr=19.5, milliseconds=700.0),
]
PROFILES = [device_profile("mid_phone"), device_profile("laptop_cpu")]


def test_rate_distortion_shows_every_card_in_the_colour_of_its_device_and_the_symbol_of_its_format():
    figure = figures.rate_distortion(CARDS, PROFILES, teacher=(40_000.0, 19.7))
    points = figure.data[: len(CARDS)]
    assert [(point.x[0], point.y[0]) for point in points] == [(1900.0, 18.0), (1900.0, 18.0), (9000.0, 19.5)]
    assert [point.marker.color for point in points] == [
        COLOUR_OF_DEVICE[name] for name in ("phone", "laptop", "laptop")
    ]
    assert [point.marker.symbol for point in points] == [SYMBOL_OF_FORMAT[shown.stored_as] for shown in CARDS]
    assert points[0].marker.size < points[1].marker.size, "two devices of one model must both be seen"
    assert figure.layout.xaxis.type == "log"
    legend = {trace.name for trace in figure.data if trace.showlegend is not False}
    assert legend == {"phone", "laptop", "ONNX float32", "baked field"}


def test_latency_bars_reach_from_the_median_to_the_95th_percentile_beside_the_budget():
    bars, budgets = figures.latency_bars(CARDS, PROFILES).data
    assert list(bars.x) == [25.0, 20.0, 700.0]
    assert list(bars.error_x.array) == pytest.approx([25.0, 20.0, 700.0])
    assert list(budgets.x) == [33.3, 100.0, 100.0]
    assert len(set(bars.y)) == len(CARDS)


def test_the_bytes_of_both_paths_cross_where_the_download_pays_off():
    accounts = {
        "network": ViewAccount("network", bytes_once=0, bytes_per_view=10_000, server_ms=50.0, device_ms=1.0),
        "device": ViewAccount("device", bytes_once=1_000_000, bytes_per_view=0, server_ms=0.0, device_ms=20.0),
    }
    network, device = figures.bytes_over_views(accounts).data
    cheaper = [count for count, sent, kept in zip(network.x, network.y, device.y, strict=True) if sent < kept]
    assert max(cheaper) < break_even_views(accounts["device"], accounts["network"]) == 100
    assert network.y[network.x.index(100)] == device.y[0] == pytest.approx(1.0)
    assert network.text[-1].strip() == "network"
    assert network.line.color == COLOUR_OF_DEVICE["server"]
