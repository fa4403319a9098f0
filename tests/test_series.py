"""The series runner on small notebooks: what it keeps, what it says when a notebook fails, what it publishes."""

import base64
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from crowdnerf_lab import series
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.presets import preset
from crowdnerf_lab.series import SeriesError, needs_of, refresh, run_series

PARAMETERS = '# %% tags=["parameters"]\npreset = "standard"\n\n'
SIZES = replace(preset("tiny"), cell_seconds=3)


def notebook(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(PARAMETERS + code)
    return path


def test_a_run_keeps_the_executed_notebook_and_its_summary(tmp_path: Path):
    source = notebook(
        tmp_path, "00_try", '# %%\nimport os, sys\n\n# %% tags=["check"]\nprint(preset, sys.executable, os.getcwd())\n'
    )
    (run,) = run_series(SIZES, out=tmp_path / "runs", sources=[source])
    assert run.path == tmp_path / "runs" / "tiny" / "00_try.ipynb"
    assert run.summary.split() == ["tiny", sys.executable, str(tmp_path / "runs" / "tiny")]
    assert nbformat.read(run.path, as_version=4).cells[-1].outputs


def test_the_surroundings_are_left_as_they_were(tmp_path: Path):
    before = dict(os.environ)
    run_series(SIZES, out=tmp_path, sources=[notebook(tmp_path, "00_try", "# %%\n1 + 1\n")])
    assert dict(os.environ) == before


def test_a_failing_cell_is_named_with_its_error_and_what_ran_before_it_is_kept(tmp_path: Path):
    sources = [
        notebook(tmp_path, "00_good", '# %% tags=["check"]\nprint("fine")\n'),
        notebook(tmp_path, "01_bad", "# %%\nimport math\n\n# %%\nmath.sqrt(-1)\n"),
    ]
    with pytest.raises(SeriesError, match=r"01_bad, cell beginning 'math.sqrt\(-1\)': ValueError: .*01_bad.ipynb"):
        run_series(SIZES, out=tmp_path / "runs", sources=sources)
    assert (tmp_path / "runs" / "tiny" / "00_good.ipynb").exists()


def test_notebooks_side_by_side_meet_and_wait_for_those_that_they_need(tmp_path: Path):
    meet = """# %%
import pathlib, time

# %%
pathlib.Path("{mine}").touch()
until = time.monotonic() + 20
while not pathlib.Path("{other}").exists() and time.monotonic() < until:
    time.sleep(0.05)

# %% tags=["check"]
print(pathlib.Path("{other}").exists())
"""
    opening = "# %% [markdown]\n# **Needs.** Both [of](00_left.ipynb)\n# [them](01_right.ipynb).\n#\n# On.\n\n"
    last = '# %% tags=["check"]\nimport pathlib\nprint(pathlib.Path("00_left.ipynb").exists())\n'
    sources = [
        notebook(tmp_path, "00_left", meet.format(mine="left", other="right")),
        notebook(tmp_path, "01_right", meet.format(mine="right", other="left")),
        tmp_path / "02_last.py",
    ]
    sources[-1].write_text(opening + PARAMETERS + last)
    assert needs_of(sources[-1]) == {"00_left", "01_right"}
    runs = run_series(replace(SIZES, cell_seconds=60), out=tmp_path / "runs", sources=sources, at_once=2)
    assert [(run.name, run.summary) for run in runs] == [("00_left", "True"), ("01_right", "True"), ("02_last", "True")]


@pytest.mark.parametrize(
    ("code", "message"),
    [("import time; time.sleep(60)", "timed out"), ("import os; os._exit(3)", "Kernel died")],
)
def test_a_hanging_or_dying_notebook_ends_the_series(tmp_path: Path, code: str, message: str):
    source = notebook(tmp_path, "00_ill", f"# %%\n{code}\n")
    with pytest.raises(SeriesError, match=f"00_ill: .*{message}"):
        run_series(replace(SIZES, cell_seconds=2), out=tmp_path / "runs", sources=[source])


@pytest.mark.parametrize(
    "text", ['# %%\npreset = "standard"\n', '# %% tags=["parameters"]\npreset = "standard"\nseed = 0\n']
)
def test_a_notebook_without_the_one_parameter_is_refused_before_anything_runs(tmp_path: Path, text: str):
    source = tmp_path / "00_try.py"
    source.write_text(text)
    with pytest.raises(SeriesError, match=r"00_try.py has the parameters .* instead of \['preset'\]"):
        run_series(SIZES, out=tmp_path / "runs", sources=[source])
    assert not (tmp_path / "runs").exists()


def test_captures_of_ones_own_go_to_the_notebooks_that_can_take_them(tmp_path: Path):
    own = tmp_path / "my holiday"
    own.mkdir()
    text = '# %% tags=["parameters"]\npreset = "standard"\nfolder = ""\n\n# %% tags=["check"]\nprint(preset, folder)\n'
    (tmp_path / "00_able.py").write_text(text)
    sources = [tmp_path / "00_able.py", notebook(tmp_path, "01_not", '# %% tags=["check"]\nprint(preset)\n')]
    (run,) = run_series(SIZES, out=tmp_path / "runs", sources=sources, captures=own)
    assert run.name == "00_able"
    assert run.summary == f"tiny {own}"
    assert run.path.parent.parent == tmp_path / "runs" / "tiny"
    assert run.path.parent.name.startswith("my holiday-")
    both = run_series(SIZES, out=tmp_path / "runs", sources=sources)
    assert [run.summary for run in both] == ["tiny", "tiny"]


def test_captures_that_are_not_there_are_refused_before_anything_runs(tmp_path: Path):
    with pytest.raises(CaptureError, match="nowhere does not exist"):
        run_series(SIZES, out=tmp_path / "runs", sources=[], captures=tmp_path / "nowhere")
    assert not (tmp_path / "runs").exists()


def test_no_notebooks_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(SeriesError, match="work in the checkout"):
        series.numbered_notebooks(tmp_path)


def test_a_published_notebook_holds_the_source_and_the_outputs_and_nothing_else(tmp_path: Path):
    source = notebook(
        tmp_path, "00_try", '# %%\nimport sys\nprint("bar", file=sys.stderr)\n\n# %% tags=["check"]\nprint(preset)\n'
    )
    runs = run_series(SIZES, out=tmp_path / "runs", sources=[source])
    (path,) = refresh(runs, folder=tmp_path)
    document = json.loads(path.read_text())
    assert [cell["source"] for cell in series.notebook_of(source).cells] == [
        "".join(cell["source"]) for cell in document["cells"]
    ]
    assert [output["text"] for cell in document["cells"] for output in cell["outputs"]] == [["tiny\n"]]
    assert "papermill" not in path.read_text()


def test_progress_bars_are_not_kept(tmp_path: Path):
    code = "# %%\nfrom tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass\nprint('done')\n"
    (run,) = run_series(SIZES, out=tmp_path / "runs", sources=[notebook(tmp_path, "00_try", code)])
    outputs = nbformat.read(run.path, as_version=4).cells[-1].outputs
    assert [output.get("text") for output in outputs] == ["done\n"]


def test_pictures_that_a_notebook_kept_are_published(tmp_path: Path):
    code = "# %%\nfrom pathlib import Path\nPath('view.png').write_bytes(b'a picture')\n"
    runs = run_series(SIZES, out=tmp_path / "runs", sources=[notebook(tmp_path, "00_try", code)])
    (path,) = series.refresh_pictures(runs, folder=tmp_path / "pictures")
    assert path == tmp_path / "pictures" / "view.png"
    assert path.read_bytes() == b"a picture"


def test_a_photograph_is_published_as_jpeg_and_a_drawing_as_png():
    def still(picture: np.ndarray) -> str:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    grain = np.random.default_rng(0).integers(-20, 20, (300, 400, 3))
    noise = (np.linspace(30, 220, 400)[None, :, None] + grain).astype(np.uint8)
    blank = np.full((300, 400, 3), 255, np.uint8)
    outputs = [nbformat.v4.new_output("display_data", {"image/png": still(one)}) for one in (noise, blank)]
    cell = nbformat.v4.new_code_cell("", outputs=outputs)
    photograph, drawing = series.published(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    assert list(drawing.data) == ["image/png"]
    assert list(photograph.data) == ["image/jpeg"]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(photograph.data["image/jpeg"]))))
    assert np.abs(seen.astype(float) - noise).mean() < 8


