"""Damaged photos, videos and archives, read in the sandbox: refused in words or read soundly, never a crash.

A decoder that crashed would show as a SandboxError, one that hangs or swells too.
"""

import io
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from crowdnerf_lab.captures.intake.archives import ArchiveError, unpack
from crowdnerf_lab.captures.intake.sandbox import Job, Sandbox, SandboxLimits
from crowdnerf_lab.captures.intake.unsafe_files import UnsafeFileError, refuse_unsafe
from crowdnerf_lab.captures.photos import PHOTO_PIXELS, PhotoError, read_metadata, read_opacity, read_photo
from crowdnerf_lab.captures.video.constructed_clips import write_clip
from crowdnerf_lab.captures.video.videos import VideoError, frames, read_clip_metadata, read_sound
from tests.captures.fuzzing import HUGE, many, mutants

LIMITS = SandboxLimits(cpu_seconds=10, wall_seconds=60.0, memory_mb=1024)
EXIF = piexif.dump(
    {
        "0th": {piexif.ImageIFD.Model: b"Phone", piexif.ImageIFD.Orientation: 6},
        "Exif": {
            piexif.ExifIFD.DateTimeOriginal: b"2026:06:20 21:30:00",
            piexif.ExifIFD.FocalLengthIn35mmFilm: 27,
            piexif.ExifIFD.ISOSpeedRatings: 800,
            piexif.ExifIFD.ExposureTime: (1, 50),
        },
        "GPS": {
            piexif.GPSIFD.GPSLatitudeRef: b"N",
            piexif.GPSIFD.GPSLatitude: ((55, 1), (42, 1), (3000, 100)),
            piexif.GPSIFD.GPSLongitudeRef: b"E",
            piexif.GPSIFD.GPSLongitude: ((13, 1), (11, 1), (0, 1)),
            piexif.GPSIFD.GPSImgDirection: (4512, 100),
        },
    }
)
SCENE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)).resize((64, 48))


def photo_as(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    SCENE.save(buffer, kind, exif=EXIF, **options)
    return buffer.getvalue()


def heic() -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(SCENE).save(buffer, quality=50, exif=EXIF)
    return buffer.getvalue()


PHOTOS = {
    "jpeg": photo_as("JPEG"),
    "progressive": photo_as("JPEG", progressive=True),
    "mpo": photo_as("MPO", save_all=True, append_images=[SCENE]),
    "png": photo_as("PNG"),
    "cut-out": photo_as("PNG", transparency=(10, 20, 30)),
    "webp": photo_as("WEBP"),
    "heic": heic(),
} | ({"avif": photo_as("AVIF")} if features.check("avif") else {})


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(preload=(__name__,)) as opened:
        yield opened


def opened_photo(path: Path) -> tuple[str, str]:
    """What becomes of a photo: 'refused' with words, 'read', or 'unsound' with what is wrong."""
    try:
        refuse_unsafe(path)
        metadata = read_metadata(path)
        height, width, _ = read_photo(path).shape
        opacity = read_opacity(path)
    except (PhotoError, UnsafeFileError) as error:
        return "refused", str(error)
    if (metadata.width, metadata.height) != (width, height) or not 0 < width * height <= PHOTO_PIXELS:
        return "unsound", f"size {metadata.width}x{metadata.height} told, {width}x{height} read"
    if opacity is not None and opacity.shape != (height, width):
        return "unsound", f"opacity of {tuple(opacity.shape)}"
    latitude, longitude, altitude = metadata.position_wgs84 or (0.0, 0.0, 0.0)
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and math.isfinite(altitude)):
        return "unsound", f"position {metadata.position_wgs84}"
    if not 0 <= (metadata.direction or 0.0) <= 2 * math.pi:
        return "unsound", f"direction {metadata.direction}"
    positive = (metadata.focal_35mm, metadata.focal_px, metadata.exposure_s)
    if any(number is not None and not 0 < number < math.inf for number in positive):
        return "unsound", f"focal lengths and exposure {positive}"
    return "read", ""


def opened_clip(path: Path) -> tuple[str, str]:
    """The same of a video."""
    try:
        metadata = read_clip_metadata(path)
        times = [frame.time_s for frame in frames(path, warn=lambda _: None)]
        sound = read_sound(path) if metadata.audio else np.zeros(0, np.float32)
    except VideoError as error:
        return "refused", str(error)
    if not (metadata.width > 0 and metadata.height > 0 and 0 <= metadata.duration_s < math.inf):
        return "unsound", f"{metadata}"
    if not all(math.isfinite(time) for time in times) or times != sorted(times):
        return "unsound", f"times {times[:5]}"
    return ("read", "") if np.isfinite(sound).all() else ("unsound", "sound that is not finite")


