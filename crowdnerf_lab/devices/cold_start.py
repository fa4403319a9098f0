"""A model's first picture and its memory, measured in a process of its own: caches and heap of this one hide both.

The process is `python -m crowdnerf_lab.devices.cold_start`, without torch, as a UE is.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdnerf_lab.catalogue.card import Kind, Probe

FRAMES = 3
"""Drawn before the peak is read: runtimes allocate on the first frames."""


class ColdStartError(RuntimeError):
    """A model that did not start in a process of its own; the message holds what that process said."""


@dataclass(frozen=True)
class ColdStart:
    """ms: from the file's bytes to the first picture, the libraries being loaded and kernels compiled by an earlier
    start. peak_memory_mb: most resident memory of the process until FRAMES pictures were drawn, less what it held
    before it loaded the model."""

    ms: float
    peak_memory_mb: float


def measure_cold_start(
    model: Path, probe: Probe, *, kind: Kind, coded: bool, width: int, height: int, threads: int
) -> ColdStart:
    """Start a model file as a UE does, in a fresh process on this machine, and ask it for a probe's view.

    A baked field twice, since numba compiles its kernels in the first. Raises ColdStartError.
    """
    request = {
        "model": str(Path(model).resolve()),
        "kind": kind,
        "coded": coded,
        "size": [width, height],
        "threads": threads,
        "view": [probe.camera_to_world, probe.focal, probe.centre],
    }
    starts = [_start(request) for _ in range(2 if kind == "baked_field" else 1)]
    return min(starts, key=lambda start: start.ms)


def _start(request: dict[str, Any]) -> ColdStart:
    """One process."""
    run = subprocess.run(
        [sys.executable, "-m", "crowdnerf_lab.devices.cold_start"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.returncode != 0:
        said = run.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ColdStartError(f"{request['model']} does not start in a process of its own: {said[0]}; fetch it again")
    answer = json.loads(run.stdout)
    return ColdStart(answer["ms"], answer["peak_memory_mb"])


def _started(request: dict[str, Any]) -> dict[str, float]:
    """What the process does: load the libraries, then the model, then draw."""
    from crowdnerf_lab.network.ue import baked_model, light_field_model

    if request["kind"] == "baked_field":
        import numba  # noqa: F401  # a library, not part of the model

        open_model = baked_model
    else:
        import onnxruntime  # noqa: F401

        open_model = light_field_model
    path, (width, height) = Path(request["model"]), request["size"]
    view = request["view"]
    before = _resident_mb(forget_peak=True)
    content = path.read_bytes()
    started = time.perf_counter()
    model = open_model(
        content, width=width, height=height, threads=request["threads"], name=path, coded=request["coded"]
    )
    model.render(*view, width=width, height=height)
    ms = 1e3 * (time.perf_counter() - started)
    for _ in range(FRAMES - 1):
        model.render(*view, width=width, height=height)
    return {"ms": ms, "peak_memory_mb": max(_peak_mb() - before, 1e-3)}


def _resident_mb(*, forget_peak: bool) -> float:
    """Resident memory now. Linux can forget the peak of the imports; elsewhere that peak is the baseline."""
    status = Path("/proc/self/status")
    if not status.exists():
        return _peak_mb()
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    return _status_mb(status, "VmRSS")


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        return _status_mb(status, "VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _status_mb(status: Path, name: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_started(json.load(sys.stdin))))
