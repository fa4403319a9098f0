"""Limits: energy of the UE's own processor, rates, operating systems."""

import pytest

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.limits import Target, frame_mj, misses
from crowdnerf_lab.devices.cost import Work, energy_of
from crowdnerf_lab.devices.profile import Compute, device_profile, device_profiles
from tests.toy_catalogue import toy_card

THRIFTY = Compute(
    processor="of the tests",
    unit="cpu",
    peak_gops={"float32": 10.0},
    memory_gb_s=10.0,
    attained=0.5,
    picojoule_per_op={"float32": 2.0},
    picojoule_per_byte=10.0,
    source="made up for the tests",
)
UE = Capability(runtimes=("onnxruntime",), precisions=("float32",), memory_mb=1e3, link_mbit_s=10, rtt_ms=10)
COUNTED = toy_card("counted", energy_mj=50.0, flops=10**9, bytes_moved=10**8)


def with_(**changes: object) -> Capability:
    return UE.model_copy(update=changes)


@pytest.mark.row("S36")
def test_energy_is_that_of_the_ues_own_processor_where_it_says_what_that_spends() -> None:
    assert frame_mj(COUNTED, UE) == 50.0
    assert frame_mj(COUNTED, with_(compute=THRIFTY)) == pytest.approx(2.0 + 1.0)
    assert frame_mj(toy_card("uncounted", energy_mj=50.0), with_(compute=THRIFTY)) == 50.0
    assert frame_mj(toy_card("int8", flops=1, bytes_moved=1, computes_in="int8"), with_(compute=THRIFTY)) is None


def test_energy_agrees_with_the_cost_models() -> None:
    profile = device_profile("laptop_cpu")
    work = Work(multiply_adds=4 * 10**8, other=2 * 10**8, bytes_moved=10**8, parameters=1)
    expected = energy_of(profile, work, precision="float32").frame_mj
    assert frame_mj(COUNTED, Capability.from_profile(profile)) == pytest.approx(expected)


def test_power_allows_each_frame_what_the_rate_leaves() -> None:
    ue = with_(compute=THRIFTY, power_w=0.1)  # 3 mJ a frame: 33 frames a second
    assert misses(COUNTED, ue, Target(frames_per_s=33)) == ()
    (miss,) = misses(COUNTED, ue, Target(frames_per_s=40))
    assert (miss.constraint, miss.says) == ("energy", "about 3 mJ a frame, more than the 2.5 that 0.1 W allow")
    assert misses(toy_card("unknown"), ue, Target()) == ()


@pytest.mark.parametrize(
    ("target", "rate"),
    [(Target(), 30), (Target(max_ms=50.0), 20), (Target(max_ms=1.0), 60), (Target(max_ms=1.0, frames_per_s=5), 5)],
)
def test_rates(target: Target, rate: float) -> None:
    assert target.rate == rate


@pytest.mark.row("S34")
def test_a_runtime_that_does_not_exist_on_the_operating_system_is_refused() -> None:
    baked = toy_card("baked", kind="baked_field")
    claims = with_(runtimes=("onnxruntime", "numba"), operating_system="ios")
    (miss,) = misses(baked, claims, Target())
    assert (miss.constraint, miss.says) == ("runtime", "needs numba, which does not exist on ios")
    assert misses(baked, claims.model_copy(update={"operating_system": "linux"}), Target()) == ()
    assert misses(toy_card("graph"), claims, Target()) == ()


@pytest.mark.parametrize("profile", device_profiles(), ids=lambda profile: profile.name)
def test_a_device_at_its_own_frame_time_may_spend_what_its_profile_says(profile: object) -> None:
    capability, target = Capability.from_profile(profile), Target(max_ms=profile.frame_ms)
    allowed = 1e3 * capability.watts / target.rate
    assert allowed <= 1e3 * profile.frame_joules * max(1.0, 1e3 / profile.frame_ms / 60) * (1 + 1e-9)
    if profile.battery_wh is None:
        assert allowed == pytest.approx(1e3 * profile.frame_joules, rel=1e-2)
