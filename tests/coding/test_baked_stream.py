"""Coded baked fields: exact, progressive, and refused when damaged."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.coding.baked_stream import KIND, coded_baked, decode_baked, encode_baked
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, packed_layers, read_layers
from crowdnerf_lab.fields.baked import BakedField, check_consistent, density_codes
from crowdnerf_lab.kernels import cpu

RESOLUTIONS, ROWS, CELLS = (4, 8, 16), 1 << 10, 16


def ball(*, numbers: int = 13, seed: int = 0, cells: int = CELLS, radius: float = 0.14) -> BakedField:
    """A ball of many colours whose finer levels matter less."""
    generator = np.random.default_rng(seed)
    side = (np.arange(cells) + 0.5) / cells - 0.5
    x, y, z = np.meshgrid(side, side, side, indexing="ij")
    occupied = x**2 + y**2 + z**2 < radius**2
    kept = np.zeros(len(RESOLUTIONS) * ROWS, np.bool_)
    cpu.rows_used(occupied.reshape(-1), cells, ROWS, np.array(RESOLUTIONS, np.int64), kept)
    level = np.repeat(np.arange(len(RESOLUTIONS)), ROWS)[kept]
    values = np.rint(generator.normal(0, 30, (len(level), numbers)) / 4.0 ** level[:, None])
    values[level == 0, 0] += 70
    scales = generator.uniform(0.02, 0.04, (len(RESOLUTIONS), numbers)).astype(np.float32)
    return BakedField(
        values=values.clip(-127, 127).astype(np.int8),
        scales=scales,
        kept=np.packbits(kept),
        occupied=np.packbits(occupied.reshape(-1), bitorder="little"),
        densities=density_codes(generator.uniform(5, 20, int(occupied.sum()))),
        background=np.array([0.1, 0.2, 0.3], np.float32),
        centre=np.array([0.5, 0, -1], np.float32),
        half_size=np.array([2, 2, 2.5], np.float32),
        resolutions=RESOLUTIONS,
        rows=ROWS,
        occupancy_cells=cells,
        bits=8,
        near=0.3,
        far=20.0,
        steps=96,
        refine=12,
        finest=8,
    )


def picture(field: BakedField) -> np.ndarray:
    pose = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, -3], [0, -1, 0, -1]])
    image = field.render_image(pose, (50, 50), centre=(20, 16), width=40, height=32, threads=1)
    return image.colour


def assert_same(one: BakedField, other: BakedField) -> None:
    for field in fields(BakedField):
        mine, yours = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == yours.dtype, field.name
            assert np.array_equal(mine, yours), field.name
        else:
            assert mine == yours, field.name


@given(
    numbers=st.sampled_from([4, 13]),
    seed=st.integers(0, 99),
    cells=st.sampled_from([1, 2, 5, 16, 20]),
    radius=st.floats(0.01, 0.9),
    shift=st.integers(0, 7),
    all_zero=st.booleans(),
)
@settings(max_examples=15)
def test_decoding_gives_back_the_very_field(
    numbers: int, seed: int, cells: int, radius: float, shift: int, all_zero: bool
) -> None:
    field = ball(numbers=numbers, seed=seed, cells=cells, radius=radius)
    field = replace(field, values=field.values * (not all_zero) >> shift)
    again, complete = decode_baked(coded_baked(field), name="field.cnf")
    assert complete
    assert_same(field, again)


def test_rows_that_no_occupied_cell_needs_survive_too() -> None:
    field = ball()
    kept = np.ones(len(RESOLUTIONS) * ROWS, np.bool_)
    values = np.random.default_rng(1).integers(-128, 128, (len(kept), 13)).astype(np.int8)
    field = replace(field, kept=np.packbits(kept), values=values)
    assert_same(field, decode_baked(coded_baked(field), name="x")[0])


def test_coding_saves_what_statistics_allow(tmp_path: Path) -> None:
    field = ball(radius=0.45)
    path = encode_baked(field, tmp_path / "field.cnf")
    assert path.stat().st_size < 0.75 * field.bytes
    grey = field.values.copy()
    grey[:, 5:9] = grey[:, 9:13] = grey[:, 1:5]
    assert len(coded_baked(replace(field, values=grey))) < 0.8 * path.stat().st_size


@pytest.mark.row("S28")
def test_every_prefix_beyond_the_first_layer_renders_and_more_is_better() -> None:
    field = ball()
    content = coded_baked(field)
    ends = read_layers(content, kind=KIND, name="x").ends
    assert len(ends) == 2 * len(RESOLUTIONS)
    truth, errors, generator = picture(field), [], np.random.default_rng(0)
    for first, last in zip(ends, [*ends[1:], ends[-1] + 1], strict=True):
        part, complete = decode_baked(content[: generator.integers(first, last)], name="x")
        assert complete == (first == ends[-1])
        at_end, _ = decode_baked(content[:first], name="x")
        assert_same(part, at_end)
        errors.append(float(((picture(part) - truth) ** 2).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0 < errors[-2] < errors[0] < float(((truth - field.background) ** 2).mean())


def test_prefix_without_its_first_layer_is_refused() -> None:
    content = coded_baked(ball())
    with pytest.raises(CodedFileError, match="receive more"):
        decode_baked(content[: read_layers(content, kind=KIND, name="x").ends[0] - 1], name="field.cnf")


@given(st.data())
@settings(max_examples=25)
def test_tampered_layers_are_refused_or_consistent(data: st.DataObject) -> None:
    """Checksums recomputed: whoever wrote the file meant harm, and gets an error or a field that is consistent."""
    file = read_layers(coded_baked(ball()), kind=KIND, name="x")
    at = data.draw(st.integers(0, len(file.layers) - 1))
    payload = bytearray(file.layers[at].payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    layers = [Layer(layer.name, bytes(payload) if i == at else layer.payload) for i, layer in enumerate(file.layers)]
    with suppress(CodedFileError):
        field, _ = decode_baked(packed_layers(kind=KIND, header=file.header, layers=layers), name="field.cnf")
        check_consistent(field)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rows", 1 << 40),
        ("rows", 1000),
        ("occupancy_cells", 5000),
        ("occupancy_cells", 17),
        ("resolutions", []),
        ("resolutions", [4] * 99),
        ("resolutions", [4, -8, 16]),
        ("numbers", 7),
        ("near", -1.0),
        ("near", "nearby"),
        ("background", [0.1]),
        ("steps", 1 << 30),
        ("centre", None),
    ],
)
def test_impossible_headers_are_refused(entry: str, value: object) -> None:
    file = read_layers(coded_baked(ball()), kind=KIND, name="x")
    content = packed_layers(kind=KIND, header={**file.header, entry: value}, layers=file.layers)
    with pytest.raises(CodedFileError, match=r"field\.cnf.*fetch"):
        decode_baked(content, name="field.cnf")


def test_an_inconsistent_field_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="out of range"):
        coded_baked(replace(ball(), steps=0))


def test_a_ue_decodes_without_torch(tmp_path: Path) -> None:
    path = encode_baked(ball(), tmp_path / "field.cnf")
    script = f"""
import sys
for absent in ("torch", "pydantic", "scipy", "jaxtyping", "safetensors", "onnx", "onnxruntime"):
    sys.modules[absent] = None
sys.path[:0] = {sys.path!r}
from pathlib import Path
from crowdnerf_lab.coding.baked_stream import decode_baked
field, complete = decode_baked(Path({str(path)!r}).read_bytes(), name="field.cnf")
assert complete and len(field.values)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
