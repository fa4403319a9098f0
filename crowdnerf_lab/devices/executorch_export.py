"""ExecuTorch: light fields for phones and boards, run by XNNPACK in float32 or, quantized by PT2E, in int8.

Extra `executorch`. A .pte file holds the program and what XNNPACK, its CPU back end, is to run of it.
"""

import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from crowdnerf_lab.devices.formats.graphs import Feed, QuantizationError
from crowdnerf_lab.devices.pose_to_image import INPUTS, ExportError, PoseToImage, quiet_tracing, traced_program
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.network.ue import LocalModel

INSTALL = 'pip install "crowdnerf-lab[executorch]"'


def export_executorch(
    light_field: LightField, path: Path, *, width: int, height: int, feeds: Sequence[Feed] | None = None
) -> Path:
    """Write a light field as an ExecuTorch program (.pte) at one image size; atomic.

    feeds: None for float32; views to calibrate with for int8 convolutions, per channel and symmetric, the activations
    in int8 with ranges seen over the feeds. Rays and their frequencies stay float32: in int8 a pose would be worthless.

    Raises ExportError without the package, or when a convolution was left to ExecuTorch's slow portable kernels;
    QuantizationError when feeds are empty or a convolution was left out.
    """
    module = PoseToImage(light_field, width=width, height=height).eval()
    with quiet_tracing():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing(error) from error
        program = traced_program(module) if feeds is None else _int8_program(module, feeds, path)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    left = [str(node.target) for node in lowered.exported_program().graph.nodes if "convolution" in str(node.target)]
    if left:
        raise ExportError(
            f"{path}: XNNPACK did not take {len(left)} convolutions; export a student of 2-D convolutions"
        )
    return write_bytes(Path(path), bytes(lowered.buffer))


def executorch_model(path: Path, *, width: int, height: int) -> LocalModel:
    """A .pte file ready to render on this machine, on all cores: XNNPACK's pool is the process's.

    Raises ExportError without the package or when the file is not a whole program.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This API is experimental")
            from executorch.runtime import Runtime, Verification  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing(error) from error
    try:
        program = Runtime.get().load_program(Path(path).read_bytes(), verification=Verification.InternalConsistency)
        loaded = program, program.load_method("forward")
    except (RuntimeError, KeyError) as error:
        raise ExportError(f"{path} is not a whole ExecuTorch program ({error}); export or fetch it again") from error

    def draw(pose, focal, centre):
        # A method that outlives its program reads freed memory, so both are held.
        _, method = loaded
        if method is None:
            raise ExportError(f"{path} holds no method 'forward'; export it again with export_executorch")
        inputs = [torch.from_numpy(part) for part in (pose, focal, centre)]
        return np.asarray(method.execute(inputs)[0])[0]

    return LocalModel(width, height, os.cpu_count() or 1, f"executorch {version('executorch')}", draw)


def _int8_program(module: PoseToImage, feeds: Sequence[Feed], path: Path) -> torch.export.ExportedProgram:
    """The module with quantized convolutions, by torch's PT2E flow: annotate, watch the ranges, convert."""
    if not feeds:
        raise QuantizationError(
            f"{path} cannot be calibrated without feeds; give some views, as calibration_feeds does"
        )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # pyright: ignore[reportMissingImports]
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # pyright: ignore[reportMissingImports]

    symmetric = get_symmetric_quantization_config(is_per_channel=True)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.conv2d.default, symmetric)  # pyright: ignore[reportArgumentType]
    watched = prepare_pt2e(traced_program(module).module(), quantizer)
    for feed in feeds:
        watched(*(torch.from_numpy(feed[name]) for name in INPUTS))
    program = torch.export.export(convert_pt2e(watched), module.example())
    kinds = [str(node.target) for node in program.graph.nodes]
    convolutions = sum("conv2d" in kind for kind in kinds)
    quantized = sum("dequantize_per_channel" in kind for kind in kinds)
    if not 0 < convolutions <= quantized:
        raise QuantizationError(f"{path}: {convolutions - quantized} of {convolutions} convolutions were not quantized")
    return program


def _missing(error: ImportError) -> ExportError:
    return ExportError(f"exporting to ExecuTorch needs packages that are not here ({error}): {INSTALL}")
