"""Captures of any kind, recognised by what lies in their folder."""

from pathlib import Path

from crowdnerf_lab.captures.bundle import CaptureSet, read_bundle


def read_captures(path: Path | str) -> CaptureSet:
    """Read the captures at `path`."""
    return read_bundle(path)
