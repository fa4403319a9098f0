"""What a browser downloads of a baked field: few bytes more than it is coded, and all that its bricks are made of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.coding.baked_stream import coded_baked
from crowdnerf_lab.fields.array_files import read_arrays
from crowdnerf_lab.fields.baked import BakedField
from crowdnerf_lab.fields.baked_rows import FORMAT, rows_file
from crowdnerf_lab.fields.brick_textures import BrickTexturesError
from crowdnerf_lab.network.models.browser_models import packed
from crowdnerf_lab.network.ue import decoded_field
from tests.toy_baked_field import ball, degree_0, thinned

ARTEFACTS = Path(__file__).resolve().parents[2] / "runs" / "bench_artefacts"
MOST_OF_CODED = 2.5
"""Times the bytes of the coded file that the rows may take, gzip'd."""
FORMS = {"one kind": lambda field: field, "all kinds": thinned, "degree 0": degree_0}


@pytest.fixture(scope="module")
def baked() -> BakedField:
    return ball()


def read(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, meta = read_arrays(content, name=Path("rows"))
    assert meta["format"] == FORMAT
    return arrays, json.loads(meta["numbers"])


@pytest.mark.parametrize("form", FORMS)
def test_rows_make_the_field_and_its_textures_again(baked: BakedField, form: str) -> None:
    field = FORMS[form](baked)
    arrays, numbers = read(rows_file(field))
    names = {"values", "scales", "kept", "occupied", "densities", "centre", "half_size", "background"}
    same = {name: numbers[name] for name in ("rows", "occupancy_cells", "near", "far", "refine", "finest")}
    again = BakedField(
        **{name: arrays[name] for name in names},
        **same,
        resolutions=tuple(numbers["resolutions"]),
        bits=field.bits,
        steps=field.steps,
    )
    expected, textures = field.textures(), again.textures()
    np.testing.assert_array_equal(textures.cells, expected.cells)
    np.testing.assert_array_equal(textures.bricks, expected.bricks)
    for name in ("kind_begins", "zero_log_density", "density_scale", "ratio"):
        assert np.array_equal(numbers[name], getattr(expected, name)), name
    assert (*numbers["shape"], 4) == expected.bricks.shape
    np.testing.assert_array_equal(arrays["units"], expected.units)
    kinds = field.bricks.kinds
    np.testing.assert_array_equal(arrays["kinds"], kinds[kinds > 0])


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_few_bytes_more_than_coded_ones(baked: BakedField, form: str) -> None:
    field = FORMS[form](baked)
    assert len(packed(rows_file(field))) < MOST_OF_CODED * len(coded_baked(field))


@pytest.mark.parametrize("tier", ["200kB", "1MB", "4MB", "full"])
def test_the_concert_takes_few_bytes_more_than_coded(tier: str) -> None:
    folder = ARTEFACTS / f"concert.baked_field.{tier}.baked.320x240.progressive"
    if not folder.is_dir():
        pytest.skip("runs/bench_artefacts is made by the benchmarks")
    content = open_artefact(folder).model.read_bytes()
    field, _ = decoded_field(content, name=folder, coded=True)
    assert len(packed(rows_file(field))) < MOST_OF_CODED * len(content)


def test_the_same_field_gives_the_same_bytes_that_others_can_read(baked: BakedField) -> None:
    content = rows_file(baked)
    assert content == rows_file(baked)
    arrays, _ = read(content)
    by_others = load(content)
    assert set(by_others) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(by_others[name], array)


def test_a_field_too_large_for_webgl_is_refused(baked: BakedField, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdnerf_lab.fields.brick_textures.MAX_SIDE", 30)
    with pytest.raises(BrickTexturesError, match="more than 30 a side; bake fewer levels"):
        rows_file(baked)
