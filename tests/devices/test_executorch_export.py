"""ExecuTorch: XNNPACK draws what torch draws, in float32 and nearly so in int8."""

from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.devices.executorch_export import executorch_model, export_executorch
from crowdnerf_lab.devices.formats.graphs import QuantizationError
from crowdnerf_lab.devices.pose_to_image import INPUTS, ExportError
from tests.devices.tiny_light_field import FEEDS, HEIGHT, WIDTH, TinyLightField, pictures_by_torch

pytest.importorskip("executorch", reason='needs ExecuTorch: pip install "crowdnerf-lab[executorch]"')

STUDENT = TinyLightField()


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_executorch(STUDENT, tmp_path_factory.mktemp("pte") / "student.pte", width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pte8") / "student.pte"
    return export_executorch(STUDENT, path, width=WIDTH, height=HEIGHT, feeds=FEEDS)


def images(path: Path) -> np.ndarray:
    model = executorch_model(path, width=WIDTH, height=HEIGHT)
    return np.stack([model.draw(*(feed[name] for name in INPUTS)) for feed in FEEDS])


def test_xnnpack_draws_what_torch_draws(float32: Path) -> None:
    truth = pictures_by_torch(STUDENT)
    assert np.ptp(truth) > 0.3
    np.testing.assert_allclose(images(float32), truth, atol=2e-5)


def test_int8_is_smaller_and_draws_nearly_the_same(float32: Path, int8: Path) -> None:
    error = np.abs(images(int8) - pictures_by_torch(STUDENT))
    assert 1e-4 < error.mean() < 4 / 255
    assert int8.stat().st_size < 0.65 * float32.stat().st_size


def test_without_views_to_calibrate_with_there_is_no_int8(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"student\.pte cannot be calibrated without feeds"):
        export_executorch(STUDENT, tmp_path / "student.pte", width=WIDTH, height=HEIGHT, feeds=[])
    assert not (tmp_path / "student.pte").exists()


def test_a_truncated_program_is_refused(float32: Path, tmp_path: Path) -> None:
    content = float32.read_bytes()
    (tmp_path / "half.pte").write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"half\.pte is not a whole ExecuTorch program .*fetch it again"):
        executorch_model(tmp_path / "half.pte", width=WIDTH, height=HEIGHT)
