"""Spoiling: as many captures as asked for, each in its way, the same for the same seed; and the screening sees it."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.bundle import GpsFix, concert
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.spoiling import GPS_M, TURN, SpoiledScene, moved_elsewhere, screened, with_bad_captures
from crowdnerf_lab.scene import PosedScene
from tests.toy_field import toy_scene


def contrast(picture: Float[Tensor, "h w 3"]) -> float:
    """Energy of the differences between neighbours."""
    return float((picture.diff(dim=0) ** 2).mean() + (picture.diff(dim=1) ** 2).mean())


@pytest.fixture(scope="module")
def crowd() -> PosedScene:
    """Ten UEs, two photos each."""
    scene = toy_scene(20, width=64, height=48)
    owners = torch.arange(20) // 2
    names = tuple(f"ue{owner}" for owner in range(10))
    return replace(scene, captures=names, capture_of_image=owners).with_split(range(20), [])


@pytest.fixture(scope="module")
def bad(crowd: PosedScene) -> SpoiledScene:
    return with_bad_captures(crowd, fraction=0.5)


def test_half_the_captures_are_spoiled_each_in_one_way(crowd: PosedScene, bad: SpoiledScene):
    owners = {int(crowd.capture_of_image[row]): fault for row, fault in bad.faults.items()}
    assert len(bad.faults) == 10
    assert sorted(owners.values()) == ["blur", "dark", "gps", "occluded", "pose"]
    assert all(bad.faults[row] == owners[int(crowd.capture_of_image[row])] for row in bad.faults)


def test_each_fault_is_what_it_says(crowd: PosedScene, bad: SpoiledScene):
    before, after = crowd.cameras.camera_to_world, bad.scene.cameras.camera_to_world
    for row in range(20):
        fault = bad.faults.get(row)
        picture, spoiled = crowd.image(row), bad.scene.image(row)
        moved = float(torch.linalg.vector_norm(after[row, :, 3] - before[row, :, 3]))
        turned = float(rotation_angle(after[row, :, :3], before[row, :, :3]))
        assert moved == pytest.approx(GPS_M if fault == "gps" else 0, abs=1e-4)
        assert turned == pytest.approx(TURN if fault == "pose" else 0, abs=2e-3)
        if fault == "blur":
            assert contrast(spoiled) < 0.97 * contrast(picture)
        elif fault == "dark":
            assert float(spoiled.mean()) < 0.3 * float(picture.mean())
        elif fault == "occluded":
            assert 0.2 < float((spoiled != picture).any(-1).float().mean()) < 0.5
        else:
            assert torch.equal(spoiled, picture)


def test_the_same_seed_spoils_the_same(crowd: PosedScene, bad: SpoiledScene):
    again, other = with_bad_captures(crowd, fraction=0.5), with_bad_captures(crowd, fraction=0.5, seed=1)
    assert again.faults == bad.faults != other.faults
    assert all(torch.equal(a, b) for a, b in zip(again.scene.images, bad.scene.images, strict=True))


def test_nothing_or_everything(crowd: PosedScene):
    nothing = with_bad_captures(crowd, fraction=0.0)
    assert not nothing.faults
    assert all(torch.equal(a, b) for a, b in zip(nothing.scene.images, crowd.images, strict=True))
    assert len(with_bad_captures(crowd, fraction=1.0).faults) == 20
    with pytest.raises(ValueError, match="between 0 and 1"):
        with_bad_captures(crowd, fraction=math.pi)


def test_the_screening_sees_pictures_and_poses(crowd: PosedScene):
    """One photo of a UE that looks away is rejected; the held-out views stay."""
    poses = crowd.cameras.camera_to_world.clone()
    turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    poses[7, :, :3] = poses[7, :, :3] @ turn
    away = replace(crowd, cameras=replace(crowd.cameras, camera_to_world=poses)).with_split(range(16), [17, 18])
    kept = screened(away)
    assert 7 not in kept.train.tolist()
    assert kept.held_out.tolist() == [17, 18]
    assert len(kept.train) > 10


def test_one_phone_says_that_it_was_elsewhere_and_the_others_say_what_they_said():
    crowd = concert()
    liar, lying = moved_elsewhere(crowd, metres=40.0)
    for honest, said in zip(crowd.captures, lying.captures, strict=True):
        moved = [
            [b - a for a, b in zip(before.reported.camera_to_world[0], after.reported.camera_to_world[0], strict=True)]
            for before, after in zip(honest.photos, said.photos, strict=True)
        ]
        assert moved == [pytest.approx([0, 0, 0, 40.0 if honest.ue == liar else 0.0])] * len(moved)


def test_a_phone_with_gps_alone_can_lie_too_and_a_crowd_without_gps_cannot():
    crowd = concert()
    first = crowd.captures[0]
    silent = first.model_copy(
        update={"photos": tuple(photo.model_copy(update={"reported": None}) for photo in first.photos)}
    )
    with pytest.raises(CaptureError, match="reports where it was"):
        moved_elsewhere(replace(crowd, captures=(silent,)), metres=1.0)
    fixed = silent.model_copy(
        update={
            "photos": tuple(
                photo.model_copy(update={"gps": GpsFix(position=(1.0, 2.0, 3.0))}) for photo in silent.photos
            )
        }
    )
    liar, lying = moved_elsewhere(replace(crowd, captures=(fixed,)), metres=5.0)
    assert liar == first.ue
    assert {photo.gps.position for photo in lying.photos} == {(6.0, 2.0, 3.0)}
