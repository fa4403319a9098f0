"""Core ML: light fields for Apple's devices as .mlpackage folders, with weights in 16, 8 or 4 bits.

Extra `coreml`. The network computes in float16, which is what the Neural Engine has; rays stay float32, where float16
would move a camera by centimetres. Packages are made and checked on any system; only macOS and iOS run them.
"""

import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from crowdnerf_lab.devices.formats.graphs import QuantizationError
from crowdnerf_lab.devices.pose_to_image import INPUTS, OUTPUT, ExportError, PoseToImage, quiet_tracing
from crowdnerf_lab.files import FileError
from crowdnerf_lab.light_fields.light_field import LightField

INSTALL = 'pip install "crowdnerf-lab[coreml]"'
Weights = Literal["float16", "int8", "int4", "palette4"]
"""palette4: 16 values a layer, found by k-means, and 4 bits a weight to choose among them."""
LAYERS = ("conv", "conv_transpose")
STORED = {
    "float16": None,
    "int8": "constexpr_blockwise_shift_scale",
    "int4": "constexpr_blockwise_shift_scale",
    "palette4": "constexpr_lut_to_dense",
}
"""The operation of ML Program that turns such weights into numbers."""
BLOCK = 8
"""Weights that share a scale in 4 bits: divides the channels of every layer here, 312 among them."""


@dataclass(frozen=True)
class CoreMLPackage:
    """A package as written: its folder, bytes of all its files, and how often its program holds each operation."""

    path: Path
    bytes: int
    op_types: Counter[str]


def export_core_ml(
    light_field: LightField, path: Path, *, width: int, height: int, weights: Weights = "float16"
) -> CoreMLPackage:
    """Write a light field as a Core ML package (a folder, .mlpackage) for iOS 18, macOS 15 and later.

    Inputs and output as PoseToImage's, float32. Raises ExportError without the package or for a path that does not end
    in .mlpackage, QuantizationError when a layer's weights were not stored as asked, FileError when nothing can be
    written; what was at `path` before is replaced only by a whole package.
    """
    path = Path(path)
    if path.suffix != ".mlpackage":
        raise ExportError(f"{path} is no name of a Core ML package; end it in .mlpackage")
    module = PoseToImage(light_field, width=width, height=height).eval()
    with quiet_tracing("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coremltools 9 and torch 2.13 warn of each other in many ways
        program = _with_weights(_converted(module), weights)
        op_types = _op_types(program)
        stored = STORED[weights]
        layers = sum(op_types[kind] for kind in LAYERS)
        if stored is not None and op_types[stored] != layers:
            raise QuantizationError(
                f"{path}: weights of {op_types[stored]} of {layers} layers are {weights}; store them as float16 or int8"
            )
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / path.name
            program.save(str(made))
            return CoreMLPackage(_moved(made, path), _bytes_of(path), op_types)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights of a package's layers by name, as the device will use them [c_out, c_in, ...], float32."""
    coremltools = _coremltools()
    with quiet_tracing("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = coremltools.models.MLModel(str(path), skip_model_load=True)
        except Exception as error:  # coremltools raises what its C++ half raises
            raise ExportError(f"{path} is not a whole Core ML package ({error}); export it again") from error
        plain = coremltools.optimize.coreml.decompress_weights(program)
        main = plain._mil_program.functions["main"]
        layers = [operation for kind in LAYERS for operation in main.find_ops(op_type=kind)]
        return {layer.name: np.asarray(layer.weight.val, np.float32) for layer in layers}


def _converted(module: PoseToImage) -> Any:
    coremltools = _coremltools()
    example = module.example()
    traced = torch.jit.trace(module, example, check_trace=False)
    return coremltools.convert(
        traced,
        convert_to="mlprogram",
        inputs=[
            coremltools.TensorType(name, value.shape, dtype=np.float32)
            for name, value in zip(INPUTS, example, strict=True)
        ],
        outputs=[coremltools.TensorType(OUTPUT, dtype=np.float32)],
        minimum_deployment_target=coremltools.target.iOS18,
        compute_precision=coremltools.transform.FP16ComputePrecision(op_selector=_behind_a_layer()),
    )


def _behind_a_layer() -> Callable[[Any], bool]:
    """Whether an operation is a layer of the network or works on what one made: not rays, nor their frequencies."""
    known: dict[str, bool] = {}

    def inside(operation: Any) -> bool:
        if operation.name not in known:
            sources = [source for value in operation.inputs.values() for source in _listed(value)]
            known[operation.name] = operation.op_type in LAYERS or any(
                source.op is not None and inside(source.op) for source in sources
            )
        return known[operation.name]

    return inside


def _with_weights(program: Any, weights: Weights) -> Any:
    """The program with its layers' weights stored in fewer bits; tables that are no weights, of pixels say, stay."""
    optimize = _coremltools().optimize.coreml

    def layers(setting: Any) -> Any:
        return optimize.OptimizationConfig(op_type_configs=dict.fromkeys(LAYERS, setting))

    linear, palette = optimize.OpLinearQuantizerConfig, optimize.OpPalettizerConfig
    match weights:
        case "float16":
            return program
        case "int8":
            setting = linear(mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0)
            return optimize.linear_quantize_weights(program, layers(setting))
        case "int4":
            setting = linear(
                mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=BLOCK, weight_threshold=0
            )
            return optimize.linear_quantize_weights(program, layers(setting))
        case "palette4":
            return optimize.palettize_weights(program, layers(palette(mode="kmeans", nbits=4, weight_threshold=0)))


def _op_types(program: Any) -> Counter[str]:
    return Counter(
        operation.type
        for function in program.get_spec().mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
    )


def _moved(made: Path, path: Path) -> Path:
    """Put a whole package in place of whatever was there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")) / path.name
        try:
            shutil.copytree(made, beside)
            if path.exists():
                shutil.rmtree(path)
            beside.replace(path)
        finally:
            shutil.rmtree(beside.parent)
    except OSError as error:
        raise FileError(
            f"could not write {path}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error
    return path


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


def _coremltools() -> Any:
    try:
        import coremltools.optimize.coreml  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExportError(f"exporting to Core ML needs packages that are not here ({error}): {INSTALL}") from error
    return coremltools
