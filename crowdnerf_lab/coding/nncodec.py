"""NNC, the standard for coded neural networks (ISO/IEC 15938-17), through NNCodec in an environment of its own.

NNCodec (Becking et al. 2023) is source-only, compiles for minutes and needs numpy < 2, so it never enters this
package's environment: tensors go there and back as files, see nncodec_worker.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crowdnerf_lab.coding.layered_file import CodedFileError

VARIABLE = "CROWDNERF_NNCODEC"
"""Environment variable that names NNCodec's environment, or the python in it."""
WORKER = Path(__file__).with_name("nncodec_worker.py")
SECONDS = 600.0
INSTALL = (
    "make one with: python -m venv nnc && "
    "nnc/bin/pip install torch==2.13.0 'numpy<2' pandas scikit-learn h5py click tqdm && "
    f"nnc/bin/pip install --no-deps nncodec && export {VARIABLE}=$PWD/nnc"
)


class NNCodecError(RuntimeError):
    """NNCodec is not there or failed; the message says what to do."""


def encode_nnc(tensors: Mapping[str, NDArray[np.float32]], *, qp: int = -32, environment: Path | None = None) -> bytes:
    """Code float32 tensors as an NNC bitstream with DeepCABAC and dependent quantization.

    qp: quantization parameter, below 0: the step doubles every four. environment: folder of NNCodec's virtual
    environment or its python, by default from CROWDNERF_NNCODEC.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "tensors.npz", Path(folder) / "tensors.nnc"
        arrays = {f"{k:06d}": np.asarray(value, np.float32) for k, value in enumerate(tensors.values())}
        np.savez(source, allow_pickle=False, **arrays)
        (Path(folder) / "settings.json").write_text(json.dumps({"names": list(tensors), "qp": qp}))
        _run(environment, "encode", source, target)
        return target.read_bytes()


def decode_nnc(bitstream: bytes, *, environment: Path | None = None) -> dict[str, NDArray[np.float32]]:
    """The tensors of an NNC bitstream. Raises CodedFileError when NNCodec cannot read it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "tensors.nnc", Path(folder) / "tensors.npz"
        source.write_bytes(bitstream)
        try:
            _run(environment, "decode", source, target)
        except subprocess.CalledProcessError as error:
            raise CodedFileError(f"NNCodec cannot read this bitstream ({_last_line(error)}); fetch it again") from error
        names = json.loads((Path(folder) / "settings.json").read_text())["names"]
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[f"{k:06d}"] for k, name in enumerate(names)}


def python_of(environment: Path | None = None) -> Path:
    """The python that NNCodec lives with. NNCodecError with the lines that install it when there is none."""
    told = environment or os.environ.get(VARIABLE)
    if not told:
        raise NNCodecError(f"NNCodec's environment is not told: {VARIABLE} is not set; {INSTALL}")
    path = Path(told)
    python = path / "bin" / "python" if path.is_dir() else path
    if not python.is_file() or not os.access(python, os.X_OK):
        raise NNCodecError(f"{python} cannot be run; {INSTALL}")
    return python.absolute()


def _run(environment: Path | None, task: str, source: Path, target: Path) -> None:
    command = [str(python_of(environment)), str(WORKER), task, str(source), str(target)]
    try:
        # NNCodec leaves files where it runs.
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, cwd=source.parent)
    except subprocess.TimeoutExpired as error:
        raise NNCodecError(f"NNCodec took more than {SECONDS:g} s; give it fewer tensors") from error
    except subprocess.CalledProcessError as error:
        if task == "decode" and "ModuleNotFoundError" not in error.stderr:
            raise
        raise NNCodecError(f"NNCodec failed to {task} ({_last_line(error)}); {INSTALL}") from error


def _last_line(error: subprocess.CalledProcessError) -> str:
    return (error.stderr.strip().splitlines() or ["no message"])[-1][:200]
