"""The numbered notebooks, executed in order: `python -m crowdnerf_lab.series run --preset standard --out runs`.

The .py files of notebooks/ are the source. Each is executed by papermill in a kernel of this very interpreter, with its
own Jupyter folders, and kept with its outputs in OUT/PRESET/. The cell tagged `check` prints a notebook's summary.
`refresh` also writes the executed notebooks, less what is private to the machine, back to notebooks/*.ipynb, and the
pictures that they kept to data/pictures, and how long each took to notebooks/times.json.
"""

import argparse
import base64
import io
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import papermill
from ipykernel.kernelspec import write_kernel_spec
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.notebook_times import keep_times
from crowdnerf_lab.presets import Preset, preset
from crowdnerf_lab.workbench import RUNS_VARIABLE, root_of

logger = logging.getLogger(__name__)

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PICTURES = NOTEBOOKS.parent / "data" / "pictures"
"""Pictures from the committed run that the README shows."""
LARGEST_NOTEBOOK = 4_000_000
"""Bytes of a notebook with its outputs that GitHub and reviewers still show."""


FOLDER = "folder"
"""The parameter of notebooks that run on captures of one's own."""


class SeriesError(RuntimeError):
    """A notebook that is missing, malformed or failed; the message names it, the cell and the error."""


@dataclass(frozen=True)
class NotebookRun:
    """One executed notebook: where it lies, how long it took (seconds, wall clock) and what its check cell printed."""

    name: str
    path: Path
    seconds: float
    summary: str


def numbered_notebooks(folder: Path = NOTEBOOKS) -> tuple[Path, ...]:
    """The sources of the series, in order. Raises SeriesError when there are none (no checkout, only the package)."""
    sources = tuple(sorted(folder.glob("[0-9][0-9]_*.py")))
    if not sources:
        raise SeriesError(f"no notebooks in {folder}; clone the project and work in the checkout")
    return sources


def run_series(
    sizes: Preset,
    *,
    out: Path,
    sources: Sequence[Path] | None = None,
    with_png: bool = False,
    captures: Path | None = None,
    at_once: int = 1,
) -> tuple[NotebookRun, ...]:
    """Execute notebooks in order and keep them, with all they make, in out/PRESET/.

    with_png: figures also carry a PNG twin, for pages that run no script (needs Chromium).
    at_once: so many side by side, sharing the processor's cores; each begins when those that it needs have ended. Times
    and milliseconds then say less.
    captures: a folder of one's own instead of the concert, for the notebooks that have the parameter `folder`; the
    others are left out, and results go to a folder of that name below out/PRESET/.
    Raises SeriesError at the first notebook that fails; what it had executed until then is kept.
    """
    sources = numbered_notebooks() if sources is None else sources
    for source in sources:
        check_parameters(source)
    if captures is not None:
        sources = [source for source in sources if FOLDER in parameters_of(source)]
    folder = root_of(sizes, runs=out, captures=captures)
    folder.mkdir(parents=True, exist_ok=True)

    def run(source: Path) -> NotebookRun:
        logger.info("%-24s running", source.stem)
        ended = _run_notebook(source, sizes, folder=folder, captures=captures)
        logger.info("%-24s %4.0f s   %s", source.stem, ended.seconds, ended.summary)
        return ended

    with _jupyter_of_its_own(out=out, with_png=with_png, at_once=at_once):
        return tuple(run(source) for source in sources) if at_once == 1 else _side_by_side(sources, run, at_once)


def needs_of(source: Path) -> frozenset[str]:
    """The notebooks that a notebook's opening cell says it needs, by name: what it links to after **Needs.**"""
    opening = notebook_of(source).cells[0].source
    needs = opening.partition("**Needs.**")[2].partition("\n\n")[0]
    return frozenset(re.findall(r"\]\((\w+)\.ipynb\)", needs))


def _side_by_side(sources: Sequence[Path], run: Callable[[Path], NotebookRun], at_once: int) -> tuple[NotebookRun, ...]:
    """Run notebooks in so many threads, each after those that it needs. Raises the first error once the others that
    run have ended."""
    earlier: dict[Path, set[Path]] = {
        source: {other for other in sources[:position] if other.stem in needs_of(source)}
        for position, source in enumerate(sources)
    }

    def in_its_thread(source: Path) -> NotebookRun:
        with closing(ensure_event_loop()):  # nbclient leaves a thread's loop open
            return run(source)

    waiting, running, ended = list(sources), dict[Future[NotebookRun], Path](), dict[Path, NotebookRun]()
    with ThreadPoolExecutor(at_once) as pool:
        while waiting or running:
            ready = [source for source in waiting if earlier[source] <= ended.keys()]
            for source in ready[: at_once - len(running)]:
                waiting.remove(source)
                running[pool.submit(in_its_thread, source)] = source
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                source = running.pop(future)
                ended[source] = future.result()
    return tuple(ended[source] for source in sources)


