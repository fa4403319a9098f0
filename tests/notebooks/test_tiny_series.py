"""The whole series in tiny form: from nothing to executed notebooks, models and measured artefacts."""

from pathlib import Path

import nbformat
import pytest

from crowdnerf_lab.presets import preset
from crowdnerf_lab.series import NotebookRun, numbered_notebooks, run_series


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[NotebookRun, ...]:
    return run_series(preset("tiny"), out=tmp_path_factory.mktemp("runs"))


def test_every_notebook_runs_and_says_what_it_found(series: tuple[NotebookRun, ...]):
    assert [run.name for run in series] == [source.stem for source in numbered_notebooks()]
    assert all(run.summary for run in series)


def test_every_cell_ran_and_none_failed(series: tuple[NotebookRun, ...]):
    for run in series:
        cells = [cell for cell in nbformat.read(run.path, as_version=4).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells if cell.source.strip())
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_it_takes_minutes(series: tuple[NotebookRun, ...]):
    assert sum(run.seconds for run in series) < 6 * 60


def test_the_values_of_the_series_are_kept(series: tuple[NotebookRun, ...]):
    folder = series[0].path.parent
    assert (folder / "field.safetensors").stat().st_size > 0
    assert list(folder.glob("artefacts/*/card.json"))


def test_the_last_notebook_opened_alone_makes_what_it_needs(tmp_path: Path):
    (run,) = run_series(preset("tiny"), out=tmp_path, sources=numbered_notebooks()[-1:])
    assert run.summary
