"""The form of the notebooks: what each must have, and that the .ipynb files are their sources with outputs."""

import ast
import functools
import itertools
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

from crowdnerf_lab.notebook_times import read_times
from crowdnerf_lab.series import LARGEST_NOTEBOOK, NOTEBOOKS, check_parameters, notebook_of, numbered_notebooks

SOURCES = sorted(NOTEBOOKS.glob("*.py"))
EXPECTED = [
    "00_start_here",
    "01_crowd_ingest",
    "02_calibrate_cameras",
    "03_train_radiance_field",
    "04_in_the_wild",
    "05_distil_light_field",
    "06_fit_to_devices",
    "07_compare_views",
    "08_reach_the_crowd",
    "09_while_the_event_runs",
    "10_see_and_steer",
]
MAP = NOTEBOOKS / "README.md"
MINUTES = re.compile(r"\*\*Time\.\*\* (\d+) minutes? on two CPU cores")
WORDS_A_MINUTE = 200
"""Of somebody who reads to understand; a line of code takes as long as ten words."""
opened = functools.cache(notebook_of)
"""Each notebook is read once, and changed by no test."""
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


def code_cells(notebook: NotebookNode, *, tag: str | None = None) -> list[NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def prose(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_series_is_complete_and_in_order():
    assert [source.stem for source in numbered_notebooks()] == EXPECTED


@each_notebook
def test_it_opens_with_a_title_a_question_a_prediction_and_its_minutes(source: Path):
    opening = opened(source).cells[0]
    assert opening.cell_type == "markdown"
    assert opening.source.startswith("# ")
    for word in ("**Question.**", "**Predict.**", "**Time.**", "**Needs.**"):
        assert word in opening.source, word


@each_notebook
def test_it_has_one_import_cell_and_one_parameter(source: Path):
    check_parameters(source)
    cells = code_cells(opened(source))
    assert "import crowdnerf_lab as cn" in cells[0].source
    assert len(code_cells(opened(source), tag="parameters")) == 1
    later = [cell.source for cell in cells[1:] if re.search(r"^\s*(import|from) ", cell.source, re.MULTILINE)]
    assert later == []


@each_notebook
def test_it_defines_nothing_and_calls_the_package(source: Path):
    for cell in code_cells(opened(source)):
        tree = ast.parse(cell.source)
        definitions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert definitions == [], cell.source
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert "sys.path" not in cell.source
        assert "pip install" not in cell.source


@each_notebook
def test_it_checks_itself_and_ends_with_exercises_and_a_way_on(source: Path):
    notebook = opened(source)
    (check,) = code_cells(notebook, tag="check")
    assert "assert " in check.source
    solutions = code_cells(notebook, tag="solution")
    assert len(solutions) == 3
    for number, solution in enumerate(solutions, start=1):
        assert f"**Exercise {number}.**" in prose(notebook)
        assert "assert " in solution.source
        assert solution.metadata.get("jupyter") == {"source_hidden": True}
    following = [later for later in EXPECTED if later > source.stem][:1]
    assert all(f"{name}.ipynb" in notebook.cells[-1].source for name in following)


@each_notebook
def test_the_prediction_is_answered_once_it_was_measured(source: Path):
    cells = opened(source).cells
    (check,) = [place for place, cell in enumerate(cells) if "check" in cell.metadata.get("tags", [])]
    assert cells[check + 1].source.startswith("**Your prediction.**")


@each_notebook
def test_it_says_what_can_go_wrong_before_the_exercises(source: Path):
    cells = opened(source).cells
    (trouble,) = [place for place, cell in enumerate(cells) if cell.source.startswith("## What can go wrong\n")]
    (exercises,) = [place for place, cell in enumerate(cells) if "## Exercises\n" in cell.source]
    assert trouble < exercises
    assert len(re.findall(r"^- \*\*.+?\*\*", cells[trouble].source, re.MULTILINE)) >= 3


@each_notebook
def test_it_ends_with_readings_that_can_be_found(source: Path):
    ending = opened(source).cells[-1].source
    assert ending.startswith("## Further reading\n")
    readings = re.findall(r"^- .+?(?=^- |^\n|\Z)", ending, re.MULTILINE | re.DOTALL)
    assert len(readings) >= 3
    for reading in readings:
        assert re.search(r"\]\(https://\S+\)", reading), reading
        assert re.search(r"\b(19|20)\d\d\b|3GPP", reading), f"no year: {reading}"


@each_notebook
def test_the_minutes_it_states_are_those_that_were_measured(source: Path):
    stated = MINUTES.search(opened(source).cells[0].source)
    assert stated, "say '**Time.** N minutes on two CPU cores'"
    measured = read_times().seconds[source.stem] / 60
    assert abs(int(stated[1]) - measured) <= max(0.5, 0.25 * measured), f"{stated[0]}, measured {measured:.1f}"


def test_a_newcomer_finishes_the_first_in_ten_minutes():
    notebook = opened(SOURCES[0])
    before = itertools.takewhile(lambda cell: "## Exercises" not in cell.source, notebook.cells)
    words = sum(
        10 * len(cell.source.splitlines()) if cell.cell_type == "code" else len(cell.source.split()) for cell in before
    )
    assert words / WORDS_A_MINUTE + read_times().seconds[SOURCES[0].stem] / 60 <= 10


def test_the_map_names_every_notebook_with_its_minutes():
    rows = dict(re.findall(r"^\| \[.+?\]\((\w+)\.ipynb\) \|.*\| (\d+) \|$", MAP.read_text(), re.MULTILINE))
    stated = {path.stem: MINUTES.search(opened(path).cells[0].source) for path in SOURCES}
    assert rows == {name: found[1] for name, found in stated.items() if found}


def test_the_glossary_is_in_order_and_the_first_notebook_leads_to_it():
    glossary = MAP.read_text().partition("## Glossary")[2]
    words = [word.casefold() for word in re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE)]
    assert words == sorted(words)
    assert {"ue", "device inference", "network inference", "distillation", "radiance field", "light field"} <= set(
        words
    )
    assert "(README.md)" in opened(SOURCES[0]).cells[0].source


@each_notebook
def test_every_figure_is_followed_by_a_sentence(source: Path):
    cells = opened(source).cells
    for cell, after in itertools.pairwise(cells):
        if cell.cell_type == "code" and cell.source.rstrip().splitlines()[-1].startswith("cn.figures."):
            assert after.cell_type == "markdown", cell.source


@each_notebook
def test_links_lead_to_files_that_exist(source: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose(opened(source))):
        assert (NOTEBOOKS / target).exists() or (NOTEBOOKS / target).with_suffix(".py").exists(), target


@each_notebook
def test_the_notebook_is_its_source_with_outputs(source: Path):
    path = source.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    fresh = jupytext.read(source)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in fresh.cells
    ], f"{path.name} is stale: run make notebooks"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert outputs, f"{path.name} has no outputs: run make notebooks"
    assert [output for output in outputs if output.output_type == "error"] == []
    assert path.stat().st_size <= LARGEST_NOTEBOOK


@each_notebook
def test_every_live_figure_has_a_still_twin(source: Path):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    shown = [output.data for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    live = [data for data in shown if "application/vnd.plotly.v1+json" in data]
    assert [list(data) for data in live if not {"image/png", "image/jpeg"} & data.keys()] == []
