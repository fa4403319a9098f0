"""A benchmark of several parts, each a module with a `measure(quick=...)` and a process of its own."""

import argparse
import importlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.conditions import conditions, finish, print_table


def measured(part: str, quick: bool) -> dict[str, Any]:
    """The figures of the module `part`. Here, not in a main module: a spawned process cannot import that."""
    return importlib.import_module(part).measure(quick=quick)


def run_parts(package: str, parts: Sequence[str], *, about: str) -> None:
    """Measure the parts that the command line names, one after the other, so that memory and threads are their own."""
    arguments = _arguments(parts, about)
    figures: dict[str, Any] = {}
    for part in arguments.parts:
        before = conditions(seed=0, threads=multiprocessing.cpu_count())
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
            found = process.submit(measured, f"{package}.{part}", arguments.quick).result()
        print_table(
            [{"figure": name, "value": value} for name, value in found.items() if not isinstance(value, list | dict)],
            title=f"{part} (load before: {before['load']})",
        )
        for name, rows in found.items():
            if isinstance(rows, list) and rows:
                print_table(rows, title=name)
        figures |= found | {f"{part}_load": before["load"]}
    finish(
        figures | {"quick": arguments.quick, "conditions": conditions(0, multiprocessing.cpu_count())}, arguments.json
    )


def _arguments(parts: Sequence[str], about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--quick", action="store_true", help="fewer cases, to see that it runs; no figures to quote")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()
