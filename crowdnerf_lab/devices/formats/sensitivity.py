"""Which layers int8 hurts most, and a graph that leaves just those in float32.

Layers are tried one by one (as in HAWQ, Dong et al. 2019, but by the pictures themselves instead of their curvature):
only that layer is integer, everything else float32, and the pictures are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from crowdnerf_lab.devices.formats.graphs import (
    Feed,
    QuantizationError,
    layers_of,
    pictures,
    read_graph,
    write_graph,
)
from crowdnerf_lab.devices.formats.static_int8 import Ranges, activation_ranges, with_int8_layers
from crowdnerf_lab.devices.formats.weight_only import store_float16, weights_as_int8

PROBE_VIEWS = 4
"""Views whose pictures are compared, evenly from the feeds."""
MOST_DB = 99.0
"""PSNR of pictures without a difference."""


@dataclass(frozen=True)
class LayerSensitivity:
    """PSNR, dB, of pictures with only this layer in int8 against those of the float32 graph: low is sensitive."""

    layer: str
    psnr: float


@dataclass(frozen=True)
class MixedGraph:
    """A graph in mixed precision. floating: layers left in float32; psnr: its pictures against the float32 graph's."""

    path: Path
    floating: tuple[str, ...]
    psnr: float


def sensitivity_of(graph: Path, feeds: Sequence[Feed]) -> tuple[LayerSensitivity, ...]:
    """Every convolution's sensitivity, in the order in which they run."""
    model = read_graph(graph)
    return _sensitivities(model, activation_ranges(model, feeds, name=graph), feeds)


def quantize_mixed_int8(
    graph: Path, path: Path, *, feeds: Sequence[Feed], loss_db: float = 0.1, student_psnr: float = 30.0
) -> MixedGraph:
    """Int8 in as many layers as pictures bear: the most sensitive ones compute in float32.

    At most `loss_db` dB are lost by a student whose pictures are within `student_psnr` dB of the teacher's. Errors of
    quantization and of distillation are independent, so their squares add up, and the quantized pictures must come
    within student_psnr - 10 log10(10^(loss_db / 10) - 1) dB of the float32 ones: 46.3 dB for 0.1 dB lost of 30.

    The weights of layers left out are int8 all the same, or float16 where that alone would lose too much. Raises
    QuantizationError when float16 does, too.
    """
    model = read_graph(graph)
    ranges = activation_ranges(model, feeds, name=graph)
    needed = psnr_for_loss(loss_db, student_psnr=student_psnr)
    ranked = sorted(_sensitivities(model, ranges, feeds), key=lambda layer: layer.psnr)
    probes = _probes(feeds)
    truth = pictures(model, probes)

    def attempt(floating: int, *, halves: bool) -> tuple[onnx.ModelProto, float]:
        left, rest = ({layer.layer for layer in part} for part in (ranked[:floating], ranked[floating:]))
        mixed = with_int8_layers(model, ranges, layers=rest)
        if halves:
            store_float16(mixed, name=graph, layers=left)
        weights_as_int8(mixed)
        return mixed, psnr_between(pictures(mixed, probes), truth)

    halves = attempt(len(ranked), halves=False)[1] < needed
    if halves and (reached := attempt(len(ranked), halves=True)[1]) < needed:
        raise QuantizationError(
            f"{graph}: without any integer layer pictures still come within {reached:.1f} dB of the float32 ones only, "
            f"{needed:.1f} are needed to lose {loss_db:g} dB; allow more loss, or store it as onnx_float16"
        )
    # The fewest layers left out that suffice; leaving out more hardly ever loses more, so bisect.
    too_few, enough = -1, len(ranked)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if attempt(middle, halves=halves)[1] >= needed:
            enough = middle
        else:
            too_few = middle
    mixed, psnr = attempt(enough, halves=halves)
    return MixedGraph(write_graph(mixed, path), tuple(layer.layer for layer in ranked[:enough]), psnr)


def psnr_for_loss(loss_db: float, *, student_psnr: float) -> float:
    """PSNR, dB, against the unquantized pictures at which a student of student_psnr loses loss_db."""
    return student_psnr - 10 * float(np.log10(10 ** (loss_db / 10) - 1))


def psnr_between(images: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[np.float32]]) -> float:
    """PSNR, dB, over all pixels of several pictures in [0, 1]; MOST_DB at most."""
    pairs = zip(images, truths, strict=True)
    squared = np.mean([np.mean((image - truth) ** 2, dtype=np.float64) for image, truth in pairs])
    return min(float(-10 * np.log10(max(squared, 1e-30))), MOST_DB)


def _sensitivities(model: onnx.ModelProto, ranges: Ranges, feeds: Sequence[Feed]) -> tuple[LayerSensitivity, ...]:
    probes = _probes(feeds)
    truth = pictures(model, probes)
    return tuple(
        LayerSensitivity(
            conv.name, psnr_between(pictures(with_int8_layers(model, ranges, layers={conv.name}), probes), truth)
        )
        for conv in layers_of(model, ("Conv",))
    )


def _probes(feeds: Sequence[Feed]) -> list[Feed]:
    return [feeds[i] for i in np.unique(np.linspace(0, len(feeds) - 1, PROBE_VIEWS).round().astype(int))]
