"""What the lab makes of what a crowd sends: poses, screening, faces, clocks, and how fast it takes photos in.

    python -m benchmarks.captures --json
    python -m benchmarks.captures --parts screening faces --quick

Each part runs in a process of its own, one after the other, so that its memory and its threads are its own.
CROWDNERF_LUND and CROWDNERF_FOX may name folders of photos; without them the rows that need these are absent.
"""

from benchmarks.parts import run_parts

PARTS = ("screening", "faces", "synchronisation", "ingest", "calibration", "crowd_of_400")

if __name__ == "__main__":
    run_parts("benchmarks.captures", PARTS, about=__doc__ or "")
