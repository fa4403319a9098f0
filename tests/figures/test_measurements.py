"""Tables and curves: they show what was measured, and all of it."""

from dataclasses import dataclass

from crowdnerf_lab import figures


@dataclass(frozen=True)
class Record:
    seconds: float
    held_out_psnr: float | None


def test_a_curve_keeps_only_what_was_measured():
    history = [Record(0.0, None), Record(1.0, 12.0), Record(2.0, None), Record(3.0, 15.5)]
    figure = figures.training_curve({"field": history, "nothing yet": [Record(0.0, None)]})
    assert list(figure.data[0].x) == [1.0, 3.0]
    assert figure.data[0].text[-1].strip() == "field 15.5 dB"
    assert list(figure.data[1].x) == []


def test_a_table_is_markdown_with_numbers_to_the_right():
    shown = figures.table(
        [{"what": "a|b", "dB": 19.23456, "n": 4194304, "ok": True}, {"what": None, "dB": 24576.0, "n": 0, "ok": False}]
    )
    assert shown._repr_markdown_().splitlines() == [
        "| what | dB | n | ok |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 19.23 | 4,194,304 | yes |",
        "| – | 24,576 | 0 | no |",
    ]
