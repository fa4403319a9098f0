"""The way to NNCodec and back: tested with a stand-in for it, and with the real one where it is installed."""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.coding.layered_file import CodedFileError
from crowdnerf_lab.coding.nncodec import VARIABLE, NNCodecError, decode_nnc, encode_nnc, python_of

STAND_IN = '''
"""Speaks as nncodec.nn does: rounds to the step of qp and packs; imports what NNCodec imports for its examples."""
import io, json
import numpy as np
import torchvision.models
from torchvision import transforms
from torchmetrics.classification import Accuracy

def encode(tensors, args):
    assert args["use_dq"] is True
    step = 2.0 ** (args["qp"] / 4)
    rounded = {f"a{k}": (np.rint(v / step) * step).astype(np.float32) for k, v in enumerate(tensors.values())}
    file = io.BytesIO()
    np.savez(file, names=np.array(json.dumps(list(tensors))), **rounded)
    return bytearray(b"NNC!" + file.getvalue())

def decode(content):
    assert isinstance(content, bytearray)
    if content[:4] != b"NNC!":
        raise ValueError("no NNR unit")
    arrays = np.load(io.BytesIO(content[4:]))
    return {name: arrays[f"a{k}"] for k, name in enumerate(json.loads(str(arrays["names"])))}
'''
TENSORS = {
    "head.0.weight": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6, 1, 1),
    "a/b": np.float32([3.0]),
    "scalar": np.array(0.5, np.float32),
}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment's folder whose python finds the stand-in."""
    (tmp_path / "site/nncodec").mkdir(parents=True)
    (tmp_path / "site/nncodec/__init__.py").touch()
    (tmp_path / "site/nncodec/nn.py").write_text(STAND_IN)
    python = tmp_path / "nnc/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return tmp_path / "nnc"


def test_tensors_go_to_nncodec_and_back_with_names_shapes_and_the_error_of_qp(environment):
    decoded = decode_nnc(encode_nnc(TENSORS, qp=-32, environment=environment), environment=environment)
    assert list(decoded) == list(TENSORS)
    for name, before in TENSORS.items():
        assert decoded[name].shape == before.shape
        assert np.abs(decoded[name] - before).max() <= 2.0**-8 / 2 + 1e-7


def test_the_environment_may_be_told_by_a_variable_and_as_a_python(environment, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(environment))
    assert python_of() == environment / "bin/python"
    assert python_of(environment / "bin/python") == environment / "bin/python"


def test_without_nncodec_the_error_gives_the_lines_that_install_it(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(NNCodecError, match=r"not set; make one with: python -m venv nnc .* --no-deps nncodec"):
        encode_nnc(TENSORS)
    with pytest.raises(NNCodecError, match=r"cannot be run; make one with"):
        encode_nnc(TENSORS, environment=tmp_path / "absent")
    with pytest.raises(NNCodecError, match=r"No module named 'nncodec'.*; make one with"):
        encode_nnc(TENSORS, environment=Path(sys.executable))


def test_bitstreams_of_something_else_are_refused(environment):
    with pytest.raises(CodedFileError, match=r"cannot read this bitstream .*no NNR unit.*; fetch it again"):
        decode_nnc(b"something else", environment=environment)


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"needs NNCodec in an environment that {VARIABLE} names")
def test_the_real_one_codes_weights_near_the_error_of_qp():
    weights = {"layer.weight": np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)}
    bitstream = encode_nnc(weights, qp=-32)
    assert len(bitstream) < 64 * 64 * 4 / 3
    assert np.abs(decode_nnc(bitstream)["layer.weight"] - weights["layer.weight"]).max() < 0.05
