"""select: the best model that fits, or a reason that names the limit."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.select import Capability, Target, download_seconds, refusal, select
from crowdnerf_lab.devices.profile import device_profile
from tests.toy_artefacts import fitted, small_profile

ABLE = Capability(
    runtimes=("onnxruntime", "numba"), precisions=("float32", "int8"), memory_mb=1e4, link_mbit_s=8.0, rtt_ms=100.0
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return fitted(small_profile("ar_glasses"), tmp_path_factory.mktemp("template"))[0]


def variant(template: Artefact, name: str, *, psnr: float, size: int, ms: float, kind: str = "light_field") -> Artefact:
    """The template with other figures on its card: select() reads nothing else."""
    card = template.card
    latency = card.latency.model_copy(update={"median_ms": ms})
    quality = card.quality.model_copy(update={"psnr": psnr})
    update = {"name": name, "kind": kind, "bytes": size, "latency": latency, "quality": quality}
    return Artefact(Path(name), card.model_copy(update=update))


@pytest.fixture(scope="module")
def ladder(template: Artefact) -> list[Artefact]:
    return [
        variant(template, "small", psnr=17.0, size=100_000, ms=3.0),
        variant(template, "middle", psnr=19.0, size=500_000, ms=12.0),
        variant(template, "large", psnr=22.0, size=4_000_000, ms=300.0, kind="baked_field"),
    ]


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
def test_the_best_that_fits_is_chosen(ladder: list[Artefact], target: Target, chosen: str) -> None:
    selection = select(ladder, ABLE, target)
    assert selection.artefact is not None
    assert selection.artefact.card.name == chosen
    assert selection.reason.startswith(f"{chosen}: ")
    assert selection.artefact.card.latency.machine in selection.reason


@pytest.mark.row("S70")
@pytest.mark.parametrize(
    ("capability", "target", "says"),
    [
        (ABLE.model_copy(update={"runtimes": ()}), Target(), "small: needs onnxruntime, the UE has no runtime"),
        (ABLE.model_copy(update={"precisions": ("float16",)}), Target(), "small: computes in int8, the UE in float16"),
        (
            ABLE.model_copy(update={"memory_mb": 0.1}),
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
def test_when_nothing_fits_the_ue_asks_the_network(
    ladder: list[Artefact], capability: Capability, target: Target, says: str
) -> None:
    selection = select(ladder, capability, target)
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
    ladder: list[Artefact], max_bytes: int | None, max_ms: float | None, min_psnr: float | None
) -> None:
    target = Target(max_bytes=max_bytes, max_ms=max_ms, min_psnr=min_psnr)
    fitting = [artefact for artefact in ladder if refusal(artefact, ABLE, target) is None]
    selection = select(ladder, ABLE, target)
    assert (selection.artefact is None) == (not fitting)
    if selection.artefact is not None:
        assert selection.artefact in fitting
        assert selection.artefact.card.quality.psnr == max(artefact.card.quality.psnr for artefact in fitting)


def test_the_order_of_the_artefacts_does_not_matter(ladder: list[Artefact], template: Artefact) -> None:
    twins = [*ladder, variant(template, "twin", psnr=22.0, size=3_000_000, ms=300.0, kind="baked_field")]
    chosen = {select(order, ABLE, Target()).artefact.card.name for order in itertools.permutations(twins)}
    assert chosen == {"twin"}  # of equals the smaller one


def test_a_model_without_photos_counts_by_its_probe_views(template: Artefact) -> None:
    quality = template.card.quality.model_copy(update={"psnr": None})
    unphotographed = Artefact(Path("x"), template.card.model_copy(update={"quality": quality}))
    probe = template.card.probe_psnr
    assert refusal(unphotographed, ABLE, Target(min_psnr=probe - 0.1)) is None
    assert refusal(unphotographed, ABLE, Target(min_psnr=probe + 0.1)) is not None


@pytest.mark.row("S26", "S36")
def test_a_capability_is_what_the_profile_says_and_survives_json() -> None:
    profile = device_profile("ar_glasses")
    capability = Capability.from_profile(profile)
    assert (capability.runtimes, capability.precisions) == (profile.runtimes, profile.precisions)
    assert Capability.model_validate_json(capability.model_dump_json()) == capability


def test_download_time_is_a_round_trip_and_the_bits() -> None:
    assert download_seconds(1_000_000, ABLE) == pytest.approx(0.1 + 1.0)
