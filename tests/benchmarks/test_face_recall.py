"""The benchmark of faces counts what is hidden where a face is, and nothing else."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.captures import faces as benchmark
from crowdnerf_lab.captures.privacy.faces import Face


@pytest.fixture
def scene() -> benchmark.Planted:
    astronaut, _ = benchmark.heads()
    background = Image.new("RGB", (320, 240), (40, 50, 60))
    return benchmark.planted(background, astronaut, size=40, turn=0, rng=np.random.default_rng(0), spoil=False)


def boxes(scene: benchmark.Planted, *, shift: float = 0.0, scale: float = 1.0) -> tuple[Face, ...]:
    half = scale * scene.size / 2
    return tuple(
        Face(x - half + shift, y - half, x + half + shift, y + half, score=1.0) for x, y in scene.middles
    )  # fmt: skip


def test_faces_are_planted_whole_and_apart(scene):
    assert len(scene.middles) >= 4
    for x, y in scene.middles:
        assert 20 < x < 300
        assert 20 < y < 220
        assert np.asarray(scene.picture)[round(y), round(x)].mean() > 90, "skin on a dark ground"


@pytest.mark.parametrize(("shift", "scale", "found"), [(0, 1.0, 1.0), (0, 0.3, 0.0), (60, 1.0, 0.0), (15, 0.6, 0.0)])
def test_a_face_counts_when_it_is_hidden_by_what_was_found_there(scene, monkeypatch, shift, scale, found):
    monkeypatch.setattr(benchmark, "find_faces", lambda _: boxes(scene, shift=shift, scale=scale))
    assert benchmark.hidden_faces(scene) == found * len(scene.middles)


def test_a_false_alarm_over_everything_finds_nothing(scene, monkeypatch):
    monkeypatch.setattr(benchmark, "find_faces", lambda _: (Face(-400, -300, 720, 3000, score=1.0),))
    assert benchmark.hidden_faces(scene) == 0


def test_spoiled_faces_differ_and_the_same_seed_gives_the_same_picture():
    astronaut, crowd = benchmark.heads()
    assert len(crowd) == 100
    background = Image.new("RGB", (160, 120))

    def pixels(spoil):
        rng = np.random.default_rng(1)
        return np.asarray(benchmark.planted(background, astronaut, size=30, turn=90, rng=rng, spoil=spoil).picture)

    assert np.array_equal(pixels(False), pixels(False))
    assert not np.array_equal(pixels(True), pixels(False))
