"""The account from request to pixels: stages add up, paths cross where they are equal, budgets are used and kept."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.network.links.latency_account import (
    STAGES,
    Account,
    AccountError,
    InferencePath,
    account_of_model,
    account_of_view,
    device_path,
    largest_model,
    network_path,
    views_by_bytes,
    views_by_time,
)
from crowdnerf_lab.network.links.link import LINKS, LinkProfile
from crowdnerf_lab.network.links.transfers import transfer_ms
from crowdnerf_lab.network.views.view_codecs import EncodedView
from tests.toy_catalogue import toy_card

PLAIN = LinkProfile("plain", "plain", down_mbit_s=8, up_mbit_s=8, rtt_ms=50)
"""1,000 bytes a millisecond, each way."""
DEVICE = InferencePath("device", bytes_once=500_000, choice_bytes=9000, load_ms=80.0, frame_ms=20.0, queue_ms=3.0)
NETWORK = InferencePath("network", bytes_per_view=10_000, queue_ms=5.0, render_ms=60.0, decode_ms=2.0)


@pytest.mark.row("S41", "S49", "S52")
def test_the_stages_are_those_of_the_link_and_of_the_work_at_both_ends() -> None:
    device, network = DEVICE.first_pixels(PLAIN, connected=True), NETWORK.first_pixels(PLAIN, connected=True)
    asking, choice = 25 + 0.7, 25 + 9
    assert device.milliseconds == pytest.approx(
        {"uplink": 2 * asking + choice, "queue": 3, "download": 25 + 500, "load": 80, "frame": 20}
    )
    assert network.milliseconds == pytest.approx(
        {"uplink": asking, "queue": 5, "render": 60, "download": 25 + 10, "decode": 2}
    )
    for account in (device, network):
        assert account.total_ms == pytest.approx(sum(map(account.of, STAGES)))
        assert not account.measured
    assert NETWORK.next_pixels(PLAIN).total_ms == pytest.approx(network.total_ms)
    assert DEVICE.next_pixels(PLAIN).milliseconds == {"frame": 20}
    assert NETWORK.first_pixels(PLAIN).total_ms > network.total_ms + 49


@pytest.mark.row("S47", "S52")
@settings(max_examples=25)
@given(st.integers(1, 1_000_000), st.integers(1, 100_000), st.sampled_from(sorted(LINKS)))
def test_at_the_crossing_both_paths_have_sent_the_same_and_waited_as_long(model: int, view: int, link: str) -> None:
    device, network = replace(DEVICE, bytes_once=model), replace(NETWORK, bytes_per_view=view)
    plain = replace(PLAIN, rtt_ms=LINKS[link].rtt_ms)
    views = math.ceil(views_by_bytes(device, network))
    assert network.total_bytes(views) >= device.total_bytes(views)
    assert network.total_bytes(views - 1) <= device.total_bytes(views - 1)
    views = max(1, math.ceil(views_by_time(device, network, link=plain)))
    assert network.waiting_ms(views, plain) >= device.waiting_ms(views, plain) - 1e-6
    if views > 1:
        assert network.waiting_ms(views - 1, plain) <= device.waiting_ms(views - 1, plain) + 1e-6


def test_a_device_that_saves_nothing_is_never_worth_its_download() -> None:
    wasteful = replace(DEVICE, bytes_per_view=10_000, frame_ms=1e4)
    assert views_by_bytes(wasteful, NETWORK) == views_by_time(wasteful, NETWORK, link=PLAIN) == math.inf
    here = InferencePath("device", frame_ms=1.0)
    assert views_by_bytes(here, NETWORK) == 0
    assert views_by_time(here, NETWORK, link=PLAIN) < 1


@pytest.mark.row("S41", "S52")
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("load_ms_per_mb", [0.0, 300.0])
def test_the_largest_model_just_makes_it(link: LinkProfile, load_ms_per_mb: float) -> None:
    link = replace(link, down_mbit_s=link.down_mbit_s / 5)
    size = largest_model(link, budget_s=0.7, device_ms=50, load_ms_per_mb=load_ms_per_mb)
    path = replace(DEVICE, bytes_once=size, load_ms=load_ms_per_mb * size / 1e6, frame_ms=50.0, queue_ms=0.0)
    slack = 2 * link.jitter_ms + link.rtt_ms  # one lost segment more or less
    assert abs(path.first_pixels(link).total_ms - 700) < slack
    assert largest_model(link, budget_s=0.9, device_ms=50, load_ms_per_mb=load_ms_per_mb) > size
    assert largest_model(link, budget_s=0.05, device_ms=50) == 0


@pytest.mark.row("S41")
def test_better_links_carry_larger_models() -> None:
    sizes = [largest_model(LINKS[name], budget_s=0.6) for name in ("5g_good", "wifi", "5g_poor", "crowded_cell")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 0


def test_a_card_makes_a_path() -> None:
    card = toy_card("toy.ray_mlp.S.300", size=300_000, psnr=18.0, ms=10.0)
    path = device_path(card.model_copy(update={"cold_start_ms": 90.0}), queue_ms=1.0)
    assert (path.bytes_once, path.load_ms, path.frame_ms) == (300_000, 80.0, 10.0)
    assert device_path(card.model_copy(update={"cold_start_ms": None})).load_ms == 0


def test_rendered_views_make_a_path() -> None:
    views = [EncodedView(bytes(1000 * n), "image/webp", 4, 4, render_ms=10.0 * n, encode_ms=1.0) for n in (1, 2, 6)]
    path = network_path(views, decode_ms=1.5)
    assert (path.bytes_per_view, path.render_ms, path.decode_ms) == (3000, 21.0, 1.5)
    with pytest.raises(AccountError, match="no views"):
        network_path([], decode_ms=1.0)


@pytest.mark.row("S41")
def test_a_measured_view_keeps_its_time_and_gives_the_service_what_the_service_took() -> None:
    said = {"request": 200.0, "queue": 20.0, "render": 60.0, "encode": 4.0, "decode": 3.0}
    account = account_of_view(said, PLAIN, bytes=10_000)
    assert account.measured
    assert account.total_ms == pytest.approx(203)
    assert account.milliseconds == pytest.approx(
        {"uplink": transfer_ms(PLAIN, 700), "queue": 20, "render": 64, "download": 116 - 25.7, "decode": 3}
    )
    hurried = account_of_view(said | {"request": 90.0}, PLAIN, bytes=10_000)
    assert hurried.milliseconds["uplink"] == pytest.approx(6)
    assert hurried.milliseconds["download"] == 0


@pytest.mark.row("S41")
def test_a_new_connection_s_handshake_belongs_to_the_way_up() -> None:
    said = {"request": 200.0, "render": 60.0}
    warm, new = (account_of_view(said, PLAIN, bytes=1, connected=connected) for connected in (True, False))
    assert new.total_ms == pytest.approx(warm.total_ms)
    assert new.of("uplink") - warm.of("uplink") == pytest.approx(PLAIN.rtt_ms)


@pytest.mark.row("S41")
def test_a_measured_model_keeps_its_time() -> None:
    said = {"select": 120.0, "file": 360.0, "load": 80.0, "frame": 10.0}
    account = account_of_model(said, PLAIN, bytes=300_000, name="S")
    assert account.total_ms == pytest.approx(sum(said.values()))
    assert account.milliseconds == pytest.approx({"uplink": 145.7, "download": 334.3, "load": 80, "frame": 10})
    assert (account.measured, account.name) == (True, "S")


def test_an_account_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(AccountError, match="stage 'load' took -1"):
        Account("device", PLAIN, {"load": -1.0}, 0)
