"""The minimal UE: renders in an environment that has nothing but its runtime, and loads nothing that is not right."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from crowdnerf_lab.catalogue.artefact import Artefact, card_layers
from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.coding.baked_stream import encode_baked
from crowdnerf_lab.coding.coded_graph import encode_graph
from crowdnerf_lab.coding.layered_file import read_layers
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.measure import as_colour, intrinsics
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.metrics import psnr
from crowdnerf_lab.network import ue
from crowdnerf_lab.network.ue import baked_model, light_field_model, load_artefact
from crowdnerf_lab.rendering import render_view
from tests.bare_environment import BareEnvironment, bare_environment
from tests.toy_artefacts import HEIGHT, WIDTH, random_grid, small_scene, untrained_student
from tests.toy_catalogue import CENTRE, FOCAL, POSE, toy_graph, write_toy_artefact

CAMERAS = small_scene().cameras
SIZE = {"width": WIDTH, "height": HEIGHT, "threads": 1}
BAKED = {"kind": "baked_field", "stored_as": "baked"}


@cache
def baked_field() -> BakedField:
    return bake(random_grid())


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    """A student and a baked field, each as it runs, coded whole, and coded in layers."""
    root = tmp_path_factory.mktemp("artefacts")
    graph = export_onnx(untrained_student(), root / "student.onnx", width=WIDTH, height=HEIGHT)
    student = light_field_model(graph.read_bytes(), name=graph, **SIZE)
    plain = baked_field().save(root / "field.safetensors")
    field = baked_model(plain.read_bytes(), name=plain, **SIZE)
    layered_graph = encode_graph(graph, root / "layered_graph.cnlf", coding="progressive", step=0.05)
    layered_field = encode_baked(baked_field(), root / "layered_field.cnlf")
    made = {
        "onnx": (graph, student, {}),
        "onnx range": (encode_graph(graph, root / "range.cnlf"), student, {"coding": "range"}),
        "onnx layers": (layered_graph, student, in_layers(layered_graph, "crowdnerf_lab.coded_graph/1")),
        "baked": (plain, field, BAKED),
        "baked layers": (layered_field, field, BAKED | in_layers(layered_field, "crowdnerf_lab.baked_field/1")),
    }
    uncoded = {"onnx": graph.stat().st_size, "baked": plain.stat().st_size}
    return {
        name: write_toy_artefact(
            root / "published",
            name.replace(" ", "_"),
            content=path.read_bytes(),
            measured_as=model,
            bytes_uncoded=uncoded[name.split()[0]],
            file=f"model{path.suffix}",
            **card,
        )
        for name, (path, model, card) in made.items()
    }


def in_layers(path: Path, kind: str) -> dict[str, Any]:
    """What the card of a progressive file says of its layers."""
    ends = read_layers(path.read_bytes(), kind=kind, name=path).ends
    return {"coding": "progressive", "layers": card_layers(path, ends=ends)}


RENDER = """
import json
import numpy as np
from crowdnerf_lab.network.ue import load_artefact
folder, pose, out = sys.argv[1:]
model = load_artefact(folder)
np.save(out, model.render(np.array(json.loads(pose), np.float32), (43.2, 43.2), (24.0, 20.0)))
loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in loaded if not name.startswith("_"))))
"""
NEEDED = {
    "onnx": {"numpy", "pillow", "onnxruntime"},
    "onnx range": {"numpy", "pillow", "onnxruntime", "constriction", "zstandard"},
    "baked": {"numpy", "pillow", "numba", "llvmlite"},
    "baked layers": {"numpy", "pillow", "numba", "llvmlite", "constriction"},
}
"""What a device installs to run each kind of artefact; this package is beside them."""


@pytest.mark.row("S28", "S68", "S69")
@pytest.mark.parametrize("kind", sorted(NEEDED))
def test_it_renders_with_nothing_but_its_runtime(
    artefacts: dict[str, Artefact], tmp_path: Path, kind: str, record_property: Any
) -> None:
    """From the start of a process in an environment without torch, onnx, scipy or pydantic to the first picture."""
    device = bare_environment(tmp_path / "site", distributions=sorted(NEEDED[kind]))
    pose, out = CAMERAS.camera_to_world[2].tolist(), tmp_path / "picture.npy"
    ran, seconds = device.run(RENDER, str(artefacts[kind].folder), json.dumps(pose), str(out))
    assert ran.returncode == 0, ran.stderr
    assert "torch" not in json.loads(ran.stdout)
    expected = load_artefact(artefacts[kind].folder).render(np.array(pose), (43.2, 43.2), (24.0, 20.0))
    assert np.array_equal(np.load(out), expected)
    assert np.std(expected) > 1
    record_property("cold_start_seconds", seconds)
    assert seconds < 60


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> BareEnvironment:
    return bare_environment(tmp_path_factory.mktemp("device") / "site", distributions=["numpy", "pillow"])


@pytest.mark.parametrize(
    ("kind", "missing"), [("onnx", "onnxruntime"), ("onnx range", "onnxruntime"), ("baked", "numba")]
)
def test_what_is_missing_is_named_with_how_to_get_it(
    artefacts: dict[str, Artefact], device: BareEnvironment, kind: str, missing: str
) -> None:
    ran, _ = device.run(RENDER, str(artefacts[kind].folder), "[]", "nowhere")
    assert ran.returncode == 1
    assert f"ArtefactError: {artefacts[kind].model} needs {missing} here: pip install {missing}" in ran.stderr


@pytest.mark.parametrize("absent", ["torch", "onnx", "pydantic", "scipy", "matplotlib", "safetensors"])
def test_the_environment_is_as_bare_as_it_says(device: BareEnvironment, absent: str) -> None:
    ran, _ = device.run(f"import {absent}")
    assert f"No module named '{absent}'" in ran.stderr


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
    model = load_artefact(artefacts["onnx"].folder)
    with torch.no_grad():
        expected = untrained_student()(CAMERAS, HEIGHT, WIDTH)
    for i in (0, 7):
        picture = model.render(*intrinsics(CAMERAS, i, width=WIDTH, height=HEIGHT))
        assert picture.dtype == np.uint8
        assert np.abs(picture - 255 * expected[i].numpy()).max() <= 0.51


def test_a_baked_field_shows_what_the_field_shows(artefacts: dict[str, Artefact]) -> None:
    model = load_artefact(artefacts["baked"].folder)
    pose, focal, centre = intrinsics(CAMERAS, 3, width=WIDTH, height=HEIGHT)
    picture = model.render(pose, focal, centre)
    image = baked_field().render_image(pose, focal, centre=centre, width=WIDTH, height=HEIGHT)
    assert np.abs(picture - 255 * image.colour).max() <= 0.51
    assert psnr(as_colour(picture), render_view(random_grid(), CAMERAS, 3).colour) > 30


@pytest.mark.row("S51")
@pytest.mark.parametrize(("coded", "plain"), [("onnx range", "onnx"), ("baked layers", "baked")])
def test_coding_without_loss_shows_the_same_picture(artefacts: dict[str, Artefact], coded: str, plain: str) -> None:
    view = intrinsics(CAMERAS, 4, width=WIDTH, height=HEIGHT)
    pictures = [load_artefact(artefacts[name].folder).render(*view) for name in (coded, plain)]
    assert np.array_equal(*pictures)


def cut(artefact: Artefact, root: Path, *, size: int) -> Path:
    """What of an artefact has arrived: its card, and the first bytes of its model."""
    folder = root / f"{artefact.card.name}.{size}"
    folder.mkdir(parents=True)
    (folder / "card.json").write_bytes((artefact.folder / "card.json").read_bytes())
    (folder / artefact.card.model).write_bytes(artefact.model.read_bytes()[:size])
    return folder


@pytest.mark.row("S49")
@pytest.mark.parametrize("kind", ["onnx layers", "baked layers"])
def test_any_beginning_beyond_the_first_layer_renders_and_more_is_better(
    artefacts: dict[str, Artefact], tmp_path: Path, kind: str
) -> None:
    artefact = artefacts[kind]
    view = intrinsics(CAMERAS, 5, width=WIDTH, height=HEIGHT)
    whole = load_artefact(artefact.folder).render(*view)
    ends = [layer.bytes for layer in artefact.card.layers]
    assert len(ends) > 1
    assert ends[-1] == artefact.card.bytes
    distances = []
    for end in ends:
        model = load_artefact(cut(artefact, tmp_path, size=end), allow_partial=True)
        assert model.complete == (end == ends[-1])
        distances.append(np.square(model.render(*view) - whole.astype(float)).mean())
    between = load_artefact(cut(artefact, tmp_path, size=ends[1] - 1), allow_partial=True)
    first = load_artefact(tmp_path / f"{artefact.card.name}.{ends[0]}", allow_partial=True)
    assert np.array_equal(between.render(*view), first.render(*view))
    assert distances[0] > distances[-1] == 0
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("kind", ["onnx layers", "baked layers"])
def test_a_beginning_is_loaded_only_by_those_who_ask_for_it_and_only_when_it_is_right(
    artefacts: dict[str, Artefact], tmp_path: Path, kind: str
) -> None:
    artefact = artefacts[kind]
    first, second = (layer.bytes for layer in artefact.card.layers[:2])
    with pytest.raises(ArtefactError, match=rf"has {second} bytes, its card says {artefact.card.bytes}"):
        load_artefact(cut(artefact, tmp_path, size=second))
    with pytest.raises(ArtefactError, match=rf"{first - 1} bytes are here, it shows nothing before {first}; receive"):
        load_artefact(cut(artefact, tmp_path, size=first - 1), allow_partial=True)
    tampered = cut(artefact, tmp_path / "tampered", size=second)
    content = bytearray((tampered / artefact.card.model).read_bytes())
    content[first + 3] ^= 1
    (tampered / artefact.card.model).write_bytes(content)
    with pytest.raises(ArtefactError, match="does not have the SHA-256"):
        load_artefact(tampered, allow_partial=True)


def test_a_file_without_layers_shows_nothing_before_it_is_whole(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    size = artefacts["onnx"].card.bytes
    with pytest.raises(ArtefactError, match=rf"{size - 1} bytes are here, it shows nothing before {size}"):
        load_artefact(cut(artefacts["onnx"], tmp_path, size=size - 1), allow_partial=True)
    assert load_artefact(cut(artefacts["onnx"], tmp_path, size=size), allow_partial=True).complete


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
    opened, seen = onnxruntime.InferenceSession, {}

    def session(content: bytes, options: onnxruntime.SessionOptions, **others: Any) -> onnxruntime.InferenceSession:
        seen["threads"] = options.intra_op_num_threads
        seen["spinning"] = options.get_session_config_entry("session.intra_op.allow_spinning")
        assert isinstance(content, bytes)
        return opened(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert load_artefact(artefacts["onnx"].folder, threads=2).threads == 2
    assert seen == {"threads": 2, "spinning": "0"}


BROKEN = {
    "an opset that nobody knows": (toy_graph(opset=99), r"ONNX Runtime refuses the graph .*opset"),
    "no graph": (b"no graph", r"ONNX Runtime refuses the graph"),
    "half a graph": (toy_graph()[:-900], r"ONNX Runtime refuses the graph"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_graph_that_cannot_run_is_refused_though_its_checksum_is_right(tmp_path: Path, broken: str) -> None:
    content, says = BROKEN[broken]
    artefact = write_toy_artefact(tmp_path, content=content)
    with pytest.raises(ArtefactError, match=says):
        load_artefact(artefact.folder)


def test_a_graph_of_another_picture_than_the_cards_is_refused(tmp_path: Path) -> None:
    artefact = write_toy_artefact(tmp_path, width=320)
    with pytest.raises(ArtefactError, match=r"makes \{'image': \[1, 16, 24, 3\]\} of .*not the card's picture"):
        load_artefact(artefact.folder)


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"coding": "range", "bytes_uncoded": 1}, r"model\.onnx is no coded file"),
        (BAKED, r"is truncated or no safetensors file"),
        (BAKED | {"coding": "progressive", "bytes_uncoded": 1}, r"model\.onnx is no coded file"),
    ],
)
def test_a_model_that_is_not_what_its_card_says_is_refused(tmp_path: Path, card: dict[str, Any], says: str) -> None:
    with pytest.raises(ArtefactError, match=says):
        load_artefact(write_toy_artefact(tmp_path, **card).folder)


def test_nothing_else_is_read_than_what_was_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and the load somebody may swap the file: what is loaded are the bytes that were checked."""
    artefact = write_toy_artefact(tmp_path)
    expected = load_artefact(artefact.folder).render(np.array(POSE), FOCAL, CENTRE)
    opened = onnxruntime.InferenceSession

    def swapped(content: bytes, *others: Any, **named: Any) -> onnxruntime.InferenceSession:
        artefact.model.write_bytes(toy_graph(seed=1))
        return opened(content, *others, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", swapped)
    assert np.array_equal(load_artefact(artefact.folder).render(np.array(POSE), FOCAL, CENTRE), expected)
