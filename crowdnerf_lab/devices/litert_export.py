"""LiteRT (formerly TensorFlow Lite): light fields for Android and microprocessors as .tflite, float32 or int8.

Extra `litert`, which takes an environment of its own: the converter brings JAX and 2 GB along.
"""

import contextlib
import io
from pathlib import Path
from typing import Literal

import numpy as np

from crowdnerf_lab.devices.pose_to_image import ExportError, PoseToImage, quiet_tracing
from crowdnerf_lab.files import write_bytes
from crowdnerf_lab.light_fields.light_field import LightField
from crowdnerf_lab.network.ue import LocalModel

INSTALL = 'pip install "crowdnerf-lab[litert]"'


def export_litert(
    light_field: LightField, path: Path, *, width: int, height: int, weights: Literal["float32", "int8"] = "float32"
) -> Path:
    """Write a light field as a LiteRT model (.tflite) at one image size; atomic.

    int8: weights per channel, activations quantized anew in every frame. Raises ExportError without the package, or
    when nothing became int8.
    """
    module = PoseToImage(light_field, width=width, height=height).eval()
    with quiet_tracing("litert_torch", "jax", "absl"), contextlib.redirect_stdout(io.StringIO()):
        try:
            import litert_torch  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _missing(error) from error
        model = bytes(litert_torch.convert(module, module.example()).model_content())
        if weights == "int8":
            plain, model = model, _int8(model)
            if len(model) >= len(plain):
                raise ExportError(f"{path}: no layer became int8; export it as float32")
    return write_bytes(Path(path), model)


def litert_model(path: Path, *, width: int, height: int, threads: int = 1) -> LocalModel:
    """A .tflite file ready to render on this machine. Raises ExportError without the package or for a damaged file."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing(error) from error
    from importlib.metadata import version

    try:
        interpreter = Interpreter(model_content=Path(path).read_bytes(), num_threads=threads)
        run = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{path} is not a whole LiteRT model ({error}); export or fetch it again") from error

    def draw(pose, focal, centre):
        return np.asarray(next(iter(run(args_0=pose, args_1=focal, args_2=centre).values())))[0]

    return LocalModel(width, height, threads, f"litert {version('ai-edge-litert')}", draw)


def _int8(model: bytes) -> bytes:
    from ai_edge_quantizer import quantizer, recipe  # pyright: ignore[reportMissingImports]

    quantization = quantizer.Quantizer(bytearray(model))
    quantization.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    return bytes(quantization.quantize().quantized_model)


def _missing(error: ImportError) -> ExportError:
    return ExportError(f"exporting to LiteRT needs packages that are not here ({error}): {INSTALL}")
