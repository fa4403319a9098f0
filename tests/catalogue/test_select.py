"""select: the best model that fits, or a reason that names the limit."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.catalogue.card import Prefix
from crowdnerf_lab.catalogue.limits import misses
from crowdnerf_lab.catalogue.select import (
    Capability,
    Target,
    download_seconds,
    refusal,
    select,
    select_set,
)
from tests.toy_catalogue import DIGEST, MACHINE, quality_of, toy_offer

ABLE = Capability(
    runtimes=("onnxruntime", "numba"), precisions=("float32", "int8"), memory_mb=1e4, link_mbit_s=8.0, rtt_ms=100.0
)
LADDER = [
    toy_offer("small", psnr=17.0, size=100_000, ms=3.0, computes_in="int8", stored_as="onnx_int8_qdq", energy_mj=2.0),
    toy_offer("middle", psnr=19.0, size=500_000, ms=12.0, energy_mj=20.0),
    toy_offer("large", psnr=22.0, size=4_000_000, ms=300.0, kind="baked_field", energy_mj=900.0),
]


def but(**changes: object) -> Capability:
    """The able UE with something changed."""
    return ABLE.model_copy(update=changes)


def name_of(selection: object) -> str | None:
    return selection.artefact.card.name if selection.artefact else None


@pytest.mark.row("S27", "S57", "S67")
@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        (Target(), "large"),
        (Target(max_ms=33.0), "middle"),
        (Target(max_bytes=200_000), "small"),
        (Target(max_download_s=0.7), "middle"),
        (Target(max_download_s=0.3), "small"),
    ],
)
def test_the_best_that_fits_is_chosen(target: Target, chosen: str) -> None:
    selection = select(LADDER, ABLE, target)
    assert selection.artefact is not None
    assert selection.artefact.card.name == chosen
    assert selection.reason.startswith(f"{chosen}: ")
    assert selection.artefact.card.latency.machine in selection.reason


@pytest.mark.row("S70")
@pytest.mark.parametrize(
    ("capability", "target", "says"),
    [
        (but(runtimes=()), Target(), "small: needs onnxruntime, the UE has no runtime"),
        (but(precisions=("float16",)), Target(), "small: computes in int8, the UE in float16"),
        (
            but(memory_mb=0.1),
            Target(),
            r"small: takes about 0\.4 MB of memory, the UE has 0\.1",
        ),
        (ABLE, Target(max_bytes=10), "small: 100000 bytes, more than 10"),
        (ABLE, Target(max_ms=1.0), r"small: 3\.0 ms a frame, more than 1\.0"),
        (ABLE, Target(max_download_s=0.1), r"small: arrives after 0\.20 s, later than 0\.10"),
        (ABLE, Target(min_psnr=25.0), r"large: 22\.0 dB, less than 25\.0"),
        (ABLE, Target(min_psnr=20.0, max_ms=33.0), r"large: 300\.0 ms a frame, more than 33\.0"),
    ],
)
def test_when_nothing_fits_the_ue_asks_the_network(capability: Capability, target: Target, says: str) -> None:
    selection = select(LADDER, capability, target)
    assert selection.artefact is None
    assert selection.reason.startswith("ask the network: ")
    assert re.search(says, selection.reason)


def test_an_event_without_models_sends_everybody_to_the_network() -> None:
    selection = select([], ABLE, Target())
    assert selection.artefact is None
    assert selection.reason == "ask the network: the event has no models yet"


@given(
    st.one_of(st.none(), st.integers(1, 5_000_000)),
    st.one_of(st.none(), st.floats(0.1, 500)),
    st.one_of(st.none(), st.floats(10, 30)),
)
def test_the_choice_fits_and_nothing_better_does(
    max_bytes: int | None, max_ms: float | None, min_psnr: float | None
) -> None:
    target = Target(max_bytes=max_bytes, max_ms=max_ms, min_psnr=min_psnr)
    fitting = [artefact for artefact in LADDER if refusal(artefact, ABLE, target) is None]
    selection = select(LADDER, ABLE, target)
    assert (selection.artefact is None) == (not fitting)
    if selection.artefact is not None:
        assert selection.artefact in fitting
        assert selection.artefact.card.quality.psnr == max(artefact.card.quality.psnr for artefact in fitting)


def test_the_order_of_the_artefacts_does_not_matter() -> None:
    twins = [*LADDER, toy_offer("twin", psnr=22.0, size=3_000_000, ms=300.0, kind="baked_field")]
    chosen = {select(order, ABLE, Target()).artefact.card.name for order in itertools.permutations(twins)}
    assert chosen == {"twin"}  # of equals the smaller one


def test_a_model_without_photos_counts_by_its_probe_views() -> None:
    unphotographed = toy_offer("x", quality=quality_of(None), probe_psnr=18.0)
    assert refusal(unphotographed, ABLE, Target(min_psnr=17.9)) is None
    assert refusal(unphotographed, ABLE, Target(min_psnr=18.1)) is not None


def test_download_time_is_a_round_trip_and_the_bits() -> None:
    assert download_seconds(1_000_000, ABLE) == pytest.approx(0.1 + 1.0)


@pytest.mark.row("S42")
@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target(min_ssim=0.9), r"SSIM 0\.500, 0\.900 asked for"),
        (Target(within_db=1.0, max_bytes=1_000_000), r"17\.0 dB, 5\.0 below the event's best, more than 1\.0"),
    ],
)
def test_accuracy_is_a_limit_too(target: Target, says: str) -> None:
    selection = select(LADDER, ABLE, target)
    assert selection.artefact is None
    assert any(re.search(says, miss.says) for missed in selection.refused.values() for miss in missed)
    assert name_of(select(LADDER, ABLE, Target(min_ssim=0.5, within_db=1.0))) == "large"


def test_a_limit_on_ssim_refuses_a_model_whose_ssim_nobody_measured() -> None:
    (miss,) = misses(toy_offer("x", quality=quality_of(20.0, ssim=None)).card, ABLE, Target(min_ssim=0.1))
    assert (miss.constraint, miss.by) == ("quality", math.inf)
    assert "not measured" in miss.says


@pytest.mark.row("S44", "S45")
def test_the_nearest_miss_is_named_with_its_factor() -> None:
    selection = select(LADDER, ABLE, Target(max_ms=2.0, min_psnr=16.0))
    assert selection.reason.endswith("The nearest is small, which misses its latency 1.50 times")
    selection = select(LADDER, ABLE, Target(min_psnr=23.5))
    assert selection.reason.endswith("The nearest is large, which misses its quality by 1.5 dB")
    assert {name for name, missed in selection.refused.items() if missed} == {"small", "middle", "large"}


@given(st.floats(1, 1e7), st.floats(0.1, 1000), st.floats(10, 30))
def test_a_miss_is_positive_and_no_wider_limit_makes_it_larger(size: float, ms: float, psnr: float) -> None:
    narrow = Target(max_bytes=int(size), max_ms=ms, min_psnr=psnr)
    wide = Target(max_bytes=2 * int(size), max_ms=2 * ms, min_psnr=psnr - 6)
    for artefact in LADDER:
        missed = {miss.constraint: miss.by for miss in misses(artefact.card, ABLE, narrow)}
        assert all(by > 0 for by in missed.values())
        for miss in misses(artefact.card, ABLE, wide):
            assert miss.by == pytest.approx(missed[miss.constraint] - 1)


@pytest.mark.row("S57")
@pytest.mark.parametrize(
    ("task", "chosen"), [("novel_view", "large"), ("enhanced_view", "large"), ("preview", "small")]
)
def test_the_task_decides_too(task: str, chosen: str) -> None:
    assert name_of(select(LADDER, ABLE, Target(), task=task)) == chosen


@pytest.mark.row("S57")
def test_an_enhanced_view_needs_a_field() -> None:
    selection = select(LADDER[:2], ABLE, Target(), task="enhanced_view")
    assert selection.artefact is None
    assert "small: is a light_field, and enhanced_view takes a baked_field" in selection.reason


def test_a_preview_must_come_within_a_second_and_flow() -> None:
    slow = select(LADDER, but(link_mbit_s=0.5), Target(), task="preview")
    assert re.search(r"small: shows its first picture after 1\.70 s, later than 1\.00", slow.reason)
    jerky = [toy_offer("jerky", size=1000, ms=101.0)]
    assert re.search(r"101\.0 ms a frame, more than 100\.0", select(jerky, ABLE, Target(), task="preview").reason)


def test_declared_speed_scales_the_time_of_a_frame_and_is_called_a_proxy() -> None:
    chosen = select(LADDER, but(relative_speed=0.25), Target(max_ms=33.0))
    assert name_of(chosen) == "small"
    assert f"3.0 ms a frame on {MACHINE} (here about 12.0, a proxy)" in chosen.reason
    assert f"48.0 ms a frame, more than 33.0 (proxy: 12.0 on {MACHINE})" in chosen.refused["middle"][0].says
    assert "proxy" not in select(LADDER, ABLE, Target(max_ms=33.0)).reason


def test_measured_memory_counts_instead_of_the_rule_of_thumb() -> None:
    thrifty = toy_offer("thrifty", size=4_000_000, memory_mb=6.0)
    assert refusal(thrifty, but(memory_mb=7.0), Target()) is None
    assert refusal(thrifty, but(memory_mb=5.0), Target()) == "takes about 6.0 MB of memory, the UE has 5.0"
    coded = toy_offer("coded", size=1_000_000, coding="range", bytes_uncoded=4_000_000)
    assert refusal(coded, but(memory_mb=15.0), Target()) == "takes about 16.0 MB of memory, the UE has 15.0"


def test_a_view_cell_serves_those_who_are_in_it() -> None:
    stand = [toy_offer("stand", psnr=25.0, place=(10.0, 0.0, 1.0, 5.0)), *LADDER]
    assert name_of(select(stand, but(position=(12.0, 0.0, 1.0)), Target())) == "stand"
    away = select(stand, but(position=(0.0, 0.0, 1.0)), Target())
    assert name_of(away) == "large"
    assert away.refused["stand"][0].by == pytest.approx(1.0)
    nowhere = select(stand, ABLE, Target()).refused["stand"][0]
    assert nowhere.says == "was made for one view cell, and the UE does not say where it is"


@pytest.mark.row("S38")
def test_a_set_shows_something_within_a_second_and_then_the_best() -> None:
    together = select_set(LADDER, ABLE, Target())
    assert [artefact.card.name for artefact in together.artefacts] == ["small", "large"]
    assert download_seconds(together.artefacts[0].card.bytes, ABLE) < 1
    assert together.reason.startswith(f"first {together.artefacts[0].card.name}, to see something after 0.2")


@pytest.mark.row("S38")
@pytest.mark.parametrize(
    ("capability", "target"),
    [
        (but(memory_mb=16.1), Target()),
        (ABLE, Target(max_bytes=4_050_000)),
        (ABLE, Target(max_download_s=4.15)),
    ],
)
def test_what_a_set_takes_together_stays_within_the_limits(capability: Capability, target: Target) -> None:
    """Alone the large one fits each of these limits; beside a small one it does not."""
    assert name_of(select(LADDER, capability, target)) == "large"
    together = select_set(LADDER, capability, target).artefacts
    assert [artefact.card.name for artefact in together] == ["small", "middle"] or len(together) == 1
    assert sum(4 * artefact.card.bytes / 1e6 for artefact in together) <= capability.memory_mb


def test_a_model_that_shows_its_first_picture_at_once_needs_no_other_before_it() -> None:
    layers = tuple(Prefix(bytes=end, sha256=DIGEST, psnr=None) for end in (100_000, 4_000_000))
    card = {"coding": "progressive", "bytes_uncoded": 8_000_000, "layers": layers}
    layered = toy_offer("layered", psnr=23.0, size=4_000_000, ms=90.0, **card)
    (only,) = select_set([*LADDER, layered], ABLE, Target()).artefacts
    assert only.card.name == "layered"
    whole = toy_offer("whole", psnr=23.0, size=4_000_000, ms=90.0)
    assert len(select_set([*LADDER, whole], ABLE, Target()).artefacts) == 2


def test_a_set_for_whom_nothing_fits_asks_the_network() -> None:
    nothing = select_set(LADDER, but(runtimes=()), Target())
    assert nothing.artefacts == ()
    assert nothing.reason.startswith("ask the network: small: needs onnxruntime")
