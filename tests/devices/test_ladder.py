"""Ladder: every rung is published with what was measured of it, once, and a build that stopped goes on."""

import logging
import shutil
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.delta import packed_delta
from crowdnerf_lab.catalogue.remeasurement import machine, probe_psnr
from crowdnerf_lab.devices import ladder as ladder_module
from crowdnerf_lab.devices import rungs
from crowdnerf_lab.devices.cold_start import ColdStart
from crowdnerf_lab.devices.ladder import LadderError, weights_sha256
from crowdnerf_lab.devices.measure import as_colour, pictures_of
from crowdnerf_lab.devices.quantize import QuantizationError
from crowdnerf_lab.devices.reference import reference_of
from crowdnerf_lab.fields.baking import Tier
from crowdnerf_lab.files import FileError
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.network.ue import load_artefact
from tests.toy_artefacts import HEIGHT, WIDTH, random_grid, small_scene, toy_ladder, untrained_student

CODINGS = ("none", "zstd", "range", "progressive")


@pytest.fixture(scope="module")
def built(ladder_root: Path) -> dict[str, Artefact]:
    artefacts = [open_artefact(card.parent) for card in sorted(ladder_root.glob("*/card.json"))]
    return {f"{a.card.stored_as}.{a.card.coding}": a for a in artefacts}


