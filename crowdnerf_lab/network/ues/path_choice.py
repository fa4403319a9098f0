"""Device or network: where a UE's next view comes from, and why; back and forth, but not to and fro.

The device's own model is preferred while it fits the UE as it is now: place, energy, processor and memory. It is left
at once when it no longer fits, and taken up again only with a margin and after a while, so that a circumstance that
wavers about a limit does not make the view waver with it. Either path may fail; then the other one serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.limits import Constraint, Target, Task, frame_ms, misses
from crowdnerf_lab.catalogue.select import Selection, Trigger, reselect, select

Path = Literal["device", "network"]

TRIGGER_OF: dict[Constraint, Trigger] = {
    "place": "place",
    "energy": "energy",
    "memory": "memory",
    "latency": "processor",
    "runtime": "processor",
    "precision": "processor",
}
"""Which of the UE's circumstances is behind a limit that a model on the device breaks."""


@dataclass(frozen=True)
class Hysteresis:
    """How reluctant a UE is to change paths. margin: share by which circumstances must be better than what the model
    needs before it is taken up again. rest_s: at least so long after it was put down. late_frames: in a row that are
    too late before the device is left; for probation_s then, doubled each time up to longest_s. silence_s: for which
    a network that failed is not asked while the device can show something; doubled each time up to longest_s.
    """

    margin: float = 0.1
    rest_s: float = 1.0
    late_frames: int = 3
    probation_s: float = 4.0
    silence_s: float = 0.5
    longest_s: float = 60.0


@dataclass(frozen=True)
class Choice:
    """A path, the model when it is the device's, why in a sentence, and the circumstances that made it change."""

    path: Path
    artefact: Artefact | None
    reason: str
    because: tuple[Trigger, ...] = ()


class PathChoice:
    """Chooses between the paths, view after view. budget_ms: what a frame may take on the device. Times are seconds of
    any clock that only moves forward."""

    def __init__(
        self, target: Target, *, budget_ms: float, task: Task = "novel_view", hysteresis: Hysteresis | None = None
    ) -> None:
        self.task: Task = task
        self.budget_ms = budget_ms
        self._target = replace(target, max_bytes=None, max_download_s=None, min_psnr=None, min_ssim=None)
        self._target = replace(self._target, within_db=None)  # what is here is here: its download is over
        self._hysteresis = hysteresis or Hysteresis()
        self._selection: Selection | None = None
        self._on_device = False
        self._put_down_at = float("-inf")
        self._late, self._on_time, self._probation_s, self._barred_until = 0, 0, 0.0, float("-inf")
        self._silence_s, self._silent_until, self._silent_because = 0.0, float("-inf"), ""

    def choose(self, held: Sequence[Artefact], capability: Capability, *, now: float) -> Choice:
        """Where the next view should come from, given the models that are here."""
        choice = self._preferred(held, capability, now)
        if (
            choice.path == "network"
            and now < self._silent_until
            and (any_model := self._with_what_is_here(held, capability))
        ):
            return Choice("device", any_model, f"the network fails ({self._silent_because}); with what is here")
        return choice

    def device_took(self, milliseconds: float, *, now: float) -> None:
        """A frame was drawn here in so many milliseconds."""
        if milliseconds <= self.budget_ms:
            self._late, self._on_time = 0, self._on_time + 1
            if self._on_time >= 10:
                self._probation_s = 0.0
            return
        self._late, self._on_time = self._late + 1, 0
        if self._late >= self._hysteresis.late_frames:
            self._late = 0
            self._probation_s = self._longer(self._probation_s, self._hysteresis.probation_s)
            self._barred_until = now + self._probation_s

    def device_failed(self, *, now: float) -> None:
        """The model could not be loaded or run."""
        self._probation_s = self._longer(self._probation_s, self._hysteresis.probation_s)
        self._barred_until = now + self._probation_s

    def network_answered(self) -> None:
        """A view came from the network."""
        self._silence_s, self._silent_until = 0.0, float("-inf")

    def network_failed(self, why: str, *, now: float, retry_after_s: float | None = None) -> None:
        """No view came from the network."""
        self._silence_s = self._longer(self._silence_s, self._hysteresis.silence_s)
        self._silent_until, self._silent_because = now + max(self._silence_s, retry_after_s or 0.0), why

    def forget_models(self) -> None:
        """Choose afresh: the models that are held have changed."""
        self._selection = None
        self._late, self._barred_until = 0, float("-inf")

    def _preferred(self, held: Sequence[Artefact], capability: Capability, now: float) -> Choice:
        if not held:
            return self._network("no model is on this device yet", now)
        if now < self._barred_until:
            return self._network(f"the device misses its {self.budget_ms:.0f} ms a frame", now, ("processor",))
        if not self._on_device and now < self._put_down_at + self._hysteresis.rest_s:
            return self._network("the device has only just been left", now)
        at_ease = self._on_device or self._selection is None
        considered = capability if at_ease else _tightened(capability, self._hysteresis.margin)
        before = self._selection
        if before is None:
            self._selection = select(held, considered, self._target, task=self.task)
            because: tuple[Trigger, ...] = ()
        else:
            reselection = reselect(before, held, capability=considered)
            self._selection, because = reselection.selection, reselection.because
        chosen = self._selection.artefact
        if chosen is None:
            missed = next(iter(self._selection.refused.values()))[0]
            because = (TRIGGER_OF[missed.constraint],) if missed.constraint in TRIGGER_OF else because
            return self._network(f"{missed.says}", now, because)
        returned, self._on_device = not self._on_device, True
        reason = self._selection.reason if not (returned and before) else f"it fits again: {self._selection.reason}"
        return Choice("device", chosen, reason, because)

    def _network(self, reason: str, now: float, because: tuple[Trigger, ...] = ()) -> Choice:
        if self._on_device:
            self._on_device, self._put_down_at = False, now
        return Choice("network", None, reason, because)

    def _with_what_is_here(self, held: Sequence[Artefact], capability: Capability) -> Artefact | None:
        """The model that breaks the fewest limits, if this UE can run any at all."""
        judged = [(misses(each.card, capability, self._target, task=self.task), each) for each in held]
        runs = [
            (len(missed), frame_ms(each.card, capability), i)
            for i, (missed, each) in enumerate(judged)
            if not any(miss.constraint in ("runtime", "precision", "task") for miss in missed)
        ]
        return held[min(runs)[2]] if runs else None

    def _longer(self, before: float, first: float) -> float:
        return min(max(2 * before, first), self._hysteresis.longest_s)


def _tightened(capability: Capability, margin: float) -> Capability:
    """A UE a little worse off in all that wavers."""
    left = 1 - margin
    return capability.model_copy(
        update={
            "memory_mb": capability.memory_mb * left,
            "busy": 1 - (1 - capability.busy) * left,
            "power_w": None if capability.power_w is None else capability.power_w * left,
            "battery_wh": None if capability.battery_wh is None else capability.battery_wh * left,
        }
    )
