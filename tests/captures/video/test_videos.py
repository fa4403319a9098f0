"""Videos as phones make them: every file is encoded for real, and every promise is checked on what comes back."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason='no PyAV (pip install "crowdnerf-lab[video]")')

from crowdnerf_lab.captures.video import containers  # noqa: E402
from crowdnerf_lab.captures.video.constructed_clips import write_clip  # noqa: E402
from crowdnerf_lab.captures.video.videos import VideoError, frames, read_clip_metadata, read_sound  # noqa: E402

UNEVEN = (0.5, 0.533, 0.6, 0.61, 0.9)
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def four_colours(height: int = 48, width: int = 64) -> np.ndarray:
    """Red and green above blue and white."""
    picture = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(CORNERS):
        row, column = divmod(index, 2)
        picture[row * height // 2 :][: height // 2, column * width // 2 :][:, : width // 2] = colour
    return picture


def noise(seconds: float, *, rate: int = 48_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def close_to(image: np.ndarray, picture: np.ndarray, tolerance: float = 14) -> bool:
    """Up to the coding of the colours at the edges."""
    return image.shape == picture.shape and float(np.median(np.abs(image.astype(int) - picture))) <= tolerance


@pytest.mark.row("S22")
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx265"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.mts", "libx264"),
    ],
)
def test_pictures_keep_their_uneven_times_and_colours(tmp_path: Path, name: str, codec: str) -> None:
    shades = [np.full((48, 64, 3), 40 + 40 * index, np.uint8) for index in range(len(UNEVEN))]
    path = write_clip(tmp_path / name, zip(UNEVEN, shades, strict=True), codec=codec)
    read = list(frames(path))
    assert [frame.time_s for frame in read] == pytest.approx([time - UNEVEN[0] for time in UNEVEN], abs=1e-3)
    for frame, shade in zip(read, shades, strict=True):
        assert float(frame.image.float().mean()) == pytest.approx(float(shade.mean()), abs=3)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_pictures_are_turned_upright(tmp_path: Path, quarters: int) -> None:
    path = write_clip(tmp_path / "held.mp4", [(0.0, four_colours()), (0.1, four_colours())], rotation=90 * quarters)
    frame = next(iter(frames(path)))
    metadata = read_clip_metadata(path)
    assert close_to(frame.image.numpy(), np.rot90(four_colours(), quarters))
    assert (metadata.height, metadata.width) == frame.image.shape[:2]
    assert metadata.rotation == 90 * quarters


def rgb(picture: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


def write_pictures(container: av.container.OutputContainer, stream: av.VideoStream, pictures: list) -> None:
    """One picture a tick: x265 gives a picture that nobody has timed whatever time its memory holds."""
    for tick, picture in enumerate(pictures):
        picture.pts = tick
        container.mux(stream.encode(picture))
    container.mux(stream.encode())


def test_pictures_without_time_stamps_are_evenly_spaced(tmp_path: Path) -> None:
    """AVI has none."""
    with av.open(str(tmp_path / "old.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        write_pictures(container, stream, [rgb(four_colours())] * 5)
    assert [frame.time_s for frame in frames(tmp_path / "old.avi")] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_mirrored_selfie_is_shown_as_its_matrix_says(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "selfie.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        write_pictures(container, stream, [rgb(four_colours())])
    frame = next(iter(frames(tmp_path / "selfie.mp4")))
    assert close_to(frame.image.numpy(), four_colours()[:, ::-1])


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        write_pictures(container, stream, [rgb(four_colours())])
    assert next(iter(frames(tmp_path / "wide.mp4"))).image.shape == (48, 96, 3)
    assert read_clip_metadata(tmp_path / "wide.mp4").width == 96


def ten_bit(path: Path, signal: float, *, transfer: int, name: str, primaries: int = 9) -> Path:
    """One grey HEVC picture of 10 bits with a given transfer function."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.options = {"x265-params": f"log-level=none:transfer={name}:colormatrix=bt2020nc:colorprim=bt2020"}
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = primaries, transfer, 9, 1
        grey = np.full((48, 64, 3), round(signal * 65535), np.uint16)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb48le")
        write_pictures(container, stream, [frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)])
    return path


