"""Pictures that are something else as well are refused; what phones do to pictures is not."""

import io
import struct
import zipfile
import zlib

import numpy as np
import piexif
import pytest
from PIL import Image, PngImagePlugin

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.intake.unsafe_files import UnsafeFileError, refuse_unsafe
from crowdnerf_lab.captures.photos import PhotoError, read_photo

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def encoded(kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def zip_bytes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("payload.txt", b"payload")
    return buffer.getvalue()


def with_comment(jpeg, comment):
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def directory(entries, following=0):
    """A TIFF directory; entries: tag, type, count, value."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def jpeg_with_exif(block):
    payload = b"Exif\x00\x00" + block
    return encoded()[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + encoded()[2:]


TIFF = b"II*\x00" + struct.pack("<I", 8)
HOSTILE = {
    "jpeg and zip": (encoded() + zip_bytes(), "zip archive as well"),
    "png and zip": (encoded("PNG") + zip_bytes(), "zip archive as well"),
    "webp and zip": (encoded("WEBP") + zip_bytes(), "zip archive as well"),
    "zip in a comment": (with_comment(encoded(), zip_bytes()), "zip archive as well"),
    "jpeg and pdf": (encoded() + b"\n%PDF-1.7\n", "PDF document behind"),
    "pdf in the head": (with_comment(encoded(), b"%PDF-1.7"), "'%pdf-'"),
    "jpeg and page": (encoded() + b"<html><script>alert(1)</script>", "page or a script behind"),
    "script in a comment": (with_comment(encoded(), b"<?php system($_GET[0]);"), "'<?php'"),
    "page in a comment": (with_comment(encoded(), b"<SCRIPT src=//x>"), "'<script'"),
    "png and rar": (encoded("PNG") + b"Rar!\x1a\x07\x00", "RAR archive behind"),
    "webp and elf": (encoded("WEBP") + b"\x7fELF\x02", "a program behind"),
    "page as a picture": (b"<!DOCTYPE html><html>", "'<html'"),
    "svg as a picture": (b'<svg onload="alert(1)">', "'<svg'"),
    "exif loop": (jpeg_with_exif(TIFF + directory([(0x0100, 4, 1, 1)], following=8)), "circle"),
    "exif loop through a pointer": (jpeg_with_exif(TIFF + directory([(0x8769, 4, 1, 8)])), "circle"),
    "exif of many entries": (jpeg_with_exif(TIFF + directory([(0x0100, 4, 1, 1)] * 1500)), "more than 1024"),
    "exif of one long value": (jpeg_with_exif(TIFF + directory([(0x010E, 2, 0xFFFFFFFF, 8)])), "claim"),
    "exif of shared values": (jpeg_with_exif(TIFF + directory([(0x010E + i, 2, 9000, 8) for i in range(9)])), "claim"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_more_than_a_picture_is_refused(tmp_path, name):
    content, words = HOSTILE[name]
    path = tmp_path / "upload.jpg"
    path.write_bytes(content)
    with pytest.raises(UnsafeFileError) as error:
        refuse_unsafe(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "; save the picture again" in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_ordinary_pictures_pass(tmp_path, kind):
    exif = piexif.dump({"0th": {piexif.ImageIFD.Model: b"Phone"}, "GPS": {piexif.GPSIFD.GPSLatitudeRef: b"N"}})
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(kind, exif=exif))
    refuse_unsafe(path)


def test_what_phones_append_passes(tmp_path):
    path = tmp_path / "photo.jpg"
    appended = {
        "another picture (MPO, gain map)": encoded(),
        "a short film (motion photo)": b"\x00\x00\x00\x18ftypmp42" + bytes(200),
        "a maker's block": b"SEFH" + bytes(40) + b"SEFT",
        "a maker's XML": b"<maker:info version='1'/>",
        "padding": bytes(64),
    }
    for trailer in appended.values():
        path.write_bytes(encoded() + trailer)
        refuse_unsafe(path)
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
    path.write_bytes(encoded()[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + encoded()[2:])
    refuse_unsafe(path)


def test_every_photo_of_the_concert_passes():
    captures = concert()
    for photo in captures.photos:
        refuse_unsafe(captures.path_of(photo.file))


def test_a_cut_file_is_left_to_its_reader(tmp_path):
    path = tmp_path / "cut"
    for kind in ("JPEG", "PNG", "WEBP"):
        whole = encoded(kind)
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            refuse_unsafe(path)


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("kind", ["zTXt", "iCCP"])
def test_a_png_whose_text_or_profile_is_a_bomb_is_refused_by_its_reader(tmp_path, kind):
    bomb = png_chunk(kind.encode(), b"name\x00\x00" + zlib.compress(bytes(200 << 20), 9))
    whole = encoded("PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(whole[:33] + bomb + whole[33:])
    with pytest.raises(PhotoError, match=r"bomb\.png"):
        read_photo(path)
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20
