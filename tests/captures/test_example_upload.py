"""The example upload: what it says of itself is true of its files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.example_upload import CLIP_SECONDS, ExampleUpload, pan, write_example_upload
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.screening.quality import sharpness_of
from crowdnerf_lab.captures.video.videos import frames, read_clip_metadata, read_sound


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> ExampleUpload:
    portrait = torch.full((40, 30, 3), 90, dtype=torch.uint8)
    return write_example_upload(
        concert(), tmp_path_factory.mktemp("example") / "upload", phones=3, clips=2, portrait=portrait
    )


@pytest.mark.row("S22", "S62")
def test_it_is_photos_and_clips_of_phones(upload: ExampleUpload):
    captures = read_captures(upload.root)
    assert [capture.ue for capture in captures.captures] == ["ue00", "ue16", "ue32"]
    assert len(captures.photos) == 3 * 3 + 3, "headers tell nothing of a photo that was cut short"
    assert {clip.file for capture in captures.captures for clip in capture.clips} == set(upload.clips.values())
    assert {left.file for left in captures.source.left_out} <= set(upload.broken)


def test_what_is_broken_cannot_be_read_and_the_copy_shows_the_same(upload: ExampleUpload):
    for file in upload.broken:
        with pytest.raises(PhotoError):
            read_photo(upload.root / file)
    first, second = (read_photo(upload.root / file).float().mean(dim=(0, 1)) for file in upload.again)
    torch.testing.assert_close(first, second, atol=3, rtol=0)


def test_clips_have_pictures_sound_and_a_clock_that_is_as_wrong_as_said(upload: ExampleUpload):
    began = {}
    for ue, file in upload.clips.items():
        told = read_clip_metadata(upload.root / file)
        assert told.duration_s == pytest.approx(CLIP_SECONDS, abs=0.1)
        assert told.audio
        assert np.abs(read_sound(upload.root / file)).max() > 0.05
        began[ue] = told.created.timestamp() - upload.begun_s[ue] - upload.clock_s[ue]
    a, b = began.values()
    assert abs(a - b) <= 1.0, "containers tell whole seconds"


def test_a_phone_that_swings_faster_sees_less_sharply():
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (80, 400, 3)).astype(np.uint8))
    frames = list(pan(picture, seconds=2.0, rate=10, fast=[(1.0, 1.5)]))
    assert [round(time, 3) for time, _ in frames] == [frame / 10 for frame in range(20)]
    sharp = [sharpness_of(torch.from_numpy(frame.mean(-1) / 255).float()) for _, frame in frames]
    assert max(sharp[11:14]) < min(sharp[2:8]) - 0.5


def test_the_same_seed_gives_the_same_upload(tmp_path: Path):
    """FFmpeg's encoder is not the same bit for bit from run to run; what is heard and seen is."""
    first, second = (write_example_upload(concert(), tmp_path / name, phones=1, clips=1, seed=5) for name in "ab")
    assert (first.clips, first.begun_s, first.clock_s) == (second.clips, second.begun_s, second.clock_s)
    one, other = (upload.root / "ue00" / "clip.mp4" for upload in (first, second))
    assert np.array_equal(read_sound(one), read_sound(other))
    for a, b in zip(frames(one), frames(other), strict=True):
        assert a.time_s == b.time_s
        assert float((a.image.float() - b.image.float()).abs().mean()) < 0.5
