"""The table of the notebooks' times: it keeps what was measured, and says what is wrong with a broken one."""

from pathlib import Path

import pytest

from crowdnerf_lab.notebook_times import keep_times, read_times


def test_times_are_kept_in_order_and_others_stay(tmp_path: Path):
    path = tmp_path / "times.json"
    keep_times({"03_train": 304.6}, path=path)
    keep_times({"00_start": 64.2}, path=path)
    times = read_times(path)
    assert list(times.seconds.items()) == [("00_start", 64), ("03_train", 305)]
    assert "cores" in times.machine


def test_a_run_that_found_everything_made_does_not_shorten_the_time(tmp_path: Path):
    path = tmp_path / "times.json"
    for took in (352.0, 37.0, 400.0):
        keep_times({"06_fit": took}, path=path)
    assert read_times(path).seconds == {"06_fit": 400}


@pytest.mark.parametrize("content", [None, "", "[]", '{"machine": "m"}'])
def test_a_table_that_is_none_says_how_to_make_one(tmp_path: Path, content: str | None):
    path = tmp_path / "times.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"times\.json holds no times .* make notebooks"):
        read_times(path)
