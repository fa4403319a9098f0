"""Pairs worth comparing: few for each photo, the right ones first, and nobody cut off by a wrong position."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.poses.pair_selection import BURST, Sighting, every_pair, expected_overlap, select_pairs
from crowdnerf_lab.captures.poses.visual_retrieval import visual_signatures


def ring(count: int, *, radius: float = 10.0) -> list[Sighting]:
    """Phones all around a stage that look at it."""
    angles = [2 * math.pi * number / count for number in range(count)]
    return [
        Sighting(
            phone=f"ue{number}",
            time_s=0.0,
            position=(radius * math.cos(angle), radius * math.sin(angle), 1.5),
            forward=(-math.cos(angle), -math.sin(angle), 0.0),
            half_view=math.radians(30),
        )
        for number, angle in enumerate(angles)
    ]


def nothing_alike(count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    found = generator.normal(size=(count, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_every_pair_is_every_pair_once():
    pairs = every_pair(7)
    assert len(pairs) == 21
    assert len({tuple(pair) for pair in pairs.tolist()}) == 21
    assert bool((pairs[:, 0] < pairs[:, 1]).all())


def test_twice_the_photos_cost_twice_the_pairs():
    few = select_pairs(ring(150), nothing_alike(150), neighbours=12)
    many = select_pairs(ring(300), nothing_alike(300), neighbours=12)
    assert len(many) < 2.1 * len(few)
    assert len(many) <= 300 * 12
    assert len(every_pair(300)) > 10 * len(many)


def test_the_neighbour_on_the_ring_overlaps_most_and_the_one_opposite_not_at_all():
    overlap = expected_overlap(ring(24))
    assert np.allclose(overlap, overlap.T)
    assert overlap[0, 1] == pytest.approx(overlap[0, 23])
    assert overlap[0, 1] > overlap[0, 2] > overlap[0, 4] > overlap[0, 8]
    assert overlap[0, 12] < 0.01
    assert overlap[0, 1] > 0.5
    assert overlap.min() >= 0
    assert overlap.max() <= 1


def test_a_phone_that_looks_away_overlaps_with_nobody_beside_it():
    sightings = ring(12)
    away = tuple(-value for value in sightings[3].forward)
    sightings[3] = replace(sightings[3], forward=away)
    overlap = expected_overlap(sightings)
    assert overlap[3, [1, 2, 4, 5]].max() < 0.05 * overlap[2, 1]


def test_photos_of_unknown_direction_are_judged_by_distance_and_of_unknown_position_by_likeness():
    blind = [replace(sighting, forward=None) for sighting in ring(20)]
    overlap = expected_overlap(blind)
    assert overlap[0, 1] > overlap[0, 5] > overlap[0, 10] > 0
    lost = [replace(sighting, position=None, forward=None) for sighting in blind]
    assert expected_overlap(lost).max() == 0
    signatures = nothing_alike(20)
    signatures[7] = signatures[2]
    pairs = select_pairs(lost, signatures, neighbours=3)
    assert [2, 7] in pairs.tolist()
    assert set(pairs.ravel().tolist()) == set(range(20))


def test_a_wrong_position_cuts_nobody_off():
    sightings, signatures = ring(60), nothing_alike(60)
    signatures[20] = signatures[21] * 0.9 + signatures[19] * 0.1
    sightings[20] = replace(sightings[20], position=(90_000.0, 0.0, 0.0))
    pairs = select_pairs(sightings, signatures, neighbours=10)
    partners = pairs[(pairs == 20).any(axis=1)].ravel().tolist()
    assert {19, 21} <= set(partners)


def test_photos_taken_one_after_the_other_are_compared():
    burst = [Sighting("one", time_s=0.5 * step, position=None, forward=None, half_view=0.5) for step in range(40)]
    random.Random(0).shuffle(burst)
    order = sorted(range(40), key=lambda row: burst[row].time_s)
    found = {frozenset(pair) for pair in select_pairs(burst, nothing_alike(40), neighbours=0).tolist()}
    for step in BURST:
        assert {frozenset(pair) for pair in zip(order, order[step:], strict=False)} <= found
    assert len(found) == sum(40 - step for step in BURST)
    hours = [replace(sighting, time_s=sighting.time_s * 3600) for sighting in burst]
    assert len(select_pairs(hours, nothing_alike(40), neighbours=0)) == 0


def test_only_new_photos_choose_when_others_are_known():
    new = np.zeros(50, dtype=bool)
    new[[4, 30]] = True
    pairs = select_pairs(ring(50), nothing_alike(50), neighbours=8, new=new)
    assert bool(new[pairs].any(axis=1).all())
    assert len(pairs) <= 16


def test_what_the_concerts_phones_report_ranks_true_neighbours_first():
    """Against the truth: chosen partners look from directions 20 degrees closer than the mean of all."""
    captures = concert()
    sightings = []
    for capture in captures.captures:
        for photo in capture.photos:
            rows = photo.reported.camera_to_world
            position, forward = tuple(row[3] for row in rows), tuple(row[2] for row in rows)
            sightings.append(Sighting(capture.ue, photo.time_s, position, forward, half_view=0.45))
    views = np.array([[row[2] for row in photo.truth.camera_to_world] for photo in captures.photos])
    angles = np.degrees(np.arccos(np.clip(views @ views.T, -1, 1)))
    best = np.argsort(-expected_overlap(sightings), axis=1)[:, :8]
    chosen = np.median(np.take_along_axis(angles, best, axis=1))
    assert chosen < np.median(angles) - 20


def test_photos_of_the_same_thing_look_alike():
    generator = np.random.default_rng(0)
    things = [generator.integers(0, 120, size=(60, 128)) for _ in range(6)]
    photos = [np.clip(thing[10 * view : 10 * view + 40] + 5, 0, 255) for thing in things for view in range(3)]
    signatures = visual_signatures([photo.astype(np.uint8) for photo in photos])
    assert np.allclose(np.linalg.norm(signatures, axis=1), 1, atol=1e-5)
    likeness = signatures @ signatures.T - 2 * np.eye(18)
    assert [int(row) // 3 for row in likeness.argmax(axis=1)] == [number // 3 for number in range(18)]


def test_a_photo_without_features_is_like_nothing():
    features = np.random.default_rng(0).integers(0, 255, size=(30, 128)).astype(np.uint8)
    signatures = visual_signatures([features, np.zeros((0, 128), dtype=np.uint8)])
    assert not signatures[1].any()
    assert visual_signatures([np.zeros((0, 128), dtype=np.uint8)]).shape[0] == 1


def test_signatures_are_the_same_every_time():
    features = np.random.default_rng(0).integers(0, 255, size=(4, 200, 128)).astype(np.uint8)
    assert np.array_equal(visual_signatures(list(features)), visual_signatures(list(features)))
