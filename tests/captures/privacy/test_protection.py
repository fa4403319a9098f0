"""A photo is kept without faces and metadata, and what it was never reaches the disk."""

import io
import math
from pathlib import Path

import numpy as np
import piexif
import pytest
import skimage
import torch
from PIL import Image

from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.privacy import protection as privacy
from crowdnerf_lab.captures.privacy.anonymisation import anonymised
from crowdnerf_lab.captures.privacy.embedded import embedded_in
from crowdnerf_lab.captures.privacy.faces import FaceError, FaceSearch
from crowdnerf_lab.captures.privacy.protection import PrivacyError, protect_photo, protected, write_pixels

QUICK = FaceSearch(turns=(), enlarged=1.0)


@pytest.fixture(scope="module")
def phone_photo(tmp_path_factory) -> Path:
    """The astronaut as a phone would have sent her: turned by its orientation, with GPS and a thumbnail of her face."""
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as picture:
        upright = picture.convert("RGB").resize((256, 256))
    small = io.BytesIO()
    upright.resize((64, 64)).save(small, "JPEG")
    exif = piexif.dump(
        {
            "0th": {piexif.ImageIFD.Orientation: 6, piexif.ImageIFD.Model: b"Some Phone of Somebody"},
            "Exif": {
                piexif.ExifIFD.DateTimeOriginal: b"2026:07:01 20:15:30",
                piexif.ExifIFD.FocalLengthIn35mmFilm: 26,
                piexif.ExifIFD.MakerNote: b"serial 12345",
            },
            "GPS": {
                piexif.GPSIFD.GPSLatitudeRef: b"N",
                piexif.GPSIFD.GPSLatitude: ((48, 1), (51, 1), (305, 10)),
                piexif.GPSIFD.GPSLongitudeRef: b"E",
                piexif.GPSIFD.GPSLongitude: ((2, 1), (21, 1), (71, 10)),
                piexif.GPSIFD.GPSImgDirectionRef: b"T",
                piexif.GPSIFD.GPSImgDirection: (90, 1),
            },
            "1st": {piexif.ImageIFD.Make: b"Some"},
            "thumbnail": small.getvalue(),
        }
    )
    path = tmp_path_factory.mktemp("phone") / "IMG_0001.jpg"
    # Orientation 6: turn clockwise to show. A second picture follows, as in MPO files.
    upright.rotate(90).save(path, "JPEG", quality=95, exif=exif, comment=b"home")
    path.write_bytes(path.read_bytes() + small.getvalue())
    return path


@pytest.mark.row("S20", "S64")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_nothing_but_upright_pixels_is_written_and_the_rest_is_returned(phone_photo, tmp_path, suffix):
    done = protect_photo(phone_photo, tmp_path / f"a{suffix}", search=QUICK)
    assert embedded_in(phone_photo)
    assert embedded_in(done.path) == ()
    assert len(done.faces) == 1
    face = done.faces[0]
    assert ((face.left + face.right) / 2, (face.top + face.bottom) / 2) == pytest.approx((113, 58), abs=6)
    expected = anonymised(read_photo(phone_photo), done.faces)
    difference = (read_photo(done.path).float() - expected.float()).abs().mean()
    assert float(difference) < (1e-6 if suffix == ".png" else 4)
    assert (done.width, done.height) == (256, 256)
    assert done.metadata.position_wgs84 == pytest.approx((48 + 51 / 60 + 30.5 / 3600, 2 + 21 / 60 + 7.1 / 3600, 0))
    assert done.metadata.direction == pytest.approx(math.pi / 2)
    assert done.metadata.time is not None
    assert done.metadata.focal_35mm == 26
    for secret in (b"Somebody", b"serial", b"home", b"2026", b"Exif"):
        assert secret not in done.path.read_bytes()


def test_the_face_is_in_no_file_that_is_ever_written(phone_photo, tmp_path, monkeypatch):
    written = []
    save = Image.Image.save

    def watched(picture, path, *arguments, **options):
        written.append(np.asarray(picture).copy())
        save(picture, path, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", watched)
    done = protect_photo(phone_photo, tmp_path / "a.jpg", search=QUICK)
    (pixels,) = written
    hidden = anonymised(read_photo(phone_photo), done.faces)
    assert torch.equal(torch.from_numpy(pixels), hidden)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_nothing_appears_when_faces_cannot_be_looked_for(phone_photo, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise FaceError("not installed")

    monkeypatch.setattr(privacy, "find_faces", fail)
    with pytest.raises(FaceError):
        protect_photo(phone_photo, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_photo_can_be_replaced_by_its_protected_self(phone_photo, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(phone_photo.read_bytes())
    protect_photo(path, path, search=QUICK)
    assert embedded_in(path) == ()


def test_frames_are_protected_in_memory(phone_photo):
    safe = protected(read_photo(phone_photo), search=QUICK)
    assert len(safe.faces) == 1
    assert torch.equal(safe.image[~safe.hidden], read_photo(phone_photo)[~safe.hidden])
    assert 0.02 < float(safe.hidden.float().mean()) < 0.3


def test_other_formats_and_files_that_are_no_photos_are_refused(tmp_path):
    with pytest.raises(PrivacyError, match=r"a\.tiff is not written: name it \.jpg"):
        write_pixels(torch.zeros((2, 2, 3), dtype=torch.uint8), tmp_path / "a.tiff")
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"b\.jpg"):
        protect_photo(tmp_path / "b.jpg", tmp_path / "c.jpg")
