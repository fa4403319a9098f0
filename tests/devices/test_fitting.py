"""fit_to: the best rung that fits, found with few builds, judged by what was measured; or what stands in the way."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.select import Target
from crowdnerf_lab.devices.fitting import Fitted, fit_to, target_of
from crowdnerf_lab.devices.ladder import Ladder, LadderError
from crowdnerf_lab.devices.profile import DeviceProfile, device_profile, device_profiles
from crowdnerf_lab.devices.rungs import Candidate
from tests.toy_artefacts import small_profile, toy_ladder
from tests.toy_catalogue import toy_card

LAPTOP, WATCH = device_profile("laptop_cpu"), device_profile("smart_watch")
GENEROUS = Target()


def rung(name: str, **figures: Any) -> Artefact:
    return Artefact(Path(name), toy_card(name, **figures))


LADDER = [
    rung("small", psnr=17.0, size=50_000, ms=5.0),
    rung("medium", psnr=19.0, size=300_000, ms=12.0),
    rung("large", psnr=21.0, size=900_000, ms=45.0),
    rung("baked", psnr=22.0, size=3_000_000, ms=150.0, kind="baked_field"),
]


def name_of(fitted: Fitted) -> str | None:
    return fitted.artefact.card.name if fitted.artefact else None


@pytest.mark.row("S44", "S45")
@pytest.mark.parametrize(
    ("target", "best"),
    [
        (GENEROUS, "baked"),
        (Target(max_bytes=1_000_000), "large"),
        (Target(max_ms=20), "medium"),
        (Target(max_bytes=100_000, max_ms=20), "small"),
        (Target(max_ms=50, min_psnr=20), "large"),
        (Target(within_db=1.5, max_bytes=1_000_000), "large"),
        (Target(max_bytes=10_000), None),
    ],
)
def test_of_finished_artefacts_the_best_that_fits_is_chosen(target: Target, best: str | None) -> None:
    assert name_of(fit_to(LAPTOP, target, ladder=LADDER, latency_of="this machine")) == best


@pytest.mark.row("S44", "S45")
def test_tighter_targets_never_give_better_pictures() -> None:
    def psnr(**limits: float) -> float:
        found = fit_to(LAPTOP, Target(**limits), ladder=LADDER, latency_of="this machine").artefact
        return found.card.quality.psnr if found else -math.inf

    sizes = [psnr(max_bytes=size) for size in (10_000, 60_000, 400_000, 1_000_000, 10_000_000)]
    times = [psnr(max_ms=ms) for ms in (1, 6, 15, 50, 500)]
    assert sizes == sorted(sizes)
    assert times == sorted(times)


@pytest.mark.row("S42")
def test_an_impossible_target_names_each_limit_and_how_far_the_nearest_is() -> None:
    impossible = fit_to(LAPTOP, Target(max_bytes=25_000, min_psnr=25.0), ladder=LADDER, latency_of="this machine")
    assert impossible.artefact is None
    assert "no model fits Laptop, CPU" in impossible.reason
    assert "bytes by a factor of 2.00 at best: 50000 bytes, more than 25000" in impossible.reason
    assert "quality by 3.00 dB at best: 22.0 dB, less than 25.0" in impossible.reason
    assert {miss.constraint: miss.by for miss in impossible.nearest} == pytest.approx({"bytes": 1.0, "quality": 0.5})


def test_limits_that_are_only_impossible_together_name_the_nearest_rung() -> None:
    together = fit_to(LAPTOP, Target(max_bytes=290_000, min_psnr=19.0), ladder=LADDER, latency_of="this machine")
    assert together.artefact is None
    assert "each limit is kept by some rung but not all by one; the nearest, medium, misses bytes by" in together.reason


def test_of_equally_good_models_the_smaller_is_chosen() -> None:
    twins = [rung("a", psnr=20.0, size=200_000), rung("b", psnr=19.99, size=100_000)]
    assert name_of(fit_to(LAPTOP, GENEROUS, ladder=twins, latency_of="this machine")) == "b"


def test_no_rungs_no_model() -> None:
    assert fit_to(LAPTOP, GENEROUS, ladder=[]).reason == "no model fits Laptop, CPU: the ladder has no rungs"


@pytest.mark.row("S29", "S36", "S37")
def test_a_device_that_was_not_measured_is_judged_by_its_proxy() -> None:
    work = {"flops": 1_000_000_000, "bytes_moved": 30_000_000, "parameters": 400_000}
    quick_here = [rung("student", ms=9.0, **work)]
    found = fit_to(WATCH, Target(max_ms=100), ladder=quick_here)
    assert found.artefact is None
    assert "about 180 ms (proxy: roofline of Smart watch" in found.reason
    assert "not measured), more than 100.0" in found.reason
    as_measured = fit_to(WATCH, Target(max_ms=100), ladder=quick_here, latency_of="this machine")
    assert as_measured.artefact is not None
    assert "9.0 ms a frame on the machine of the tests; on Smart watch about 180 ms (proxy" in as_measured.reason


def test_a_neural_or_graphics_processor_says_nothing_about_a_march_on_a_cpu() -> None:
    work = {"flops": 1_000_000_000, "bytes_moved": 700_000_000, "parameters": 400_000}
    marched = [rung("baked", ms=90.0, kind="baked_field", **work)]
    server = fit_to(device_profile("edge_gpu_server"), ladder=marched)
    assert server.considered[0].proxy is None
    assert "90.0 ms a frame, more than 16.7" in server.reason
    assert fit_to(LAPTOP, ladder=marched).considered[0].proxy is not None


def test_the_nearest_misses_are_those_of_models_that_the_device_can_run() -> None:
    found = fit_to(device_profile("smart_watch"), Target(min_psnr=21.5), ladder=LADDER, latency_of="this machine")
    assert "quality by 0.50 dB at best: 21.0 dB" in found.reason  # the baked field has 22 dB, and needs numba


@pytest.mark.row("S36")
def test_a_frame_may_not_take_more_energy_than_the_profile_allows() -> None:
    hungry = [rung("student", flops=4_000_000_000, bytes_moved=30_000_000, parameters=400_000)]
    found = fit_to(WATCH, Target(), ladder=hungry)
    assert found.artefact is None
    assert "about 82 mJ a frame, more than 50 (estimated, not measured: 20 pJ an operation" in found.reason


@pytest.mark.row("S26", "S35", "S37")
def test_a_device_gets_only_what_it_can_run_and_compute() -> None:
    glasses = device_profile("ar_glasses")
    assert fit_to(glasses, Target(), ladder=LADDER).artefact is None
    assert name_of(fit_to(glasses, Target(), ladder=[*LADDER, rung("int8", computes_in="int8")])) == "int8"


class PaperLadder(Ladder):
    """A ladder whose rungs are cards: it counts what is built. Figures by name; a loss for each format and coding."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.refuses: set[str] = set()
        self._artefacts: dict[Candidate, Artefact] = {}

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(
            Candidate("ray_mlp", size, stored_as, 320, 240, coding)
            for size in SIZES
            for stored_as in LOSS
            for coding in RATIO
        )

    def built(self, candidate: Candidate) -> Artefact | None:
        return self._artefacts.get(candidate)

    def build(self, candidate: Candidate) -> Artefact:
        if candidate.stored_as in self.refuses:
            raise LadderError(f"{candidate.name} is not offered: not today")
        self.made.append(candidate.name)
        parameters, psnr, flops = SIZES[candidate.size]
        loss, bits, speed = LOSS[candidate.stored_as]
        card = toy_card(
            candidate.name,
            psnr=psnr - loss,
            size=int(parameters * bits / 8 * RATIO[candidate.coding]),
            ms=flops / 1e8 / speed,
            stored_as=candidate.stored_as,
            computes_in="int8" if "qdq" in candidate.stored_as else "float32",
            coding=candidate.coding,
            bytes_uncoded=int(parameters * bits / 8),
            parameters=parameters,
            flops=flops,
            bytes_moved=flops // 30,
            steps=({"step": "trained", "psnr": psnr}, {"step": "converted", "psnr": psnr - loss}),
        )
        self._artefacts[candidate] = Artefact(Path(candidate.name), card)
        return self._artefacts[candidate]


