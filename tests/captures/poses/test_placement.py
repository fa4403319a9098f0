"""Models that share no points: each put into the world where positions tell how, else left out with the reason."""

import math
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.poses.georegistration import Similarity
from crowdnerf_lab.captures.poses.motion import Motion, MotionError
from crowdnerf_lab.captures.poses.placement import Placed, Unplaced, moved, placed_in_world
from crowdnerf_lab.captures.poses.world_fit import Whereabouts
from tests.captures.poses.textured_room import walk


def model_of(cameras: Cameras, first: int, *, scale: float) -> Motion:
    """What structure from motion would give for cameras in the world: the same in a frame of its own."""
    count = len(cameras)
    motion = Motion(
        rows=torch.arange(first, first + count),
        cameras=cameras,
        points=cameras.positions + cameras.forward,
        colours=torch.zeros(count, 3, dtype=torch.uint8),
        reprojection_px=0.5,
        errors_px=torch.full((count,), 0.5),
        seen=torch.full((count,), 100),
    )
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.5, 0.2], [0.5, 0.0, 1.0], [-0.2, -1.0, 0.0]]).double())
    return moved(motion, Similarity(scale, turn, torch.tensor([5.0, -3.0, 2.0]).double()))


def report(cameras: Cameras, row: int, *, accuracy_m: float = 0.05) -> Whereabouts:
    east, north, up = cameras.positions[row].tolist()
    return Whereabouts(f"ue{row}", position=(east, north, up), accuracy_m=accuracy_m)


LARGE, SMALL = walk(8), walk(5, seed=5)
PARTS = replace(model_of(LARGE, 0, scale=0.1), apart=(model_of(SMALL, 8, scale=3.0),))
REPORTS = [*(report(LARGE, row) for row in range(8)), *(report(SMALL, row) for row in range(5))]
TRUTHS = [tuple(map(tuple, pose.tolist())) for pose in (*LARGE.camera_to_world, *SMALL.camera_to_world)]


@pytest.mark.parametrize("align", ["metadata", "truth"])
def test_both_models_stand_where_they_belong(align):
    first, second = placed_in_world(PARTS, align=align, reports=REPORTS, truths=TRUTHS)
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert torch.allclose(first.motion.cameras.positions, LARGE.positions, atol=0.02)
    assert torch.allclose(second.motion.cameras.positions, SMALL.positions, atol=0.02)
    assert torch.allclose(second.motion.points, SMALL.positions + SMALL.forward, atol=0.05)


def test_a_model_without_positions_stays_outside_and_says_so():
    lost = [*REPORTS[:8], *(Whereabouts(f"ue{row}") for row in range(5))]
    first, second = placed_in_world(PARTS, align="metadata", reports=lost, truths=TRUTHS)
    assert isinstance(first, Placed)
    assert isinstance(second, Unplaced)
    assert (
        "one of 5 photos that share too little with the others: 0 of 5 posed photos have a position" in second.problem
    )


def test_a_model_whose_positions_are_too_rough_is_not_merged():
    generator = torch.Generator().manual_seed(0)
    rough = [replace(r, accuracy_m=4.0) for r in REPORTS[8:]]
    rough = [
        replace(r, position=tuple((torch.tensor(r.position) + 2 * torch.randn(3, generator=generator)).tolist()))
        for r in rough
    ]
    _, second = placed_in_world(PARTS, align="metadata", reports=[*REPORTS[:8], *rough], truths=TRUTHS)
    assert isinstance(second, Unplaced)
    assert second.problem.startswith("one of 5 photos")


def test_the_largest_must_be_placed():
    with pytest.raises(MotionError, match="0 of 8 posed photos have a position"):
        placed_in_world(PARTS, align="metadata", reports=[Whereabouts("x")] * 13, truths=TRUTHS)


def test_a_pose_on_few_points_does_not_pull_the_world():
    wrong = PARTS.cameras.camera_to_world.clone()
    wrong[3, :, 3] += torch.tensor([40.0, 0.0, 0.0])
    seen = PARTS.seen.clone()
    seen[3] = 9
    motion = replace(PARTS, cameras=replace(PARTS.cameras, camera_to_world=wrong), seen=seen, apart=())
    (placed,) = placed_in_world(motion, align="metadata", reports=REPORTS, truths=TRUTHS)
    others = torch.arange(8) != 3
    assert torch.allclose(placed.motion.cameras.positions[others], LARGE.positions[others], atol=0.02)


def test_a_frame_of_its_own_is_upright_and_of_size_one():
    first, second = placed_in_world(PARTS, align="none", reports=REPORTS, truths=TRUTHS)
    assert isinstance(second, Unplaced)
    centres = first.motion.cameras.positions
    assert float(centres.norm(dim=-1).mean()) == pytest.approx(1, abs=1e-4)
    assert math.isnan(first.scale_error)
    assert float(first.motion.cameras.camera_to_world[:, 2, 0].abs().max()) < 0.02
