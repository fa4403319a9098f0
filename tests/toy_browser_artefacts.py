"""Artefacts that a browser runs, made in no time: a baked field of coloured fog, and the toy graph of toy_catalogue."""

from pathlib import Path
from typing import Any

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.network.ue import baked_model
from tests.toy_artefacts import random_grid
from tests.toy_catalogue import HEIGHT, WIDTH, write_toy_artefact

FIELD, STUDENT = "toy.baked_field.fog.baked", "toy.ray_mlp.XS.onnx_float32"


def browser_artefacts(root: Path) -> tuple[Artefact, Artefact]:
    """root/FIELD, the better one, and root/STUDENT."""
    path = bake(random_grid()).save(root / "fog.safetensors")
    content = path.read_bytes()
    path.unlink()
    fog = baked_model(content, width=WIDTH, height=HEIGHT, threads=1, name=path)
    of_field: dict[str, Any] = {"file": "model.safetensors", "kind": "baked_field", "psnr": 24.0, "energy_mj": 130}
    field = write_toy_artefact(root, FIELD, content=content, measured_as=fog, **of_field)
    student = write_toy_artefact(root, STUDENT, psnr=22.0, energy_mj=40)
    return field, student
