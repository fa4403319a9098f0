"""How long each committed notebook took: the small table that the minutes stated in the notebooks are held against."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from crowdnerf_lab.catalogue.remeasurement import machine
from crowdnerf_lab.files import write_json

TIMES = Path(__file__).resolve().parents[1] / "notebooks" / "times.json"


@dataclass(frozen=True)
class NotebookTimes:
    """Wall-clock seconds of whole notebooks, by name, on the standard preset; machine: the one of the latest run."""

    machine: str
    seconds: Mapping[str, int]


def read_times(path: Path = TIMES) -> NotebookTimes:
    """The table. Raises ValueError when the file is missing or no such table."""
    try:
        document = json.loads(path.read_text())
        return NotebookTimes(machine=document["machine"], seconds=dict(document["seconds"]))
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} holds no times of notebooks ({error}); run make notebooks") from error


def keep_times(seconds: Mapping[str, float], *, path: Path = TIMES) -> Path:
    """Put the times of executed notebooks into the table; what others took stays.

    The longer of an old and a new time is kept, for a notebook that finds what an earlier run made in `runs` is done
    sooner than its readers will be. Remove the file to begin anew.
    """
    known = dict(read_times(path).seconds) if path.exists() else {}
    longest = {name: max(known.get(name, 0), round(took)) for name, took in seconds.items()}
    times = NotebookTimes(machine=machine(), seconds=dict(sorted({**known, **longest}.items())))
    return write_json(path, asdict(times))
