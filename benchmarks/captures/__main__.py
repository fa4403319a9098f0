"""What the lab makes of what a crowd sends: poses, screening, faces, clocks, and how fast it takes photos in.

    python -m benchmarks.captures --json
    python -m benchmarks.captures --parts screening faces --quick

Each part runs in a process of its own, one after the other, so that its memory and its threads are its own.
CROWDNERF_LUND and CROWDNERF_FOX may name folders of photos; without them the rows that need these are absent.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.captures.parts import PARTS, measured
from benchmarks.conditions import conditions, finish, print_table


def main() -> None:
    arguments = _arguments()
    figures: dict[str, Any] = {}
    for part in arguments.parts:
        before = conditions(seed=0, threads=multiprocessing.cpu_count())
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
            found = process.submit(measured, part, arguments.quick).result()
        print_table(
            [{"figure": name, "value": value} for name, value in found.items()],
            title=f"{part} (load before: {before['load']})",
        )
        figures |= found | {f"{part}_load": before["load"]}
    finish(
        figures | {"quick": arguments.quick, "conditions": conditions(0, multiprocessing.cpu_count())}, arguments.json
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer cases, to see that it runs; no figures to quote")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