def test_high_dynamic_range_looks_like_an_ordinary_shot(tmp_path: Path) -> None:
    """Reference white is 75 % of HLG and 58 % of PQ (BT.2408): near white; a grey card (38 %) a middle grey."""
    hlg = {
        signal: ten_bit(tmp_path / f"{signal}.mov", signal, transfer=18, name="arib-std-b67") for signal in (0.38, 0.75)
    }
    white, grey = (float(next(iter(frames(hlg[signal]))).image.float().mean()) for signal in (0.75, 0.38))
    pq = float(
        next(iter(frames(ten_bit(tmp_path / "pq.mov", 0.58, transfer=16, name="smpte2084")))).image.float().mean()
    )
    assert 225 < white < 255
    assert 225 < pq < 255
    assert 90 < grey < 150
    ordinary = ten_bit(tmp_path / "ten.mov", 0.5, transfer=14, name="bt2020-10")
    assert float(next(iter(frames(ordinary))).image.float().mean()) == pytest.approx(127.5, abs=2)


@pytest.mark.row("S62")
def test_tags_of_an_iphone(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "IMG_0001.mov",
        [(0.0, four_colours()), (1.0, four_colours())],
        tags={
            "com.apple.quicktime.location.ISO6709": "+59.3293+018.0686+012.345/",
            "com.apple.quicktime.location.accuracy.horizontal": "4.7",
            "com.apple.quicktime.creationdate": "2024-06-01T21:30:05+0200",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.model": "iPhone 15 Pro",
            "com.apple.quicktime.camera.focal_length.35mm_equivalent": "24",
            "creation_time": "2024-06-01T19:31:00Z",
        },
    )
    metadata = read_clip_metadata(path)
    assert metadata.position_wgs84 == pytest.approx((59.3293, 18.0686, 12.345))
    assert metadata.accuracy_m == 4.7
    assert metadata.created == datetime(2024, 6, 1, 21, 30, 5, tzinfo=timezone(timedelta(hours=2)))
    assert metadata.device == "iPhone 15 Pro"
    assert metadata.focal_px == pytest.approx(24 / 36 * 64)
    assert not metadata.audio


@pytest.mark.row("S62")
def test_tags_of_an_android_phone_name_the_end_of_the_recording(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "VID_1.mov",
        [(index / 10, four_colours()) for index in range(31)],
        sound=noise(3.0),
        tags={"com.android.version": "14", "creation_time": "2024-06-01T19:30:05Z", "location": "-33.8568+151.2153/"},
    )
    metadata = read_clip_metadata(path)
    assert metadata.created is not None
    begun = datetime(2024, 6, 1, 19, 30, 5, tzinfo=UTC) - timedelta(seconds=3)
    assert abs(metadata.created - begun) < timedelta(seconds=0.2)
    assert metadata.position_wgs84 == pytest.approx((-33.8568, 151.2153, 0.0), abs=1e-3)
    assert metadata.duration_s == pytest.approx(3.0, abs=0.2)
    assert metadata.audio
    assert metadata.codec == "h264"


@pytest.mark.parametrize("name", ["nonsense.mp4", "nonsense.mkv"])
def test_nonsense_tags_count_as_absent(tmp_path: Path, name: str) -> None:
    tags = {"location": "here", "creation_time": "1904-01-01T00:00:00Z"}
    metadata = read_clip_metadata(write_clip(tmp_path / name, [(0.0, four_colours())], tags=tags))
    assert metadata.position_wgs84 is None
    assert metadata.created is None
    assert metadata.device is None
    assert metadata.focal_px is None


