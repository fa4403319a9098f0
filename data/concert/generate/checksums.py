"""The list of checksums beside the pictures."""

from pathlib import Path

from crowdnerf_lab.captures.bundle import MANIFEST
from crowdnerf_lab.files import sha256_of, write_bytes

SUMS = "SHA256SUMS"


def write_checksums(root: Path) -> Path:
    """Write SHA256SUMS for the manifest and every picture, in the form that `sha256sum --check` reads."""
    pictures = sorted(path for pattern in ("*/*.jpg", "*/*.png") for path in root.glob(pattern))
    lines = [f"{sha256_of(path)}  {path.relative_to(root).as_posix()}" for path in (root / MANIFEST, *pictures)]
    return write_bytes(root / SUMS, ("\n".join(lines) + "\n").encode())
