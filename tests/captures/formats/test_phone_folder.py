"""Folders as they come off phones: who took what, where, when and with which lens, and what is left out."""

import json
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pymap3d
import pytest
from PIL import ExifTags, Image

from crowdnerf_lab.captures.bundle import CaptureSet, Consent, concert, read_bundle, write_captures
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats import phone_folder
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.video.videos import ClipMetadata, VideoError

LATITUDE, LONGITUDE, ALTITUDE = 48.9244, 2.3602, 40.0
FILM = ClipMetadata(
    width=1080,
    height=1920,
    duration_s=2.5,
    rotation=90,
    created=datetime(2026, 6, 20, 19, 31, tzinfo=UTC),
    position_wgs84=(LATITUDE, LONGITUDE, ALTITUDE),
    accuracy_m=5.0,
    device="Maker Example 1",
    focal_35mm=26.0,
    audio=True,
    codec="hevc",
)


def photo(
    path: Path,
    *,
    east: float = 0.0,
    north: float = 0.0,
    up: float | None = 0.0,
    heading: float | None = None,
    reference: str = "T",
    time: str | None = "2026:06:20 21:30:00",
    zone: str | None = "+02:00",
    model: str = "Example 1",
) -> Path:
    """A photo from so many metres off the place above; heading in degrees."""
    latitude, longitude, altitude = pymap3d.enu2geodetic(east, north, up or 0.0, LATITUDE, LONGITUDE, ALTITUDE)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Maker", model
    shot, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    if time:
        shot[ExifTags.Base.DateTimeOriginal] = time
    if zone:
        shot[ExifTags.Base.OffsetTimeOriginal] = zone
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
    gps[ExifTags.GPS.GPSLatitude] = (0.0, 0.0, float(latitude) * 3600)
    gps[ExifTags.GPS.GPSLongitude] = (0.0, float(longitude) * 60, 0.0)
    if up is not None:
        gps[ExifTags.GPS.GPSAltitude] = float(altitude)
    if heading is not None:
        gps[ExifTags.GPS.GPSImgDirection], gps[ExifTags.GPS.GPSImgDirectionRef] = heading, reference
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path, "JPEG", exif=exif)
    return path


def problems(captures: CaptureSet) -> dict[str, str]:
    return {left.file: left.problem for left in captures.source.left_out}


def test_places_become_metres_about_the_median_and_times_seconds(tmp_path):
    places = [(0.0, 0.0), (30.0, 0.0), (0.0, 40.0), (-10.0, -5.0), (5.0, 5000.0)]
    for index, (east, north) in enumerate(places):
        photo(tmp_path / f"IMG_{index}.JPG", east=east, north=north, up=float(index), time=f"2026:06:20 21:30:0{index}")
    captures = read_captures(tmp_path)
    assert captures.coordinates == "enu"
    assert captures.origin_wgs84 is not None
    fixes = [p.gps.position for p in captures.photos if p.gps]
    assert len(fixes) == 5
    # The photo 5 km off does not move the origin beyond the others.
    middle = [found - given for found, given in zip(fixes[0], (0.0, 0.0, 0.0), strict=True)]
    assert math.hypot(*middle) < 45
    for fix, (east, north), up in zip(fixes[:4], places[:4], range(4), strict=True):
        assert fix[0] - fixes[0][0] == pytest.approx(east, abs=0.02)
        assert fix[1] - fixes[0][1] == pytest.approx(north, abs=0.02)
        assert fix[2] - fixes[0][2] == pytest.approx(up, abs=0.02)
    assert [p.time_s for p in captures.photos] == [0, 1, 2, 3, 4]


def test_headings_from_magnetic_north_are_not_taken_for_true_ones(tmp_path):
    photo(tmp_path / "true.jpg", heading=90.0)
    photo(tmp_path / "magnetic.jpg", heading=90.0, reference="M")
    captures = read_captures(tmp_path)
    headings = {p.file: p.gps and p.gps.heading for p in captures.photos}
    assert headings == {"true.jpg": pytest.approx(math.pi / 2), "magnetic.jpg": None}
    assert "magnetic north" in problems(captures)["magnetic.jpg"]


