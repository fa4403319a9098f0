"""The minimal UE: renders without the training stack, and shows what the model would."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.devices.measure import as_colour, intrinsics
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.network import ue
from crowdnerf_lab.network.ue import load_artefact
from crowdnerf_lab.rendering import render_view
from tests.toy_artefacts import HEIGHT, WIDTH, fitted, random_grid, small_profile, small_scene, untrained_student

CAMERAS = small_scene().cameras

ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"no module named {{name}}: blocked by the test", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
from crowdnerf_lab.network.ue import load_artefact
model = load_artefact({folder!r})
pose = np.array({pose!r}, np.float32)
np.save({out!r}, model.render(pose, (43.2, 43.2), (24.0, 20.0)))
"""
"""What a device has: this package, numpy, pillow, and a runtime."""
TRAINING_STACK = {"torch", "pydantic", "scipy", "onnx", "onnxscript", "safetensors", "plotly", "tqdm", "flip_evaluator"}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    published = fitted(small_profile("laptop_cpu"), tmp_path_factory.mktemp("laptop"))
    return {artefact.card.stored_as: artefact for artefact in published}


@pytest.mark.row("S28", "S68", "S69")
@pytest.mark.parametrize(
    ("stored_as", "blocked"),
    [("onnx_int8_qdq", TRAINING_STACK | {"numba", "jaxtyping"}), ("baked", TRAINING_STACK | {"onnxruntime"})],
)
def test_it_renders_without_the_training_stack(
    artefacts: dict[str, Artefact], tmp_path: Path, stored_as: str, blocked: set[str]
) -> None:
    artefact, out = artefacts[stored_as], tmp_path / "picture.npy"
    pose = CAMERAS.camera_to_world[2].tolist()
    script = ALONE.format(blocked=sorted(blocked), folder=str(artefact.folder), pose=pose, out=str(out))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = load_artefact(artefact.folder).render(np.array(pose), (43.2, 43.2), (24.0, 20.0))
    assert np.array_equal(np.load(out), expected)
    assert np.std(expected) > 1


def test_the_block_in_that_test_works(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    folder = str(artefacts["onnx_float32"].folder)
    script = ALONE.format(blocked=["onnxruntime"], folder=folder, pose=[[0.0] * 4] * 3, out=str(tmp_path / "x.npy"))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "onnxruntime: blocked by the test" in ran.stderr


def test_importing_it_loads_no_training_stack() -> None:
    script = "import sys, crowdnerf_lab.network.ue; print(sorted(set(sys.modules) & {'torch', 'pydantic', 'numba'}))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def lines_of_code(path: str) -> int:
    """Lines that hold code: neither blank nor comment nor docstring."""
    source = Path(path).read_text()
    said = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(source.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in said and line.strip() and not line.strip().startswith("#"))


def test_it_stays_small_enough_to_port() -> None:
    assert lines_of_code(ue.__file__) <= 100


def test_a_light_field_shows_what_torch_shows(artefacts: dict[str, Artefact]) -> None:
    model = load_artefact(artefacts["onnx_float32"].folder)
    with torch.no_grad():
        expected = untrained_student()(CAMERAS, HEIGHT, WIDTH)
    for i in (0, 7):
        picture = model.render(*intrinsics(CAMERAS, i, width=WIDTH, height=HEIGHT))
        assert picture.dtype == np.uint8
        assert np.abs(picture - 255 * expected[i].numpy()).max() <= 0.51


def test_a_baked_field_shows_what_the_field_shows(artefacts: dict[str, Artefact]) -> None:
    artefact = artefacts["baked"]
    model, baked = load_artefact(artefact.folder), BakedField.load(artefact.model)
    pose, focal, centre = intrinsics(CAMERAS, 3, width=WIDTH, height=HEIGHT)
    picture = model.render(pose, focal, centre)
    image = baked.render_image(pose, focal, centre=centre, width=WIDTH, height=HEIGHT)
    assert np.abs(picture - 255 * image.colour).max() <= 0.51
    assert psnr(as_colour(picture), render_view(random_grid(), CAMERAS, 3).colour) > 30


def test_a_picture_of_another_size_is_the_same_view(artefacts: dict[str, Artefact]) -> None:
    model = load_artefact(artefacts["baked"].folder)
    small = model.render(*intrinsics(CAMERAS, 0, width=WIDTH, height=HEIGHT))
    large = model.render(
        *intrinsics(CAMERAS, 0, width=2 * WIDTH, height=2 * HEIGHT), width=2 * WIDTH, height=2 * HEIGHT
    )
    assert large.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    shrunk = large.reshape(HEIGHT, 2, WIDTH, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 2


def test_threads_are_pinned(artefacts: dict[str, Artefact], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen = {}

    opened = onnxruntime.InferenceSession

    def session(content: bytes, options: onnxruntime.SessionOptions, **others: Any) -> onnxruntime.InferenceSession:
        seen["threads"] = options.intra_op_num_threads
        seen["spinning"] = options.get_session_config_entry("session.intra_op.allow_spinning")
        assert isinstance(content, bytes)
        return opened(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert load_artefact(artefacts["onnx_float32"].folder, threads=2).threads == 2
    assert seen == {"threads": 2, "spinning": "0"}


def test_a_baked_field_without_numba_says_what_to_install(
    artefacts: dict[str, Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ArtefactError, match="needs numba here: pip install numba"):
        load_artefact(artefacts["baked"].folder)
