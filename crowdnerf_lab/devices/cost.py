"""What a frame costs: operations and bytes counted, milliseconds of this machine fitted, of any other declared a proxy.

The roofline is Williams, Waterman and Patterson's (2009): a processor is as fast as its arithmetic or its memory,
whichever takes longer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from jaxtyping import Float
from onnx import ModelProto, NodeProto
from scipy.optimize import nnls
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, pixel_grid
from crowdnerf_lab.catalogue.card import Energy
from crowdnerf_lab.devices.profile import Compute, DeviceProfile, Precision
from crowdnerf_lab.fields.baked import BakedField, densities_of
from crowdnerf_lab.kernels.reference import OPAQUE, contracted

CORNERS = 8
SHADING_OPERATIONS, STEP_OPERATIONS = 60, 30
"""Of a sample beside its interpolation (exponentials, sigmoids, spherical harmonics, blending) and of a step
(position, contraction, cell), counted in the kernel by hand."""
SAMPLED_RAYS = 1000


class CostError(ValueError):
    """A graph, a processor or measurements from which no cost can be had; the message says why and what to do."""


@dataclass(frozen=True)
class Work:
    """One frame's work. multiply_adds: of convolutions and matrix products (one each). other: further operations.

    bytes_moved: every tensor between two kernels read and written once, as if nothing stayed in a cache; activations
    and (de)quantization are part of the kernel beside them, as runtimes fuse them. parameters: numbers stored.
    """

    multiply_adds: int
    other: int
    bytes_moved: int
    parameters: int

    @property
    def flops(self) -> int:
        """Operations of a frame; a multiply-add is two."""
        return 2 * self.multiply_adds + self.other


def work_of_graph(graph: Path | ModelProto) -> Work:
    """Walk an ONNX graph with its shapes. Raises CostError when the shape of a convolution or product is unknown."""
    model = graph if isinstance(graph, ModelProto) else onnx.load(graph)
    sizes = _tensors_of(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    parameters = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    constant, stands_for = set(weights), _fused(model)
    multiply_adds = other = moved = 0
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if all(name in constant for name in inputs):
            constant.update(node.output)
            continue
        if node.op_type in FREE:
            continue
        out = sum(sizes[name].count for name in node.output if name in sizes)
        if node.op_type in PRODUCTS:
            multiply_adds += _multiply_adds(node, sizes)
        elif node.op_type in ARITHMETIC:
            other += out
        if node.op_type not in FUSED:
            tensors = [stands_for.get(name, name) for name in (*inputs, *node.output)]
            moved += sum(sizes[name].bytes for name in tensors if name in sizes)
    return Work(multiply_adds, other, moved, parameters)


PRODUCTS = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"}
    | {"FusedConv", "FusedMatMul", "MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)
ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Sin", "Cos", "Sigmoid", "Relu"}
    | {"Gelu", "Erf", "Tanh", "Clip", "Min", "Max", "Where", "LeakyRelu", "Softplus", "BatchNormalization"}
    | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "ReduceSum", "ReduceMax", "ReduceMean"}
    | {"GridSample", "Resize", "Floor", "Ceil", "Mod"}
)
FREE = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape", "Constant", "ConstantOfShape"})
"""Operations that move nothing: they only say how a tensor is seen."""


FUSED = frozenset({"Relu", "LeakyRelu", "Gelu", "Sigmoid", "Tanh", "Clip", "QuantizeLinear", "DequantizeLinear"})


def _fused(model: ModelProto) -> dict[str, str]:
    """Tensors that exist inside a kernel only, and what travels in their place: integers for what is dequantized."""
    travels: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            travels[node.output[0]] = travels.get(node.input[0], node.input[0])
        elif node.op_type == "QuantizeLinear":
            travels[node.input[0]] = node.output[0]
    return travels


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    width: float

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return math.ceil(self.count * self.width)


def _tensors_of(model: ModelProto) -> dict[str, _Tensor]:
    """Shape and bytes a number of every tensor whose shape is known before the graph runs."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {t.name: _Tensor(tuple(t.dims), _width(t.data_type)) for t in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = _Tensor(tuple(d.dim_value for d in tensor.shape.dim), _width(tensor.elem_type))
    return found


def _width(element: int) -> float:
    four_bits = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
    if element in four_bits:
        return 0.5
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)).itemsize


