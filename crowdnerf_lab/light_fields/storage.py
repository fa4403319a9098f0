"""Light fields in files: weights as safetensors, with what the network is made of in the header."""

from collections.abc import Sequence
from pathlib import Path

from crowdnerf_lab.contributors import as_header
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError
from crowdnerf_lab.light_fields.light_slab import LightSlab
from crowdnerf_lab.light_fields.plane_features import PlaneFeatures
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.weights import kind_of, read_tensors, write_tensors

RAY_MLP, PLANE_FEATURES = "crowdnerf_lab.ray_mlp/1", "crowdnerf_lab.plane_features/1"
LIGHT_SLAB = "crowdnerf_lab.light_slab/1"
"""Names and versions of the file formats."""


def save_light_field(light_field: LightField, path: Path, *, trained_on: Sequence[str] = ()) -> Path:
    """Write a light field's weights and header; atomic.

    trained_on: whose photos its teacher was trained on, see contributors_of.
    """
    if isinstance(light_field, RayMLP):
        kind, header = RAY_MLP, light_field.header()
    elif isinstance(light_field, PlaneFeatures):
        kind, header = PLANE_FEATURES, light_field.header()
    elif isinstance(light_field, LightSlab):
        kind, header = LIGHT_SLAB, light_field.header()
    else:
        raise LightFieldError(f"a {type(light_field).__name__} has no file format; export its graph instead")
    return write_tensors(path, light_field.state_dict(), kind=kind, header={**header, **as_header(trained_on)})


def load_light_field(path: Path) -> LightField:
    """Read what `save_light_field` wrote. WeightsError or LightFieldError on any other, or a damaged, file."""
    kind = kind_of(path)
    if kind == RAY_MLP:
        make = RayMLP.from_tensors
    elif kind == PLANE_FEATURES:
        make = PlaneFeatures.from_tensors
    elif kind == LIGHT_SLAB:
        make = LightSlab.from_tensors
    else:
        raise LightFieldError(f"{path} holds {kind!r}, no light field that is known; give the right file")
    tensors, header = read_tensors(path, kind=kind)
    try:
        light_field = make(tensors, header)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise LightFieldError(f"{path} does not fit its own header ({error}); fetch or distil it again") from error
    return light_field.eval()
