"""What every benchmark prints: the conditions it ran under, a table of rows, and its figures as one line of JSON."""

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from crowdnerf_lab.devices.measure import machine

PACKAGES = ("crowdnerf-lab", "numpy", "numba", "torch", "onnxruntime")


def conditions(seed: int, threads: int) -> dict[str, Any]:
    """Machine, threads, load (mean number of runnable processes over the last minute), versions and seed."""
    return {
        "machine": machine(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "seed": seed,
    }


def run_options(parser: argparse.ArgumentParser, *, threads: int = 2, threads_of: str) -> None:
    """Add the options that say under which conditions a benchmark runs and how much it prints."""
    parser.add_argument("--threads", type=int, default=threads, help=f"of {threads_of}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Rows with the same keys as aligned columns, numbers to four significant digits."""
    columns = list(rows[0]) if rows else []
    cells = [columns] + [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def finish(figures: dict[str, Any], as_json: bool) -> None:
    """End the benchmark: with --json the last line printed is the figures as one line of JSON (no NaN, no infinity)."""
    if as_json:
        print(json.dumps(figures, allow_nan=False))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
