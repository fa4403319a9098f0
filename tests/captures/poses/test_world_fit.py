"""The world that phones report, fitted to: exact without noise, a UE counts once, spoofs are cut off, what is open is
refused.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from crowdnerf_lab.captures.poses.motion import MotionError
from crowdnerf_lab.captures.poses.world_fit import (
    Whereabouts,
    fit_to_reports,
    hampel_weights,
    residuals_against,
    upright,
)


def crowd(ues: int = 16, photos: int = 3, *, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Level cameras about a stage, in the world; the second of each three in portrait. With the UE of each."""
    generator = np.random.default_rng(seed)
    poses, phones = [], []
    for ue in range(ues):
        angle = -math.pi / 3 + 2 * math.pi / 3 * ue / max(ues - 1, 1)
        place = np.array([14 * math.sin(angle), -14 * math.cos(angle), 1.7]) * generator.uniform(0.5, 1.5)
        for _ in range(photos):
            centre = place + generator.normal(0, 0.3, 3)
            forward = np.array([0.0, 4.0, 3.0]) + generator.normal(0, 2.0, 3) - centre
            forward /= np.linalg.norm(forward)
            right = np.cross(forward, [0.0, 0.0, 1.0])
            right /= np.linalg.norm(right)
            poses.append(np.stack([right, np.cross(forward, right), forward, centre], axis=1))
            phones.append(f"ue{ue}")
    return np.array(poses), phones


def in_a_model(poses: np.ndarray, *, scale: float = 0.2, turn=(0.4, -1.0, 2.0)) -> np.ndarray:
    """The same cameras in a frame of another size, direction and origin."""
    rotation = Rotation.from_rotvec(turn).as_matrix()
    centres = scale * poses[:, :, 3] @ rotation.T + [3.0, -1.0, 0.5]
    return np.concatenate([rotation @ poses[:, :, :3], centres[:, :, None]], axis=2)


def attitude(pose: np.ndarray) -> tuple[tuple[float, float, float], ...]:
    return tuple(tuple(float(value) for value in row) for row in pose[:, :3])


def place(values) -> tuple[float, float, float]:
    east, north, up = map(float, values)
    return east, north, up


def reports_of(poses: np.ndarray, phones: list[str], *, kind: str = "attitude") -> list[Whereabouts]:
    return [
        Whereabouts(
            phone,
            position=place(pose[:, 3]),
            attitude=attitude(pose) if kind == "attitude" else None,
            heading=math.atan2(pose[0, 2], pose[1, 2]) % (2 * math.pi) if kind == "heading" else None,
        )
        for pose, phone in zip(poses, phones, strict=True)
    ]


def errors(model: np.ndarray, reports: list[Whereabouts], poses: np.ndarray) -> tuple[float, float]:
    """Median errors of the fitted cameras in metres and degrees."""
    similarity = fit_to_reports(model, reports).similarity
    rotation = similarity.rotation.numpy()
    centres = similarity.scale * model[:, :, 3] @ rotation.T + similarity.translation.numpy()
    turn = Rotation.from_matrix(rotation @ model[0, :, :3] @ poses[0, :, :3].T).magnitude()
    return float(np.median(np.linalg.norm(centres - poses[:, :, 3], axis=1))), math.degrees(turn)


@settings(max_examples=5, deadline=None)
@given(
    kind=st.sampled_from(["attitude", "heading", "position"]),
    scale=st.floats(0.01, 50),
    turn=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
)
def test_without_noise_the_world_is_found_exactly(kind, scale, turn):
    poses, phones = crowd()
    metres, degrees = errors(in_a_model(poses, scale=scale, turn=turn), reports_of(poses, phones, kind=kind), poses)
    assert metres < 0.02
    assert degrees < 0.1


def biased(poses: np.ndarray, phones: list[str], *, seed: int, spoofed: tuple[str, ...] = ()) -> list[Whereabouts]:
    """What phones report whose position and compass are off by the same for all their photos."""
    generator = np.random.default_rng(seed)
    off = {phone: generator.normal(0, [3, 3, 5]) for phone in dict.fromkeys(phones)}
    turns = {phone: math.radians(6) * generator.normal() for phone in off}
    for phone in spoofed:
        off[phone], turns[phone] = generator.normal(0, 1, 3) * 300, 2.5
    reports = []
    for pose, phone in zip(poses, phones, strict=True):
        turned = Rotation.from_rotvec([0, 0, turns[phone]]).as_matrix() @ pose
        reports.append(Whereabouts(phone, position=place(pose[:, 3] + off[phone]), attitude=attitude(turned)))
    return reports


def test_spoofed_phones_are_cut_off():
    poses, phones = crowd(30)
    model = in_a_model(poses)
    honest = np.mean([errors(model, biased(poses, phones, seed=seed), poses) for seed in range(2)], axis=0)
    spoofed = ("ue3", "ue11", "ue25")
    attacked = np.mean(
        [errors(model, biased(poses, phones, seed=seed, spoofed=spoofed), poses) for seed in range(2)], axis=0
    )
    assert honest[0] < 2
    assert attacked[0] < honest[0] + 1
    assert attacked[1] < honest[1] + 1.5