def clicks(at: tuple[float, ...], seconds: float, rate: int) -> np.ndarray:
    """Short band-limited clicks at given times."""
    time = np.arange(round(seconds * rate)) / rate
    return sum(np.sinc((time - moment) * 4000) * np.exp(-(((time - moment) * 800) ** 2)) for moment in at).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("name", "sound_codec", "rate"),
    [("a.mp4", "aac", 48_000), ("a.mov", "aac", 44_100), ("a.mkv", "libopus", 48_000), ("a.webm", "libopus", 48_000)],
)
@pytest.mark.parametrize(("pictures_from", "sound_from"), [(0.0, 0.0), (0.25, 0.0), (0.0, 0.25)])
def test_sound_is_on_the_clock_of_the_pictures(
    tmp_path: Path, name: str, sound_codec: str, rate: int, pictures_from: float, sound_from: float
) -> None:
    """A click heard at 1 s of the container is read at 1 s minus the time of the first picture.

    To a tenth of a millisecond, unless the container rounds where the sound begins to a whole one.
    """
    path = write_clip(
        tmp_path / name,
        [(pictures_from + index / 10, four_colours()) for index in range(15)],
        sound=clicks((1.0 - sound_from,), 1.5, rate),
        sound_rate=rate,
        sound_starts_s=sound_from,
        codec="libvpx-vp9" if name.endswith("webm") else "libx264",
        sound_codec=sound_codec,
    )
    sound = read_sound(path, rate=16_000)
    energy = np.abs(sound) ** 4
    heard = float((energy * np.arange(len(sound))).sum() / energy.sum() / 16_000)
    tolerance = 1e-4 if name.endswith(("mp4", "mov")) and sound_from == 0 else 1e-3
    assert heard == pytest.approx(1.0 - pictures_from, abs=tolerance)


def test_a_clip_without_sound_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "mute.mp4", [(0.0, four_colours())])
    with pytest.raises(VideoError, match=r"mute\.mp4 has no sound; synchronise it by its clock"):
        read_sound(path)


def test_sound_without_pictures_is_heard_but_not_seen(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "memo.mp4", [], sound=clicks((0.5,), 1.0, 48_000))
    assert int(np.argmax(np.abs(read_sound(path)))) == pytest.approx(8000, abs=2)
    with pytest.raises(VideoError, match="no pictures that move"):
        list(frames(path))


def test_a_file_cut_short_gives_what_can_be_read_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shots = [(index / 10, rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for index in range(60)]
    whole = write_clip(tmp_path / "whole.mkv", shots, sound=noise(6.0))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    problems: list[str] = []
    read = list(frames(cut, warn=problems.append))
    assert 10 < len(read) < 55
    assert any("cut.mkv" in problem for problem in problems)
    assert 0.5 < len(read_sound(cut)) / 16_000 < 6.0


def test_damage_in_the_middle_costs_the_damaged_pictures_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    shots = [(index / 10, rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for index in range(30)]
    path = write_clip(tmp_path / "hurt.mp4", shots)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(bytes(content))
    problems: list[str] = []
    read = list(frames(path, warn=problems.append))
    assert 1 < len(read) < 30
    assert problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"no video at all, only words. " * 40, "is no MP4, MOV, MKV or WebM video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "is no MP4, MOV, MKV or WebM video"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_video_is_refused_in_words(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (read_clip_metadata, read_sound, lambda path: list(frames(path))):
        with pytest.raises(VideoError, match=message):
            read(path)


def test_an_mp4_without_its_index_is_refused_in_words(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", [(index / 10, four_colours()) for index in range(10)])
    path = tmp_path / "short.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"short\.mp4 .* cut short .*upload it again"):
        read_clip_metadata(path)


def test_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "big.mp4", [(index / 10, four_colours()) for index in range(21)])
    for name, value, message in (
        ("VIDEO_BYTES", 100, "bytes, more than 100"),
        ("VIDEO_PIXELS", 64 * 48 - 1, "is 64x48, more than"),
        ("VIDEO_SECONDS", 1.0, "longer than 1 s"),
        ("VIDEO_FRAMES", 5, "more than 5 pictures"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(containers, name, value)
            with pytest.raises(VideoError, match=message):
                list(frames(path))
    assert len(list(frames(path))) == 21


def test_cover_pictures_are_not_the_video(tmp_path: Path) -> None:
    """A large still picture beside the moving ones, as music players and editors add it."""
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 256, 256, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        moving = container.add_stream("libx264", rate=30)
        moving.width, moving.height, moving.pix_fmt = 64, 48, "yuv420p"
        write_pictures(container, cover, [rgb(np.zeros((256, 256, 3), np.uint8))])
        write_pictures(container, moving, [rgb(four_colours())] * 3)
    assert [frame.image.shape for frame in frames(path)] == [(48, 64, 3)] * 3


def test_without_pyav_the_install_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(containers, "import_module", no_module)
    with pytest.raises(VideoError, match=r'pip install "crowdnerf-lab\[video\]"'):
        read_clip_metadata(tmp_path / "any.mp4")