def _multiply_adds(node: NodeProto, sizes: dict[str, _Tensor]) -> int:
    """Of one convolution or product: numbers out, times numbers that each is summed over."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    try:
        if node.op_type == "MatMulNBits":
            rows = sizes[node.input[0]].count // attributes["K"]
            return rows * attributes["K"] * attributes["N"]
        if node.op_type == "ConvTranspose":
            weight = sizes[node.input[1]].shape
            return sizes[node.input[0]].count * math.prod(weight[1:])
        if node.op_type in {"Conv", "FusedConv", "ConvInteger"}:
            return sizes[node.output[0]].count * math.prod(sizes[node.input[1]].shape[1:])
        if node.op_type == "QLinearConv":
            return sizes[node.output[0]].count * math.prod(sizes[node.input[3]].shape[1:])
        left, right = sizes[node.input[0]], sizes[node.input[3 if node.op_type == "QLinearMatMul" else 1]]
        if node.op_type == "Gemm" and attributes.get("transA"):
            return left.count * right.shape[0 if attributes.get("transB") else 1]
        if node.op_type == "Gemm" and attributes.get("transB"):
            return left.count * right.shape[0]
        return left.count * (right.shape[-1] if len(right.shape) > 1 else 1)
    except KeyError as error:
        raise CostError(
            f"the shape of {error} at {node.op_type} {node.name!r} is unknown; export the graph with a fixed size"
        ) from error


def work_of_march(field: BakedField, cameras: Cameras, *, width: int, height: int) -> Work:
    """March a thousand of the cameras' rays through the occupancy grid as a UE does, and count what they look up.

    Where a ray ends is judged by the cells' densities, not by those of the finer levels that a UE looks up.
    """
    sized = cameras.resized(width, height)
    per_camera = max(1, SAMPLED_RAYS // len(sized))
    steps_taken = samples = rays = 0
    for i in range(len(sized)):
        plane = (pixel_grid(width, height).reshape(-1, 2) - sized.centre[i]) / sized.focal[i]
        plane = plane[:: max(1, len(plane) // per_camera)]
        directions = torch.cat([plane, torch.ones_like(plane[:, :1])], dim=1) @ sized.camera_to_world[i, :, :3].T
        steps, looked_up = _counted(field, sized.positions[i], directions / directions.norm(dim=1, keepdim=True))
        steps_taken, samples, rays = steps_taken + steps, samples + looked_up, rays + len(plane)
    pixels, numbers = width * height, field.values.shape[1]
    lookups = samples * len(field.resolutions) * CORNERS
    return Work(
        multiply_adds=round(lookups * numbers / rays * pixels),
        other=round((samples * SHADING_OPERATIONS + steps_taken * STEP_OPERATIONS) / rays * pixels),
        bytes_moved=round((lookups * (numbers + 4) + steps_taken * 4) / rays * pixels) + 3 * pixels,
        parameters=field.values.size + field.densities.size,
    )


def _counted(field: BakedField, origin: Float[Tensor, "3"], directions: Float[Tensor, "n 3"]) -> tuple[int, int]:
    """Steps that n rays take until they end, and samples at which they interpolate the field's levels."""
    cells = field.occupancy_cells
    density = torch.zeros(cells**3)
    occupied = np.unpackbits(field.occupied, count=cells**3, bitorder="little").astype(bool)
    density[torch.from_numpy(occupied)] = torch.from_numpy(densities_of(field.densities))
    centre, half_size = torch.from_numpy(field.centre).float(), torch.from_numpy(field.half_size).float()
    ratio = (field.far / field.near) ** (1 / field.steps)
    edges = field.near * ratio ** (torch.arange(field.steps) + 0.5)
    middles = edges * (1 + ratio) / 2
    edges = edges[middles < field.far]
    positions = origin + directions[:, None] * middles[: len(edges), None]
    x, y, z = (contracted(positions, centre, half_size) * cells).long().unbind(-1)
    met = density[(x * cells + y) * cells + z]
    through = torch.exp(-met * edges * (ratio - 1) / half_size.mean())
    expected = torch.cat([torch.ones(len(directions), 1), through.cumprod(1)[:, :-1]], dim=1)
    reached = expected >= OPAQUE
    parts = (field.refine * expected * (1 - through)).ceil().clamp(1, field.finest)
    return int(reached.sum()), int((parts * (reached & (met > 0))).sum())


@dataclass(frozen=True)
class Proxy:
    """Milliseconds of a frame on a device that was not measured: an estimate that always says so.

    of: whose roofline. bound: what holds it up there, arithmetic or memory.
    """

    ms: float
    of: str
    bound: Literal["arithmetic", "memory"]

    def __str__(self) -> str:
        return f"about {_two_digits(self.ms)} ms (proxy: roofline of {self.of}, bound by {self.bound}; not measured)"