def parameters_of(source: Path) -> tuple[str, ...]:
    """What papermill may set in a notebook, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source.stem}.ipynb"
        nbformat.write(notebook_of(source), path)
        return tuple(sorted(papermill.inspect_notebook(path)))


def check_parameters(source: Path) -> None:
    """Raise SeriesError unless the notebook's parameters are `preset` and, where it can take captures of one's own,
    `folder` (papermill only warns about a missing one)."""
    parameters = parameters_of(source)
    if parameters not in (("preset",), (FOLDER, "preset")):
        raise SeriesError(
            f"{source.name} has the parameters {list(parameters)} instead of ['preset'] or ['{FOLDER}', 'preset']; "
            "give it one cell tagged 'parameters' that sets these alone"
        )


def notebook_of(source: Path) -> NotebookNode:
    """The notebook that a .py file in percent form stands for, without outputs and the same in every reading."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position:02d}"
    return notebook


def table(runs: Sequence[NotebookRun]) -> str:
    """The closing table: notebook, seconds, summary; and the total."""
    width = max(len(run.name) for run in runs)
    lines = [f"{run.name:{width}}  {run.seconds:5.0f} s  {run.summary}" for run in runs]
    total = f"{'together':{width}}  {sum(run.seconds for run in runs):5.0f} s"
    return "\n".join([*lines, total])


def refresh(runs: Sequence[NotebookRun], *, folder: Path = NOTEBOOKS) -> tuple[Path, ...]:
    """Write executed notebooks beside their sources, without what is private to the machine they ran on.

    Raises SeriesError when one would be too large to show, or its outputs name a folder of this machine.
    """
    private = [path for path in (str(Path.home()), str(NOTEBOOKS.parent), tempfile.gettempdir()) if len(path) > 1]
    written = []
    for run in runs:
        notebook = published(nbformat.read(run.path, as_version=4))
        if found := [path for path in private if path in _printed(notebook)]:
            raise SeriesError(f"{run.name}: the outputs name {found[0]}; show paths relative to the run's folder")
        content = nbformat.writes(notebook).encode()
        if len(content) > LARGEST_NOTEBOOK:
            raise SeriesError(f"{run.name} would have {len(content):,} bytes; show fewer or smaller pictures")
        written.append(write_bytes(folder / f"{run.name}.ipynb", content))
    return tuple(written)


def refresh_pictures(runs: Sequence[NotebookRun], *, folder: Path = PICTURES) -> tuple[Path, ...]:
    """Copy the pictures that the notebooks kept as PNG beside themselves."""
    kept = sorted({picture for run in runs for picture in run.path.parent.glob("*.png")})
    return tuple(write_bytes(folder / picture.name, picture.read_bytes()) for picture in kept)


def published(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook as its readers should see it: the source's cells, their outputs, and nothing of the run."""
    kept = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for position, cell in enumerate(kept):
        cell["id"] = f"cell-{position:02d}"
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", []):
            _lighten(output.get("data", {}))
    notebook.cells = kept
    notebook.metadata.pop("papermill", None)
    return notebook


LARGEST_PNG = 200_000
"""Bytes, in base64, of a still picture that is kept as PNG: line drawings are smaller, photographs larger."""


def _lighten(data: dict[str, str]) -> None:
    """Keep a large still picture as JPEG, a sixth of the bytes; the live figure beside it keeps every pixel."""
    if len(data.get("image/png", "")) <= LARGEST_PNG:
        return
    still = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))) as picture:
        picture.convert("RGB").save(still, format="JPEG", quality=90, subsampling=0, optimize=True)
    data["image/jpeg"] = base64.b64encode(still.getvalue()).decode()


