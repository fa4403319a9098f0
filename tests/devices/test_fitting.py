"""fit_to: the right formats for a device, with cards that hold when measured again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.remeasurement import probe_psnr
from crowdnerf_lab.devices.fitting import calibration_feeds, fit_to, reference_of, through_ideal_lens
from crowdnerf_lab.devices.measure import as_colour, pictures_of
from crowdnerf_lab.files import FileError
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.network.ue import load_artefact
from crowdnerf_lab.rendering import render_view
from tests.toy_artefacts import fitted, random_grid, small_profile, small_scene, untrained_student
from tests.toy_field import ToyField


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> list[Artefact]:
    return fitted(small_profile("laptop_cpu"), tmp_path_factory.mktemp("laptop"))


def formats(artefacts: list[Artefact]) -> set[str]:
    return {artefact.card.stored_as for artefact in artefacts}


@pytest.mark.row("S10", "S25", "S66")
def test_a_laptop_gets_every_format(laptop: list[Artefact]) -> None:
    assert formats(laptop) == {"onnx_float32", "onnx_int8_qdq", "onnx_int8_weights", "baked"}
    assert {artefact.card.computes_in for artefact in laptop if artefact.card.stored_as == "onnx_int8_weights"} == {
        "float32"
    }


@pytest.mark.row("S37")
def test_a_device_gets_only_what_it_can_compute(tmp_path: Path) -> None:
    assert formats(fitted(small_profile("ar_glasses"), tmp_path)) == {"onnx_int8_qdq"}
    nothing = small_profile("ar_glasses", precisions=("float16",))
    assert fitted(nothing, tmp_path / "none") == []


def test_artefacts_are_published_whole_and_open(laptop: list[Artefact]) -> None:
    root = laptop[0].folder.parent
    assert sorted(path.name for path in root.iterdir()) == sorted(artefact.card.name for artefact in laptop)
    for artefact in laptop:
        assert open_artefact(artefact.folder) == artefact
        assert artefact.card.bytes == artefact.model.stat().st_size
        assert artefact.card.licence == "CC-BY-4.0"


@pytest.mark.row("S29", "S46")
def test_a_receiver_measures_what_the_card_says(laptop: list[Artefact]) -> None:
    for artefact in laptop:
        card, model = artefact.card, load_artefact(artefact.folder)
        probes = [probe.model_dump() for probe in card.probes]
        assert probe_psnr(model, artefact.folder, probes) == pytest.approx(card.probe_psnr, abs=0.2)
        reference = reference_of(random_grid(), small_scene())
        shown = torch.stack([as_colour(picture) for picture in pictures_of(model, reference.cameras)])
        assert psnr(shown, torch.stack(reference.photos)) == pytest.approx(card.quality.psnr, abs=0.01)


def test_the_baked_field_is_near_its_teacher_and_the_untrained_student_is_not(laptop: list[Artefact]) -> None:
    against_teacher = {artefact.card.stored_as: artefact.card.quality.psnr_teacher for artefact in laptop}
    assert against_teacher["baked"] > 30 > against_teacher["onnx_float32"]


def test_quantization_is_measured_before_and_after(laptop: list[Artefact]) -> None:
    quality = {artefact.card.stored_as: artefact.card.quality for artefact in laptop}
    assert quality["onnx_float32"].psnr_before is None
    assert quality["onnx_int8_qdq"].psnr_before == pytest.approx(quality["onnx_float32"].psnr, abs=1e-3)
    assert quality["onnx_int8_qdq"].psnr == pytest.approx(quality["onnx_int8_qdq"].psnr_before, abs=0.5)


def test_a_scene_without_held_out_photos_is_fitted_without_claims_about_them(tmp_path: Path) -> None:
    scene = small_scene().with_split(range(12), [])
    artefacts = fit_to(
        small_profile("ar_glasses"),
        field=random_grid(),
        students=[untrained_student()],
        scene=scene,
        root=tmp_path,
        frames=1,
    )
    assert artefacts[0].card.quality.psnr is None
    assert artefacts[0].card.probe_psnr > 0


def test_reference_views_are_spread_over_the_held_out_ones() -> None:
    scene = small_scene().with_split([0, 1, 2], range(3, 12))
    reference = reference_of(random_grid(), scene, views=3)
    assert torch.equal(reference.cameras.positions, scene.cameras.positions[[3, 7, 11]])
    assert len(reference.photos) == len(reference.teacher) == 3


def test_photos_of_other_lenses_are_resampled_to_an_ideal_one() -> None:
    scene, field = small_scene(), ToyField()
    bent = torch.tensor([-0.15, 0.02, 0.004, -0.003]).expand(12, 4)
    through_lens = replace(scene.cameras, distortion=bent)
    for i in (0, 5):
        ideal, photo = render_view(field, scene.cameras, i).colour, render_view(field, through_lens, i).colour
        inner = (slice(4, -4), slice(4, -4))  # what the lens did not see cannot be restored
        resampled = through_ideal_lens(photo, through_lens, i)
        assert psnr(resampled[inner], ideal[inner]) > psnr(photo[inner], ideal[inner]) + 6
        assert torch.equal(through_ideal_lens(photo, scene.cameras, i), photo)


def test_calibration_sees_captured_poses_at_the_model_s_size() -> None:
    scene = small_scene()
    feeds = calibration_feeds(scene, width=96, height=80)
    assert len(feeds) == len(scene.train)
    assert feeds[0]["focal"].tolist() == pytest.approx((2 * scene.cameras.focal[0]).tolist())


def test_a_scene_s_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    scene = replace(small_scene(), name="../../The Band, live")
    artefacts = fit_to(
        small_profile("ar_glasses"),
        field=random_grid(),
        students=[untrained_student()],
        scene=scene,
        root=tmp_path,
        frames=1,
    )
    assert artefacts[0].folder.parent == tmp_path
    assert artefacts[0].card.name == "The-Band-live.ar_glasses.XS.onnx_int8_qdq"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(FileError, match=r"could not publish .*No space left on device; free some space"):
        fitted(small_profile("ar_glasses"), tmp_path)
    assert list(tmp_path.iterdir()) == []
