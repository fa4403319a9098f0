"""A UE's Python: a folder with this package and a few others, and an interpreter that sees nothing else.

The folder holds links to the installed packages, so nothing is downloaded; `-I -S` keeps every other path out. What is
not linked is not there, as on a device.
"""

import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "crowdnerf_lab"


@dataclass(frozen=True)
class BareEnvironment:
    """Where the packages are linked."""

    folder: Path

    def run(self, script: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run a script in a fresh process; what it wrote and how it ended, and seconds from its start to its end."""
        path, started = str(self.folder), time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{script}", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ran, time.perf_counter() - started


def bare_environment(folder: Path, *, distributions: Sequence[str]) -> BareEnvironment:
    """Link this package and what the given distributions installed, without what they say they need."""
    folder.mkdir(parents=True)
    (folder / PACKAGE.name).symlink_to(PACKAGE)
    for name in distributions:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return BareEnvironment(folder)
