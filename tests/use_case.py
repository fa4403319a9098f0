"""Which tests and notebook cells show each row of the use case: `python -m tests.use_case` prints the table.

A test names its rows with @pytest.mark.row("S20"); a notebook cell names them in its markdown.
"""

import contextlib
import io
import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS_FILE = ROOT / "tests" / "use_case_rows.toml"
ROW_NAME = re.compile(r"\bS\d{1,2}\b")


@dataclass(frozen=True)
class Row:
    """One demand of the use case: what its text says, and what the lab has for it."""

    says: str
    has: str


def read_rows(path: Path = ROWS_FILE) -> dict[str, Row]:
    """The rows S1-S72 by name, in order."""
    with path.open("rb") as file:
        return {name: Row(**row) for name, row in tomllib.load(file).items()}


def tests_by_row() -> dict[str, list[str]]:
    """Row names to the ids of the tests marked with them. Raises RuntimeError when the tests cannot be collected."""
    collector = _Collector()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        outcome = pytest.main(["--collect-only", "--quiet", str(ROOT / "tests")], plugins=[collector])
    if outcome not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"the tests could not be collected:\n{printed.getvalue()}")
    return collector.tests


def cells_by_row(notebooks: Path = ROOT / "notebooks") -> dict[str, list[str]]:
    """Row names to the notebook cells, as name:cell counted from 1, whose markdown mentions them."""
    import jupytext  # here, because pytest objects to plugins (anyio) that are imported before it starts

    cells: dict[str, list[str]] = defaultdict(list)
    for source in sorted(notebooks.glob("*.py")):
        for number, cell in enumerate(jupytext.read(source).cells, start=1):
            if cell.cell_type == "markdown":
                for row in sorted(set(ROW_NAME.findall(cell.source))):
                    cells[row].append(f"{source.stem}:{number}")
    return cells


def table(rows: dict[str, Row], tests: dict[str, list[str]], cells: dict[str, list[str]]) -> str:
    """The rows with their tests and cells as text, then how many rows have both."""
    lines = []
    for name, row in rows.items():
        shown = _unparametrized(tests.get(name, [])) + cells.get(name, [])
        lines.append(f"{name:4} {row.has}")
        lines.extend(f"       {place}" for place in shown or ["-"])
    both = sum(1 for name in rows if tests.get(name) and cells.get(name))
    either = sum(1 for name in rows if tests.get(name) or cells.get(name))
    return "\n".join([*lines, f"{both} of {len(rows)} rows have a test and a notebook cell, {either} at least one"])


class _Collector:
    """A pytest plugin that notes the rows of the collected tests."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for marker in item.iter_markers("row"):
                for row in marker.args:
                    self.tests[row].append(item.nodeid)


def _unparametrized(tests: list[str]) -> list[str]:
    return list(dict.fromkeys(test.partition("[")[0] for test in tests))


if __name__ == "__main__":
    print(table(read_rows(), tests_by_row(), cells_by_row()))
