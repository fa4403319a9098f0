"""Deltas give exactly the new file, or nothing: of plain files, coded graphs and baked fields; whatever arrives."""

import contextlib
import copy
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from crowdnerf_lab.catalogue import delta as deltas
from crowdnerf_lab.catalogue.delta import KIND, DeltaError, apply_delta, delta_of, packed_delta
from crowdnerf_lab.coding.baked_stream import coded_baked, decode_baked
from crowdnerf_lab.coding.coded_graph import decode_graph, packed_graph
from crowdnerf_lab.coding.layered_file import Layer, packed_layers, read_layers
from crowdnerf_lab.coding.patches import patch_of
from crowdnerf_lab.coding.quantization import Importance
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.importance import ImportanceSettings, importance_of
from crowdnerf_lab.fields.sh_grid import SHGrid
from tests.bare_environment import bare_environment
from tests.toy_artefacts import random_grid, small_scene

ROWS, COLUMNS = 40, 36
RNG = np.random.default_rng(5)


def weights(*, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (ROWS, COLUMNS)).astype(np.float32)


def graph_of(path: Path, matrix: np.ndarray, *, name: str = "layer.weight") -> Path:
    """x -> a product with the matrix, as an ONNX graph."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, matrix.shape[0]])
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, matrix.shape[1]])
    node = onnx.helper.make_node("MatMul", ["x", name], ["image"])
    graph = onnx.helper.make_graph([node], "toy", [x], [image], [numpy_helper.from_array(matrix, name)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


FIELD_BYTES = 2400
IMPORTANCES = {"layer.weight": Importance(np.ones(ROWS), np.eye(COLUMNS) + 0.3)}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """Coded graphs and those that followed them, a little changed, by coding."""
    folder = tmp_path_factory.mktemp("graphs")
    changed = weights() + 0.03 * weights(seed=1)
    files = {}
    for coding in ("range", "progressive"):
        lossy = {"coding": coding, "step": 0.02, "importances": IMPORTANCES}
        old = folder / f"{coding}.cnlf"
        old.write_bytes(packed_graph(graph_of(folder / "old.onnx", weights()), **lossy))
        new = packed_graph(graph_of(folder / "new.onnx", changed), **lossy, after=old)
        files[coding] = (old.read_bytes(), new)
    return files


@pytest.fixture(scope="module")
def fields() -> tuple[bytes, bytes]:
    """A coded baked field, and that of a changed grid which follows it."""
    old = baked(random_grid())
    return coded_baked(old), coded_baked(baked(changed_grid(), after=old))


def baked(grid: SHGrid, *, after: BakedField | None = None) -> BakedField:
    cameras = small_scene().cameras
    importance = importance_of(grid, cameras, settings=ImportanceSettings(poses=20, batches=8, rays=512))
    return bake(grid, cameras=cameras, max_bytes=FIELD_BYTES, importance=importance, after=after)


def changed_grid(*, by: float = 0.05) -> SHGrid:
    """The random grid a little later."""
    grid = copy.deepcopy(random_grid())
    noise = np.random.default_rng(8).normal(0, by, grid.table.shape).astype(np.float32)
    grid.table.data += grid.table.data.new_tensor(noise)
    return grid


def edited(content: bytes, *, seed: int, edits: int = 20) -> bytes:
    """The same bytes with some runs replaced, removed or inserted."""
    rng, made = np.random.default_rng(seed), bytearray(content)
    for _ in range(edits):
        at, length = int(rng.integers(0, len(made))), int(rng.integers(0, 40))
        made[at : at + length] = rng.integers(0, 256, int(rng.integers(0, 40)), dtype=np.uint8).tobytes()
    return bytes(made)


@pytest.mark.row("S40", "S47")
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_any_plain_file_comes_back_exactly(seed: int, edits: int) -> None:
    old = np.random.default_rng(seed).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    new = edited(old, seed=seed, edits=edits)
    delta = packed_delta(old, new)
    assert delta is not None
    assert len(delta) < 60 * edits + 400
    assert apply_delta(old, delta, name="a delta") == new


@pytest.mark.row("S40", "S47")
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([1, 3, 1000, 2**31 - 1]))
@settings(max_examples=25, deadline=None)
def test_graphs_of_any_integers_come_back_exactly(tmp_path_factory, seed: int, part: float, size: int) -> None:
    folder, rng = tmp_path_factory.mktemp("integers"), np.random.default_rng(seed)
    before = rng.integers(-size, size + 1, (ROWS, COLUMNS)).astype(np.int32)
    after = np.where(rng.random(before.shape) < part, rng.integers(-size, size + 1, before.shape), before)
    old, new = (packed_graph(graph_of(folder / "g.onnx", m.astype(np.int32))) for m in (before, after))
    layers = deltas._layers("graph", old, new)
    assert layers is not None
    assert deltas._applied("graph", old, layers, len(new)) == new


@pytest.mark.row("S40")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("coding", ["range", "progressive"])
def test_exact_floats_come_back_bit_by_bit_and_few_changes_take_few_bytes(tmp_path, dtype, coding) -> None:
    before = weights().astype(dtype)
    after = before.copy()
    after[::7, 3] *= -1.5
    old, new = (packed_graph(graph_of(tmp_path / "g.onnx", m), coding=coding) for m in (before, after))
    delta = packed_delta(old, new)
    assert delta is not None
    assert len(delta) < 0.25 * len(new)
    assert apply_delta(old, delta, name="a delta") == new


@pytest.mark.row("S40", "S48", "S50")
@pytest.mark.parametrize("coding", ["range", "progressive"])
def test_a_student_that_follows_needs_a_fraction_of_its_file(graphs, coding: str) -> None:
    old, new = graphs[coding]
    delta = packed_delta(old, new)
    assert delta is not None
    assert len(delta) < 0.25 * len(new)
    assert apply_delta(old, delta, name="a delta") == new
    error = decode_graph(new, name="new").initializers["layer.weight"] - weights() - 0.03 * weights(seed=1)
    assert np.sqrt(np.mean(error**2)) < 0.02


@pytest.mark.row("S40", "S48")
def test_a_baked_field_that_follows_needs_a_fraction_of_its_file(fields: tuple[bytes, bytes]) -> None:
    old, new = fields
    delta = packed_delta(old, new)
    assert delta is not None
    assert read_layers(delta, kind=KIND, name="a delta").header["how"] == "baked"
    assert len(delta) < 0.6 * len(new)
    assert apply_delta(old, delta, name="a delta") == new
    independent = coded_baked(baked(changed_grid()))
    unfollowed = packed_delta(old, independent)
    assert unfollowed is None or len(delta) < 0.8 * len(unfollowed)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None)
def test_baked_fields_with_any_cells_rows_and_numbers_come_back_exactly(fields, seed: int) -> None:
    old = fields[0]
    field, _ = decode_baked(old, name="old")
    new = coded_baked(shuffled(field, seed=seed))
    layers = deltas._layers("baked", old, new)
    assert layers is not None
    assert deltas._applied("baked", old, layers, len(new)) == new


def shuffled(field: BakedField, *, seed: int) -> BakedField:
    """A field of the same sizes that has little in common with this one."""
    rng, cells, rows = np.random.default_rng(seed), field.occupancy_cells**3, len(field.resolutions) * field.rows
    occupied, kept = rng.random(cells) < rng.random(), rng.random(rows) < rng.random()
    return replace(
        field,
        values=rng.integers(-128, 128, (int(kept.sum()), field.scales.shape[1])).astype(np.int8),
        scales=rng.random(field.scales.shape, np.float32),
        kept=np.packbits(kept),
        occupied=np.packbits(occupied, bitorder="little"),
        densities=rng.integers(0, 256, int(occupied.sum())).astype(np.uint8),
        background=rng.random(3, np.float32),
        near=float(rng.uniform(0.01, 1)),
    )


def test_files_that_are_not_made_alike_fall_back_to_their_bytes(tmp_path: Path, graphs) -> None:
    old, _ = graphs["range"]
    assert packed_delta(old, graphs["progressive"][0]) is None
    other = packed_graph(graph_of(tmp_path / "other.onnx", weights()[:, :20]), step=0.02, importances=None)
    assert deltas._layers("graph", old, other) is None
    assert packed_delta(old, other) is None
    truncated = old[: len(old) - 1]
    assert packed_delta(truncated, old) is not None


@pytest.mark.row("S50")
def test_a_delta_that_does_not_pay_is_not_written(tmp_path: Path) -> None:
    old, new, path = tmp_path / "old", tmp_path / "new", tmp_path / "delta"
    old.write_bytes(RNG.integers(0, 256, 5000, dtype=np.uint8).tobytes())
    new.write_bytes(RNG.integers(0, 256, 5000, dtype=np.uint8).tobytes())
    assert delta_of(old, new, path) is None
    assert not path.exists()
    new.write_bytes(old.read_bytes()[::-1] + old.read_bytes())
    found = delta_of(old, new, path)
    assert found is None or path.stat().st_size <= deltas.WORTH * new.stat().st_size


def test_the_same_files_give_the_same_delta(tmp_path: Path, graphs, fields) -> None:
    for old, new in (*graphs.values(), fields):
        assert packed_delta(old, new) == packed_delta(old, new)


@pytest.mark.row("S47")
def test_a_delta_is_refused_by_a_file_that_it_does_not_begin_with(graphs) -> None:
    old, new = graphs["range"]
    delta = packed_delta(old, new)
    assert delta is not None
    for other in (new, b"", old[:-1], old + b"\0"):
        with pytest.raises(DeltaError, match=r"begins with a file of .* fetch the new file whole"):
            apply_delta(other, delta, name="student.delta")


@pytest.mark.row("S47")
@pytest.mark.parametrize("of", ["range", "progressive", "baked", "patch"])
def test_a_truncated_or_damaged_delta_is_refused(graphs, fields, of: str) -> None:
    plain = RNG.integers(0, 256, 4000, dtype=np.uint8).tobytes()
    old, new = {**graphs, "baked": fields, "patch": (plain, edited(plain, seed=3))}[of]
    delta = packed_delta(old, new)
    assert delta is not None
    for end in {0, 5, 13, len(delta) // 2, len(delta) - 1}:
        with pytest.raises(DeltaError):
            apply_delta(old, delta[:end], name="a delta")
    for at in RNG.integers(0, len(delta), 40):
        damaged = bytearray(delta)
        damaged[at] ^= 1 << int(RNG.integers(8))
        with pytest.raises(DeltaError):
            apply_delta(old, bytes(damaged), name="a delta")


@pytest.mark.row("S47")
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_no_well_formed_lie_gets_past_it(graphs, fields, data: st.DataObject) -> None:
    """Deltas whose checksums are right and whose contents are not."""
    how: deltas.How = data.draw(st.sampled_from(["graph", "graph", "patch", "patch", "baked"]))
    old, new = fields if how == "baked" else graphs["progressive"]
    layers = list(deltas._layers(how, old, new) or ())
    chosen = data.draw(st.integers(0, len(layers) - 1))
    payload = bytearray(layers[chosen].payload)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(len(payload) - 1, 0)))
        payload[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    if bytes(payload) == layers[chosen].payload:
        return
    layers[chosen] = replace(layers[chosen], payload=bytes(payload))
    header = {"how": how, "from": told(old), "to": told(new)}
    started = time.perf_counter()
    with contextlib.suppress(DeltaError):
        assert apply_delta(old, packed_layers(kind=KIND, header=header, layers=layers), name="a lie") == new
    assert time.perf_counter() - started < 5


def told(content: bytes) -> list:
    return [len(content), hashlib.sha256(content).hexdigest()]


@pytest.mark.row("S47")
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"how": "patch", "from": None, "to": None},
        {"how": "patch", "from": [1], "to": [1, "a"]},
        {"how": ["patch"], "from": told(b"old"), "to": told(b"new")},
        {"how": "guess", "from": told(b"old"), "to": told(b"new")},
        {"how": "patch", "from": told(b"old"), "to": [1 << 60, "a"]},
        {"how": "patch", "from": told(b"old"), "to": [-1, "a"]},
        {"how": "patch", "from": told(b"old"), "to": [True, "a"]},
        {"how": "graph", "from": told(b"old"), "to": told(b"new")},
        {"how": "baked", "from": told(b"old"), "to": told(b"new")},
    ],
)
def test_a_header_that_lies_is_refused(header: dict) -> None:
    delta = packed_layers(kind=KIND, header=header, layers=[Layer("patch", patch_of(b"old", b"new"))])
    with pytest.raises(DeltaError, match="fetch"):
        apply_delta(b"old", delta, name="a delta")


@pytest.mark.row("S47")
def test_a_small_delta_cannot_claim_gigabytes() -> None:
    huge = patch_of(b"old", bytes(1 << 26))
    assert len(huge) < 10_000
    for claimed in (3, 1 << 26):
        header = {"how": "patch", "from": told(b"old"), "to": [claimed, "0" * 64]}
        delta = packed_layers(kind=KIND, header=header, layers=[Layer("patch", huge)])
        with pytest.raises(DeltaError):
            apply_delta(b"old", delta, name="a delta")
    header = {"how": "patch", "from": told(b"old"), "to": [deltas.BYTES_LIMIT + 1, "0" * 64]}
    with pytest.raises(DeltaError, match="none that a delta knows"):
        apply_delta(b"old", packed_layers(kind=KIND, header=header, layers=[Layer("patch", huge)]), name="a delta")


def test_a_file_too_large_for_deltas_is_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "BYTES_LIMIT", 100)
    (tmp_path / "a").write_bytes(bytes(101))
    assert delta_of(tmp_path / "a", tmp_path / "a", tmp_path / "d") is None


@pytest.mark.row("S48", "S68")
@pytest.mark.parametrize(
    ("of", "needed"),
    [("graph", {"numpy", "constriction", "zstandard"}), ("baked", {"numpy", "constriction", "numba", "llvmlite"})],
)
def test_a_ue_applies_it_with_what_it_has(tmp_path: Path, graphs, fields, of: str, needed: set[str]) -> None:
    old, new = graphs["progressive"] if of == "graph" else fields
    delta = packed_delta(old, new)
    assert delta is not None
    for name, content in (("old", old), ("delta", delta)):
        (tmp_path / name).write_bytes(content)
    device = bare_environment(tmp_path / "site", distributions=sorted(needed))
    ran, _ = device.run(
        "from crowdnerf_lab.catalogue.delta import apply_delta\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "new = apply_delta((folder / 'old').read_bytes(), (folder / 'delta').read_bytes(), name='a delta')\n"
        "(folder / 'new').write_bytes(new)",
        str(tmp_path),
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "new").read_bytes() == new


def test_importing_it_loads_nothing_heavy() -> None:
    script = (
        "import sys, json, crowdnerf_lab.catalogue.delta\n"
        "print(json.dumps(sorted({'torch', 'numba', 'onnx', 'pydantic', 'zstandard'} & set(sys.modules))))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []
