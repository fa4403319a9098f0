"""The whole series in tiny form: from nothing to executed notebooks, models and measured artefacts."""

import time
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from crowdnerf_lab.presets import preset
from crowdnerf_lab.series import NotebookRun, numbered_notebooks, run_series


class Series(NamedTuple):
    runs: tuple[NotebookRun, ...]
    seconds: float


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    started = time.monotonic()
    runs = run_series(preset("tiny"), out=tmp_path_factory.mktemp("runs"), at_once=2)
    return Series(runs, time.monotonic() - started)


def test_every_notebook_runs_and_says_what_it_found(series: Series):
    assert [run.name for run in series.runs] == [source.stem for source in numbered_notebooks()]
    assert all(run.summary for run in series.runs)


def test_every_cell_ran_and_none_failed(series: Series):
    for run in series.runs:
        cells = [cell for cell in nbformat.read(run.path, as_version=4).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells if cell.source.strip())
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_it_takes_minutes(series: Series):
    assert series.seconds < 6 * 60


def test_the_values_of_the_series_are_kept(series: Series):
    folder = series.runs[0].path.parent
    assert (folder / "field.safetensors").stat().st_size > 0
    assert list(folder.glob("artefacts/*/card.json"))


def test_the_last_notebook_opened_alone_makes_what_it_needs(tmp_path: Path):
    (run,) = run_series(preset("tiny"), out=tmp_path, sources=numbered_notebooks()[-1:])
    assert run.summary