def predicted_ms(profile: DeviceProfile, work: Work, *, precision: Precision) -> Proxy:
    """The roofline of a profile's processor: the longer of its arithmetic, at what is attained, and its memory traffic.

    Raises CostError for a profile without a processor's peaks, or that does not compute in `precision`.
    """
    compute = _compute_of(profile, precision)
    arithmetic = work.flops / (compute.peak_gops[precision] * compute.attained) / 1e6
    memory = work.bytes_moved / compute.memory_gb_s / 1e6
    of = f"{profile.title}: {compute.processor}, {compute.attained:.0%} of {compute.peak_gops[precision]:g} GOPS in "
    of += f"{precision}, {compute.memory_gb_s:g} GB/s"
    return Proxy(max(arithmetic, memory), of, "arithmetic" if arithmetic >= memory else "memory")


def energy_of(profile: DeviceProfile, work: Work, *, precision: Precision) -> Energy:
    """What the profile's declared energies of an operation and of a byte make of a frame. CostError as predicted_ms."""
    compute = _compute_of(profile, precision)
    per_op, per_byte = compute.picojoule_per_op[precision], compute.picojoule_per_byte
    return Energy(
        frame_mj=compute.frame_mj(flops=work.flops, bytes_moved=work.bytes_moved, precision=precision),
        assumption=f"estimated, not measured: {per_op:g} pJ an operation in {precision} and {per_byte:g} pJ a byte "
        f"moved, as assumed for {compute.processor} ({profile.name}), nothing cached",
    )


def _compute_of(profile: DeviceProfile, precision: Precision) -> Compute:
    if profile.compute is None:
        raise CostError(f"{profile.name} does not say what its processor can do; add a [compute] table to its profile")
    if precision not in profile.compute.peak_gops:
        known = ", ".join(profile.compute.peak_gops)
        raise CostError(f"{profile.name}: no peak for {precision}, only for {known}; choose one of them or add it")
    return profile.compute


@dataclass(frozen=True)
class Timed:
    """A model that was measured here: its work, and the median of its frames in milliseconds."""

    work: Work
    ms: float


@dataclass(frozen=True)
class CostModel:
    """Milliseconds of a frame on this machine, of one runtime and precision: linear in the work, never below 0.

    error: how far off the models it was fitted on are when each is predicted from the others (median, as a fraction);
    None with fewer than three, when nothing can be said.
    """

    ms_per_gflop: float
    ms_per_megabyte: float
    overhead_ms: float
    fitted_on: int
    error: float | None

    def ms(self, work: Work) -> float:
        """Milliseconds of a frame of this work."""
        return self.ms_per_gflop * work.flops / 1e9 + self.ms_per_megabyte * work.bytes_moved / 1e6 + self.overhead_ms


def calibrated(measured: Sequence[Timed]) -> CostModel:
    """Fit a cost model: non-negative least squares of relative errors, ms ~ a flops + b bytes + c.

    With fewer than three measurements only what they can carry is fitted: a alone, or a and c. CostError with none.
    """
    if not measured:
        raise CostError("nothing was measured; build one artefact of this runtime and precision first")
    a, b, c = _coefficients(measured)
    errors = [
        abs(CostModel(*_coefficients([*measured[:i], *measured[i + 1 :]]), 0, None).ms(timed.work) / timed.ms - 1)
        for i, timed in enumerate(measured)
        if len(measured) >= 3
    ]
    return CostModel(a, b, c, fitted_on=len(measured), error=float(np.median(errors)) if errors else None)


def _coefficients(measured: Sequence[Timed]) -> tuple[float, float, float]:
    features = np.array([[timed.work.flops / 1e9, timed.work.bytes_moved / 1e6, 1.0] for timed in measured])
    columns = [[0], [0, 2]][len(measured) - 1] if len(measured) < 3 else [0, 1, 2]
    ms = np.array([timed.ms for timed in measured])
    solution, _ = nnls(features[:, columns] / ms[:, None], np.ones(len(ms)))
    coefficients = np.zeros(3)
    coefficients[columns] = solution
    return float(coefficients[0]), float(coefficients[1]), float(coefficients[2])


def _two_digits(ms: float) -> str:
    return f"{ms:.2g}" if ms < 10 else f"{float(f'{ms:.2g}'):,.0f}"
