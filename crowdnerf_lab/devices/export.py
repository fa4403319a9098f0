"""From a light field to one ONNX graph: pose and intrinsics in, image out."""

from pathlib import Path

import onnx
import torch

from crowdnerf_lab.devices.pose_to_image import INPUTS, OUTPUT, ExportError, PoseToImage, quiet_tracing
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.light_fields.light_field import LightField

OPSET = 20
"""The first ONNX opset in which GELU is one node."""


def export_onnx(light_field: LightField, path: Path, *, width: int, height: int) -> Path:
    """Write a light field's graph at one image size, float32, for whatever reads ONNX; atomic.

    Inputs as PoseToImage takes them, output 'image' [1 h w 3]. The size is part of the graph. Raises ExportError.
    """
    module = PoseToImage(light_field, width=width, height=height).eval()
    with quiet_tracing("onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            module,
            module.example(),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=(OUTPUT,),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program; use a torch whose exporter has dynamo=True")
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
