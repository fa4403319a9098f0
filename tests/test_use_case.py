"""The trace from the use case to tests and notebook cells."""

from pathlib import Path

import pytest

from tests.use_case import Row, cells_by_row, read_rows, table


def test_the_rows_are_all_there_and_in_order():
    rows = read_rows()
    assert list(rows) == [f"S{number}" for number in range(1, 73)]
    assert all(row.says and row.has for row in rows.values())


def test_notebooks_mention_only_rows_that_exist():
    assert set(cells_by_row()) <= set(read_rows())


def test_a_mention_in_markdown_counts_and_one_in_code_does_not(tmp_path: Path):
    (tmp_path / "09_try.py").write_text("# %% [markdown]\n# Faces are hidden (S20).\n\n# %%\nx = 'S21'\n")
    assert cells_by_row(tmp_path) == {"S20": ["09_try:1"]}


def test_the_table_counts_rows_that_have_both():
    rows = {"S1": Row("a", "fields"), "S2": Row("b", "quality"), "S3": Row("c", "speed")}
    printed = table(rows, {"S1": ["t.py::one[a]", "t.py::one[b]"], "S2": ["t.py::two"]}, {"S1": ["00_start:4"]})
    assert printed.count("t.py::one") == 1
    assert printed.splitlines()[-1] == "1 of 3 rows have a test and a notebook cell, 2 at least one"


def test_a_row_that_does_not_exist_stops_the_collection(pytester: pytest.Pytester):
    conftest = (Path(__file__).parent / "conftest.py").read_text()
    pytester.makeconftest(conftest)
    pytester.makeini("[pytest]\nmarkers =\n row: rows\n gpu: g\n kaolin: k\n browser: b\n colmap: c\n")
    pytester.makepyfile("import pytest\n\n@pytest.mark.row('S99')\ndef test_it():\n    pass\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the use case has no row S99*"])
