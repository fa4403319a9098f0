"""A journal survives the program that writes it: whole lines count, a torn one does not; nobody writes beside it."""

import pytest

from crowdnerf_lab.captures.bundle import Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.intake.journal import Entry, Heading, Journal

HEADING = Heading(faces=True, coordinates="enu", origin_wgs84=(1.0, 2.0, 3.0), began=None)
PHOTO = Photo(file="ue/a.jpg", width=4, height=3, focal_px=4.0, time_s=0.1)
ENTRIES = (
    Entry(digest="aa", file="naïve\n.jpg", ue="ue", photos=(PHOTO,)),
    Entry(digest="bb", file="b.jpg", ue="ue", refused="b.jpg is empty; upload it again"),
)


def written(path):
    with Journal(path, HEADING) as journal:
        for entry in ENTRIES:
            journal.append(entry)
    return path


def entries_of(path, heading=HEADING):
    with Journal(path, heading) as journal:
        return journal.entries


def test_entries_come_back(tmp_path):
    assert entries_of(written(tmp_path / "new/folder/j")) == ENTRIES


def test_a_journal_cut_anywhere_gives_the_entries_that_were_whole_and_goes_on(tmp_path):
    whole = written(tmp_path / "j").read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path = tmp_path / f"cut{length}"
        path.write_bytes(whole[:length])
        count = max(sum(end <= length for end in ends) - 1, 0)
        assert entries_of(path) == ENTRIES[:count]
        with Journal(path, HEADING) as journal:
            journal.append(ENTRIES[1])
        assert entries_of(path) == (*ENTRIES[:count], ENTRIES[1])


def test_lines_after_a_garbled_one_are_not_trusted(tmp_path):
    path = written(tmp_path / "j")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00garbled\xff\n" + lines[1])
    assert entries_of(path) == ()


def test_a_journal_of_other_settings_is_begun_anew(tmp_path):
    path = written(tmp_path / "j")
    other = HEADING.model_copy(update={"faces": False})
    assert entries_of(path, other) == ()
    assert entries_of(path) == ()


def test_two_programs_never_write_one_journal(tmp_path):
    first, second = Journal(tmp_path / "j", HEADING), Journal(tmp_path / "j", HEADING)
    with first, pytest.raises(CaptureError, match="another ingest"), second:
        pass
    assert entries_of(tmp_path / "j") == ()
