"""The captures' manifest: what is written is read again, and everything that can be wrong with it is said."""

import errno
import json
import math
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crowdnerf_lab.captures.bundle import (
    Capture,
    CaptureError,
    CaptureSet,
    Clip,
    Consent,
    Photo,
    ReferenceView,
    ReportedPose,
    Truth,
    captures_digest,
    concert,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.files import FileError

UPRIGHT = ((1.0, 0.0, 0.0, 4.0), (0.0, 0.0, 1.0, -5.0), (0.0, -1.0, 0.0, 1.5))


def photo(file: str, **changes) -> Photo:
    fields = {"file": file, "width": 8, "height": 6, "focal_px": 9.0, "time_s": 0.5}
    return Photo(**{**fields, "reported": ReportedPose(camera_to_world=UPRIGHT), **changes})


def capture(ue: str, *photos: Photo, clips: tuple[Clip, ...] = ()) -> Capture:
    consent = Consent(train=True, publish=False)
    return Capture(ue=ue, device="Example 1", consent=consent, licence="CC0-1.0", photos=photos, clips=clips)


def small_event(root: Path) -> CaptureSet:
    """Two UEs with three photos, one of them simulated, a clip and a reference view; every file exists."""
    truth = Truth(
        camera_to_world=UPRIGHT,
        exposure_ev=-0.5,
        white_balance=(1.0, 1.0, 0.9),
        blur_px=0.0,
        spoiled_by=None,
        occluded=0.25,
        clean_file="clean/a0.png",
        occluder_mask_file="mask/a0.png",
    )
    captures = CaptureSet(
        root=root,
        name="small event",
        licence="CC0-1.0",
        origin_wgs84=(48.9, 2.36, 35.0),
        captures=(
            capture("ueA", photo("photos/a0.png", truth=truth), photo("photos/a1.png", reported=None, focal_px=None)),
            capture("ueB", photo("photos/b0.png", centre_px=(4.5, 3.0)), clips=(Clip(file="clips/b.mp4", time_s=1.0),)),
        ),
        views=(
            ReferenceView(
                file="views/v.png",
                split="test",
                width=8,
                height=6,
                focal_px=9.0,
                camera_to_world=UPRIGHT,
                depth_file="views/v_depth.png",
            ),
        ),
    )
    for file in ("photos/a0", "photos/a1", "photos/b0", "clean/a0", "mask/a0", "views/v", "views/v_depth"):
        path = root / f"{file}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    (root / "clips").mkdir(exist_ok=True)
    (root / "clips" / "b.mp4").write_bytes(b"not looked into")
    return captures


@pytest.fixture
def written(tmp_path) -> Path:
    captures = small_event(tmp_path / "event")
    return write_captures(captures, captures.root)


def edited(manifest: Path, edit) -> Path:
    document = json.loads(manifest.read_text())
    edit(document)
    manifest.write_text(json.dumps(document))
    return manifest


def first_photo(document: dict) -> dict:
    return document["captures"][0]["photos"][0]


def refusal(path: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        read_bundle(path)
    return str(caught.value)


@pytest.mark.row("S62")
def test_captures_are_read_as_they_were_written(tmp_path):
    captures = small_event(tmp_path / "event")
    manifest = write_captures(captures, captures.root)
    assert manifest == tmp_path / "event" / "manifest.json"
    assert read_bundle(manifest) == captures
    assert read_bundle(manifest.parent) == captures
    assert [photo.file for photo in captures.photos] == ["photos/a0.png", "photos/a1.png", "photos/b0.png"]


def test_written_elsewhere_a_folder_stands_alone(tmp_path):
    captures = small_event(tmp_path / "event")
    write_captures(captures.keeping({"photos/b0.png"}), tmp_path / "copy")
    copy = read_bundle(tmp_path / "copy")
    assert [c.ue for c in copy.captures] == ["ueB"]
    files = sorted(path.name for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert files == ["b.mp4", "b0.png", "manifest.json", "v.png", "v_depth.png"]
    assert copy.path_of("photos/b0.png").read_bytes() == captures.path_of("photos/b0.png").read_bytes()


def test_a_digest_is_of_the_captures_and_not_of_their_folder(tmp_path):
    written = read_bundle(write_captures(small_event(tmp_path / "a"), tmp_path / "a"))
    copied = read_bundle(write_captures(written, tmp_path / "b"))
    assert captures_digest(written) == captures_digest(copied)
    photo = copied.path_of(copied.photos[0].file)
    photo.write_bytes(photo.read_bytes() + b"x")
    assert captures_digest(written) != captures_digest(copied)
    photo.unlink()
    with pytest.raises(CaptureError, match=photo.name):
        captures_digest(copied)


def test_keeping_drops_ues_that_are_left_with_nothing(tmp_path):
    captures = small_event(tmp_path)
    assert [c.ue for c in captures.keeping({"photos/a1.png"}).captures] == ["ueA", "ueB"]
    assert captures.keeping({"photos/a1.png"}).captures[1].clips
    assert [c.ue for c in captures.keeping({"photos/b0.png"}).captures] == ["ueB"]


def test_a_full_disk_leaves_no_half_written_folder(tmp_path, monkeypatch):
    captures = small_event(tmp_path / "event")

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("crowdnerf_lab.files.shutil.copyfile", no_space)
    with pytest.raises(FileError, match=r"No space left.*free some space"):
        write_captures(captures, tmp_path / "copy")
    assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == []


def test_a_folder_without_manifest(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "manifest.json" in message


@pytest.mark.parametrize("text", ["{", "", "{'a': 1}", "[" * 100_000, "\x00\x01", "nul"])
def test_wrong_json(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    message = refusal(tmp_path)
    assert f"{tmp_path / 'manifest.json'} is not JSON" in message
    assert "write it again" in message


def test_json_that_is_no_object(tmp_path):
    (tmp_path / "manifest.json").write_text("[1, 2]")
    assert "holds a list, not an object" in refusal(tmp_path)


def test_a_giant_manifest_is_not_read(written, monkeypatch):
    monkeypatch.setattr("crowdnerf_lab.captures.documents.DOCUMENT_BYTES", 100)
    assert "more than 100" in refusal(written)


def test_another_format(written):
    message = refusal(edited(written, lambda document: document.update(format="nerfstudio")))
    assert "'nerfstudio'" in message
    assert "read_captures" in message


@pytest.mark.parametrize("version", [3, 0, "1", None, 1.5])
def test_unknown_versions(written, version):
    message = refusal(edited(written, lambda document: document.update(version=version)))
    assert f"version is {version!r}" in message
    assert "update the package" in message


def set_pose(column: int, value: float):
    def edit(document):
        first_photo(document)["reported"]["camera_to_world"][0][column] = value

    return edit


BROKEN_FIELDS = {
    "missing field": (lambda d: first_photo(d).pop("width"), ["photos[0].width", "required", "add it"]),
    "unknown field": (lambda d: first_photo(d).update(colour=1), ["photos[0].colour", "remove it"]),
    "text for a number": (
        lambda d: first_photo(d).update(focal_px="9"),
        ["photos[0].focal_px", "number", "correct it"],
    ),
    "negative focal": (lambda d: first_photo(d).update(focal_px=-9.0), ["photos[0].focal_px", "greater than 0"]),
    "no pixels": (lambda d: first_photo(d).update(height=0), ["photos[0].height", "greater than"]),
    "infinite time": (lambda d: first_photo(d).update(time_s=math.inf), ["photos[0].time_s", "finite"]),
    "NaN pose": (set_pose(3, math.nan), ["photos[0].reported.camera_to_world[0][3]", "finite number, not nan"]),
    "scaled pose": (set_pose(0, 2.0), ["photos[0].reported.camera_to_world", "not a rotation"]),
    "mirrored pose": (set_pose(0, -1.0), ["photos[0].reported.camera_to_world", "not a rotation"]),
}


@pytest.mark.parametrize("name", BROKEN_FIELDS)
def test_broken_fields_are_named_with_their_photo_and_a_remedy(written, name):
    edit, words = BROKEN_FIELDS[name]
    message = refusal(edited(written, edit))
    for word in (str(written), "photos/a0.png", *words):
        assert word in message


def test_several_broken_fields_are_counted(written):
    message = refusal(edited(written, lambda d: first_photo(d).update(width=0, height=0)))
    assert "1 more fields are wrong" in message


@pytest.mark.parametrize("file", ["../secret.png", "photos/../../secret.png", "/etc/passwd", "C:\\a.png", "a\x00.png"])
def test_paths_that_leave_the_folder(written, file):
    message = refusal(edited(written, lambda d: first_photo(d).update(file=file)))
    assert str(written) in message


def test_a_symbolic_link_out_of_the_folder(written, tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 6)).save(outside)
    (written.parent / "link.png").symlink_to(outside)
    message = refusal(edited(written, lambda d: first_photo(d).update(file="link.png")))
    assert "link.png" in message
    assert "symbolic link" in message


@pytest.mark.parametrize("spelling", ["photos/b0.png", "./photos/b0.png", "photos//b0.png"])
def test_duplicate_file_names(written, spelling):
    message = refusal(edited(written, lambda d: first_photo(d).update(file=spelling)))
    assert "photos/b0.png is named twice" in message
    assert "photo of ueA" in message
    assert "photo of ueB" in message


def test_two_captures_of_one_pseudonym(written):
    message = refusal(edited(written, lambda d: d["captures"][1].update(ue="ueA")))
    assert "two captures are called 'ueA'" in message


def test_a_pseudonym_that_could_be_a_path(written):
    message = refusal(edited(written, lambda d: d["captures"][1].update(ue="../ueA")))
    assert "captures[1].ue" in message


@pytest.mark.parametrize("file", ["photos/a0.png", "clean/a0.png", "mask/a0.png", "views/v_depth.png", "clips/b.mp4"])
def test_missing_files_are_named(written, file):
    (written.parent / file).unlink()
    message = refusal(written)
    assert f"missing {file}" in message
    assert "put the files back" in message


def test_captures_with_missing_files_are_not_written(tmp_path):
    captures = small_event(tmp_path / "event")
    (tmp_path / "event" / "photos" / "a0.png").unlink()
    with pytest.raises(CaptureError, match=r"missing photos/a0\.png"):
        write_captures(captures, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_field_is_read_or_refused(written, data):
    document = json.loads(written.read_text())
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    place[key] = data.draw(JSON)
    broken = written.with_name("broken.json")
    broken.write_text(json.dumps(document))
    with suppress(CaptureError):
        read_bundle(broken)


@pytest.mark.row("S62")
def test_the_bundled_concert():
    captures = concert()
    assert len(captures.captures) == 48
    assert len(captures.photos) == 144
    assert sum(photo.truth is not None and photo.truth.spoiled_by is not None for photo in captures.photos) == 14
    assert sorted({view.split for view in captures.views}) == ["moment", "test", "test_beyond"]
    assert all(photo.reported is not None for photo in captures.photos)


def test_the_concert_is_looked_for_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CROWDNERF_DATA", str(tmp_path))
    with pytest.raises(CaptureError, match="CROWDNERF_DATA"):
        concert()
    captures = small_event(tmp_path / "concert")
    write_captures(captures, captures.root)
    assert concert() == captures
