"""Archives that mean harm are refused with the entry's name, and leave nothing behind."""

import copy
import io
import stat
import struct
import tarfile
import zipfile

import pytest

from crowdnerf_lab.captures.intake.archives import ArchiveError, ArchiveLimits, is_archive, unpack

SMALL = ArchiveLimits(total_bytes=30 << 20, entry_bytes=20 << 20, entries=50, ratio=100.0)
FILES = {"ue01/a.jpg": b"first" * 100, "ue02/b.jpg": b"second" * 50, "note.txt": b""}


def zipped(path, entries, *, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def tarred(path, members, *, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(archive, *words, limits=SMALL):
    """Refused by name, and nothing half-written beside it."""
    beside = set(archive.parent.iterdir())
    with pytest.raises(ArchiveError) as error:
        unpack(archive, archive.parent / "out", limits=limits)
    for word in (str(archive), *words):
        assert word in str(error.value)
    assert ";" in str(error.value)
    assert set(archive.parent.iterdir()) == beside
    assert not (archive.parent.parent / "escaped").exists()


@pytest.mark.parametrize("suffix", ["zip", "r3d", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_honest_archive_comes_out_as_it_went_in(tmp_path, suffix):
    path = tmp_path / f"upload.{suffix}"
    if suffix in ("zip", "r3d"):
        zipped(path, FILES.items())
    else:
        mode = {"tar": "w", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.get(suffix, "w:gz")
        tarred(path, [(member("ue01", tarfile.DIRTYPE), b"")] + [(member(name), text) for name, text in FILES.items()])
        tarred(path, [(member(name), text) for name, text in FILES.items()], mode=mode)
    assert is_archive(path)
    unpacked = unpack(path, tmp_path / "out")
    assert files_in(unpacked.folder) == FILES
    assert unpacked.left_out == ()
    assert {path.name for path in tmp_path.iterdir()} == {f"upload.{suffix}", "out"}
    assert stat.S_IMODE((unpacked.folder / "ue01/a.jpg").stat().st_mode) & 0o111 == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../escaped", "leaves the folder"),
        ("a/../../escaped", "leaves the folder"),
        ("..\\escaped", "leaves the folder"),
        ("/tmp/escaped", "leaves the folder"),
        ("\\\\server\\share\\escaped", "leaves the folder"),
        ("~/escaped", "leaves the folder"),
        ("C:/escaped", "drive or a stream"),
        ("a.jpg:hidden", "drive or a stream"),
        ("con.jpg", "Windows"),
        ("ue1/LPT1", "Windows"),
        ("folder./a.jpg", "Windows"),
        ("a.jpg ", "Windows"),
        (".", "no name"),
        ("a\nb.jpg", "control characters"),
        ("x" * 300, "longer than 255"),
        ("/".join("abcdefghijklmnopqrst"), "folders deep"),
    ],
)
def test_names_that_escape_or_cannot_be_held_are_refused(tmp_path, name, words):
    assert_refused(zipped(tmp_path / "a.zip", [("good.jpg", b"good"), (name, b"bad")]), words)
    assert_refused(tarred(tmp_path / "a.tar.gz", [(member("good.jpg"), b"good"), (member(name), b"bad")]), words)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.jpg", "a.jpg"), ("a.jpg", "A.JPG"), ("caf\u00e9.jpg", "cafe\u0301.jpg"), ("a", "a/b.jpg"), ("a/b.jpg", "A")],
)
def test_names_that_meet_are_refused(tmp_path, first, second):
    entries = [(first, b"1"), (second, b"2")]
    with pytest.warns(UserWarning, match="Duplicate") if first == second else pytest.MonkeyPatch.context():
        zipped(tmp_path / "a.zip", entries)
    assert_refused(tmp_path / "a.zip", "name of another entry")
    assert_refused(tarred(tmp_path / "a.tar", [(member(n), c) for n, c in entries], mode="w"), "name of another entry")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    entries = [(member("good.jpg"), b"x"), (member("bad", kind, "../escaped"), b"")]
    assert_refused(tarred(tmp_path / "a.tar.gz", entries), "'bad'", "link, a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("bad")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "../escaped")
    assert_refused(tmp_path / "a.zip", "'bad'", "link or a device")


def test_bombs_are_refused(tmp_path):
    zeros = bytes(12 << 20)
    assert_refused(zipped(tmp_path / "one.zip", [("a", zeros)]), "as bombs do")
    assert_refused(tarred(tmp_path / "one.tar.gz", [(member("a"), zeros)]), "as bombs do")
    generous = ArchiveLimits(total_bytes=20 << 20, entry_bytes=15 << 20, ratio=1e9)
    assert_refused(zipped(tmp_path / "two.zip", [("a", zeros), ("b", zeros)]), "unpacks to more than", limits=generous)
    tarred(tmp_path / "two.tar.gz", [(member("a"), zeros), (member("b"), zeros)])
    assert_refused(tmp_path / "two.tar.gz", "beyond", limits=generous)
    assert_refused(zipped(tmp_path / "big.zip", [("a", bytes(21 << 20))]), "'a'", "shrink")
    assert_refused(tarred(tmp_path / "big.tar.gz", [(member("a"), bytes(21 << 20))]), "'a'", "shrink")
    many = [(f"{i}.jpg", b"") for i in range(51)]
    assert_refused(zipped(tmp_path / "many.zip", many), "51 entries")
    assert_refused(tarred(tmp_path / "many.tar.gz", [(member(n), c) for n, c in many]), "more than 50 entries")


def test_entries_that_overlap_are_refused(tmp_path):
    path = tmp_path / "overlap.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kernel", bytes(1 << 16))
        for i in range(20):
            again = copy.copy(archive.filelist[0])
            again.filename = again.orig_filename = f"copy{i}"
            archive.filelist.append(again)
    assert_refused(path, "overlaps")


def test_a_size_that_lies_is_not_believed(tmp_path):
    path = zipped(tmp_path / "lie.zip", [("a.jpg", bytes(12 << 20))])
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, directory + 24, 10)
    path.write_bytes(content)
    assert_refused(path)


def test_encrypted_entries_are_refused(tmp_path):
    path = zipped(tmp_path / "secret.zip", [("a.jpg", b"secret")])
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    assert_refused(path, "'a.jpg'", "without a password")


def test_damaged_archives_are_refused(tmp_path):
    for make, name in ((zipped, "a.zip"), (tarred, "a.tar.gz")):
        contents = [("a.jpg", bytes(range(256)) * 400)]
        path = make(tmp_path / name, contents if make is zipped else [(member(n), c) for n, c in contents])
        whole = path.read_bytes()
        for broken in (whole[: len(whole) // 2], b"", b"not an archive" * 100, whole[:60] + b"\xff" * 40 + whole[100:]):
            path.write_bytes(broken)
            assert_refused(path)


def test_archives_within_and_a_macs_own_files_stay_out(tmp_path):
    inner = zipped(tmp_path / "inner.zip", [("x", bytes(1 << 20))]).read_bytes()
    entries = [("a.jpg", b"a"), ("more/inner.zip", inner), ("__MACOSX/._a.jpg", b"m"), (".DS_Store", b"d")]
    unpacked = unpack(zipped(tmp_path / "a.zip", entries), tmp_path / "out")
    assert files_in(unpacked.folder) == {"a.jpg": b"a"}
    assert [(left.file, "by itself" in left.problem) for left in unpacked.left_out] == [("a.zip/more/inner.zip", True)]


def test_other_kinds_are_recognised_in_order_to_be_refused(tmp_path):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    assert is_archive(tmp_path / "a.7z")
    assert_refused(tmp_path / "a.7z", "send a .zip")
    (tmp_path / "a.jpg").touch()
    assert not is_archive(tmp_path / "a.jpg")


def test_an_existing_folder_is_never_unpacked_into(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="exists already"):
        unpack(zipped(tmp_path / "a.zip", FILES.items()), tmp_path / "out")
