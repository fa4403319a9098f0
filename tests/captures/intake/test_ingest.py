"""Uploads become protected photos once each, whatever is broken among them and however often the work is killed."""

import ctypes
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import piexif
import pytest
from PIL import Image

from crowdnerf_lab.captures.bundle import Consent, concert, read_bundle, write_captures
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.pictures import media_in
from crowdnerf_lab.captures.intake import ingest as ingesting
from crowdnerf_lab.captures.intake.ingest import JOURNAL, ingest
from crowdnerf_lab.captures.intake.one_file import probe
from crowdnerf_lab.captures.intake.sandbox import Sandbox
from crowdnerf_lab.captures.photos import read_opacity, read_photo
from crowdnerf_lab.captures.privacy.faces import find_faces
from crowdnerf_lab.captures.privacy.forgetting import forget
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.screening.screen import ScreeningLimits, screen
from crowdnerf_lab.captures.video.constructed_clips import write_clip

CRASHES = b"this one crashes its reader"
NO_FACES = {"faces": False, "progress": False}


@pytest.fixture(scope="module")
def sandbox():
    """One pool for all: starting one costs more than most tests."""
    with Sandbox(workers=2, preload=("crowdnerf_lab.captures.intake.ingest",)) as opened:
        yield opened


def picture(seed, size=(64, 48)):
    return (
        np.random.default_rng(seed)
        .integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )


def save(path, seed, *, latitude=55.7):
    path.parent.mkdir(parents=True, exist_ok=True)
    minutes = round((latitude % 1) * 60 * 10_000)
    exif = {
        "0th": {piexif.ImageIFD.Model: b"Phone 1"},
        "Exif": {piexif.ExifIFD.DateTimeOriginal: f"2026:06:20 21:30:{seed % 60:02d}".encode()},
        "GPS": {
            piexif.GPSIFD.GPSLatitudeRef: b"N",
            piexif.GPSIFD.GPSLatitude: ((int(latitude), 1), (minutes, 10_000), (0, 1)),
            piexif.GPSIFD.GPSLongitudeRef: b"E",
            piexif.GPSIFD.GPSLongitude: ((13, 1), (12, 1), (seed, 100)),
        },
    }
    Image.fromarray(picture(seed)).save(path, exif=piexif.dump(exif))
    return path


