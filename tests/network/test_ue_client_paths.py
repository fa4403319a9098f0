"""Where a UE's views come from as its circumstances change: four triggers, hysteresis, failures; no network needed."""

import pytest

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.limits import Target
from crowdnerf_lab.network.ues.path_choice import Choice, Hysteresis, PathChoice
from tests.toy_catalogue import toy_offer

AT_EASE = Capability(
    runtimes=("onnxruntime",),
    precisions=("float32",),
    memory_mb=100,
    link_mbit_s=20,
    rtt_ms=50,
    battery_wh=10.0,
    position=(0.0, 0.0, 0.0),
)
TARGET = Target(max_ms=40.0)
HELD = (toy_offer("cell", ms=20, memory_mb=50, energy_mj=50, place=(0, 0, 0, 5.0)),)
WORSE = {
    "place": {"position": (9.0, 0.0, 0.0)},
    "energy": {"battery_wh": 0.5},
    "processor": {"busy": 0.7},
    "memory": {"memory_mb": 30.0},
}
"""What of a UE changes so that its model no longer fits."""
PAST_REST = Hysteresis().rest_s + 0.1


def paths(**settings: float) -> PathChoice:
    return PathChoice(TARGET, budget_ms=40.0, hysteresis=Hysteresis(**settings))


def changed(**fields: object) -> Capability:
    return Capability.model_validate(AT_EASE.model_dump() | fields)


@pytest.mark.row("S39")
@pytest.mark.parametrize("trigger", WORSE)
def test_each_circumstance_leads_to_the_network_and_back(trigger: str) -> None:
    choosing = paths()
    here = choosing.choose(HELD, AT_EASE, now=0.0)
    assert (here.path, here.artefact) == ("device", HELD[0])
    away = choosing.choose(HELD, changed(**WORSE[trigger]), now=1.0)
    assert (away.path, away.artefact, away.because) == ("network", None, (trigger,))
    still = choosing.choose(HELD, changed(**WORSE[trigger]), now=1.0 + PAST_REST)
    assert still.path == "network"
    back = choosing.choose(HELD, AT_EASE, now=1.0 + 2 * PAST_REST)
    assert (back.path, back.because) == ("device", (trigger,))
    assert back.reason.startswith("it fits again")


REASONS = {
    "place": "was made for 5.0 m around another place, 9.0 m away",
    "energy": "about 50 mJ a frame, more than the 10 that 0.25 W allow",
    "processor": "66.7 ms a frame, more than 40.0",
    "memory": "takes about 50.0 MB of memory, the UE has 30.0",
}


@pytest.mark.parametrize("trigger", WORSE)
def test_the_reason_tells_both_numbers(trigger: str) -> None:
    choosing = paths()
    choosing.choose(HELD, AT_EASE, now=0.0)
    assert REASONS[trigger] in choosing.choose(HELD, changed(**WORSE[trigger]), now=1.0).reason


def test_a_circumstance_that_wavers_about_its_limit_does_not_make_the_view_waver() -> None:
    choosing, at = paths(margin=0.1), []
    for i in range(40):
        memory_mb = 50.5 if i % 2 == 0 else 49.5
        at.append(choosing.choose(HELD, changed(memory_mb=memory_mb), now=10.0 * i).path)
    assert at == ["device"] + ["network"] * 39
    assert choosing.choose(HELD, changed(memory_mb=56), now=1000.0).path == "device"


def test_a_model_that_was_put_down_rests_for_a_while() -> None:
    choosing = paths(rest_s=5.0)
    choosing.choose(HELD, AT_EASE, now=0.0)
    choosing.choose(HELD, changed(memory_mb=1), now=1.0)
    assert [choosing.choose(HELD, AT_EASE, now=now).path for now in (1.1, 5.9, 6.1)] == ["network", "network", "device"]


def test_a_smaller_model_that_is_here_is_taken_before_the_network() -> None:
    held = (*HELD, toy_offer("small", ms=20, memory_mb=10, psnr=15, energy_mj=5))
    choosing = paths()
    assert choosing.choose(held, AT_EASE, now=0.0).artefact is held[0]
    less = choosing.choose(held, changed(memory_mb=30.0), now=1.0)
    assert (less.path, less.artefact, less.because) == ("device", held[1], ("memory",))


def test_frames_that_come_too_late_lead_to_the_network_for_longer_each_time() -> None:
    choosing, now, away = paths(late_frames=3, probation_s=4.0), 0.0, []
    for _ in range(3):
        assert choosing.choose(HELD, AT_EASE, now=now).path == "device"
        for _frame in range(3):
            choosing.device_took(90.0, now=now)
        left = now
        while (choice := choosing.choose(HELD, AT_EASE, now=now)).path == "network":
            assert "misses its 40 ms" in choice.reason or "only just" in choice.reason
            now += 0.25
        away.append(now - left)
    assert away == pytest.approx([4.0, 8.0, 16.0], abs=0.5)


def test_single_late_frames_are_forgiven() -> None:
    choosing = paths(late_frames=3)
    for i in range(30):
        assert choosing.choose(HELD, AT_EASE, now=float(i)).path == "device"
        choosing.device_took(90.0 if i % 3 == 0 else 10.0, now=float(i))


def test_a_network_that_fails_leaves_what_is_here_though_it_does_not_fit() -> None:
    choosing = paths(silence_s=2.0)
    small = changed(memory_mb=30.0)
    assert choosing.choose(HELD, small, now=0.0).path == "network"
    choosing.network_failed("it is gone", now=0.0)
    instead = choosing.choose(HELD, small, now=0.5)
    assert (instead.path, instead.artefact) == ("device", HELD[0])
    assert "it is gone" in instead.reason
    assert choosing.choose(HELD, small, now=2.5).path == "network"  # asked again
    choosing.network_failed("it is gone", now=2.5)
    assert choosing.choose(HELD, small, now=6.4).path == "device"  # and for longer not
    assert choosing.choose(HELD, small, now=6.6).path == "network"
    choosing.network_answered()
    choosing.network_failed("again", now=7.0)
    assert choosing.choose(HELD, small, now=9.1).path == "network"


def test_a_service_that_says_when_to_ask_again_is_not_asked_before() -> None:
    choosing = paths(silence_s=0.1)
    choosing.network_failed("busy", now=0.0, retry_after_s=5.0)
    small = changed(memory_mb=30.0)
    assert [choosing.choose(HELD, small, now=now).path for now in (4.9, 5.1)] == ["device", "network"]


def test_what_this_ue_cannot_run_at_all_is_no_way_out() -> None:
    choosing = paths()
    choosing.network_failed("it is gone", now=0.0)
    assert choosing.choose(HELD, changed(runtimes=("numba",)), now=0.1).path == "network"
    assert choosing.choose((), AT_EASE, now=0.1) == Choice("network", None, "no model is on this device yet")


def test_limits_of_a_download_say_nothing_about_a_model_that_is_here() -> None:
    strict = PathChoice(Target(max_bytes=1, max_download_s=1e-9, min_psnr=99.0), budget_ms=40.0)
    held: tuple[Artefact, ...] = HELD
    assert strict.choose(held, AT_EASE, now=0.0).path == "device"
