"""From a light field to one ONNX graph: pose and intrinsics in, image out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.light_fields.light_field import LightField, cell_centres, cells_across, rays_through_plane

OPSET = 20
"""The first ONNX opset in which GELU is one node."""
INPUTS, OUTPUT = ("camera_to_world", "focal", "centre"), "image"


class PoseToImage(nn.Module):
    """A light field at one image size, asked with the pose of an ideal pinhole camera: what is exported.

    camera_to_world: OpenCV axes. focal, centre: pixels of the full image, not of cells.
    """

    cell_pixels: Float[Tensor, "r c 2"]

    def __init__(self, light_field: LightField, *, width: int, height: int) -> None:
        super().__init__()
        self.light_field, self.width, self.height = light_field, width, height
        cell = light_field.cell
        rows, columns = cells_across(height, cell), cells_across(width, cell)
        self.register_buffer("cell_pixels", cell_centres(rows, columns, cell=cell))

    def forward(
        self, camera_to_world: Float[Tensor, "3 4"], focal: Float[Tensor, "2"], centre: Float[Tensor, "2"]
    ) -> Float[Tensor, "1 h w 3"]:
        """One image, sRGB in [0, 1]."""
        plane = (self.cell_pixels - centre) / focal
        image = self.light_field.from_rays(*rays_through_plane(camera_to_world.unsqueeze(0), plane.unsqueeze(0)))
        return image[:, :, : self.height, : self.width].permute(0, 2, 3, 1)


def export_onnx(light_field: LightField, path: Path, *, width: int, height: int) -> Path:
    """Write a light field's graph at one image size, float32, for whatever reads ONNX; atomic.

    Inputs as PoseToImage takes them, output 'image' [1 h w 3]. The size is part of the graph.
    """
    module = PoseToImage(light_field, width=width, height=height).eval()
    pose = torch.eye(3, 4)
    intrinsics = torch.tensor([float(width), float(width)]), torch.tensor([width / 2, height / 2])
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (pose, *intrinsics),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=(OUTPUT,),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program; use a torch whose exporter has dynamo=True")
    return write_bytes(Path(path), without_provenance(program.model_proto).SerializeToString())


def without_provenance(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without the exporter's notes: stack traces with this machine's paths, 6 % of a student's bytes."""
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    for holder in (clean, clean.graph, *clean.graph.node, *clean.graph.value_info, *clean.graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for value in (*clean.graph.input, *clean.graph.output):
        del value.metadata_props[:]
    return clean


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what torch 2.13's exporter says of its own insides: a deprecated class, torchvision's absence, rewrites."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
