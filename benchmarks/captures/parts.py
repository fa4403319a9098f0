"""The parts of the benchmark, each a module of its own with a `measure`."""

import importlib
from typing import Any

PARTS = ("screening", "faces", "synchronisation", "ingest", "calibration", "crowd_of_400")


def measured(part: str, quick: bool) -> dict[str, Any]:
    """The figures of one part. Here, not in the main module: a spawned process cannot import that."""
    module = importlib.import_module(f"benchmarks.captures.{part}")
    return module.measure(quick=quick)
