"""What a UE says of itself: JSON that newer UEs may extend, and no impossible number."""

import json
import logging

import pytest

from crowdnerf_lab.catalogue.capability import Capability, CapabilityError, read_capability
from crowdnerf_lab.devices.profile import device_profile

SAID = {"version": "1.0", "runtimes": ["onnxruntime"], "memory_mb": 64, "link_mbit_s": 20, "rtt_ms": 40}


def said(**changes: object) -> str:
    return json.dumps(SAID | changes)


@pytest.mark.row("S26", "S36")
def test_a_capability_is_what_the_profile_says_and_survives_json() -> None:
    profile = device_profile("ar_glasses")
    capability = Capability.from_profile(profile)
    assert (capability.runtimes, capability.precisions) == (profile.runtimes, profile.precisions)
    assert read_capability(capability.model_dump_json()) == capability


def test_what_a_newer_minor_version_adds_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        newer = read_capability(said(version="1.7", runtimes=["onnxruntime", "holodeck"], smell=True, aura={"hue": 3}))
    assert newer.runtimes == ("onnxruntime",)
    assert newer.memory_mb == 64
    assert newer.version == "1.7"
    assert "version 1.7: aura, smell not understood" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (said(version="2.0"), r"version: .*not '2\.0'"),
        (said(smell=True), r"smell: .*; remove it"),
        (said(memory_mb=0), r"memory_mb: .*greater than 0.*not 0"),
        (said(busy=1.0), r"busy: .*not 1"),
        (said(link_mbit_s=float("inf")), r"link_mbit_s: .*not inf"),
        (said(position=[1, 2]), r"position"),
        (said(battery_wh=-1), r"battery_wh: .*not -1"),
        (said(version="1.7", memory_mb="much"), r"memory_mb: .*not 'much'"),
        ("[]", r"valid dictionary"),
        ("{", r"not JSON"),
        ("[" * 100_000, r"not JSON"),
    ],
)
def test_nonsense_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(CapabilityError, match=says):
        read_capability(text)


def test_power_is_limited_by_heat_and_by_the_battery() -> None:
    capability = read_capability(said(power_w=2.0, battery_wh=3.0, battery_hours=2.0))
    assert capability.watts == 1.5
    assert read_capability(said(power_w=1.0, battery_wh=3.0)).watts == 1.0
    assert read_capability(said()).watts is None