SIZES = {
    "XS": (100_000, 17.0, 200_000_000),
    "S": (400_000, 18.5, 900_000_000),
    "M": (700_000, 19.5, 1_500_000_000),
    "L": (4_300_000, 21.0, 9_000_000_000),
}
LOSS: dict[Any, tuple[float, float, float]] = {
    "onnx_float32": (0.0, 32, 1.0),
    "onnx_float16": (0.01, 16, 1.0),
    "onnx_int8_qdq": (0.2, 8, 2.5),
    "onnx_int8_weights": (0.15, 8, 1.0),
    "onnx_int4_weights": (1.5, 4.5, 1.0),
}
RATIO: dict[Any, float] = {"none": 1.0, "zstd": 0.95, "range": 0.8}


def exhaustive_best(profile: DeviceProfile, target: Target) -> str | None:
    ladder = PaperLadder()
    everything = [ladder.build(candidate) for candidate in ladder.candidates()]
    return name_of(fit_to(profile, target, ladder=everything, latency_of="this machine"))


@pytest.mark.row("S43", "S44", "S45")
@pytest.mark.parametrize(
    "target",
    [
        Target(max_bytes=1_500_000, max_ms=50),
        Target(max_bytes=300_000),
        Target(max_ms=7),
        Target(max_ms=16, min_psnr=19),
        GENEROUS,
    ],
)
def test_the_search_finds_what_building_everything_finds_with_a_third_of_the_builds(target: Target) -> None:
    ladder = PaperLadder()
    found = fit_to(LAPTOP, target, ladder=ladder, latency_of="this machine", most_builds=20)
    assert name_of(found) == exhaustive_best(LAPTOP, target)
    assert len(ladder.made) <= len(ladder.candidates()) / 3
    assert len(found.considered) == len(ladder.candidates())
    assert {each.name for each in found.considered if each.artefact} == set(ladder.made)


