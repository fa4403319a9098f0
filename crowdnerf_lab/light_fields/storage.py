"""Light fields in files: weights as safetensors, with what the network is made of in the header."""

from collections.abc import Sequence
from pathlib import Path

from crowdnerf_lab.contributors import as_header
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.weights import kind_of, read_tensors, write_tensors

RAY_MLP = "crowdnerf_lab.ray_mlp/1"
KINDS = (RAY_MLP,)


def save_light_field(light_field: LightField, path: Path, *, trained_on: Sequence[str] = ()) -> Path:
    """Write a light field's weights and header; atomic.

    trained_on: whose photos its teacher was trained on, see contributors_of.
    """
    if not isinstance(light_field, RayMLP):
        raise LightFieldError(f"a {type(light_field).__name__} has no file format; save one of {', '.join(KINDS)}")
    header = {**light_field.header(), **as_header(trained_on)}
    return write_tensors(path, light_field.state_dict(), kind=RAY_MLP, header=header)


def load_light_field(path: Path) -> LightField:
    """Read what `save_light_field` wrote. WeightsError or LightFieldError on any other, or a damaged, file."""
    kind = kind_of(path)
    if kind not in KINDS:
        raise LightFieldError(f"{path} holds {kind!r}, no light field ({', '.join(KINDS)}); give the right file")
    tensors, header = read_tensors(path, kind=kind)
    try:
        light_field = RayMLP.from_tensors(tensors, header)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise LightFieldError(f"{path} does not fit its own header ({error}); fetch or distil it again") from error
    return light_field.eval()