def test_a_phone_with_many_photos_counts_as_one():
    poses, phones = crowd(12, photos=3)
    reports = reports_of(poses, phones)
    wrong = Whereabouts("loud", position=place(poses[0, :, 3] + [12.0, 0, 0]), attitude=attitude(poses[0]))
    misses = []
    for times in (1, 60):
        model = in_a_model(np.concatenate([poses, np.repeat(poses[:1], times, axis=0)]))
        fit = fit_to_reports(model, [*reports, *[wrong] * times]).similarity
        centres = fit.of_points(torch.from_numpy(model[: len(poses), :, 3])).numpy()
        misses.append(np.linalg.norm(centres - poses[:, :, 3], axis=1).max())
    once, often = misses
    assert often < 1.5 * once


def test_positions_that_say_they_are_good_weigh_more():
    poses, phones = crowd(12)
    reports = biased(poses, phones, seed=1)
    exact = [
        Whereabouts(report.phone, place(pose[:, 3]), accuracy_m=0.1, attitude=report.attitude)
        if int(report.phone[2:]) % 2
        else report
        for report, pose in zip(reports, poses, strict=True)
    ]
    model = in_a_model(poses)
    assert errors(model, exact, poses)[0] < 0.3
    assert errors(model, exact, poses)[0] < 0.5 * errors(model, reports, poses)[0]


def test_phones_held_level_settle_the_tilt_that_positions_in_a_line_leave_open():
    poses, phones = crowd(20)
    poses[:, :, 3] = np.linspace([-20, -12, 1.6], [20, -10, 1.6], len(poses))
    reports = reports_of(poses, phones, kind="position")
    metres, degrees = errors(in_a_model(poses), reports, poses)
    assert metres < 0.05
    assert degrees < 0.5


def test_too_few_positions_are_refused():
    poses, phones = crowd(2, photos=2)
    reports = reports_of(poses, phones)
    reports = [Whereabouts(report.phone, attitude=report.attitude) for report in reports[:2]] + reports[2:]
    with pytest.raises(MotionError, match=r"2 of 4 posed photos have a position.*align='none'"):
        fit_to_reports(in_a_model(poses), reports)


@pytest.mark.parametrize("kind", ["attitude", "position"])
def test_phones_in_one_place_are_refused(kind):
    poses, phones = crowd(10)
    generator = np.random.default_rng(2)
    poses[:, :, 3] = generator.normal(0, 0.2, (len(poses), 3))
    reports = reports_of(poses, phones, kind=kind)
    noise = {phone: generator.normal(0, 4, 3) for phone in phones}
    reports = [
        Whereabouts(report.phone, place(np.add(report.position, noise[report.phone])), attitude=report.attitude)
        for report in reports
    ]
    with pytest.raises(MotionError, match=r"do not tell (how large|where north|which way).*align='none'"):
        fit_to_reports(in_a_model(poses), reports)


def test_how_uncertain_the_fit_says_it_is_is_how_uncertain_it_is():
    poses, phones = crowd(24)
    model = in_a_model(poses, scale=1.0)
    fits = [fit_to_reports(model, biased(poses, phones, seed=seed)) for seed in range(8)]
    actual = float(np.std([math.log(fit.similarity.scale) for fit in fits]))
    assert 0.4 < np.mean([fit.scale_error for fit in fits]) / actual < 2.5


def test_residuals_are_metres_and_turns_of_the_heading():
    poses, phones = crowd(3)
    turned = Rotation.from_rotvec([0, 0, -0.2]).as_matrix() @ poses
    turned[:, :, 3] = poses[:, :, 3] + [3.0, 4.0, 0.0]
    for kind, expected in (("attitude", 0.2), ("heading", 0.2), ("position", math.nan)):
        metres, turns = residuals_against(turned, reports_of(poses, phones, kind=kind))
        assert metres == pytest.approx(np.full(9, 5.0))
        assert turns == pytest.approx(np.full(9, expected), nan_ok=True)
    assert np.isnan(residuals_against(turned[:1], [Whereabouts("none")])).all()


def test_level_cameras_stand_upright_even_when_all_look_one_way():
    poses, _ = crowd(6)
    same = np.repeat(poses[:1], 6, axis=0)
    for cameras in (poses, same):
        turned = Rotation.from_rotvec([1.0, 0.5, -0.7]).as_matrix() @ cameras[:, :, :3]
        standing = upright(turned) @ turned
        assert np.abs(standing[:, 2, 0]).max() < 1e-6
        assert (standing[:, 2, 1] < 0).all()


def test_weights_fall_with_the_residual_and_end():
    sizes = np.array([0.5, 1.0, 1.0, 1.5, 3.0, 6.0, 40.0])
    weights = hampel_weights(sizes)
    assert (np.diff(weights) <= 0).all()
    assert weights[:4].tolist() == [1.0] * 4
    assert weights[-1] == 0
    assert hampel_weights(np.zeros(0)).shape == (0,)
