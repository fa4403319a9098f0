"""Device profiles: the bundled ones hold together, and impossible ones are refused in one sentence."""

from pathlib import Path

import pytest

from crowdnerf_lab.devices.profile import (
    MINUTES_ON_BATTERY,
    ProfileError,
    device_profile,
    device_profiles,
    read_profile,
)

GOOD = """
name = "watch"
title = "Watch"
device_class = "glasses"
platform = "Android"
operating_systems = ["android"]
runtimes = ["onnxruntime"]
precisions = ["int8"]
threads = 1
memory_mb = 32
frame_ms = 33.0
view_width = 128
view_height = 128
link_mbit_s = 5.0
rtt_ms = 80.0
frame_joules = 0.003
battery_wh = 1.0
source = "a profile made up for this test"
"""
COMPUTE = """
[compute]
processor = "a small core"
unit = "cpu"
peak_gops = { float32 = 10.0, int8 = 20.0 }
memory_gb_s = 3.0
attained = 0.4
picojoule_per_op = { float32 = 20.0, int8 = 10.0 }
picojoule_per_byte = 60.0
source = "a processor made up for this test"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "watch.toml"
    path.write_text(text)
    return path


@pytest.mark.row("S26", "S34", "S35", "S36")
def test_the_bundled_profiles_differ_in_platform_runtime_precision_and_memory() -> None:
    profiles = device_profiles()
    assert {"flagship_phone_npu", "mid_phone", "ar_glasses", "browser", "laptop_cpu", "edge_gpu_server"} <= {
        profile.name for profile in profiles
    }
    for axis in ("platform", "operating_systems", "runtimes", "precisions", "memory_mb"):
        assert len({getattr(profile, axis) for profile in profiles}) > 1
    systems = {system for profile in profiles for system in profile.operating_systems}
    assert {"android", "ios", "web", "linux"} <= systems
    assert len({profile.compute.processor for profile in profiles if profile.compute}) == len(profiles)


@pytest.mark.parametrize("profile", device_profiles(), ids=lambda profile: profile.name)
def test_a_bundled_profile_lasts_on_its_battery_and_names_its_source(profile) -> None:
    assert len(profile.source) > 40
    if profile.battery_wh:
        watts = profile.frame_joules / (profile.frame_ms / 1e3)
        assert 60 * profile.battery_wh / watts >= MINUTES_ON_BATTERY


def test_a_good_profile_is_read(tmp_path: Path) -> None:
    assert read_profile(written(tmp_path, GOOD)).view_width == 128


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("memory_mb = 32", "memory_mb = -32", r"memory_mb: .*greater than 0, not -32.*; correct it"),
        ("frame_ms = 33.0", "frame_ms = nan", r"frame_ms: .*not nan"),
        ("frame_ms = 33.0", "frame_ms = 0.001", r"frame_ms: .*not 0\.001"),
        ("threads = 1", "threads = 0", r"threads: .*not 0"),
        ("view_width = 128", "view_width = 1.5", r"view_width: .*not 1\.5"),
        ("link_mbit_s = 5.0", "", r"link_mbit_s: Field required; add it"),
        ('precisions = ["int8"]', 'precisions = ["int3"]', r"precisions\[0\]: .*not 'int3'"),
        ('runtimes = ["onnxruntime"]', "runtimes = []", r"runtimes: .*not \[\]"),
        ("rtt_ms = 80.0", "rtt_ms = 80.0\nwarp = 9", r"warp: .*; remove it"),
        ("battery_wh = 1.0", "battery_wh = 0.03", r"empties 0\.03 Wh in 20 minutes, less than 30"),
        ('name = "watch"', 'name = "clock"', r"name is 'clock'; call the file clock\.toml"),
        ('["android"]', '["beos"]', r"operating_systems\[0\]: .*not 'beos'"),
        ('["onnxruntime"]', '["core_ml"]', r"core_ml runs on ios, macos, watchos, .* are android; correct one"),
        ("frame_joules = 0.003", "frame_joules = 0.3", r"are 9\.09 W, more than the 5 W that a glasses"),
        ("threads = 1", "threads = ", r"is not TOML"),
    ],
)
def test_an_impossible_profile_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ProfileError, match=rf"watch\.toml.*{says}"):
        read_profile(written(tmp_path, GOOD.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "int8 = 20.0 }",
            "int8 = 2000000.0 }",
            r"peak_gops and picojoule_per_op of int8 make 2e\+04 W, more than the 5 W that a gl",
        ),
        ("int8 = 20.0 }", "int8 = 5.0 }", r"peak_gops is 5 for int8 and 10 for float32; no processor"),
        ("float32 = 10.0, int8 = 20.0", "float32 = 10.0", r"peak_gops knows float32, picojoule_per_op float32, int8"),
        ("int8 = 20.0 }", "int8 = inf }", r"compute\.peak_gops\.int8: .*not inf"),
        ("memory_gb_s = 3.0", "memory_gb_s = 3e9", r"compute\.memory_gb_s: .*not 3000000000"),
        ('unit = "cpu"', 'unit = "abacus"', r"compute\.unit: .*not 'abacus'"),
        ("attained = 0.4", "attained = 1.4", r"compute\.attained: .*not 1\.4"),
        ("per_byte = 60.0", "per_byte = 0.0", r"compute\.picojoule_per_byte: .*not 0\.0"),
        ('source = "a processor made up for this test"', 'source = "trust me"', r"compute\.source: .*not 'trust me'"),
    ],
)
def test_an_impossible_processor_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert read_profile(written(tmp_path, GOOD + COMPUTE)).compute is not None
    assert old in COMPUTE
    with pytest.raises(ProfileError, match=rf"watch\.toml.*{says}"):
        read_profile(written(tmp_path, GOOD + COMPUTE.replace(old, new)))


def test_a_processor_must_know_the_precisions_of_its_profile(tmp_path: Path) -> None:
    wide = GOOD.replace('precisions = ["int8"]', 'precisions = ["int8", "float16"]') + COMPUTE
    with pytest.raises(ProfileError, match=r"compute: peak_gops lacks float16, in which the device computes; add it"):
        read_profile(written(tmp_path, wide))


def test_a_missing_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot read .*none\.toml: No such file"):
        read_profile(tmp_path / "none.toml")


def test_a_data_folder_elsewhere_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWDNERF_DATA", str(tmp_path))
    with pytest.raises(ProfileError, match="set CROWDNERF_DATA to its data folder"):
        device_profiles()
    (tmp_path / "devices").mkdir()
    written(tmp_path / "devices", GOOD)
    assert [profile.name for profile in device_profiles()] == ["watch"]


def test_an_unknown_name_is_refused_with_the_choice() -> None:
    with pytest.raises(ProfileError, match="no device profile 'toaster'; choose one of ar_glasses"):
        device_profile("toaster")
