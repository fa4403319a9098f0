"""What a rung would be like, judged by its siblings that were built: cheap, and only to decide what to build next.

Bytes: of a parameter in the same format and coding. Milliseconds: a cost model of this machine. PSNR: as trained, less
what format and coding lost elsewhere. What no sibling can tell is unknown, and an unknown rung is promising.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import fmean

from crowdnerf_lab.catalogue.card import Coding, Format, Kind, ModelCard
from crowdnerf_lab.devices.cost import CostModel, Proxy, Timed, Work, calibrated, predicted_ms
from crowdnerf_lab.devices.profile import DeviceProfile, Precision
from crowdnerf_lab.devices.rungs import Candidate

BITS_OF_FORMAT: dict[Format, float] = {
    "onnx_float32": 32,
    "onnx_float16": 16,
    "onnx_int8_qdq": 8,
    "onnx_int8_qdq_signed": 8,
    "onnx_int8_matmul": 8,
    "onnx_int8_mixed": 8,
    "onnx_int8_weights": 8,
    "onnx_int4_weights": 4.5,
}
"""A stored weight, before anything was measured."""
SHARE_OF_CODING: dict[Coding, float] = {"none": 1.0, "zstd": 0.95, "range": 0.85, "progressive": 0.9}
"""Of an uncoded file, before anything was measured."""
COMPUTED_IN_INT8: frozenset[Format] = frozenset(
    {"onnx_int8_qdq", "onnx_int8_qdq_signed", "onnx_int8_matmul", "onnx_int8_mixed"}
)


@dataclass(frozen=True)
class Prediction:
    """Expected figures of a rung; None: nothing that was built tells. work: of a frame, a sibling's."""

    bytes: float | None
    ms: float | None
    psnr: float | None
    work: Work | None


class Siblings:
    """What the cards of one ladder say about its other rungs."""

    def __init__(self, built: Mapping[Candidate, ModelCard]) -> None:
        self._bytes: dict[Hashable, list[float]] = defaultdict(list)
        self._losses: dict[Hashable, list[float]] = defaultdict(list)
        self._trained: dict[Hashable, float] = {}
        self._parameters: dict[Hashable, int] = {}
        self._works: dict[Hashable, tuple[Work, int]] = {}
        self._coded: dict[Hashable, int] = {}
        self._shares: dict[Hashable, list[float]] = defaultdict(list)
        timed: dict[Hashable, list[Timed]] = defaultdict(list)
        for candidate, card in built.items():
            model = candidate.family, candidate.size
            if card.bytes_uncoded:
                self._shares[card.coding].append(card.bytes / card.bytes_uncoded)
            if card.parameters:
                self._parameters[model] = card.parameters
                self._bytes[card.stored_as, card.coding].append(card.bytes / card.parameters)
            if card.steps:
                self._trained[model] = card.steps[0].psnr
                self._losses[_loses_like(candidate)].append(card.steps[0].psnr - card.steps[-1].psnr)
            if card.stored_as == "baked":
                self._coded[model, card.coding] = card.bytes
            work = work_of_card(card)
            if work is not None:
                self._works[model] = work, card.width * card.height
                timed[card.kind, card.computes_in].append(Timed(work, card.latency.median_ms))
        self._machines: dict[Hashable, CostModel] = {key: calibrated(times) for key, times in timed.items()}

    def expect(self, candidate: Candidate) -> Prediction:
        """The figures that a candidate will probably have."""
        model = candidate.family, candidate.size
        work = self._expected_work(candidate)
        machine = self._machines.get((candidate.kind, computes_in_of(candidate)))
        trained = self._trained.get(model)
        losses = self._losses.get(_loses_like(candidate))
        return Prediction(
            bytes=self._expected_bytes(candidate),
            ms=machine.ms(work) if machine and work else None,
            psnr=None if trained is None else trained - (fmean(losses) if losses else 0.0),
            work=work,
        )

    def _expected_work(self, candidate: Candidate) -> Work | None:
        """A sibling's, in proportion to the pixels."""
        known = self._works.get((candidate.family, candidate.size))
        if known is None:
            return None
        work, pixels = known
        more = candidate.width * candidate.height / pixels
        return Work(0, round(work.flops * more), round(work.bytes_moved * more), work.parameters)

    def _expected_bytes(self, candidate: Candidate) -> float | None:
        model = candidate.family, candidate.size
        if candidate.stored_as == "baked":  # the same file for every resolution
            return self._coded.get((model, candidate.coding))
        parameters = self._parameters.get(model)
        if parameters is None:
            return None
        if (candidate.stored_as, candidate.coding) in self._bytes:
            return parameters * fmean(self._bytes[candidate.stored_as, candidate.coding])
        uncoded = self._bytes.get((candidate.stored_as, "none"), [BITS_OF_FORMAT[candidate.stored_as] / 8])
        shares = self._shares.get(candidate.coding, [SHARE_OF_CODING[candidate.coding]])
        return parameters * fmean(uncoded) * fmean(shares)


def work_of_card(card: ModelCard) -> Work | None:
    """The work of a frame that a card tells; None on cards that do not."""
    if card.flops is None or card.bytes_moved is None:
        return None
    return Work(0, card.flops, card.bytes_moved, card.parameters or 0)


def proxy_of(work: Work | None, profile: DeviceProfile, *, kind: Kind, precision: Precision) -> Proxy | None:
    """The roofline's estimate for a device; None where the work is unknown or the processor runs no such model.

    A baked field is marched by code for a CPU: the peaks of a neural or graphics processor say nothing about it.
    """
    compute = profile.compute
    if work is None or compute is None or precision not in compute.peak_gops:
        return None
    if kind == "baked_field" and compute.unit != "cpu":
        return None
    return predicted_ms(profile, work, precision=precision)


def computes_in_of(candidate: Candidate) -> Precision:
    """What a format is meant to be computed in; what a runtime makes of it stands on the card."""
    return "int8" if candidate.stored_as in COMPUTED_IN_INT8 else "float32"


def _loses_like(candidate: Candidate) -> Hashable:
    """Rungs of the same key lose about as much: by format and coding; baked, by what was cut and how it is drawn."""
    if candidate.stored_as == "baked":
        return candidate.size, candidate.width, candidate.height
    return candidate.stored_as, candidate.coding