def folder_of(root, ues=2, photos=3):
    for ue in range(ues):
        for index in range(photos):
            save(root / f"ue{ue:02d}" / f"{index}.jpg", 1000 * ue + index)
    return root


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.row("S63")
def test_good_files_are_kept_and_each_bad_one_is_a_row(sandbox, tmp_path):
    upload = folder_of(tmp_path / "upload")
    whole = (upload / "ue00/0.jpg").read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("payload", b"x" * 50)
    bad = {
        "ue00/cut.jpg": whole[: len(whole) * 2 // 3],
        "ue00/empty.jpg": b"",
        "ue01/page.jpg": b"<!doctype html><script>",
        "ue01/polyglot.jpg": (upload / "ue01/0.jpg").read_bytes() + buffer.getvalue(),
    }
    for name, content in bad.items():
        (upload / name).write_bytes(content)
    (upload / "ue01/link.jpg").symlink_to("/etc/hostname")
    captures, report = ingest(upload, tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert [len(capture.photos) for capture in captures.captures] == [3, 3]
    assert {row.file for row in report.refused} == {*bad, "ue01/link.jpg"}
    assert all(row.reason and row.remedy for row in report.refused)
    assert "zip archive as well" in next(row.reason for row in report.refused if "polyglot" in row.file)
    assert "6 photos kept" in report.summary()
    assert not report.interrupted
    assert read_bundle(tmp_path / "event").captures == captures.captures
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "event"}


@pytest.mark.row("S62")
def test_only_pixels_are_written_and_what_calibration_needs_is_in_the_manifest(sandbox, tmp_path):
    source = save(tmp_path / "upload/ue00/me at home.jpg", 3)
    captures, _ = ingest(
        source.parent.parent,
        tmp_path / "event",
        consent=Consent(train=True, publish=True),
        licence="CC-BY-4.0",
        sandbox=sandbox,
        **NO_FACES,
    )
    (photo,) = captures.photos
    written = captures.path_of(photo.file)
    with Image.open(written) as opened:
        assert opened.getexif() == {}
        assert "exif" not in opened.info
    assert b"Phone 1" not in written.read_bytes()
    assert "home" not in photo.file
    assert (read_photo(written).float() - read_photo(source).float()).abs().mean() < 8
    assert photo.gps is not None
    assert captures.origin_wgs84[0] == pytest.approx(55.7, abs=1e-4)
    assert captures.captures[0].consent.publish
    assert captures.captures[0].licence == "CC-BY-4.0"


def test_the_same_again_changes_nothing(sandbox, tmp_path):
    upload, event = folder_of(tmp_path / "upload"), tmp_path / "event"
    first, _ = ingest(upload, event, sandbox=sandbox, **NO_FACES)
    before = contents(event)
    assert JOURNAL not in before
    (upload / "ue00/0.jpg").rename(upload / "ue00/renamed.jpg")
    shutil.copy(upload / "ue01/1.jpg", upload / "ue01/copy.jpg")
    second, report = ingest(upload, event, sandbox=sandbox, **NO_FACES)
    assert second.captures == first.captures
    assert contents(event) == before
    assert [row.outcome for row in report.rows] == ["known"] * 7


@pytest.mark.row("S22")
def test_uploads_that_come_one_by_one_make_one_event(sandbox, tmp_path):
    event = tmp_path / "event"
    save(tmp_path / "a/ue00/1.jpg", 10, latitude=55.7)
    save(tmp_path / "b/ue01/1.jpg", 20, latitude=55.701)
    ingest(tmp_path / "a", event, sandbox=sandbox, **NO_FACES)
    captures, _ = ingest(tmp_path / "b", event, sandbox=sandbox, **NO_FACES)
    first, second = captures.photos
    assert second.gps.position[1] - first.gps.position[1] == pytest.approx(111.3, abs=0.5)
    assert second.time_s - first.time_s == pytest.approx(10)


@pytest.mark.row("S63")
def test_who_asked_to_be_forgotten_is_not_taken_in_again(sandbox, tmp_path):
    upload = folder_of(tmp_path / "upload")
    ingest(upload, tmp_path / "event", sandbox=sandbox, **NO_FACES)
    forget("ue00", tmp_path / "event")
    save(upload / "ue00/new.jpg", 77)
    captures, report = ingest(upload, tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert [capture.ue for capture in captures.captures] == ["ue01"]
    assert {row.file for row in report.refused} == {f"ue00/{name}.jpg" for name in ("0", "1", "2", "new")}
    assert all("asked to be forgotten" in row.reason for row in report.refused)
    assert not report.interrupted


def test_reasons_name_files_as_their_sender_does(sandbox, tmp_path):
    upload = folder_of(tmp_path / "upload", ues=1, photos=1)
    (upload / "ue00/page.jpg").write_bytes(b"<html>")
    (upload / "ue00/half.jpg").write_bytes((upload / "ue00/0.jpg").read_bytes()[:-200])
    _, report = ingest(upload, tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert {row.file for row in report.refused} == {"ue00/page.jpg", "ue00/half.jpg"}
    for row in report.refused:
        assert row.reason.startswith(row.file)
        assert str(tmp_path) not in row.reason + row.remedy


@pytest.mark.row("S20")
def test_a_face_is_gone_before_anything_is_written(sandbox, tmp_path):
    data = pytest.importorskip("skimage.data", reason='no scikit-image (pip install "crowdnerf-lab[geometry]")')
    face = Image.fromarray(data.astronaut()[0:300, 100:400])
    (tmp_path / "upload/ue00").mkdir(parents=True)
    face.save(tmp_path / "upload/ue00/a.png")
    assert len(find_faces(read_photo(tmp_path / "upload/ue00/a.png"))) == 1
    captures, report = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, progress=False)
    (photo,) = captures.photos
    assert photo.faces == 1
    assert photo.filled is not None
    ((left, top, right, bottom),) = photo.filled
    assert left < 140 < right, "the box is where the face is"
    assert top < 140 < bottom
    assert find_faces(read_photo(captures.path_of(photo.file))) == ()
    assert "1 faces made unrecognisable" in report.summary()


def test_a_cut_out_object_stays_cut_out(sandbox, tmp_path):
    opacity = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    (tmp_path / "upload").mkdir()
    Image.fromarray(np.dstack([picture(7), opacity])).save(tmp_path / "upload/a.png")
    Image.fromarray(picture(8)).convert("RGBA").save(tmp_path / "upload/opaque.png")
    captures, _ = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    kept = {Path(photo.file).suffix: captures.path_of(photo.file) for photo in captures.photos}
    assert set(kept) == {".png", ".jpg"}
    assert (read_opacity(kept[".png"]).numpy() == opacity).all()
    seen, before = (read_photo(path).int() for path in (kept[".png"], tmp_path / "upload/a.png"))
    assert (seen - before).abs().max() <= 1
    _, again = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert {row.outcome for row in again.rows} == {"known"}


def test_an_archive_is_taken_in_and_nothing_of_it_is_left_unprotected(sandbox, tmp_path):
    upload = folder_of(tmp_path / "upload", ues=1, photos=2)
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        for path in upload.rglob("*.jpg"):
            archive.write(path, path.relative_to(upload))
        archive.writestr("inner.zip", b"PK")
    captures, report = ingest(tmp_path / "upload.zip", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert len(captures.photos) == 2
    assert captures.name == "upload"
    assert [row.file for row in report.refused] == ["upload.zip/inner.zip"]
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "upload.zip", "event"}


@pytest.mark.row("S22")
def test_a_clip_gives_frames_and_stays_out_itself(sandbox, tmp_path):
    (tmp_path / "upload/ue00").mkdir(parents=True)
    wide = picture(5, size=(320, 96))
    frames = [(index / 10, np.ascontiguousarray(wide[:, 4 * index : 4 * index + 128])) for index in range(40)]
    write_clip(tmp_path / "upload/ue00/clip.mp4", frames)
    (tmp_path / "upload/ue00/broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    captures, report = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert len(captures.photos) >= 3
    assert all(photo.from_clip and photo.from_clip.endswith(".mp4") for photo in captures.photos)
    assert [row.file for row in report.refused] == ["ue00/broken.mp4"]
    assert {path.suffix for path in (tmp_path / "event").rglob("*") if path.is_file()} == {".jpg", ".json"}
    _, again = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert "known" in {row.outcome for row in again.rows}
    assert again.photos == 0


def test_clips_that_heard_the_same_are_put_on_one_clock(sandbox, tmp_path):
    rate, late_s = 16_000, 0.7
    heard = np.random.default_rng(1).normal(0, 0.1, 8 * rate).astype(np.float32)
    for ue, start in (("ue00", 0.0), ("ue01", late_s)):
        (tmp_path / "upload" / ue).mkdir(parents=True)
        sound = heard[round(start * rate) :][: 7 * rate]
        frames = [(index / 2, picture(index)) for index in range(14)]
        tags = {"creation_time": "2026-06-20T19:30:00.000000Z"}
        write_clip(tmp_path / "upload" / ue / "clip.mp4", frames, sound=sound, sound_rate=rate, tags=tags)
    captures, report = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    first, second = (capture.clock for capture in captures.captures)
    assert report.clocks is not None
    assert (first.method, second.method) == ("audio", "audio")
    assert second.offset_s - first.offset_s == pytest.approx(late_s, abs=0.01)


def test_what_an_upload_claims_of_its_faces_is_not_believed(sandbox, tmp_path):
    few = concert().keeping([concert().photos[0].file])
    claimed = few.photos[0].model_copy(update={"faces": 0, "truth": None})
    captures = (few.captures[0].model_copy(update={"photos": (claimed,)}),)
    write_captures(replace(few, views=(), captures=captures), tmp_path / "upload")
    kept, _ = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert kept.photos[0].faces is None


def test_what_is_taken_in_can_be_screened_at_once(sandbox, tmp_path):
    captures = concert().keeping([photo.file for photo in concert().photos[:12]])
    write_captures(replace(captures, views=()), tmp_path / "upload")
    limits = ScreeningLimits()
    kept, report = ingest(tmp_path / "upload", tmp_path / "event", sandbox=sandbox, screening=limits, **NO_FACES)
    everything = read_bundle(tmp_path / "event")
    assert len(everything.photos) == 12
    again, expected = screen(everything, limits=limits, progress=False)
    assert report.screening == expected
    assert kept.captures == again.captures
    assert kept.photos


def crashing_read(path, consent, licence):
    for file in media_in(path)[0]:
        crashing_probe(path / file)
    return read_captures(path, consent=consent, licence=licence)


def crashing_probe(path):
    if path.read_bytes() == CRASHES:
        ctypes.string_at(0)
    probe(path)


def test_a_file_that_crashes_the_listing_is_set_apart(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(ingesting, "_read", crashing_read)
    monkeypatch.setattr(ingesting, "probe", crashing_probe)
    upload = folder_of(tmp_path / "upload", ues=1)
    (upload / "ue00/crash.jpg").write_bytes(CRASHES)
    captures, report = ingest(upload, tmp_path / "event", sandbox=sandbox, **NO_FACES)
    assert len(captures.photos) == 3
    assert [(row.file, "SIGSEGV" in row.reason) for row in report.refused] == [("ue00/crash.jpg", True)]
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "event"}


def started(upload, event):
    """An ingest of its own, and its journal once something is in it."""
    program = (
        "import sys; from crowdnerf_lab.captures.intake.ingest import ingest; "
        "c, r = ingest(sys.argv[1], sys.argv[2], faces=False, progress=False, workers=1); print(r.interrupted)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(upload), str(event)], stdout=subprocess.PIPE, env=environment, text=True
    )
    journal, deadline = event / JOURNAL, time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("many") / "upload", ues=4, photos=60)


def test_a_killed_ingest_goes_on_where_it_was(sandbox, tmp_path, many):
    event = tmp_path / "event"
    process = started(many, event)
    process.kill()
    process.communicate()
    done = [json.loads(line)["photos"][0]["file"] for line in (event / JOURNAL).read_bytes().splitlines()[1:-1]]
    assert 4 <= len(done) < 240
    assert not (event / "manifest.json").exists()
    (event / ".left.jpg.x.partial").write_bytes(b"half")
    with (event / JOURNAL).open("ab") as torn:
        torn.write(b'{"digest":"torn')
    when = {file: (event / file).stat().st_mtime_ns for file in done}
    captures, report = ingest(many, event, sandbox=sandbox, **NO_FACES)
    assert len(captures.photos) == len(report.rows) == 240
    assert report.photos <= 240 - len(done)
    assert {file: (event / file).stat().st_mtime_ns for file in done} == when
    assert len([path for path in event.rglob("*") if path.is_file()]) == 241
    whole, _ = ingest(many, tmp_path / "whole", sandbox=sandbox, **NO_FACES)
    assert whole.captures == captures.captures


def test_ctrl_c_leaves_a_manifest_of_what_there_is(tmp_path, many):
    process = started(many, tmp_path / "event")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert output.strip() == "True"
    photos = read_bundle(tmp_path / "event").photos
    assert 4 <= len(photos) < 240


def test_two_ingests_into_one_folder_do_not_meet_and_leftovers_go(sandbox, tmp_path):
    upload, event = folder_of(tmp_path / "upload", ues=1, photos=1), tmp_path / "event"
    with ingesting._incoming(event) as incoming:
        assert incoming.stat().st_mode & 0o077 == 0
        with pytest.raises(CaptureError, match="another ingest"):
            ingest(upload, event, sandbox=sandbox, **NO_FACES)
        assert incoming.exists()
    save(tmp_path / ".event.incoming/killed/face.jpg", 1)
    ingest(upload, event, sandbox=sandbox, **NO_FACES)
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "event"}


def test_folders_that_would_feed_themselves_are_refused(tmp_path):
    with pytest.raises(CaptureError, match="choose a folder outside"):
        ingest(tmp_path, tmp_path / "event", **NO_FACES)
