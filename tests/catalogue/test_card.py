"""Cards: what they must say, what they may leave unsaid, and documents of version 1."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from crowdnerf_lab.catalogue.artefact import card_layers, open_artefact
from crowdnerf_lab.catalogue.card import Energy, ModelCard, Prefix, QualityStep
from crowdnerf_lab.network.ue import load_artefact
from tests.toy_catalogue import DIGEST, quality_of, toy_card, write_toy_artefact

PROGRESSIVE = {"coding": "progressive", "bytes_uncoded": 400_000}


def prefixes(*ends: int) -> tuple[Prefix, ...]:
    return tuple(Prefix(bytes=end, sha256=DIGEST) for end in ends)


@pytest.mark.row("S46")
def test_a_card_survives_json() -> None:
    card = toy_card(
        "whole",
        energy_mj=3.0,
        place=(1.0, 2.0, 3.0, 4.0),
        layers=prefixes(10, 100_000),
        steps=(QualityStep(step="trained", psnr=21.0), QualityStep(step="coded", psnr=20.0, ssim=0.5, flip=0.2)),
        **PROGRESSIVE,
    )
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_what_nobody_measured_is_named() -> None:
    bare = toy_card("bare", quality=quality_of(None, ssim=None))
    missing = {"bytes_float32", "parameters", "flops", "bytes_moved", "peak_memory_mb", "energy"}
    missing |= {"cold_start_ms", "steps"}
    missing |= {"quality.psnr", "quality.psnr_affine", "quality.ssim", "quality.psnr_teacher"}
    assert set(bare.unmeasured) == missing
    known = toy_card("known", energy_mj=1.0, memory_mb=3.0, parameters=5, flops=9)
    assert set(bare.unmeasured) - set(known.unmeasured) >= {"energy", "peak_memory_mb", "parameters", "flops"}


def test_every_figure_that_may_be_none_is_either_named_or_no_figure() -> None:
    """A figure that a later hand adds with None as its default must not go unnoticed."""
    empty = {name for name, value in toy_card("bare", quality=quality_of(None)) if value is None or value == ()}
    no_figures = {"profile", "view_cell", "bytes_uncoded", "layers"}
    assert empty - no_figures <= set(toy_card("bare").unmeasured)


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"coding": "range"}, "coding is range but bytes_uncoded is missing; add it"),
        ({"bytes_uncoded": 7}, "bytes_uncoded is 7, bytes 100000, coding none; correct one"),
        ({"stored_as": "baked"}, "kind is light_field but stored_as is baked"),
        ({"layers": prefixes(10)}, "layers are given but coding is none"),
        (PROGRESSIVE | {"layers": prefixes(20, 10)}, r"layers end after \[20, 10\] bytes of 100000"),
        (PROGRESSIVE | {"layers": prefixes(10, 10)}, r"layers end after \[10, 10\]"),
        (PROGRESSIVE | {"layers": prefixes(10, 100_001)}, r"layers end after \[10, 100001\]"),
        ({"flops": 0}, "flops"),
        ({"peak_memory_mb": -1.0}, "peak_memory_mb"),
        ({"energy": {"frame_mj": 1.0, "assumption": "guessed"}}, "assumption"),
        ({"view_cell": {"centre": (0, 0, 0), "radius": 0}}, "radius"),
        ({"family": "Ray MLP"}, "family"),
        ({"steps": [{"step": "trained", "psnr": float("nan")}]}, "psnr"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(others: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        toy_card("wrong", **others)


def test_energy_without_its_assumption_is_refused() -> None:
    with pytest.raises(ValidationError, match="assumption"):
        Energy.model_validate({"frame_mj": 3.0})


def test_layers_carry_their_own_checksums(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(bytes(range(100)))
    first, last = card_layers(tmp_path / "model", ends=(40, 100), psnr={40: 15.0})
    assert (first.bytes, first.psnr, last.psnr) == (40, 15.0, None)
    (tmp_path / "beginning").write_bytes(bytes(range(40)))
    assert card_layers(tmp_path / "beginning", ends=(40,))[0].sha256 == first.sha256


SIZES = ("bytes_uncoded", "bytes_float32", "parameters", "flops", "bytes_moved", "peak_memory_mb")
ADDED = (*SIZES, "family", "coding", "view_cell", "energy", "cold_start_ms", "steps", "layers")
"""Fields that version 1 did not have."""


@pytest.mark.parametrize(("kind", "family"), [("light_field", "ray_mlp"), ("baked_field", "baked_field")])
def test_documents_of_version_1_are_read(kind: str, family: str) -> None:
    document = json.loads(toy_card("old", kind=kind).model_dump_json())
    for name in ADDED:
        del document[name]
    document |= {"version": 1, "profile": "laptop_cpu"}
    document["quality"]["psnr_before"] = 21.5
    card = ModelCard.model_validate(document)
    assert (card.version, card.family, card.coding, card.profile) == (2, family, "none", "laptop_cpu")
    assert card.quality.psnr_before == 21.5
    assert {"energy", "flops", "steps"} <= set(card.unmeasured)
    with pytest.raises(ValidationError, match="family"):
        ModelCard.model_validate(document | {"version": 2, "family": 3})


def test_the_ue_reads_version_1_too(tmp_path: Path) -> None:
    artefact = write_toy_artefact(tmp_path)
    path = artefact.folder / "card.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({name: document[name] for name in document if name not in ADDED} | {"version": 1}))
    assert load_artefact(artefact.folder).complete
    assert open_artefact(artefact.folder).card.version == 2
