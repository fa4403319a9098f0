"""LiteRT: its interpreter draws what torch draws, in float32 and nearly so in int8."""

import sys
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.devices.litert_export import export_litert, litert_model
from crowdnerf_lab.devices.pose_to_image import INPUTS, ExportError
from tests.devices.tiny_light_field import FEEDS, HEIGHT, WIDTH, TinyLightField, pictures_by_torch

STUDENT = TinyLightField(planes=True)


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(ExportError, match=r'pip install "crowdnerf-lab\[litert\]"'):
        export_litert(STUDENT, tmp_path / "student.tflite", width=WIDTH, height=HEIGHT)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("litert_torch", reason='needs LiteRT: pip install "crowdnerf-lab[litert]"')
    return export_litert(STUDENT, tmp_path_factory.mktemp("lite") / "student.tflite", width=WIDTH, height=HEIGHT)


def images(path: Path) -> np.ndarray:
    model = litert_model(path, width=WIDTH, height=HEIGHT)
    return np.stack([model.draw(*(feed[name] for name in INPUTS)) for feed in FEEDS])


def test_litert_draws_what_torch_draws(float32: Path) -> None:
    truth = pictures_by_torch(STUDENT)
    assert np.ptp(truth) > 0.3
    np.testing.assert_allclose(images(float32), truth, atol=2e-5)


def test_int8_is_smaller_and_draws_nearly_the_same(float32: Path, tmp_path: Path) -> None:
    int8 = export_litert(STUDENT, tmp_path / "int8.tflite", width=WIDTH, height=HEIGHT, weights="int8")
    error = np.abs(images(int8) - pictures_by_torch(STUDENT))
    assert 1e-4 < error.mean() < 4 / 255
    weights = sum(layer.weight.numel() for layer in (STUDENT.first, STUDENT.second))
    assert float32.stat().st_size - int8.stat().st_size > 0.9 * 3 * weights  # of four bytes each, one is left


def test_a_truncated_model_is_refused(float32: Path, tmp_path: Path) -> None:
    content = float32.read_bytes()
    (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"half\.tflite is not a whole LiteRT model .*fetch it again"):
        litert_model(tmp_path / "half.tflite", width=WIDTH, height=HEIGHT)
