"""What benchmarks print: conditions that name the machine, aligned tables, and a last line that is JSON."""

import json

import pytest

from benchmarks.conditions import conditions, finish, print_table
from crowdnerf_lab.devices.measure import machine


def test_conditions_name_machine_threads_load_versions_and_seed() -> None:
    found = conditions(7, 2)
    assert (found["seed"], found["threads"], found["machine"]) == (7, 2, machine())
    assert found["load"] >= 0
    assert found["versions"]["torch"]
    json.dumps(found, allow_nan=False)


def test_a_table_has_a_line_for_every_row_and_its_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"name": "a", "value": 1.23456}, {"name": "long name", "value": None}], "things")
    title, head, first, second = capsys.readouterr().out.strip().splitlines()
    assert title == "things"
    assert head.index("value") == first.index("1.235") == second.index("–")


def test_the_last_line_is_the_figures_as_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"a": 1}], "a table")
    finish({"psnr": 20.5, "rows": [{"ms": None}]}, True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"psnr": 20.5, "rows": [{"ms": None}]}
    finish({"psnr": 20.5}, False)
    assert capsys.readouterr().out == ""


def test_figures_that_json_cannot_hold_are_an_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        finish({"psnr": float("nan")}, True)