def test_clocks_in_different_zones_agree_and_an_unknown_zone_is_the_others(tmp_path):
    photo(tmp_path / "a.jpg", time="2026:06:20 21:30:00", zone="+02:00")
    photo(tmp_path / "b.jpg", time="2026:06:20 20:30:10", zone="+01:00")
    photo(tmp_path / "c.jpg", time="2026:06:20 21:30:20", zone="+02:00")
    photo(tmp_path / "d.jpg", time="2026:06:20 21:30:30", zone=None)
    photo(tmp_path / "e.jpg", time=None, zone=None)
    assert [p.time_s for p in read_captures(tmp_path).photos] == [0, 10, 20, 30, 0]


def test_subfolders_are_ues_and_loose_files_are_told_apart_by_their_phones(tmp_path):
    for name in ("Anna's phone/DCIM/100APPLE/1.JPG", "Anna's phone/2.jpg", "Żółć/1.jpg", "日本/1.jpg", "images/9.jpg"):
        photo(tmp_path / name)
    photo(tmp_path / "loose.jpeg", model="Example 2")
    captures = read_captures(tmp_path)
    files = {capture.ue: [p.file for p in capture.photos] for capture in captures.captures}
    assert files["Anna-s-phone"] == ["Anna's phone/2.jpg", "Anna's phone/DCIM/100APPLE/1.JPG"]
    assert files["phone-01"] == ["images/9.jpg"]
    assert files["phone-02"] == ["loose.jpeg"]
    assert sorted(map(len, files.values())) == [1, 1, 1, 1, 2]
    assert {c.device for c in captures.captures} == {"Maker Example 1", "Maker Example 2"}
    assert captures.captures[0].consent == Consent(train=True, publish=False)
    write_captures(captures, tmp_path / "kept")
    assert len(read_bundle(tmp_path / "kept").photos) == 6


def test_an_unknown_altitude_is_the_crowds(tmp_path):
    for index in range(3):
        photo(tmp_path / f"{index}.jpg", up=10.0)
    photo(tmp_path / "flat.jpg", up=None)
    fixes = {p.file: p.gps.position[2] for p in read_captures(tmp_path).photos if p.gps}
    assert fixes["flat.jpg"] == pytest.approx(0, abs=1e-6)


def test_what_systems_leave_behind_is_passed_over_and_what_cannot_be_read_is_reported(tmp_path):
    good = photo(tmp_path / "good photo ü.jpg")
    for junk in (".DS_Store", "._good.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._a.jpg", ".thumbnails/1.jpg"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    shutil.copy(good, tmp_path / "without_suffix")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "raw.DNG").write_bytes(b"II*\x00")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "link.jpg").symlink_to(good)
    shutil.copy(good, tmp_path / "at 21:30.jpg")
    shutil.copy(good, tmp_path / "back\\slash.jpg")
    shutil.copy(good, tmp_path / "line\nbreak.jpg")
    captures = read_captures(tmp_path)
    assert [p.file for p in captures.photos] == ["good photo ü.jpg", "without_suffix"]
    renamed = {ascii("at 21:30.jpg"), ascii("back\\slash.jpg"), ascii("line\nbreak.jpg")}
    assert set(problems(captures)) == {"empty.jpg", "cut.png", "raw.DNG", "notes.txt", "link.jpg", *renamed}
    assert "is empty" in problems(captures)["empty.jpg"]


def test_shrunk_copies_are_not_further_photos(tmp_path):
    for folder in ("images", "images_2", "images_4"):
        photo(tmp_path / folder / "a.jpg")
    captures = read_captures(tmp_path)
    assert [p.file for p in captures.photos] == ["images/a.jpg"]
    assert set(problems(captures)) == {"images_2/a.jpg", "images_4/a.jpg"}


