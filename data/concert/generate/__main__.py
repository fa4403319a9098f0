"""python data/concert/generate --out DIR: render the concert again, the same or another one."""

import argparse
import logging
from pathlib import Path

from requirements import RequirementError, check_requirements

from crowdnerf_lab.captures.bundle import CaptureError
from crowdnerf_lab.files import FileError


def main() -> None:
    """Parse the command line, then render. Ends with status 2 and one sentence when something is missing."""
    parser = argparse.ArgumentParser(prog="python data/concert/generate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    parser.add_argument("--ues", type=int, default=48, help="phones in the crowd (default: 48)")
    parser.add_argument("--size", type=int, default=320, help="longer side in px, a multiple of 20 (default: 320)")
    parser.add_argument("--seed", type=int, default=2026, help="draws another crowd of phones (default: 2026)")
    parser.add_argument("--first", type=int, help="render only that many phones, test views and moments, as a trial")
    given = parser.parse_args()
    if given.ues < 7:
        parser.error(f"--ues {given.ues}: a view between phones needs at least 7")
    if given.size < 20 or given.size % 20:
        parser.error(f"--size {given.size}: use a multiple of 20")
    if given.first is not None and given.first < 1:
        parser.error(f"--first {given.first}: use 1 or more")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        check_requirements()
        from writing import Extent, write_concert  # imports Mitsuba, which must find LLVM first

        write_concert(given.out, Extent(ues=given.ues, size=given.size, seed=given.seed, first=given.first))
    except (RequirementError, CaptureError, FileError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
