"""nerfstudio's nerfacto on the CPU, in an environment of its own: nerfstudio pins old versions of what we use."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.project import PeerError, PeerRun, held_out_frames, write_project
from crowdnerf_lab.files import write_json
from crowdnerf_lab.scene import PosedScene

PYTHON = "NERFACTO_PYTHON"
"""Environment variable that names the Python of nerfstudio's environment."""
INSTALL = f"""nerfacto needs an environment of its own:
  python3 -m venv nerfstudio && nerfstudio/bin/pip install torch==2.13.0 nerfstudio==1.1.5
  export {PYTHON}=$PWD/nerfstudio/bin/python"""
WORKER = Path(__file__).with_name("nerfacto_worker.py")


def run_nerfacto(scene: PosedScene, *, seconds: float, threads: int, seed: int) -> PeerRun:
    """Train on the scene's training photos for `seconds` and render the held-out views.

    The scene's lenses must be ideal. Raises PeerError when nerfstudio is not installed or fails.
    """
    python = python_of_nerfstudio()
    with tempfile.TemporaryDirectory(prefix="nerfacto.") as root:
        folder = Path(root)
        write_project(scene, folder, points=None)
        write_json(folder / "held_out.json", {"frames": held_out_frames(scene)})
        command = [python, str(WORKER), str(folder), str(seconds), str(threads), str(seed)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise PeerError(f"nerfacto ended with status {done.returncode}: {done.stderr.strip()[-600:]}")
        report = json.loads((folder / "report.json").read_text())
        with np.load(folder / "renders.npz") as renders:
            pictures = tuple(torch.from_numpy(renders[name].astype(np.float32)) for name in sorted(renders.files))
    return PeerRun(
        renders=pictures,
        seconds=report["seconds"],
        steps=report["steps"],
        peak_mb=report["peak_mb"],
        options="nerfstudio 1.1.5 nerfacto, implementation torch, 1024 rays a step, poses as given",
    )


def python_of_nerfstudio() -> str:
    """The Python that the environment variable names. Raises PeerError with the steps that make one."""
    python = os.environ.get(PYTHON)
    if python is None:
        raise PeerError(INSTALL)
    if not Path(python).is_file():
        raise PeerError(f"{PYTHON} names {python}, which is no file. {INSTALL}")
    return python
