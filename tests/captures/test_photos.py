"""Reading one photo: orientation, transparency, EXIF, and files broken the ways phones and links break them."""

import io
import math
import struct
import zlib
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features
from PIL.TiffImagePlugin import IFDRational

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.photos import PHOTO_PIXELS, PhotoError, read_metadata, read_photo

UPRIGHT = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
LOSSLESS = {"lossless": True, "exact": True}


def picture_bytes(*, width=64, height=48, format="JPEG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", LOSSLESS)])
def test_lossless_pictures_come_back_bit_for_bit(tmp_path, name, options):
    Image.fromarray(UPRIGHT).save(tmp_path / name, **options)
    photo = read_photo(tmp_path / name)
    assert photo.dtype == torch.uint8
    assert torch.equal(photo, torch.from_numpy(UPRIGHT))


def test_jpeg_is_close_to_what_was_saved(tmp_path):
    grey = np.full((16, 24, 3), 90, dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.shape == (16, 24, 3)
    assert int((photo.int() - 90).abs().max()) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    # How the sensor stored the upright picture, by EXIF 2.32's definition of tag 0x0112.
    stored = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.transpose(1, 0, 2),
        6: np.rot90(UPRIGHT, 1),
        7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(UPRIGHT, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_photo(tmp_path / "a.png"), torch.from_numpy(UPRIGHT))
    metadata = read_metadata(tmp_path / "a.png")
    assert (metadata.width, metadata.height) == (3, 2)


def test_transparency_becomes_white(tmp_path):
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png")[0, :, 0].tolist() == [255, 127, 0]


def test_grey_and_palette_pictures_become_rgb(tmp_path):
    Image.new("L", (4, 3), 77).save(tmp_path / "grey.png")
    Image.new("RGB", (4, 3), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert read_photo(tmp_path / "grey.png").unique().tolist() == [77]
    assert read_photo(tmp_path / "palette.png")[0, 0].tolist() == [10, 20, 30]


def refused(path: Path, *words: str) -> None:
    for read in (read_photo, read_metadata):
        with pytest.raises(PhotoError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message
        for word in words:
            assert word in message


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "gone.jpg", "does not exist", "put the photo back")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused(tmp_path / "empty.jpg", "empty", "again")
    (tmp_path / "text.jpg").write_text("this is no picture")
    refused(tmp_path / "text.jpg", "JPEG, PNG or WebP")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.bmp")
    refused(tmp_path / "a.bmp", "JPEG, PNG or WebP")
    Image.fromarray(np.zeros((2, 2), dtype=np.uint16)).save(tmp_path / "deep.png")
    refused(tmp_path / "deep.png", "8 bits")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_cut_short_is_refused(tmp_path, format):
    whole = picture_bytes(format=format)
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match=r"cut.*(upload|JPEG, PNG)"):
        read_photo(tmp_path / "cut")


def test_a_file_larger_than_the_limit_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("crowdnerf_lab.captures.photos.PHOTO_BYTES", 1000)
    (tmp_path / "large.jpg").write_bytes(picture_bytes() + bytes(1000))
    refused(tmp_path / "large.jpg", "more than 1000", "smaller")


def giant_png(width: int, height: int) -> bytes:
    """A PNG that declares its size honestly and holds no pixels: decoding it would fail differently."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 10_000), (8_000, 7_000)])
def test_giants_are_refused_before_they_are_decoded(tmp_path, width, height):
    (tmp_path / "giant.png").write_bytes(giant_png(width, height))
    refused(tmp_path / "giant.png", str(PHOTO_PIXELS), "shrink")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), format=st.sampled_from(["JPEG", "PNG", "WEBP"]))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_damage_escapes_as_anything_but_a_photo_error(tmp_path, data, format):
    damaged = bytearray(picture_bytes(format=format, width=32, height=24))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))
    for read in (read_photo, read_metadata):
        with suppress(PhotoError):
            read(path)


def exif_photo(path: Path, *, gps: dict | None = None, shot: dict | None = None) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Example 1"
    exif.get_ifd(ExifTags.IFD.Exif).update(shot or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


@pytest.mark.row("S62")
def test_exif_tells_time_place_direction_and_lens(tmp_path):
    metadata = read_metadata(
        exif_photo(
            tmp_path / "a.jpg",
            gps={
                ExifTags.GPS.GPSLatitudeRef: "S",
                ExifTags.GPS.GPSLatitude: (33.0, 30.0, 36.0),
                ExifTags.GPS.GPSLongitudeRef: "E",
                ExifTags.GPS.GPSLongitude: (151.0, 12.0, 0.0),
                ExifTags.GPS.GPSAltitude: IFDRational(Fraction(5, 2)),
                ExifTags.GPS.GPSAltitudeRef: b"\x01",
                ExifTags.GPS.GPSImgDirection: 450.0,
            },
            shot={
                ExifTags.Base.DateTimeOriginal: "2026:06:20 21:30:00",
                ExifTags.Base.SubsecTimeOriginal: "250",
                ExifTags.Base.OffsetTimeOriginal: "+02:00",
                ExifTags.Base.FocalLengthIn35mmFilm: 27,
                ExifTags.Base.ISOSpeedRatings: 800,
                ExifTags.Base.ExposureTime: IFDRational(1, 50),
            },
        )
    )
    assert metadata.position_wgs84 == pytest.approx((-33.51, 151.2, -2.5))
    assert metadata.direction == pytest.approx(math.pi / 2)
    assert metadata.time is not None
    assert metadata.time.isoformat() == "2026-06-20T21:30:00.250000+02:00"
    assert metadata.time.utcoffset() == timedelta(hours=2)
    assert metadata.focal_px == pytest.approx(27 / 36 * 40)
    assert (metadata.device, metadata.iso, metadata.exposure_s) == ("Example 1", 800, 0.02)


def test_exif_nonsense_reads_as_nothing(tmp_path):
    metadata = read_metadata(
        exif_photo(
            tmp_path / "a.jpg",
            gps={
                ExifTags.GPS.GPSLatitude: (IFDRational(0, 0), 0.0, 0.0),
                ExifTags.GPS.GPSLongitude: (500.0, 0.0, 0.0),
                ExifTags.GPS.GPSImgDirection: IFDRational(0, 0),
            },
            shot={ExifTags.Base.DateTimeOriginal: "    :  :  ", ExifTags.Base.FocalLengthIn35mmFilm: 0},
        )
    )
    assert metadata.position_wgs84 is None
    assert metadata.direction is None
    assert metadata.time is None
    assert metadata.focal_px is None


@pytest.mark.row("S62")
def test_the_concerts_exif_agrees_with_its_manifest():
    captures = concert()
    assert captures.origin_wgs84 is not None
    latitude, longitude, altitude = captures.origin_wgs84
    metres_per_degree = 111_200.0
    for photo in captures.photos[:12]:
        metadata = read_metadata(captures.path_of(photo.file))
        assert photo.reported is not None
        assert metadata.position_wgs84 is not None
        assert metadata.direction is not None
        east = (metadata.position_wgs84[1] - longitude) * metres_per_degree * math.cos(math.radians(latitude))
        north = (metadata.position_wgs84[0] - latitude) * metres_per_degree
        pose = np.array(photo.reported.camera_to_world)
        assert (east, north) == pytest.approx((pose[0, 3], pose[1, 3]), abs=0.15)
        assert metadata.position_wgs84[2] - altitude == pytest.approx(pose[2, 3], abs=0.05)
        assert math.remainder(metadata.direction - math.atan2(pose[0, 2], pose[1, 2]), 2 * math.pi) == pytest.approx(
            0, abs=1e-3
        )
        assert metadata.focal_px == pytest.approx(photo.focal_px, rel=0.02)


def heic(path: Path, image: Image.Image, **options) -> Path:
    pillow_heif.from_pillow(image).save(path, quality=100, **options)
    return path


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red at the top left, green beside it, blue below it: no turn or mirror looks like another."""
    image = Image.new("RGB", (width, height), "white")
    for corner, colour in (((0, 0), "red"), ((width // 2, 0), "lime"), ((0, height // 2), "blue")):
        image.paste(Image.new("RGB", (width // 2, height // 2), colour), corner)
    return image


def corners(photo) -> list[list[int]]:
    """The colours of the quadrants, each channel 0 or 1: top left, top right, bottom left."""
    height, width = photo.shape[:2]
    points = ((height // 4, width // 4), (height // 4, 3 * width // 4), (3 * height // 4, width // 4))
    return [(photo[row, column] > 127).int().tolist() for row, column in points]


UPRIGHT_CORNERS = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_turned_once_and_keeps_its_exif(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Example 1"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:06:20 21:30:00"
    stored = quadrants().transpose(Image.Transpose.ROTATE_90) if orientation == 6 else quadrants()
    path = heic(tmp_path / "IMG_0001.HEIC", stored, exif=exif.tobytes())
    photo, metadata = read_photo(path), read_metadata(path)
    assert corners(photo) == UPRIGHT_CORNERS
    assert (metadata.width, metadata.height) == (64, 48) == (photo.shape[1], photo.shape[0])
    assert metadata.device == "Example 1"
    assert metadata.time is not None


def test_a_damaged_heic_is_refused(tmp_path):
    path = heic(tmp_path / "a.heic", quadrants())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match=r"a\.heic"):
        read_photo(path)


def test_pictures_as_phones_and_programs_write_them(tmp_path):
    image = quadrants()
    image.save(tmp_path / "burst.mpo", "MPO", save_all=True, append_images=[image], quality=95)
    image.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    image.save(tmp_path / "progressive.jpg", progressive=True, quality=95)
    image.save(tmp_path / "photo.webp", quality=95)
    image.quantize(8).save(tmp_path / "palette.png")
    (tmp_path / "a.heic").write_bytes((tmp_path / "progressive.jpg").read_bytes())
    if features.check("avif"):
        image.save(tmp_path / "photo.avif", quality=95)
    for path in sorted(tmp_path.iterdir()):
        assert corners(read_photo(path)) == UPRIGHT_CORNERS, path.name
        assert (read_metadata(path).width, read_metadata(path).height) == (64, 48)


def test_sixteen_bits_of_colour_become_eight(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\x00" + struct.pack(">6H", 0xFF00, 0x8000, 0x0100, 0, 0x4000, 0xFFFF) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    assert read_photo(tmp_path / "deep.png")[0].tolist() == [[255, 128, 1], [0, 64, 255]]


def test_wide_gamut_colours_become_srgb(tmp_path):
    # sRGB's own profile with red and blue exchanged.
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = swapped.index(b"rXYZ", 128), swapped.index(b"bXYZ", 128)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = bytes(swapped).replace(b"s\x00R\x00G\x00B", b"o\x00w\x00n\x00x")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.png", icc_profile=bytes(swapped))
    red_value, _, blue_value = read_photo(tmp_path / "a.png")[0, 0].tolist()
    assert blue_value > 150 > 60 > red_value
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "b.png", icc_profile=b"nonsense" * 40)
    assert read_photo(tmp_path / "b.png")[0, 0].tolist() == [200, 0, 0]


def test_gps_tells_accuracy_reference_and_the_zone_of_the_clock(tmp_path):
    metadata = read_metadata(
        exif_photo(
            tmp_path / "a.jpg",
            gps={
                ExifTags.GPS.GPSLatitudeRef: "N",
                ExifTags.GPS.GPSLatitude: (48.0, 55.0, 0.0),
                ExifTags.GPS.GPSLongitudeRef: "W",
                ExifTags.GPS.GPSLongitude: (2.0, 21.0, 0.0),
                ExifTags.GPS.GPSImgDirection: 10.0,
                ExifTags.GPS.GPSImgDirectionRef: "M",
                ExifTags.GPS.GPSHPositioningError: 4.5,
                ExifTags.GPS.GPSDateStamp: "2026:06:20",
                ExifTags.GPS.GPSTimeStamp: (19.0, 29.0, 40.0),
            },
            shot={ExifTags.Base.DateTimeOriginal: "2026:06:20 21:30:00", ExifTags.Base.SubsecTimeOriginal: "5"},
        )
    )
    assert metadata.position_wgs84 == pytest.approx((48 + 55 / 60, -2.35, 0))
    assert not metadata.altitude_known
    assert (metadata.accuracy_m, metadata.direction_reference) == (4.5, "magnetic")
    assert metadata.time is not None
    assert metadata.time.isoformat() == "2026-06-20T21:30:00.500000+02:00"


def test_the_sensor_gives_the_focal_length_where_nothing_else_does(tmp_path):
    # A 4000 pixel wide sensor of 6.4 mm behind 5 mm of lens, saved at 40 pixels: 5 / 6.4 * 40 px.
    shot = {
        ExifTags.Base.FocalLength: 5.0,
        ExifTags.Base.FocalPlaneXResolution: 4000 / 0.64,
        ExifTags.Base.FocalPlaneResolutionUnit: 3,
        ExifTags.Base.ExifImageWidth: 4000,
        ExifTags.Base.ExifImageHeight: 3000,
    }
    assert read_metadata(exif_photo(tmp_path / "a.jpg", shot=shot)).focal_px == pytest.approx(5 / 6.4 * 40)
    shot[ExifTags.Base.FocalLengthIn35mmFilm] = 27
    assert read_metadata(exif_photo(tmp_path / "b.jpg", shot=shot)).focal_px == pytest.approx(30)
    absurd = {ExifTags.Base.FocalLengthIn35mmFilm: 65535}
    assert read_metadata(exif_photo(tmp_path / "c.jpg", shot=absurd)).focal_px is None


def test_null_island_is_nowhere(tmp_path):
    gps = {ExifTags.GPS.GPSLatitude: (0.0, 0.0, 0.0), ExifTags.GPS.GPSLongitude: (0.0, 0.0, 0.0)}
    assert read_metadata(exif_photo(tmp_path / "a.jpg", gps=gps)).position_wgs84 is None


def test_a_side_too_long_is_refused(tmp_path):
    (tmp_path / "strip.png").write_bytes(giant_png(100_000, 2))
    refused(tmp_path / "strip.png", "100000x2", "crop")


def test_an_altitude_beyond_the_sky_is_none(tmp_path):
    gps = {ExifTags.GPS.GPSLatitude: (1.0, 0.0, 0.0), ExifTags.GPS.GPSLongitude: (1.0, 0.0, 0.0)}
    metadata = read_metadata(exif_photo(tmp_path / "a.jpg", gps=gps | {ExifTags.GPS.GPSAltitude: 4e9}))
    assert metadata.position_wgs84 == (1.0, 1.0, 0.0)
    assert not metadata.altitude_known
