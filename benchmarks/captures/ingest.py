"""How fast photos are taken in, in how much memory, and how a killed run goes on.

Generated photos of 640x480 with EXIF, in folders of 50 as if each came from a UE, and five broken files among them. A
run is a program of its own, as a service would be; its memory is read from /proc for it and all processes under it,
ten times a second. Seconds are those of the call `ingest`: starting the sandbox, listing, reading, writing, manifest.
Faces are searched in a part of the photos only, since that alone takes nearly all of the time.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from crowdnerf_lab.captures.intake.ingest import JOURNAL

SIZE = (640, 480)
PHOTOS_A_UE = 50
SAMPLE_S = 0.1
WITH_FACES = 16
"""Photos of the run that searches for faces."""
_PROGRAM = """
import json, sys, time
from crowdnerf_lab.captures.intake.ingest import ingest
began = time.perf_counter()
captures, report = ingest(sys.argv[1], sys.argv[2], faces=sys.argv[3] == "faces", progress=False)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "photos": len(captures.photos),
    "refused": len(report.refused),
    "workers": report.workers,
}))
"""


@dataclass(frozen=True)
class Run:
    """One ingest. rss_mb: the largest sum of the resident memory of all its processes, shared pages counted in each;
    pss_mb: the same, shared pages counted once; parent_mb: of the program that calls `ingest` alone."""

    seconds: float
    photos: int
    refused: int
    workers: int
    rss_mb: float
    pss_mb: float
    parent_mb: float


def measure(*, quick: bool) -> dict[str, Any]:
    """Photos a second, peak memory and what resuming costs; with `quick` a tenth of the photos."""
    count = 200 if quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "upload", count)
        generate(root / "tenth", count // 10)
        generate(root / "faces", WITH_FACES // (2 if quick else 1))
        tenth = run(root / "tenth", root / "out_tenth")
        whole = run(root / "upload", root / "out")
        done = killed_at_half(root / "upload", root / "resumed", count)
        resumed = run(root / "upload", root / "resumed")
        faces = run(root / "faces", root / "out_faces", faces=True)
        same = (root / "out/manifest.json").read_bytes() == (root / "resumed/manifest.json").read_bytes()
    return {
        "photos": whole.photos,
        "photo_size": f"{SIZE[0]}x{SIZE[1]}",
        "broken_refused": whole.refused,
        "workers": whole.workers,
        "ingest_seconds": round(whole.seconds, 2),
        "photos_per_second": round(whole.photos / whole.seconds, 1),
        "photos_per_second_with_faces": round(faces.photos / faces.seconds, 2),
        "peak_mb": round(whole.rss_mb),
        "peak_mb_shared_once": round(whole.pss_mb),
        "peak_mb_parent": round(whole.parent_mb),
        "peak_mb_of_a_tenth": round(tenth.rss_mb),
        "killed_after": done,
        "resume_seconds": round(resumed.seconds, 2),
        "resumed_equals_whole": int(same),
    }


def generate(folder: Path, count: int) -> None:
    """Write `count` photos and, if there are more than a hundred, five broken files."""
    random = np.random.default_rng(count)
    width, height = SIZE
    for index in range(count):
        ue = folder / f"ue{index // PHOTOS_A_UE:03d}"
        ue.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 255, (12, 16, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        noise = random.integers(0, 24, (height, width, 1), np.uint8)
        pixels = np.asarray(coarse) // 2 + noise
        left, top = random.integers(0, width // 2), random.integers(0, height // 2)
        pixels[top : top + 150, left : left + 200] = random.integers(0, 255, 3)
        Image.fromarray(pixels).save(ue / f"{index:05d}.jpg", quality=88, exif=_exif(index))
    if count > 100:
        _break(folder)


def run(upload: Path, root: Path, *, faces: bool = False) -> Run:
    """Take an upload in, in a program of its own."""
    process = _started(upload, root, faces=faces)
    peaks, stop = [0.0, 0.0, 0.0], threading.Event()
    watching = threading.Thread(target=_watch, args=(process.pid, peaks, stop))
    watching.start()
    output, _ = process.communicate()
    stop.set()
    watching.join()
    if process.returncode:
        raise RuntimeError(f"the ingest of {upload} ended with exit code {process.returncode}")
    rss, pss, parent = peaks
    return Run(**json.loads(output), rss_mb=rss, pss_mb=pss, parent_mb=parent)


def killed_at_half(upload: Path, root: Path, count: int) -> int:
    """Kill an ingest (SIGKILL) when half of its files are done; how many were."""
    process = _started(upload, root, faces=False)
    journal = root / JOURNAL
    while not journal.exists() or _lines(journal) < count / 2:
        if process.poll() is not None:
            raise RuntimeError(f"the ingest of {upload} was over before it could be killed")
        time.sleep(0.005)
    process.kill()
    process.communicate()
    return _lines(journal)


def _started(upload: Path, root: Path, *, faces: bool) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", _PROGRAM, str(upload), str(root), "faces" if faces else "fast"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1


def _watch(pid: int, peaks: list[float], stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_S):
        tree = _tree(pid)
        now = [sum(_mb(each, "Rss") for each in tree), sum(_mb(each, "Pss") for each in tree), _mb(pid, "Rss")]
        peaks[:] = map(max, peaks, now)


def _tree(pid: int) -> list[int]:
    """A process and all under it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _mb(pid: int, what: str) -> float:
    """Resident ('Rss') or proportional ('Pss') memory of a process, megabytes; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        pass
    return 0.0


def _exif(index: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = f"Phone {index // PHOTOS_A_UE % 7}"
    shot, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    shot[ExifTags.Base.DateTimeOriginal] = f"2026:06:20 21:{index // 60 % 60:02d}:{index % 60:02d}"
    shot[ExifTags.Base.FocalLengthIn35mmFilm] = 27
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
    gps[ExifTags.GPS.GPSLatitude] = (55.0, 42.0, (index % 100) / 50)
    gps[ExifTags.GPS.GPSLongitude] = (13.0, 11.0, (index // 100) / 50)
    gps[ExifTags.GPS.GPSImgDirection] = float(index % 360)
    return exif.tobytes()


def _break(folder: Path) -> None:
    """Five files that cannot be taken in: cut, empty, no picture, a page, a picture with an archive behind it."""
    ue = folder / "ue000"
    whole = (ue / "00000.jpg").read_bytes()
    (ue / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (ue / "empty.jpg").write_bytes(b"")
    (ue / "noise.jpg").write_bytes(os.urandom(5000))
    (ue / "page.jpg").write_bytes(b"<!doctype html><html></html>")
    other = io.BytesIO()
    Image.new("RGB", (8, 8)).save(other, "JPEG")
    (ue / "archive.jpg").write_bytes(other.getvalue() + b"PK\x03\x04" + bytes(60))
