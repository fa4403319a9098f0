"""OpenSplat (github.com/pierotofy/OpenSplat): Gaussian splatting on the CPU, with the options that suit short budgets.

It cannot stop by time, and its rates follow the number of steps: a first run is stopped after a while to learn how long
steps take, then every budget is a run of as many steps as fit. Its clock starts with the first step; scene points,
which it needs and which take minutes of structure from motion, are not counted, nor is reading or writing.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from benchmarks.peers.project import PeerError, PeerRun, ScenePoints, write_project
from benchmarks.peers.splats import Splats, read_splats, render_splats
from crowdnerf_lab.scene import PosedScene

PROGRAM = "OPENSPLAT"
"""Environment variable that names the program, where it is not on the path."""
INSTALL = f"""OpenSplat is not installed. To build it for the CPU:
  sudo apt-get install cmake ninja-build g++ libopencv-dev nlohmann-json3-dev libcxxopts-dev libnanoflann-dev
  git clone https://github.com/pierotofy/OpenSplat && cd OpenSplat
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGPU_RUNTIME=CPU \\
    -DFETCHCONTENT_TRY_FIND_PACKAGE_MODE=ALWAYS \\
    -DCMAKE_PREFIX_PATH=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')
  cmake --build build
  export {PROGRAM}=$PWD/build/opensplat"""
OPTIONS = ("--cpu", "--keep-crs", "--num-downscales", "2", "--resolution-schedule", "150", "--warmup-length", "100000")
"""No densification, and full resolution after 300 steps: the best that is known for budgets of minutes."""
BACKGROUND = (0.6130, 0.0101, 0.3984)
"""The colour OpenSplat trains over."""
NEAREST, FARTHEST = 0.001, 1000.0
"""Its planes, in units of the largest distance of a camera from their mean along an axis."""
MANY_STEPS = 100_000
LEARNING_SECONDS = 40.0
"""Longest first run that only tells how long steps take."""
ATTEMPTS = 3
LATE, EARLY = 1.02, 0.93
"""How far over and under its budget a run may end."""


@dataclass(frozen=True)
class Clock:
    """Seconds since the start of training at which each step ended, of the longest run seen so far."""

    ends: tuple[float, ...]

    def steps_within(self, seconds: float) -> int:
        """Steps that fit, going on at the pace of the last third where the run was shorter."""
        if self.ends[-1] >= seconds:
            return max(sum(end <= seconds for end in self.ends), 1)
        tail = len(self.ends) * 2 // 3
        pace = (self.ends[-1] - self.ends[tail]) / max(len(self.ends) - 1 - tail, 1)
        return len(self.ends) + int((seconds - self.ends[-1]) / max(pace, 1e-9))


@dataclass(frozen=True)
class _Run:
    clock: Clock
    peak_mb: int | None


def run_opensplat(
    scene: PosedScene, *, seconds: float, threads: int, points: ScenePoints, clock: Clock | None = None
) -> tuple[PeerRun, Clock]:
    """Train on the scene's training photos for `seconds` and render the held-out views.

    The scene's lenses must be ideal. clock: what an earlier run on the same scene told. The program has no seed.
    Raises PeerError when it is not installed or fails.
    """
    program = opensplat_program()
    with tempfile.TemporaryDirectory(prefix="opensplat.") as root:
        folder = Path(root)
        write_project(scene, folder, points=points)
        if clock is None:
            trial = min(seconds, LEARNING_SECONDS)
            clock = _trained(program, folder, steps=MANY_STEPS, threads=threads, stop_after=trial).clock
        run, attempts = _trained(program, folder, steps=clock.steps_within(seconds), threads=threads), 1
        while attempts < ATTEMPTS and not EARLY * seconds <= run.clock.ends[-1] <= LATE * seconds:
            run, attempts = (
                _trained(program, folder, steps=run.clock.steps_within(seconds), threads=threads),
                attempts + 1,
            )
        clock = run.clock
        splats = read_splats(folder / "splat.ply")
    renders = tuple(
        render_splats(splats, scene.cameras, i, background=BACKGROUND, keys=_sorted_by(splats, scene, i))
        for i in scene.held_out.tolist()
    )
    steps = len(clock.ends)
    options = " ".join(("opensplat PROJECT", *OPTIONS, "-n", str(steps)))
    result = PeerRun(renders=renders, seconds=clock.ends[-1], steps=steps, peak_mb=run.peak_mb, options=options)
    return result, clock


def _sorted_by(splats: Splats, scene: PosedScene, index: int) -> Float[np.ndarray, "n"]:
    """What OpenSplat 1.1.5 sorts a camera's splats by on the CPU, in training and in rendering.

    It means depth, but reads the last of three columns as if it were stored alone: splat i gets element i + 2 of the
    projected positions (x, y, z of splat 0, x, y, z of splat 1 ...). Splats trained so must be drawn so: the program's
    own pictures agree with ours to 53 dB, and to 15 dB where ours are sorted by depth.
    """
    positions = scene.cameras.positions[scene.train].double().numpy()
    unit = np.abs(positions - positions.mean(0)).max()
    pose = scene.cameras.camera_to_world[index].double().numpy()
    size = np.array([int(scene.cameras.width[index]), int(scene.cameras.height[index])])
    local = (splats.centres - pose[:, 3]) @ pose[:, :3] / unit
    depth = local[:, 2:]
    across = local[:, :2] * 2 * scene.cameras.focal[index].double().numpy() / size
    along = (FARTHEST + NEAREST) / (FARTHEST - NEAREST) * depth - FARTHEST * NEAREST / (FARTHEST - NEAREST)
    projected = np.concatenate([across, along], axis=-1) / np.maximum(depth, 1e-6)
    return projected.reshape(-1)[2 : 2 + len(splats)]


def opensplat_program() -> str:
    """The program. Raises PeerError with the steps that build it."""
    found = shutil.which(os.environ.get(PROGRAM, "opensplat"))
    if found is None:
        raise PeerError(INSTALL)
    return found


def _trained(program: str, folder: Path, *, steps: int, threads: int, stop_after: float | None = None) -> _Run:
    """Run the program and note when each step ends; stop_after: end it after so many seconds of training."""
    command = [program, str(folder), "-o", str(folder / "splat.ply"), "-n", str(steps), *OPTIONS]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    stamps: list[float] = []
    words: list[str] = []
    peak = None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("Step "):
                words = [*words[-9:], line.rstrip()]
                continue
            stamps.append(time.perf_counter())
            if len(stamps) % 50 == 0 or len(stamps) == steps:
                peak = _peak_mb(process.pid) or peak
            if stop_after is not None and stamps[-1] - stamps[0] > stop_after:
                process.kill()
                break
    if len(stamps) < 3 or (stop_after is None and process.returncode != 0):
        raise PeerError(
            f"OpenSplat ended with status {process.returncode} after {len(stamps)} steps: {' | '.join(words)}"
        )
    return _Run(clock=_clock(stamps), peak_mb=peak)


def _clock(stamps: Sequence[float]) -> Clock:
    """The first step has no line before it; it is taken to last as long as the second."""
    start = stamps[0] - (stamps[1] - stamps[0])
    return Clock(tuple(stamp - start for stamp in stamps))


def _peak_mb(process: int) -> int | None:
    status = Path(f"/proc/{process}/status")
    try:
        marks = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    except OSError:
        return None
    return round(marks[0] / 1024) if marks else None
