"""Trained fields as files: one safetensors file for a field of any kind, its sizes in the header."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from crowdnerf_lab.contributors import as_header
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLP, FrequencyMLPShape
from crowdnerf_lab.fields.hash_grid import HashGrid, HashGridShape
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.scene import Bounds
from crowdnerf_lab.weights import WeightsError, read_tensors, write_tensors

Field = SHGrid | HashGrid | FrequencyMLP
"""The kinds of field that can be trained here."""
FORMAT = "crowdnerf_lab.field/1"


def save_field(field: Field, path: Path, *, trained_on: Sequence[str] = ()) -> Path:
    """Write a trained field as one safetensors file (atomically). trained_on: whose photos, see contributors_of."""
    header = {"field": type(field).__name__, "shape": json.dumps(asdict(field.shape)), **as_header(trained_on)}
    return write_tensors(path, field.state_dict(), kind=FORMAT, header=header)


def load_field(path: Path) -> Field:
    """Read what `save_field` wrote. Raises WeightsError naming the file when it is truncated or something else."""
    tensors, header = read_tensors(path, kind=FORMAT)
    try:
        sizes = {name: _tuple(value) for name, value in json.loads(header["shape"]).items()}
        field = _untrained(header["field"], Bounds(tensors["centre"], tensors["half_size"]), sizes)
        field.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a consistent field: {error}; fetch it again, or train it anew") from error
    return field


def sh_grid_of(field: Field, origin: Path | str) -> SHGrid:
    """The field, if it is an SH grid, the only kind that can be baked. Raises WeightsError naming its origin."""
    if not isinstance(field, SHGrid):
        raise WeightsError(f"{origin} is a {type(field).__name__}, which cannot be baked; train with quality='fast'")
    return field


def _untrained(kind: str, bounds: Bounds, sizes: dict) -> Field:
    if kind == SHGrid.__name__:
        return SHGrid(bounds, shape=SHGridShape(**sizes))
    if kind == HashGrid.__name__:
        return HashGrid(bounds, shape=HashGridShape(**sizes))
    if kind == FrequencyMLP.__name__:
        return FrequencyMLP(bounds, shape=FrequencyMLPShape(**sizes))
    raise ValueError(f"there is no field called {kind!r}")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
