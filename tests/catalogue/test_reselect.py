"""reselect: another model when the UE's circumstances change, and which of them it was."""

import pytest

from crowdnerf_lab.catalogue.select import FIELDS_OF_TRIGGER, Capability, Selection, Target, reselect, select
from tests.toy_catalogue import toy_offer

STAND = (20.0, 0.0, 1.0)
MODELS = [
    toy_offer("thrifty", psnr=17.0, size=100_000, ms=4.0, energy_mj=2.0, memory_mb=8.0),
    toy_offer("middle", psnr=19.0, size=500_000, ms=12.0, energy_mj=15.0, memory_mb=30.0),
    toy_offer("large", psnr=22.0, size=2_000_000, ms=25.0, energy_mj=90.0, memory_mb=200.0),
    toy_offer("stand", psnr=23.0, size=900_000, ms=25.0, energy_mj=90.0, memory_mb=200.0, place=(*STAND, 4.0)),
]
AT_REST = Capability(
    runtimes=("onnxruntime",),
    precisions=("float32",),
    memory_mb=512,
    link_mbit_s=100,
    rtt_ms=20,
    position=(0.0, 0.0, 1.0),
    power_w=3.0,
    battery_wh=12.0,
)
FLUENT = Target(max_ms=33.0, max_download_s=1.0)


def name_of(selection: Selection) -> str | None:
    return selection.artefact.card.name if selection.artefact else None


def chosen_at_rest() -> Selection:
    selection = select(MODELS, AT_REST, FLUENT)
    assert name_of(selection) == "large"
    return selection


@pytest.mark.row("S39")
@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"position": (21.0, 1.0, 1.0)}, "stand"),
        ({"link_mbit_s": 5.0, "rtt_ms": 80.0}, "middle"),
        ({"link_mbit_s": 0.1}, None),
    ],
)
def test_place(changes: dict[str, object], chosen: str | None) -> None:
    """A UE that walks comes into another view cell, or into a poorer cell of the network."""
    again = reselect(chosen_at_rest(), MODELS, capability=AT_REST.model_copy(update=changes))
    assert (name_of(again.selection), again.changed, again.because) == (chosen, True, ("place",))


@pytest.mark.row("S39")
@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"battery_wh": 2.0}, "middle"),
        ({"battery_wh": 0.2}, "thrifty"),
        ({"power_w": 0.5}, "middle"),
        ({"battery_wh": 0.0}, None),
    ],
)
def test_energy(changes: dict[str, object], chosen: str | None) -> None:
    """A battery that runs down, or a device too warm, leaves less energy for a frame."""
    again = reselect(chosen_at_rest(), MODELS, capability=AT_REST.model_copy(update=changes))
    assert (name_of(again.selection), again.changed, again.because) == (chosen, True, ("energy",))
    if chosen is None:
        assert "thrifty: about 2 mJ a frame, more than the 0 that 0 W allow" in again.selection.reason


@pytest.mark.row("S39")
@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"busy": 0.5}, "middle"),
        ({"relative_speed": 0.2}, "thrifty"),
        ({"runtimes": ()}, None),
        ({"precisions": ("int8",)}, None),
    ],
)
def test_processor(changes: dict[str, object], chosen: str | None) -> None:
    """A processor that other work takes, that slows down, or that goes away."""
    again = reselect(chosen_at_rest(), MODELS, capability=AT_REST.model_copy(update=changes))
    assert (name_of(again.selection), again.changed, again.because) == (chosen, True, ("processor",))


@pytest.mark.row("S39")
@pytest.mark.parametrize(("memory_mb", "chosen"), [(100.0, "middle"), (20.0, "thrifty"), (4.0, None)])
def test_memory(memory_mb: float, chosen: str | None) -> None:
    again = reselect(chosen_at_rest(), MODELS, capability=AT_REST.model_copy(update={"memory_mb": memory_mb}))
    assert (name_of(again.selection), again.changed, again.because) == (chosen, True, ("memory",))


def test_what_did_not_matter_is_not_named() -> None:
    now = AT_REST.model_copy(update={"memory_mb": 20.0, "rtt_ms": 25.0, "battery_wh": 11.0})
    again = reselect(chosen_at_rest(), MODELS, capability=now)
    assert (name_of(again.selection), again.because) == ("thrifty", ("memory",))


def test_causes_that_act_only_together_are_all_named() -> None:
    """Less memory shuts out the large one, less power the middle one."""
    now = AT_REST.model_copy(update={"memory_mb": 100.0, "power_w": 0.1})
    again = reselect(chosen_at_rest(), MODELS, capability=now)
    assert name_of(again.selection) == "thrifty"
    assert again.because == ("energy",)  # 0.1 W alone leaves the thrifty one
    now = AT_REST.model_copy(update={"memory_mb": 300.0, "position": STAND})
    both = [*MODELS[:3], toy_offer("cell", psnr=24.0, memory_mb=200.0, place=(*STAND, 4.0))]
    roomy = select(both, AT_REST.model_copy(update={"memory_mb": 100.0}), FLUENT)
    again = reselect(roomy, both, capability=now)
    assert (name_of(again.selection), again.because) == ("cell", ("place", "memory"))


def test_nothing_changes_when_nothing_that_matters_did() -> None:
    again = reselect(chosen_at_rest(), MODELS, capability=AT_REST.model_copy(update={"memory_mb": 400.0}))
    assert (name_of(again.selection), again.changed, again.because) == ("large", False, ())
    assert again.selection.capability.memory_mb == 400.0


def test_from_the_network_back_to_a_model() -> None:
    poor = AT_REST.model_copy(update={"memory_mb": 1.0})
    again = reselect(select(MODELS, poor, FLUENT), MODELS, capability=AT_REST)
    assert (name_of(again.selection), again.because) == ("large", ("memory",))


def test_a_little_better_is_not_worth_another_download() -> None:
    before = chosen_at_rest()
    barely = [*MODELS, toy_offer("barely", psnr=22.1, size=100_000, energy_mj=1.0, memory_mb=10.0)]
    kept = reselect(before, barely, capability=AT_REST)
    assert (name_of(kept.selection), kept.changed) == ("large", False)
    assert "kept, barely is not worth its download" in kept.selection.reason
    clearly = [*MODELS, toy_offer("clearly", psnr=22.3, size=100_000, energy_mj=1.0, memory_mb=10.0)]
    moved = reselect(before, clearly, capability=AT_REST)
    assert (name_of(moved.selection), moved.because) == ("clearly", ("models",))


@pytest.mark.row("S30")
def test_a_withdrawn_model_is_replaced() -> None:
    again = reselect(chosen_at_rest(), MODELS[:2], capability=AT_REST)
    assert (name_of(again.selection), again.because) == ("middle", ("models",))


def test_every_circumstance_of_a_ue_belongs_to_a_trigger() -> None:
    named = {name for names in FIELDS_OF_TRIGGER.values() for name in names}
    assert named == set(Capability.model_fields) - {"version"}