def unpacked(path: Path) -> tuple[str, str]:
    """The same of an archive, unpacked beside itself into a folder that may hold nothing but its files."""
    into = path.parent / "unpacked"
    try:
        folder = unpack(path, into).folder
    except ArchiveError as error:
        left = [entry.name for entry in path.parent.iterdir() if entry != path]
        return ("unsound", f"left behind: {left}") if left else ("refused", str(error))
    found = list(folder.rglob("*"))
    outside = [entry for entry in path.parent.iterdir() if entry not in (path, into)]
    if outside or any(entry.is_symlink() for entry in found):
        return "unsound", f"{outside} {found}"
    return "read", ",".join(sorted(str(entry.stat().st_size) for entry in found if entry.is_file()))


def assert_refused_or_sound(result: tuple[str, str], path: Path) -> None:
    what, words = result
    assert what in ("refused", "read"), words
    if what == "refused":
        assert str(path) in words
        assert ";" in words


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", PHOTOS)
def test_the_whole_photo_is_read(sandbox, tmp_path, kind):
    path = put(tmp_path / "photo", PHOTOS[kind])
    assert sandbox.run(Job(opened_photo, (path,), about=kind)) == ("read", "")
    assert read_metadata(path).position_wgs84 is not None


@pytest.mark.parametrize("kind", PHOTOS)
@many(40)
@given(data=st.data())
def test_a_damaged_photo_is_refused_or_read_soundly(sandbox, tmp_path_factory, kind, data):
    mutant = data.draw(mutants(PHOTOS[kind]))
    path = put(tmp_path_factory.getbasetemp() / f"{kind}.photo", mutant.content)
    assert_refused_or_sound(sandbox.run(Job(opened_photo, (path,), about=mutant.how, limits=LIMITS)), path)


@pytest.mark.parametrize("kind", PHOTOS)
@many(8)
@given(data=st.data())
def test_a_cut_photo_is_refused(sandbox, tmp_path_factory, kind, data):
    """Up to the last tenth: of that a decoder may need nothing, and of an MPO's second picture nothing is read."""
    whole = PHOTOS["jpeg" if kind == "mpo" else kind]
    length = data.draw(st.integers(0, len(whole) * 9 // 10))
    path = put(tmp_path_factory.getbasetemp() / f"{kind}.cut", whole[:length])
    assert sandbox.run(Job(opened_photo, (path,), about=kind, limits=LIMITS))[0] == "refused"


@many(40)
@given(data=st.data())
def test_damaged_exif_is_passed_over_or_refused(sandbox, tmp_path_factory, data):
    """The same, aimed at the tags: types, counts and offsets of EXIF's directories."""
    whole = bytearray(PHOTOS["jpeg"])
    start = whole.index(b"Exif\x00\x00") + 6
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(start, start + len(EXIF) - 16))
        value = data.draw(st.sampled_from((*HUGE, b"\x00\x05", b"\x00\x0d", b"\x00\x01", b"\x00\x00\x00\x08")))
        whole[at : at + len(value)] = value
    path = put(tmp_path_factory.getbasetemp() / "exif.jpg", bytes(whole))
    assert_refused_or_sound(sandbox.run(Job(opened_photo, (path,), about="EXIF", limits=LIMITS)), path)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    pictures = [(index / 10, np.roll(np.asarray(SCENE), index, 1)) for index in range(12)]
    sound = np.sin(np.arange(48_000 * 6 // 5) / 20).astype(np.float32)
    tags = {"creation_time": "2026-06-20T19:30:00.000000Z"}
    return {
        kind: write_clip(folder / f"whole.{kind}", pictures, sound=sound, tags=tags, rotation=90).read_bytes()
        for kind in ("mp4", "mov")
    }


@pytest.mark.parametrize("kind", ["mp4", "mov"])
@many(40)
@given(data=st.data())
def test_a_damaged_video_is_refused_or_read_soundly(sandbox, tmp_path_factory, clips, kind, data):
    mutant = data.draw(mutants(clips[kind]))
    path = put(tmp_path_factory.getbasetemp() / f"damaged.{kind}", mutant.content)
    assert_refused_or_sound(sandbox.run(Job(opened_clip, (path,), about=mutant.how, limits=LIMITS)), path)


FILES = {"ue00/a.jpg": bytes(range(200)), "ue00/b.jpg": b"b" * 300, "c.json": b"{}" * 50}
SIZES = ",".join(sorted(str(len(content)) for content in FILES.values()))


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packing:
            for name, content in FILES.items():
                packing.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as packing:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packing.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@many(50)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_unpacked_soundly(tmp_path_factory, kind, data):
    whole = archive(kind)
    mutant = data.draw(mutants(whole, cut_noticed=kind == "zip"))
    path = put(tmp_path_factory.mktemp("archive") / f"upload.{kind}", mutant.content)
    result = unpacked(path)
    assert_refused_or_sound(result, path)
    if mutant.noticed:
        assert result[0] == "refused", mutant.how
