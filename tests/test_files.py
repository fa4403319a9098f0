"""Files are whole or absent, whatever happens while they are written, and paths stay inside their folder."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crowdnerf_lab.files import FileError, inside, sha256_of, write_atomically, write_bytes, write_json


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_with_its_folders(tmp_path):
    path = write_bytes(tmp_path / "a" / "b" / "file.bin", b"content")
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_json_is_readable_and_never_nan(tmp_path):
    path = write_json(tmp_path / "a.json", {"x": [1, 2.5], "y": None})
    assert json.loads(path.read_text()) == {"x": [1, 2.5], "y": None}
    assert path.read_text().endswith("\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("moment", ["os.replace", "os.fsync", "tempfile.mkstemp"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, moment):
    path = write_bytes(tmp_path / "file.bin", b"old")
    monkeypatch.setattr(f"crowdnerf_lab.files.{moment}", no_space)
    with pytest.raises(FileError, match=r"could not write .*file\.bin: No space left.*; free some space"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_a_disk_that_fills_up_while_writing_leaves_nothing(tmp_path):
    def half(partial: Path) -> None:
        partial.write_bytes(b"half of it")
        no_space()

    with pytest.raises(FileError, match="No space left"):
        write_atomically(tmp_path / "file.bin", half)
    assert names(tmp_path) == []


def test_an_interruption_while_writing_leaves_the_old_file(tmp_path):
    path = write_bytes(tmp_path / "file.bin", b"old")

    def interrupted(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_a_folder_that_is_a_file_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="choose a folder that can be written"):
        write_bytes(tmp_path / "file" / "below", b"content")


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_checksums_are_sha256(tmp_path, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("relative", ["a.png", "a/b.png", "./a.png", "a/./b.png", "a..b/c...png", "ü/ß.png"])
def test_paths_inside_are_let_through(tmp_path, relative):
    assert inside(tmp_path, relative) == tmp_path / relative


@pytest.mark.parametrize(
    "relative",
    ["", ".", "..", "../a", "a/../../b", "a/../b", "/etc/passwd", "C:/a", "C:\\a", "..\\a", "\\\\host\\a", "a\0b"],
)
def test_paths_outside_are_refused(tmp_path, relative):
    with pytest.raises(FileError, match="does not stay inside"):
        inside(tmp_path, relative)


def test_links_that_lead_outside_are_refused_and_others_followed(tmp_path):
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "near").symlink_to(root / "real")
    (root / "far").symlink_to(tmp_path)
    assert inside(root, "near/file") == root / "near" / "file"
    with pytest.raises(FileError, match="symbolic link"):
        inside(root, "far/file")


@given(st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_stays_inside_or_is_refused(tmp_path, relative):
    try:
        path = inside(tmp_path, relative)
    except FileError:
        return
    assert path.resolve().is_relative_to(tmp_path.resolve())
