"""verify: does an artefact's card tell the truth here? Its PSNR and its milliseconds, measured again by the receiver.

The probe views' PSNR is arithmetic: kernels round differently, by far less than PSNR_TOLERANCE. Time is not: other work
on a machine delays a frame, by the whole of it and more. But it only ever delays, and waiting costs no processor time.
So the least disturbed of several rounds bounds the model's own time from above, the processor's time (over its threads)
from below, and a card is believed when its figure is within LATENCY_TOLERANCE of what lies between: one that promises
less than the processor itself must spend is found out however busy this machine is. A card that was measured on a busy
machine promises too much time; it is believed when its processor time is what is spent here.
"""

from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.catalogue.artefact import Artefact, open_artefact
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.remeasurement import Timing, machine, probe_psnr, timed_on_probes
from crowdnerf_lab.network.ue import LocalModel, load_artefact

PSNR_TOLERANCE = 0.2
LATENCY_TOLERANCE = 0.25
CLOCK_MS = 0.3
"""What a frame's time may differ by whatever the model: timers, caches, the scheduler's tick."""
ROUNDS = 5


@dataclass(frozen=True)
class Verification:
    """What a card says and what was found here. PSNR in dB on the probe views; times of a frame in milliseconds.

    processor_ms: the processor's time of a frame, its threads added up. same_machine: whether the card's latency was
    measured on such a machine with this runtime; if not, the times are for information. problems: where the card does
    not tell the truth, and by how much.
    """

    name: str
    psnr_card: float
    psnr_remeasured: float
    ms_card: float
    ms_remeasured: float
    processor_ms: float
    same_machine: bool
    problems: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the card may be believed."""
        return not self.problems


def verify(artefact: Artefact | Path, *, frames: int = 20, rounds: int = ROUNDS) -> Verification:
    """Check an artefact's files, load it as a UE does with the threads of its card, and measure it again.

    frames: of a round of timing; rounds: at most, fewer when the card is confirmed. Raises ArtefactError when the files
    are not what the card lists, or do not load.
    """
    opened = open_artefact(artefact.folder if isinstance(artefact, Artefact) else artefact)
    card = opened.card
    model = load_artefact(opened.folder, threads=card.latency.threads)
    probes = [probe.model_dump() for probe in card.probes]
    psnr = probe_psnr(model, opened.folder, probes)
    same_machine = (card.latency.machine, card.latency.runtime) == (machine(), model.runtime)
    timing = _retimed(model, opened, frames=frames, rounds=rounds if same_machine else 1)
    problems = [*_wrong_psnr(card, psnr), *(_wrong_latency(card, timing) if same_machine else [])]
    return Verification(
        name=card.name,
        psnr_card=card.probe_psnr,
        psnr_remeasured=psnr,
        ms_card=card.latency.median_ms,
        ms_remeasured=timing.median_ms,
        processor_ms=timing.processor_ms,
        same_machine=same_machine,
        problems=tuple(problems),
    )


def _retimed(model: LocalModel, artefact: Artefact, *, frames: int, rounds: int) -> Timing:
    """The least disturbed round, up to the first whose clock alone confirms the card."""
    probes, best = [probe.model_dump() for probe in artefact.card.probes], None
    for _ in range(rounds):
        timing = timed_on_probes(model, artefact.folder, probes, frames=frames)
        best = timing if best is None or timing.median_ms < best.median_ms else best
        if _within(artefact.card.latency.median_ms, best.median_ms, best.median_ms):
            break
    if best is None:
        raise ValueError(f"rounds is {rounds}; measure at least one")
    return best


def _within(claimed: float, lower: float, upper: float) -> bool:
    return (1 - LATENCY_TOLERANCE) * lower - CLOCK_MS <= claimed <= (1 + LATENCY_TOLERANCE) * upper + CLOCK_MS


def _wrong_psnr(card: ModelCard, found: float) -> list[str]:
    wrong = found - card.probe_psnr
    if abs(wrong) <= PSNR_TOLERANCE:
        return []
    return [
        f"{card.name}: its probe views have {found:.2f} dB, its card says {card.probe_psnr:.2f} ({wrong:+.2f}); "
        "do not trust its figures, fetch it from elsewhere"
    ]


def _wrong_latency(card: ModelCard, timing: Timing) -> list[str]:
    claimed, processor = card.latency.median_ms, card.latency.processor_ms
    least = min(timing.processor_ms / card.latency.threads, timing.median_ms)
    if _within(claimed, least, timing.median_ms):
        return []
    measured_while_busy = processor is not None and _within(processor, timing.processor_ms, timing.processor_ms)
    if claimed > timing.median_ms and measured_while_busy:
        return []
    wrong = timing.median_ms / claimed - 1
    return [
        f"{card.name}: a frame takes {timing.median_ms:.1f} ms here ({least:.1f} of the processor), its card says "
        f"{claimed:.1f} on the same machine ({wrong:+.0%}); do not trust its figures, measure it on an idle machine"
    ]