def test_a_search_goes_on_from_what_is_built() -> None:
    ladder = PaperLadder()
    first = fit_to(LAPTOP, Target(max_ms=16), ladder=ladder, latency_of="this machine", most_builds=20)
    made = list(ladder.made)
    assert fit_to(LAPTOP, Target(max_ms=16), ladder=ladder, latency_of="this machine", most_builds=20).artefact == (
        first.artefact
    )
    assert ladder.made == made


def test_a_search_builds_no_more_than_it_may() -> None:
    ladder = PaperLadder()
    fit_to(LAPTOP, GENEROUS, ladder=ladder, most_builds=3)
    assert len(ladder.made) == 3


def test_rungs_that_cannot_be_built_are_named_with_the_reason() -> None:
    ladder = PaperLadder()
    ladder.refuses = {"onnx_float16"}
    found = fit_to(LAPTOP, GENEROUS, ladder=ladder, latency_of="this machine", most_builds=40)
    assert "float32" in str(name_of(found))
    assert any(each.refused and "not offered: not today" in each.refused for each in found.considered)


def test_predictions_come_near_what_is_measured_later() -> None:
    ladder = PaperLadder()
    target = Target(max_bytes=300_000)
    considered = fit_to(LAPTOP, target, ladder=ladder, latency_of="this machine").considered
    before = {each.name: each.predicted for each in considered if not each.artefact}
    for candidate in ladder.candidates():
        expected = before.get(candidate.name)
        if expected is None or expected.psnr is None or expected.bytes is None:
            continue
        card = ladder.build(candidate).card
        assert expected.psnr == pytest.approx(card.quality.psnr, abs=1.6)
        assert expected.bytes == pytest.approx(card.bytes, rel=0.35)


@pytest.mark.row("S25", "S27", "S37")
def test_every_bundled_device_gets_an_answer_from_a_real_ladder(ladder_root: Path) -> None:
    ladder = toy_ladder(ladder_root, formats=("onnx_float32", "onnx_int8_qdq"))
    for profile in device_profiles():
        found = fit_to(small_profile(profile.name), ladder=ladder)
        assert len(found.considered) == 3
        assert found.artefact is not None, found.reason
        assert found.artefact.card.computes_in in profile.precisions
    nothing = small_profile("ar_glasses", precisions=("float16",), compute=None)
    assert fit_to(nothing, ladder=ladder).artefact is None


def test_a_profile_s_own_target_is_its_frame() -> None:
    assert target_of(LAPTOP) == Target(max_ms=100.0, frames_per_s=10.0)
    slow = replace(GENEROUS, max_ms=1.0)
    assert fit_to(LAPTOP, slow, ladder=LADDER, latency_of="this machine").artefact is None
