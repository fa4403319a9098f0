"""Graphs of a light field with convolutions and a plane of features, made once."""

from pathlib import Path

import pytest

from crowdnerf_lab.devices.export import export_onnx
from tests.devices.tiny_light_field import HEIGHT, WIDTH, TinyLightField


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two 1x1 convolutions (14 -> 128 -> 48 channels) behind a plane of 8 x 24 x 24 features, float32."""
    path = tmp_path_factory.mktemp("tiny") / "float32.onnx"
    return export_onnx(TinyLightField(planes=True), path, width=WIDTH, height=HEIGHT)