def test_outputs_that_name_a_folder_of_this_machine_are_not_published(tmp_path: Path):
    source = notebook(tmp_path, "00_try", "# %%\nfrom pathlib import Path\nprint(Path.home() / 'field.safetensors')\n")
    runs = run_series(SIZES, out=tmp_path / "runs", sources=[source])
    with pytest.raises(SeriesError, match="00_try: the outputs name"):
        refresh(runs, folder=tmp_path)
    assert not (tmp_path / "00_try.ipynb").exists()


def test_a_notebook_that_grew_too_large_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(series, "LARGEST_NOTEBOOK", 1000)
    runs = run_series(SIZES, out=tmp_path / "runs", sources=[notebook(tmp_path, "00_try", "# %%\nprint('x' * 1000)\n")])
    with pytest.raises(SeriesError, match="fewer or smaller pictures"):
        refresh(runs, folder=tmp_path)


def test_the_command_line_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    notebook(tmp_path, "00_bad", "# %%\n1 / 0\n")
    monkeypatch.setattr(series, "numbered_notebooks", lambda: (tmp_path / "00_bad.py",))
    assert series.main(["run", "--preset", "tiny", "--out", str(tmp_path / "runs")]) == 1
    assert "00_bad, cell beginning '1 / 0': ZeroDivisionError" in capsys.readouterr().out
    assert series.main(["run", "--preset", "huge"]) == 1
    assert "choose one of tiny" in capsys.readouterr().out