def test_takeouts_sidecars_fill_in_what_exif_lost(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.jpg")
    place = {"latitude": LATITUDE, "longitude": LONGITUDE, "altitude": ALTITUDE}
    nowhere = dict.fromkeys(place, 0.0)
    sidecar = {"title": "a.jpg", "photoTakenTime": {"timestamp": "1781987400"}, "geoData": place}
    (tmp_path / "a.jpg.supplemental-metadata.json").write_text(json.dumps(sidecar))
    later = {"photoTakenTime": {"timestamp": "1781987407"}, "geoData": nowhere}
    (tmp_path / "b.jpg.supplemental-me.json").write_text(json.dumps(later))
    captures = read_captures(tmp_path)
    assert captures.source.left_out == ()
    assert [p.time_s for p in captures.photos] == [0, 7]
    assert captures.origin_wgs84 == pytest.approx((LATITUDE, LONGITUDE, ALTITUDE))
    assert [p.gps is not None for p in captures.photos] == [True, False]


def test_videos_are_clips_and_damaged_ones_are_left_out(tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg", time="2026:06:20 21:30:00")
    (tmp_path / "film.MOV").write_bytes(b"film")
    (tmp_path / "bad.mp4").write_bytes(b"bad")

    def metadata(path: Path) -> ClipMetadata:
        if path.name == "bad.mp4":
            raise VideoError(f"{path} is damaged; copy it again")
        return FILM

    monkeypatch.setattr(phone_folder, "read_clip_metadata", metadata)
    captures = read_captures(tmp_path)
    (clip,) = (clip for capture in captures.captures for clip in capture.clips)
    assert (clip.file, clip.time_s, clip.width, clip.duration_s, clip.audio) == ("film.MOV", 60, 1080, 2.5, True)
    assert clip.gps is not None
    assert "damaged" in problems(captures)["bad.mp4"]


def test_consent_and_licence_are_the_callers(tmp_path):
    photo(tmp_path / "a.jpg")
    captures = read_captures(tmp_path, consent=Consent(train=False, publish=True), licence="CC-BY-4.0")
    assert captures.licence == captures.captures[0].licence == "CC-BY-4.0"
    assert captures.captures[0].consent == Consent(train=False, publish=True)


def test_one_photo_alone_and_nothing_at_all(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert len(read_captures(photo(tmp_path / "in" / "a.jpg")).photos) == 1
    assert "recognised folder of photos and videos: 1 photos and 0 clips of 1 UEs" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match=r"neither transforms\.json.*a photo or video"):
        read_captures(tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no picture")
    with pytest.raises(CaptureError, match=r"none of 1 photos.*a\.jpg"):
        read_captures(tmp_path / "bad")


@pytest.mark.row("S62")
def test_the_concerts_photos_as_a_plain_folder_lie_where_its_manifest_says():
    known = concert()
    assert known.origin_wgs84 is not None
    reported = {Path(p.file).name: p.reported for p in known.photos}
    captures = read_captures(known.root / "train")
    assert captures.origin_wgs84 is not None
    assert len(captures.photos) == 144
    assert captures.source.left_out == ()
    for found in captures.photos:
        pose = reported[found.file]
        assert pose is not None
        assert found.gps is not None
        place = pymap3d.geodetic2enu(
            *pymap3d.enu2geodetic(*found.gps.position, *captures.origin_wgs84), *known.origin_wgs84
        )
        rows = pose.camera_to_world
        assert place == pytest.approx((rows[0][3], rows[1][3], rows[2][3]), abs=0.05)
        assert found.gps.heading is not None
        turn = math.remainder(found.gps.heading - math.atan2(rows[0][2], rows[1][2]), math.tau)
        assert turn == pytest.approx(0, abs=1e-3)


def test_what_a_video_says_that_cannot_be_leaves_it_out(tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg")
    (tmp_path / "film.mp4").write_bytes(b"film")
    for nonsense in ({"width": 1 << 20}, {"duration_s": math.inf}, {"position_wgs84": (10.0, 20.0, math.nan)}):
        monkeypatch.setattr(phone_folder, "read_clip_metadata", lambda path, update=nonsense: replace(FILM, **update))
        assert "cannot be" in problems(read_captures(tmp_path))["film.mp4"]
