"""What leaves the lab: only who consents, no faces, no metadata, no fine place, no name, licences kept."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import piexif
import pytest
import skimage
from PIL import Image

from crowdnerf_lab.captures.bundle import (
    Capture,
    CaptureSet,
    Clip,
    Consent,
    GivenCamera,
    GpsFix,
    Photo,
    ReferenceView,
    ReportedPose,
    Truth,
    read_bundle,
    write_captures,
)
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.privacy.embedded import embedded_in
from crowdnerf_lab.captures.privacy.faces import FaceSearch, find_faces
from crowdnerf_lab.captures.privacy.protection import PrivacyError
from crowdnerf_lab.captures.privacy.publishing import LEDGER, publications_of, published

QUICK = FaceSearch(turns=(), enlarged=1.0)
ORIGIN = (48.858093, 2.294694, 35.25)
POSE = ((1.0, 0.0, 0.0, 4.123456), (0.0, 0.0, 1.0, -2063.7891), (0.0, -1.0, 0.0, 1.654321))
SECRETS = (b"anna", b"Anna", b"48.858", b"2.2946", b"4.123456", b"2063.78", b"1.654321", b"12.3456")


def gps_exif() -> bytes:
    latitude, longitude = ((48, 1), (51, 1), (2913, 100)), ((2, 1), (17, 1), (4089, 100))
    return piexif.dump({"GPS": {piexif.GPSIFD.GPSLatitude: latitude, piexif.GPSIFD.GPSLongitude: longitude}})


@pytest.fixture(scope="module")
def event(tmp_path_factory) -> CaptureSet:
    """Anna lets everything out, Ben nothing; a photo with a face, one with EXIF, one that is clean already."""
    root = tmp_path_factory.mktemp("home")
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as picture:
        face = picture.convert("RGB").resize((192, 192))
    flat = Image.fromarray(np.random.default_rng(0).integers(60, 90, (48, 64, 3), dtype=np.uint8))
    (root / "anna").mkdir()
    face.save(root / "anna" / "IMG_home.jpg", quality=95)
    flat.save(root / "anna" / "b.jpg", exif=gps_exif())
    flat.save(root / "anna" / "clean.png")
    flat.save(root / "anna" / "twin.png")
    flat.save(root / "ben.jpg")
    flat.save(root / "view.png")
    Image.fromarray(np.full((48, 64), 3000, np.uint16)).save(root / "depth.png")
    (root / "anna" / "clip.mp4").write_bytes(b"film")
    truth = Truth(
        camera_to_world=POSE,
        exposure_ev=0.0,
        white_balance=(1.0, 1.0, 1.0),
        blur_px=0.0,
        spoiled_by=None,
        occluded=0.0,
        clean_file="anna/twin.png",
        occluder_mask_file=None,
    )
    reported = ReportedPose(camera_to_world=POSE)
    camera = GivenCamera(
        camera_to_world=((1.0, 0.0, 0.0, 2.5), (0.0, 0.0, 1.0, 0.5), (0.0, -1.0, 0.0, 0.25)),
        focal_px=(60.0, 60.0),
        centre_px=(32.0, 24.0),
    )
    anna = Capture(
        ue="anna",
        device="Anna's iPhone 15",
        consent=Consent(train=True, publish=True),
        licence="CC-BY-4.0",
        photos=(
            Photo(file="anna/IMG_home.jpg", width=192, height=192, focal_px=150.0, time_s=12.3456, reported=reported),
            Photo(
                file="anna/b.jpg",
                width=64,
                height=48,
                focal_px=60.0,
                time_s=13.0,
                gps=GpsFix(position=(4.123456, -2063.7891, 1.654321), accuracy_m=4.0, heading=0.5),
                faces=0,
                truth=truth,
            ),
            Photo(
                file="anna/clean.png", width=64, height=48, focal_px=60.0, time_s=14.0, camera=camera, faces=0,
                from_clip="anna/clip.mp4",
            ),
        ),
        clips=(Clip(file="anna/clip.mp4", time_s=0.0),),
    )  # fmt: skip
    ben = Capture(
        ue="ben",
        device="phone",
        consent=Consent(train=True, publish=False),
        licence="CC0-1.0",
        photos=(Photo(file="ben.jpg", width=64, height=48, focal_px=None, time_s=0.0),),
    )
    still = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
    view = ReferenceView(
        file="view.png", split="test", width=64, height=48, focal_px=60.0, camera_to_world=still, depth_file="depth.png"
    )
    captures = CaptureSet(
        root=root,
        name="event",
        licence="CC-BY-4.0",
        origin_wgs84=ORIGIN,
        captures=(anna, ben),
        views=(view,),
        began=datetime(2026, 7, 1, 20, 15, 30, tzinfo=UTC),
    )
    write_captures(captures, root)
    return read_bundle(root)


@pytest.fixture(scope="module")
def copy(event, tmp_path_factory) -> CaptureSet:
    return published(event, tmp_path_factory.mktemp("out") / "copy", search=QUICK, progress=False).captures


@pytest.mark.row("S62")
def test_no_byte_that_leaves_tells_a_name_a_home_or_a_fine_place(copy):
    files = [path for path in copy.root.rglob("*") if path.is_file()]
    assert len(files) == 6
    for path in files:
        content = path.read_bytes() + str(path.relative_to(copy.root)).encode()
        assert [secret for secret in SECRETS if secret in content] == []
        assert path.suffix == ".json" or embedded_in(path) == ()


def test_every_coordinate_is_a_multiple_of_the_grid(copy):
    document = json.loads((copy.root / "manifest.json").read_bytes())
    latitude, longitude, altitude = document["origin_wgs84"]
    assert (latitude, longitude, altitude) == (48.86, 2.3, 0.0)
    fixes = [photo["gps"] for capture in document["captures"] for photo in capture["photos"] if "gps" in photo]
    assert [fix["position"] for fix in fixes] == [[0.0, -2000.0, 0.0]] * 2
    assert all(fix["accuracy_m"] == 1000.0 for fix in fixes)
    assert document["began"] == "2026-07-01T00:00:00Z"
    # Nothing else in the manifest can be a place on the Earth: no number within a kilometre of the true origin.
    numbers = [float(text) for text in re.findall(rb"-?\d+\.\d{4,}", (copy.root / "manifest.json").read_bytes())]
    assert not [n for n in numbers if abs(n - ORIGIN[0]) < 0.01 or abs(n - ORIGIN[1]) < 0.01]


def test_only_who_consents_leaves_under_a_new_name_with_the_licence(event, copy):
    (capture,) = copy.captures
    assert re.fullmatch(r"ue-[0-9a-f]{16}", capture.ue)
    assert capture.licence == "CC-BY-4.0"
    assert capture.device == "Apple"
    assert capture.clips == ()
    assert [photo.time_s for photo in capture.photos] == [12.0, 13.0, 14.0]
    assert all(photo.reported is None and photo.truth is None and photo.from_clip is None for photo in capture.photos)
    given = capture.photos[2].camera
    assert given is not None
    assert given == event.captures[0].photos[2].camera


@pytest.mark.row("S20")
def test_faces_that_nobody_looked_for_are_gone(event, copy):
    before, after = event.captures[0].photos[0], copy.captures[0].photos[0]
    assert len(find_faces(read_photo(event.path_of(before.file)), search=QUICK)) == 1
    assert find_faces(read_photo(copy.path_of(after.file)), search=QUICK) == ()
    assert after.faces == 1


def test_clean_pictures_are_brought_over_bit_for_bit(event, copy):
    before, after = event.captures[0].photos[2], copy.captures[0].photos[2]
    assert copy.path_of(after.file).read_bytes() == event.path_of(before.file).read_bytes()
    (view,) = copy.views
    assert view.depth_file is not None
    assert copy.path_of(view.depth_file).read_bytes() == (event.root / "depth.png").read_bytes()


def test_what_stayed_at_home_is_told_and_names_change_with_every_publication(event, copy, tmp_path):
    again = published(event, tmp_path / "again", search=QUICK, grid_m=100, progress=False)
    assert [left.file for left in again.left_out] == ["anna/clip.mp4", "ben"]
    assert again.captures.captures[0].ue != copy.captures[0].ue
    ledger = publications_of(event.root)
    assert [set(entry.pseudonyms) for entry in ledger] == [{"anna"}] * len(ledger)
    assert Path(ledger[-1].folder) == (tmp_path / "again").resolve()
    assert not (tmp_path / "again" / LEDGER).exists()
    fix = again.captures.captures[0].photos[0].gps
    assert fix is not None
    assert fix.position == (0, -2100, 0)
    assert fix.heading == 0
    origin = again.captures.origin_wgs84
    assert origin is not None
    assert all(math.isclose(1000 * value, round(1000 * value), abs_tol=1e-6) for value in origin[:2])


def test_full_folders_and_events_without_consent_are_refused(event, tmp_path):
    (tmp_path / "something").write_text("here")
    with pytest.raises(PrivacyError, match="is not empty"):
        published(event, tmp_path)
    unwilling = replace(event, captures=event.captures[1:])
    with pytest.raises(PrivacyError, match="no contributor consents"):
        published(unwilling, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_bundle_that_claims_to_have_no_faces_is_not_believed(event, tmp_path):
    anna = event.captures[0]
    photo = anna.photos[0].model_copy(update={"faces": 0})
    lying = replace(event, captures=(anna.model_copy(update={"photos": (photo,)}),), views=())
    done = published(lying, tmp_path / "safe", search=QUICK, progress=False).captures.photos[0]
    believed = published(lying, tmp_path / "not", search=QUICK, look_again=False, progress=False).captures.photos[0]
    assert (done.faces, believed.faces) == (1, 0)
    assert (len(done.filled or ()), believed.filled) == (1, None)
    assert find_faces(read_photo(tmp_path / "safe" / done.file), search=QUICK) == ()
