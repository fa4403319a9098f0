"""Structure from motion on pictures of a known room: lenses come out, parts that share nothing stay apart, and what
cannot work is refused with advice.
"""

import math
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.cameras import Cameras, rotation_angle
from crowdnerf_lab.captures.bundle import GivenCamera
from crowdnerf_lab.captures.poses.georegistration import similarity_between
from crowdnerf_lab.captures.poses.motion import Motion, MotionError, Shot
from crowdnerf_lab.captures.poses.structure_from_motion import MotionSettings, structure_from_motion
from tests.captures.poses.textured_room import FOCAL, HEIGHT, WIDTH, pictures, turning, walk

pytestmark = pytest.mark.colmap


def shots_of(cameras: Cameras, *, focal_px: float | None = FOCAL, seed: int = 0, phone: str = "one") -> list[Shot]:
    return [Shot(phone, image, focal_px, centre_px=None) for image in pictures(cameras, seed=seed)]


def errors(motion: Motion, cameras: Cameras) -> tuple[float, float]:
    """Largest errors in metres and degrees after the best similarity."""
    world = cameras.camera_to_world[motion.rows]
    fitted = similarity_between(motion.cameras.camera_to_world, world).of_poses(motion.cameras.camera_to_world)
    turns = rotation_angle(fitted[..., :3].double(), world[..., :3].double())
    return float((fitted[..., 3] - world[..., 3]).norm(dim=-1).max()), math.degrees(float(turns.max()))


def test_a_bent_lens_reaches_the_cameras_and_so_the_rays(tmp_path):
    cameras = walk(12)
    bent = replace(cameras, distortion=torch.tensor([-0.12, 0.0, 0.0, 0.0]).repeat(12, 1))
    motion = structure_from_motion(shots_of(bent), tmp_path, threads=2, progress=False)
    assert motion.rows.tolist() == list(range(12))
    assert torch.allclose(motion.cameras.distortion[:, 0], torch.tensor(-0.12), atol=0.02)
    assert torch.allclose(motion.cameras.focal, torch.tensor(FOCAL), rtol=0.02)
    metres, degrees = errors(motion, cameras)
    assert metres < 0.03
    assert degrees < 0.4


def test_a_lens_found_by_another_tool_is_where_the_search_starts(tmp_path):
    cameras = replace(walk(8), distortion=torch.tensor([-0.12, 0.02, 0.001, -0.001]).repeat(8, 1))
    pose = tuple(map(tuple, torch.eye(4)[:3].tolist()))
    given = GivenCamera(
        camera_to_world=pose,
        focal_px=(FOCAL, FOCAL),
        centre_px=(WIDTH / 2, HEIGHT / 2),
        distortion=(-0.12, 0.02, 0.001, -0.001),
    )
    shots = [replace(shot, given=given) for shot in shots_of(cameras)]
    motion = structure_from_motion(shots, tmp_path, threads=2, progress=False)
    assert len(motion.rows) == 8
    assert torch.allclose(motion.cameras.distortion[:, 0], torch.tensor(-0.12), atol=0.04)
    assert bool((motion.cameras.distortion[:, 2:] != 0).all())
    assert errors(motion, cameras)[0] < 0.05


@pytest.mark.parametrize("mapper", ["global", "incremental"])
def test_both_mappers_find_cameras_of_unknown_focal_length(tmp_path, mapper):
    cameras = walk(10)
    shots = shots_of(cameras, focal_px=None)
    motion = structure_from_motion(shots, tmp_path, threads=2, settings=MotionSettings(mapper=mapper), progress=False)
    assert len(motion.rows) == 10
    assert torch.allclose(motion.cameras.focal, torch.tensor(FOCAL), rtol=0.03)
    assert errors(motion, cameras)[0] < 0.06


def test_every_camera_tells_how_well_it_fits(tmp_path):
    shots = shots_of(walk(6))
    motion = structure_from_motion(shots, tmp_path, threads=2, progress=False)
    assert bool((motion.errors_px < 1).all())
    assert bool((motion.seen > 30).all())
    assert float((motion.errors_px * motion.seen).sum() / motion.seen.sum()) == pytest.approx(
        motion.reprojection_px, rel=0.1
    )
    assert motion.pairs == 15


def test_rooms_that_share_nothing_come_back_apart(tmp_path):
    here, there = walk(9), walk(6, seed=5)
    shots = [*shots_of(here), *shots_of(there, seed=9, phone="two")]
    motion = structure_from_motion(shots, tmp_path, threads=2, progress=False)
    assert motion.rows.tolist() == list(range(9))
    assert [other.rows.tolist() for other in motion.apart] == [list(range(9, 15))]
    assert errors(motion, here)[0] < 0.05
    other = motion.apart[0]
    assert errors(replace(other, rows=other.rows - 9), there)[0] < 0.05


def test_turning_on_the_spot_is_refused(tmp_path):
    with pytest.raises(MotionError, match=r"taken from one spot.*step aside"):
        structure_from_motion(shots_of(turning(8)), tmp_path, threads=2, progress=False)


def test_blurred_pictures_are_refused(tmp_path):
    smooth = [
        replace(shot, image=shot.image[::40, ::40].repeat_interleave(40, 0).repeat_interleave(40, 1))
        for shot in shots_of(walk(5))
    ]
    with pytest.raises(MotionError, match=r"5 of 5 photos show fewer than 60 distinct points.*sharper"):
        structure_from_motion(smooth, tmp_path, threads=2, progress=False)


def test_pictures_of_different_rooms_are_refused(tmp_path):
    shots = [shot for seed in range(4) for shot in shots_of(walk(1, seed=seed), seed=seed)]
    with pytest.raises(MotionError, match=r"only 0 of 6 compared pairs of 4 photos show the same thing"):
        structure_from_motion(shots, tmp_path, threads=2, progress=False)


def test_the_same_seed_gives_the_same_poses(tmp_path):
    shots = shots_of(walk(6))
    first, second = (
        structure_from_motion(shots, tmp_path / name, threads=1, progress=False) for name in ("first", "second")
    )
    assert torch.equal(first.cameras.camera_to_world, second.cameras.camera_to_world)
    assert torch.equal(first.points, second.points)