@pytest.fixture
def begun(ladder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root in which graphs are exported but nothing is published; models there start at once."""
    shutil.copytree(ladder_root / ".work", tmp_path / ".work")
    monkeypatch.setattr(ladder_module, "measure_cold_start", lambda *_, **__: ColdStart(1.0, 1.0))
    return tmp_path


@pytest.mark.row("S25", "S43")
def test_a_ladder_has_every_size_format_resolution_and_coding(tmp_path: Path) -> None:
    tiers = (Tier("1kB", 1_000), Tier("full", None))
    ladder = toy_ladder(tmp_path, codings=CODINGS, tiers=tiers, resolutions=((WIDTH, HEIGHT), (24, 20)))
    candidates = ladder.candidates()
    assert len(candidates) == len({candidate.name for candidate in candidates}) == 3 * 4 + 2 * (1 + 2)
    assert {(c.width, c.height) for c in candidates if c.kind == "light_field"} == {(WIDTH, HEIGHT)}
    assert {(c.width, c.height) for c in candidates if c.kind == "baked_field"} == {(WIDTH, HEIGHT), (24, 20)}


@pytest.mark.row("S29", "S46", "S50")
def test_every_figure_of_a_card_was_measured(built: dict[str, Artefact]) -> None:
    assert len(built) == 2 + 4 + 2
    for artefact in built.values():
        card = artefact.card
        assert open_artefact(artefact.folder) == artefact
        assert card.unmeasured == () or card.unmeasured == ("layers",)
        assert card.bytes == artefact.model.stat().st_size
        assert card.latency.machine == machine()
        assert 0 < card.latency.median_ms <= card.latency.p95_ms
        assert card.peak_memory_mb < 1000
        assert card.energy.assumption.startswith("estimated, not measured")
        assert card.steps[0].step == "trained"
        assert card.steps[-1].psnr == pytest.approx(card.quality.psnr)
        assert card.licence == "CC-BY-4.0"
    assert {a.card.provenance.weights_sha256 for a in built.values() if a.card.kind == "light_field"} == {
        weights_sha256(untrained_student())
    }


@pytest.mark.row("S29", "S46")
def test_a_receiver_measures_what_the_card_says(built: dict[str, Artefact]) -> None:
    reference = reference_of(random_grid(), small_scene())
    for artefact in built.values():
        card, model = artefact.card, load_artefact(artefact.folder)
        probes = [probe.model_dump() for probe in card.probes]
        assert probe_psnr(model, artefact.folder, probes) == pytest.approx(card.probe_psnr, abs=0.2)
        shown = torch.stack([as_colour(picture) for picture in pictures_of(model, reference.cameras)])
        assert psnr(shown, torch.stack(reference.photos)) == pytest.approx(card.quality.psnr, abs=0.01)


@pytest.mark.row("S47", "S48")
def test_coding_saves_bytes_and_its_loss_is_a_step_on_the_card(built: dict[str, Artefact]) -> None:
    uncoded = built["onnx_int8_qdq.none"].card
    for coding, lost in (("zstd", 1e-6), ("range", 0.1)):  # the range coder may round, and says so in its steps
        card = built[f"onnx_int8_qdq.{coding}"].card
        assert card.bytes < card.bytes_uncoded == uncoded.bytes < card.bytes_float32
        assert card.quality.psnr == pytest.approx(uncoded.quality.psnr, abs=lost)
        assert card.steps[-1].psnr - card.steps[-2].psnr == pytest.approx(0, abs=lost)
        assert [step.step for step in card.steps] == ["trained", "converted", "coded"]
    assert [step.step for step in built["onnx_float32.none"].card.steps] == ["trained"]
    assert [step.step for step in built["onnx_float32.progressive"].card.steps] == ["trained", "coded"]


@pytest.mark.row("S49", "S50")
def test_prefixes_of_progressive_files_are_measured(built: dict[str, Artefact]) -> None:
    for name in ("onnx_int8_qdq.progressive", "baked.progressive"):
        card = built[name].card
        assert card.layers[-1].bytes == card.bytes
        assert card.layers[-1].psnr == pytest.approx(card.quality.psnr, abs=1e-6)
        assert len(card.layers) > 1
        assert all(a.bytes < b.bytes for a, b in pairwise(card.layers))
    assert built["onnx_int8_qdq.none"].card.layers == ()


def test_beginnings_that_are_worse_than_one_colour_are_not_offered(
    begun: Path, built: dict[str, Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built["onnx_int8_qdq.progressive"].card
    ladder = toy_ladder(begun, formats=("onnx_int8_qdq",), codings=("progressive",), tiers=())
    monkeypatch.setattr(type(ladder), "_psnr_of_one_colour", whole.layers[-1].psnr - 1e-6)
    (artefact,) = ladder.build_all(progress=False)
    assert artefact.card.layers == tuple(layer for layer in whole.layers if layer.psnr >= whole.layers[-1].psnr - 1e-6)
    assert len(artefact.card.layers) < len(whole.layers)
    mean = torch.cat([photo.reshape(-1, 3) for photo in ladder.reference.photos]).mean(0)
    plain = [mean.expand_as(photo) for photo in ladder.reference.photos]
    honest = toy_ladder(begun)
    monkeypatch.undo()
    assert honest._psnr_of_one_colour == pytest.approx(psnr(torch.stack(plain), torch.stack(ladder.reference.photos)))


def test_the_baked_field_is_near_its_teacher_and_the_untrained_student_is_not(built: dict[str, Artefact]) -> None:
    assert built["baked.none"].card.quality.psnr_teacher > 30 > built["onnx_float32.none"].card.quality.psnr_teacher
    assert built["baked.none"].card.quality.psnr == pytest.approx(built["baked.none"].card.steps[0].psnr, abs=0.5)


def test_what_was_built_is_not_built_again(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toy_ladder(begun, formats=("onnx_float32",), tiers=()).build_all(progress=False)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(ladder_module, "light_field_rung", never)
    assert toy_ladder(begun, formats=("onnx_float32",), tiers=()).build_all(progress=False) == first
    changed = deepcopy(untrained_student())
    with torch.no_grad():
        changed.head[0].bias.add_(0.1)
    with pytest.raises(AssertionError, match="built again"):
        toy_ladder(begun, students=[changed], formats=("onnx_float32",), tiers=()).build_all(progress=False)


@pytest.mark.parametrize("damage", ["card.json", "model.onnx"])
def test_a_damaged_artefact_is_built_again(begun: Path, damage: str) -> None:
    (artefact,) = toy_ladder(begun, formats=("onnx_float32",), tiers=()).build_all(progress=False)
    path = artefact.folder / damage
    path.write_bytes(path.read_bytes()[:-9])
    (again,) = toy_ladder(begun, formats=("onnx_float32",), tiers=()).build_all(progress=False)
    assert open_artefact(again.folder).card.files[0] == artefact.card.files[0]


def test_a_killed_build_goes_on_where_it_was(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = toy_ladder(begun, formats=("onnx_float32", "onnx_int8_qdq"), tiers=())
    measure = ladder_module.measure_cold_start
    calls = []

    def killed_in_the_second(*arguments: object, **settings: object):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **settings)

    monkeypatch.setattr(ladder_module, "measure_cold_start", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        ladder.build_all(progress=False)
    assert [path.name for path in begun.iterdir() if not path.name.startswith(".")] == [
        "toy.ray_mlp.XS.onnx_float32.48x40.none"
    ]
    exported = []
    monkeypatch.setattr(rungs, "export_onnx", lambda *a, **k: exported.append(a))
    monkeypatch.setattr(rungs, "convert", lambda *a, **k: exported.append(a))
    assert len(toy_ladder(begun, formats=ladder.formats, tiers=()).build_all(progress=False)) == 2
    assert exported == []


def test_a_format_that_a_graph_does_not_take_is_left_out_with_the_reason(
    begun: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object, stored_as: str, **__: object) -> None:
        raise QuantizationError(f"no {stored_as} today")

    monkeypatch.setattr(rungs, "convert", refuses)
    ladder = toy_ladder(begun, formats=("onnx_int8_weights",), tiers=())
    with pytest.raises(
        LadderError, match=r"XS\.onnx_int8_weights\.48x40\.none is not offered: no onnx_int8_weights today"
    ):
        ladder.build(ladder.candidates()[0])
    with caplog.at_level(logging.WARNING):
        assert ladder.build_all(progress=False) == ()
    assert "is not offered: no onnx_int8_weights today" in caplog.text


def test_students_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LadderError, match="2 students but only ray_mlp XS can be told apart; give one of each"):
        toy_ladder(tmp_path, students=[untrained_student(), untrained_student()])


def test_a_scene_without_held_out_photos_is_measured_without_claims_about_them(begun: Path) -> None:
    scene = small_scene().with_split(range(12), [])
    (artefact,) = toy_ladder(begun, scene=scene, formats=("onnx_int8_qdq",), tiers=()).build_all(progress=False)
    card = artefact.card
    assert (card.quality.psnr, card.steps, card.probe_psnr > 0) == (None, (), True)
    assert "quality.psnr" in card.unmeasured


def test_a_scene_s_name_cannot_lead_out_of_the_folder(begun: Path) -> None:
    scene = replace(small_scene(), name="../../The Band, live")
    (artefact,) = toy_ladder(begun, scene=scene, formats=("onnx_float32",), tiers=()).build_all(progress=False)
    assert artefact.folder.parent == begun
    assert artefact.card.name == "The-Band-live.ray_mlp.XS.onnx_float32.48x40.none"


def test_a_full_disk_leaves_nothing(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    ladder = toy_ladder(begun, formats=("onnx_float32",), tiers=())
    with pytest.raises(FileError, match=r"could not publish .*No space left on device; free some space"):
        ladder.build_all(progress=False)
    assert [path.name for path in begun.iterdir()] == [".work"]


@pytest.mark.row("S40", "S48")
def test_a_ladder_after_a_version_makes_files_whose_deltas_are_small(tmp_path: Path) -> None:
    offered = {
        "codings": ("progressive",),
        "formats": ("onnx_int8_weights",),
        "brisk": True,
    }
    old = toy_ladder(tmp_path / "old", **offered).build_all(progress=False)
    later, generator = deepcopy(untrained_student()), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in later.parameters():
            parameter += 0.02 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
    new = toy_ladder(tmp_path / "new", after=old, students=[later], **offered).build_all(progress=False)
    assert [artefact.card.name for artefact in new] == [artefact.card.name for artefact in old]
    for before, after in zip(old, new, strict=True):
        delta = packed_delta(before.model.read_bytes(), after.model.read_bytes())
        assert delta is not None
        assert len(delta) < 0.4 * after.card.bytes