def without_progress(notebook: NotebookNode) -> NotebookNode:
    """The notebook without its progress bars, which stay at 0 % once the kernel has gone, and other passing remarks."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
    notebook.metadata.pop("widgets", None)
    return notebook


def _is_passing(output: NotebookNode) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _run_notebook(source: Path, sizes: Preset, *, folder: Path, captures: Path | None) -> NotebookRun:
    own = {} if captures is None else {FOLDER: str(captures.resolve())}
    output = folder / f"{source.stem}.ipynb"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        unexecuted = Path(temporary) / output.name
        nbformat.write(notebook_of(source), unexecuted)
        try:
            executed = papermill.execute_notebook(
                unexecuted,
                output,
                parameters={"preset": sizes.name, **own},
                kernel_name="python3",
                progress_bar=False,
                cwd=folder,
                execution_timeout=sizes.cell_seconds,
            )
        except PapermillExecutionError as error:
            raise SeriesError(
                f"{source.stem}, cell beginning {_first_line(error.source)!r}: {error.ename}: {error.evalue}; "
                f"see {output}"
            ) from error
        except (CellTimeoutError, DeadKernelError) as error:
            raise SeriesError(f"{source.stem}: {' '.join(str(error).split())}; see {output}") from error
    nbformat.write(without_progress(executed), output)
    return NotebookRun(source.stem, output, time.monotonic() - started, _summary(executed))


@contextmanager
def _jupyter_of_its_own(*, out: Path, with_png: bool, at_once: int) -> Iterator[None]:
    """Kernels run this interpreter, whatever kernels are installed, and share no file with the user's Jupyter."""
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    with tempfile.TemporaryDirectory() as temporary:
        launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        write_kernel_spec(Path(temporary) / "kernels" / "python3", overrides={"argv": launch})
        settings = {
            "JUPYTER_PATH": temporary,
            "JUPYTER_RUNTIME_DIR": str(Path(temporary) / "runtime"),
            "IPYTHONDIR": str(Path(temporary) / "ipython"),
            "PLOTLY_RENDERER": "plotly_mimetype+png" if with_png else "plotly_mimetype",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            RUNS_VARIABLE: str(out.resolve()),
            **({"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads} if at_once > 1 else {}),
        }
        with environment(settings):
            yield


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables set for a while, then as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _summary(notebook: NotebookNode) -> str:
    """What the cell tagged `check` printed, on one line."""
    checks = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    printed = (_text_of(output) for cell in checks for output in cell.outputs if output.get("name") == "stdout")
    return " ".join(" ".join(printed).split())


def _printed(notebook: NotebookNode) -> str:
    """All words in the outputs; pictures, whose encoding may spell anything, left out."""
    return "\n".join(_text_of(output) for cell in notebook.cells for output in cell.get("outputs", []))


def _text_of(output: NotebookNode) -> str:
    data = output.get("data", {})
    return " ".join([output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]).strip()


def _first_line(source: str) -> str:
    return next((line for line in source.splitlines() if line.strip()), "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 1 after saying which notebook failed and where."""
    parser = argparse.ArgumentParser(
        prog="python -m crowdnerf_lab.series", description="Execute the numbered notebooks."
    )
    parser.add_argument("command", choices=["run", "refresh"], help="refresh: also rewrite notebooks/*.ipynb")
    parser.add_argument("--preset", default="standard", help="tiny, standard or full (default: standard)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where results go (default: runs)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers of the notebooks to run")
    parser.add_argument("--at-once", type=int, default=1, help="notebooks side by side (times then say less)")
    parser.add_argument("--folder", type=Path, help="captures of your own instead of the concert (notebooks 1 and 2)")
    options = parser.parse_args(arguments)
    if options.command == "refresh" and options.folder:
        parser.error("refresh writes the notebooks of the concert; use run with --folder")
    logging.basicConfig(level=logging.WARNING)
    report = logging.StreamHandler(sys.stdout)
    logger.addHandler(report)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        sources = [path for path in numbered_notebooks() if not options.only or path.stem[:2] in options.only]
        runs = run_series(
            preset(options.preset),
            out=options.out,
            sources=sources,
            with_png=options.command == "refresh",
            captures=options.folder and options.folder.expanduser(),
            at_once=options.at_once,
        )
        logger.info("\n%s", table(runs))
        if options.command == "refresh":
            refresh(runs)
            refresh_pictures(runs)
            if options.preset == "standard" and options.at_once == 1:
                keep_times({run.name: run.seconds for run in runs})
    except (SeriesError, ValueError, OSError) as error:
        logger.error("%s", error)
        return 1
    finally:
        logger.removeHandler(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
