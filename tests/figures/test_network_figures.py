"""Figures of the network: every stage, crossing, UE and version is where it was measured or predicted."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from crowdnerf_lab import figures
from crowdnerf_lab.figures.latency import COLOUR_OF_STAGE
from crowdnerf_lab.figures.network import COLOUR_OF_WAY
from crowdnerf_lab.figures.style import COLOUR_OF_DEVICE
from crowdnerf_lab.network.delivery.simulation import WAYS, Delivery
from crowdnerf_lab.network.links.latency_account import STAGES, Account, InferencePath, largest_model, views_by_time
from crowdnerf_lab.network.links.link_profiles import LINKS, LinkProfile
from crowdnerf_lab.network.updates.evening import PublishedVersion

PLAIN = LinkProfile("plain", "plain", down_mbit_s=8, up_mbit_s=8, rtt_ms=50)
DEVICE = InferencePath("device", bytes_once=1_000_000, load_ms=80.0, frame_ms=20.0, name="student S")
NETWORK = InferencePath("network", bytes_per_view=10_000, queue_ms=5.0, render_ms=60.0, decode_ms=2.0)


def texts(figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


@pytest.mark.row("S41", "S52")
def test_an_account_is_as_long_as_its_stages_and_stands_before_its_budget() -> None:
    accounts = [path.first_pixels(link) for link in LINKS.values() for path in (NETWORK, DEVICE)]
    figure = figures.latency_account(accounts, budget_s=0.8)
    lengths = np.sum([bar.x for bar in figure.data], axis=0)
    assert lengths == pytest.approx([account.total_ms for account in accounts])
    assert {bar.name for bar in figure.data} == set(STAGES)
    assert all(bar.marker.color == COLOUR_OF_STAGE[bar.name] for bar in figure.data)
    assert list(figure.data[0].y[0]) == [account.link.title for account in accounts]
    assert list(figure.data[0].y[1][:2]) == ["network", "student S"]
    assert "0.8 s" in texts(figure)
    assert figure.layout.shapes[0].x0 == 800
    assert {f"{account.total_ms:,.0f} ms" for account in accounts} <= set(texts(figure))


@pytest.mark.row("S41")
def test_what_was_predicted_is_pale_beside_what_was_measured() -> None:
    predicted = NETWORK.first_pixels(PLAIN)
    measured = Account("network", PLAIN, {"uplink": 30.0, "render": 70.0}, 10_000, measured=True)
    figure = figures.latency_account([predicted, measured])
    assert list(figure.data[0].y[1]) == ["network, predicted", "network, measured"]
    for bar in figure.data:
        own, other = (0, 1) if bar.marker.opacity < 1 else (1, 0)
        assert bar.x[other] == 0
        assert bar.x[own] == (predicted, measured)[own].of(bar.name)


@pytest.mark.row("S47", "S52")
def test_the_bytes_of_both_paths_cross_where_the_download_pays_off() -> None:
    figure = figures.crossover({"network": NETWORK, "device": DEVICE})
    network, device, ring = figure.data
    cheaper = [count for count, sent, kept in zip(network.x, network.y, device.y, strict=True) if sent < kept]
    assert max(cheaper) < ring.x[0] == 100
    assert network.y[network.x.index(100)] == device.y[0] == ring.y[0] == pytest.approx(1.0)
    assert network.line.color == COLOUR_OF_DEVICE["server"]
    assert {"network", "device", "100 views"} <= set(texts(figure))


@pytest.mark.row("S41", "S52")
def test_the_waiting_of_both_paths_crosses_where_the_download_pays_off() -> None:
    figure = figures.crossover({"network": NETWORK, "device": DEVICE}, link=PLAIN)
    network, device, ring = figure.data
    assert ring.x[0] == views_by_time(DEVICE, NETWORK, link=PLAIN)
    sooner = [count for count, sent, kept in zip(network.x, network.y, device.y, strict=True) if sent < kept]
    assert max(sooner) <= ring.x[0]
    assert device.y[0] == pytest.approx(DEVICE.first_pixels(PLAIN).total_ms / 1e3)
    assert "plain" in figure.layout.yaxis.title.text


def test_paths_that_never_cross_have_no_ring() -> None:
    figure = figures.crossover({"network": NETWORK, "device": InferencePath("device", bytes_once=10**12)}, most=100)
    assert len(figure.data) == 2


@pytest.mark.row("S41", "S52")
def test_the_largest_models_are_those_of_the_account() -> None:
    links = [LINKS["5g_poor"], LINKS["crowded_cell"]]
    figure = figures.largest_models(links, budgets_s=(0.3, 0.6), models={"S": 150_000, "M": 400_000}, device_ms=50.0)
    assert [points.name for points in figure.data] == ["within 0.3 s", "within 0.6 s"]
    for budget, points in zip((0.3, 0.6), figure.data, strict=True):
        for link, kilobytes in zip(links, points.x, strict=True):
            size = largest_model(link, budget_s=budget, device_ms=50.0)
            assert kilobytes == (size / 1e3 if size else None)
    assert {"S, 150 kB", "M, 400 kB"} <= set(texts(figure))
    assert [line.x0 for line in figure.layout.shapes] == [150.0, 400.0]


@pytest.mark.row("S33", "S54")
def test_completion_counts_every_ue() -> None:
    wanted, seconds = np.zeros(1000), np.concatenate([np.linspace(0.5, 4.5, 900), np.full(100, math.inf)])
    deliveries = {way: Delivery(way, wanted, seconds, {}) for way in WAYS}
    figure = figures.completion(deliveries, deadlines_s=(2.5,))
    for line, way in zip(figure.data, WAYS, strict=True):
        assert line.line.color == COLOUR_OF_WAY[way]
        assert line.y[-1] == pytest.approx(90)
        assert np.interp(2.5, line.x, line.y) == pytest.approx(45, abs=0.5)
        assert line.name == f"{way}: 45 % within 2.5 s"
    assert "1,000 UEs" in figure.layout.yaxis.title.text
    assert "2.5 s" in texts(figure)


@pytest.mark.row("S30")
def test_a_withdrawn_version_is_not_what_is_served() -> None:
    versions = [
        PublishedVersion(60, 1, 16.0),
        PublishedVersion(120, 2, 15.5, withdrawn="it measured worse"),
        PublishedVersion(180, 3, 17.0),
    ]
    served, published, withdrawn, photos = figures.update_timeline(versions, contributions=[30, 90, 240]).data
    assert (list(served.x), list(served.y)) == ([1, 3, 4], [16, 17, 17])
    assert (list(published.text), list(withdrawn.text)) == (["v1", "v3"], ["v2"])
    assert (list(withdrawn.x), list(withdrawn.y)) == ([2], [15.5])
    assert (list(photos.x), list(photos.y)) == ([0, 0.5, 1.5, 4, 4], [0, 1, 2, 3, 3])


@pytest.mark.row("S54")
def test_a_load_curve_shows_times_and_refusals_in_the_order_of_the_load() -> None:
    points = [figures.LoadPoint(100, 40, 90, 200, refused=0.25), figures.LoadPoint(10, 20, 30, 40)]
    *times, refused = figures.load_curve(points, budget_ms=250).data
    assert [line.name for line in times] == ["p50", "p95", "p99"]
    assert [list(line.y) for line in times] == [[20, 40], [30, 90], [40, 200]]
    assert all(list(line.x) == [10, 100] for line in times)
    assert list(refused.y) == [0, 25]


def test_nothing_at_all_makes_empty_figures() -> None:
    assert figures.latency_account([]).layout.xaxis.range[1] > 1000
    assert len(figures.completion({}).data) == 0
    assert figures.load_curve([]).data is not None
    assert figures.update_timeline([]).data is not None


@pytest.mark.browser
def test_the_stages_of_an_account_can_be_seen() -> None:
    """Each stage that takes long leaves pixels of its colour in the PNG."""
    import kaleido

    figure = figures.latency_account([DEVICE.first_pixels(PLAIN), NETWORK.first_pixels(PLAIN)])
    content = kaleido.calc_fig_sync(figure.to_dict(), opts={"format": "png", "scale": 1})
    with Image.open(io.BytesIO(content)) as image:
        seen = {"#" + bytes(pixel).hex() for _, pixel in image.convert("RGB").getcolors(1 << 24)}
    for stage in ("uplink", "render", "download", "load"):
        assert COLOUR_OF_STAGE[stage].lower() in seen
