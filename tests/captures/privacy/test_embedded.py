"""What a picture file carries beside its pixels is named, whatever it is."""

import io
import struct
import zlib

import numpy as np
import piexif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from crowdnerf_lab.captures.privacy.embedded import embedded_in

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
EXIF = piexif.dump(
    {
        "0th": {piexif.ImageIFD.Make: b"Maker"},
        "GPS": {piexif.GPSIFD.GPSLatitudeRef: b"N", piexif.GPSIFD.GPSLatitude: ((48, 1), (51, 1), (30, 1))},
    }
)


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **options)
    return buffer.getvalue()


def described() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    return text


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0, "quality": 100}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_pixels_alone_are_nothing_more(tmp_path, kind, options):
    (tmp_path / "a").write_bytes(saved(kind, **options))
    assert embedded_in(tmp_path / "a") == ()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (saved("JPEG", exif=EXIF), "Exif"),
        (saved("JPEG", comment=b"by somebody"), "a comment"),
        (saved("JPEG", icc_profile=b"profile"), "ICC_PROFILE"),
        (saved("JPEG", xmp=b"<x:xmpmeta/>"), "ns.adobe"),
        (saved("JPEG") + saved("JPEG"), "bytes after the picture"),
        (saved("PNG", exif=EXIF), "eXIf"),
        (saved("PNG", pnginfo=described()), "tEXt"),
        (saved("PNG") + b"PK\x03\x04", "4 bytes after the picture"),
        (saved("WEBP", exif=EXIF), "EXIF"),
        (saved("WEBP", xmp=b"<x:xmpmeta/>"), "XMP"),
        (saved("WEBP", icc_profile=b"profile"), "ICCP"),
        (saved("WEBP") + b"more", "4 bytes after the picture"),
        (saved("GIF"), "another kind"),
        (b"", "another kind"),
        (saved("JPEG")[:-2], "breaks off"),
        (saved("PNG")[:-7], "breaks off"),
    ],
)
def test_what_else_is_there_is_named(tmp_path, content, named):
    (tmp_path / "a").write_bytes(content)
    assert any(named in found for found in embedded_in(tmp_path / "a")), embedded_in(tmp_path / "a")


def test_an_unknown_chunk_is_not_taken_for_pixels(tmp_path):
    body = b"prVt" + b"home address"
    chunk = struct.pack(">I", 12) + body + struct.pack(">I", zlib.crc32(body))
    png = saved("PNG")
    (tmp_path / "a").write_bytes(png[:-12] + chunk + png[-12:])
    assert embedded_in(tmp_path / "a") == ("chunk prVt",)


@given(st.integers(0, 10_000), st.binary(max_size=6), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_broken_files_end_the_walk(tmp_path_factory, place, noise, kind):
    content = saved(kind)
    place %= len(content)
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(content[:place] + noise + content[place + len(noise) :])
    assert isinstance(embedded_in(path), tuple)
