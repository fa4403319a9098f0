"""select: which artefact, or which set of them, fits a UE, its target and its task; else "ask the network", and why.

A UE's circumstances change while the event lasts; `reselect` asks again and says what the change was due to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.limits import (
    DEMANDS,
    Miss,
    Target,
    Task,
    download_seconds,
    first_picture_seconds,
    frame_ms,
    memory_mb,
    misses,
    psnr_of,
)

__all__ = [
    "Capability",
    "Reselection",
    "Selection",
    "SelectionOfSet",
    "Target",
    "Task",
    "download_seconds",
    "refusal",
    "reselect",
    "select",
    "select_set",
]

SOON_S = 1.0
"""Within which a set shows something: the use case's bound on the time from request to picture."""
WORTH_DB = 0.2
"""What another model must gain over one that is here and still fits, to be worth its download."""

Trigger = Literal["place", "energy", "processor", "memory", "models"]
FIELDS_OF_TRIGGER: Mapping[Trigger, tuple[str, ...]] = {
    "place": ("position", "link_mbit_s", "rtt_ms"),
    "energy": ("power_w", "battery_wh", "battery_hours"),
    "processor": ("operating_system", "runtimes", "precisions", "relative_speed", "busy", "compute"),
    "memory": ("memory_mb",),
}
"""What of a capability changes with each of the UE's circumstances; "models" is a change of the catalogue instead."""


@dataclass(frozen=True)
class Selection:
    """The artefact for this UE and why; artefact None means: ask the network for views.

    refused: what the others, by name, miss.
    """

    artefact: Artefact | None
    reason: str
    refused: Mapping[str, tuple[Miss, ...]]
    capability: Capability
    target: Target
    task: Task


@dataclass(frozen=True)
class SelectionOfSet:
    """Artefacts in the order of their download; none means: ask the network for views."""

    artefacts: tuple[Artefact, ...]
    reason: str


@dataclass(frozen=True)
class Reselection:
    """What a UE should run now. because: the circumstances without whose change it would run what it ran before."""

    selection: Selection
    changed: bool
    because: tuple[Trigger, ...]


def select(
    artefacts: Iterable[Artefact], capability: Capability, target: Target, *, task: Task = "novel_view"
) -> Selection:
    """The artefact of the highest PSNR that the UE can run within its target; of equals the smaller one.

    For a task that wants its picture soonest (a preview), the one whose first picture comes first. When none fits, the
    reason names the nearest miss, then for each artefact the first limit that it breaks.
    """
    offered = list(artefacts)
    judged = _judged(offered, capability, target, task)
    refused = {artefact.card.name: missed for artefact, missed in judged if missed}
    fitting = [artefact for artefact, missed in judged if not missed]
    if not fitting:
        return Selection(None, _ask_the_network(judged), refused, capability, target, task)
    if DEMANDS[task].soonest:
        best = min(fitting, key=lambda artefact: (_first(artefact, capability), *_best_first(artefact)))
    else:
        best = min(fitting, key=_best_first)
    reason = f"{_described(best.card, capability)}; best of {len(fitting)} that fit out of {len(offered)}"
    return Selection(best, reason, refused, capability, target, task)


def refusal(artefact: Artefact, capability: Capability, target: Target, *, task: Task = "novel_view") -> str | None:
    """The first limit that an artefact breaks, with both numbers; None when it fits."""
    missed = misses(artefact.card, capability, target, task=task)
    return missed[0].says if missed else None


def select_set(
    artefacts: Iterable[Artefact], capability: Capability, target: Target, *, task: Task = "novel_view"
) -> SelectionOfSet:
    """The best artefact, and before it a small one that shows something within SOON_S when the best does not.

    Together they stay within the UE's memory and the target's bytes and download time: the second waits for the first.
    The best of a pair may be poorer than the best alone would be, when that leaves room for something to see at once.
    """
    offered = list(artefacts)
    alone = select(offered, capability, target, task=task)
    if alone.artefact is None:
        return SelectionOfSet((), alone.reason)
    if _first(alone.artefact, capability) <= SOON_S:
        return SelectionOfSet((alone.artefact,), f"{alone.reason}; shows its first picture within {SOON_S:.0f} s")
    fitting = [artefact for artefact, missed in _judged(offered, capability, target, task) if not missed]
    soon = [artefact for artefact in fitting if _first(artefact, capability) <= SOON_S]
    pairs = [
        (first, best)
        for first in soon
        for best in fitting
        if psnr_of(best.card) > psnr_of(first.card) and _fit_together((first, best), capability, target)
    ]
    if pairs:
        first, best = min(pairs, key=lambda pair: (_best_first(pair[1]), _first(pair[0], capability)))
        return SelectionOfSet(
            (first, best),
            f"first {first.card.name}, to see something after {_first(first, capability):.2f} s; "
            f"then {_described(best.card, capability)}",
        )
    if soon:
        first = min(soon, key=_best_first)
        return SelectionOfSet(
            (first,),
            f"{_described(first.card, capability)}; no second one fits beside it, and {alone.artefact.card.name} alone "
            f"shows nothing before {_first(alone.artefact, capability):.2f} s",
        )
    return SelectionOfSet((alone.artefact,), f"{alone.reason}; none shows anything within {SOON_S:.0f} s")


def reselect(selection: Selection, artefacts: Iterable[Artefact], *, capability: Capability) -> Reselection:
    """Select again, for the UE as it is now, and say what a change is due to.

    A model that still fits stays unless another gains at least WORTH_DB over it. A circumstance is a cause when its
    change alone brings the new choice; when only several together do, all that changed are.
    """
    offered = list(artefacts)
    now = _kept_or_chosen(selection, offered, capability)
    if _name(now) == _name(selection):
        return Reselection(now, changed=False, because=())
    altered: list[Trigger] = [
        trigger
        for trigger, names in FIELDS_OF_TRIGGER.items()
        if any(getattr(capability, name) != getattr(selection.capability, name) for name in names)
    ]
    if _name(_kept_or_chosen(selection, offered, selection.capability)) != _name(selection):
        return Reselection(now, changed=True, because=("models",))
    because = []
    for trigger in altered:
        changes = {name: getattr(capability, name) for name in FIELDS_OF_TRIGGER[trigger]}
        alone = _kept_or_chosen(selection, offered, selection.capability.model_copy(update=changes))
        if _name(alone) == _name(now):
            because.append(trigger)
    return Reselection(now, changed=True, because=tuple(because or altered))


def _kept_or_chosen(before: Selection, offered: Sequence[Artefact], capability: Capability) -> Selection:
    now = select(offered, capability, before.target, task=before.task)
    kept = next((each for each in offered if before.artefact and each.card.name == before.artefact.card.name), None)
    if kept is None or now.artefact is None or _name(now) == kept.card.name or kept.card.name in now.refused:
        return now
    if not DEMANDS[before.task].soonest and psnr_of(now.artefact.card) - psnr_of(kept.card) >= WORTH_DB:
        return now
    reason = f"{_described(kept.card, capability)}; kept, {now.artefact.card.name} is not worth its download"
    return Selection(kept, reason, now.refused, capability, before.target, before.task)


def _judged(
    offered: Sequence[Artefact], capability: Capability, target: Target, task: Task
) -> list[tuple[Artefact, tuple[Miss, ...]]]:
    best_psnr = max((psnr_of(artefact.card) for artefact in offered), default=None)
    return [
        (artefact, misses(artefact.card, capability, target, task=task, best_psnr=best_psnr)) for artefact in offered
    ]


def _ask_the_network(judged: Sequence[tuple[Artefact, tuple[Miss, ...]]]) -> str:
    if not judged:
        return "ask the network: the event has no models yet"
    nearest, missed = min(judged, key=lambda each: (sum(miss.by for miss in each[1]), each[0].card.name))
    listed = "; ".join(f"{artefact.card.name}: {missed[0].says}" for artefact, missed in judged)
    limits = ", ".join(_by_how_much(miss) for miss in missed)
    return f"ask the network: {listed}. The nearest is {nearest.card.name}, which misses {limits}"


def _by_how_much(miss: Miss) -> str:
    name = miss.constraint.replace("_", " ")
    if math.isinf(miss.by):
        return f"its {name}"
    return (
        f"its {name} by {6 * miss.by:.1f} dB" if miss.constraint == "quality" else f"its {name} {2**miss.by:.2f} times"
    )


def _fit_together(together: Sequence[Artefact], capability: Capability, target: Target) -> bool:
    size = sum(artefact.card.bytes for artefact in together)
    most_s = math.inf if target.max_download_s is None else target.max_download_s
    return (
        sum(memory_mb(artefact.card) for artefact in together) <= capability.memory_mb
        and size <= (math.inf if target.max_bytes is None else target.max_bytes)
        and download_seconds(size, capability) <= most_s
    )


def _described(card: ModelCard, capability: Capability) -> str:
    measured = f"{card.latency.median_ms:.1f} ms a frame on {card.latency.machine}"
    there = frame_ms(card, capability)
    proxy = "" if there == card.latency.median_ms else f" (here about {there:.1f}, a proxy)"
    return f"{card.name}: {psnr_of(card):.1f} dB, {card.bytes / 1e6:.2f} MB, {measured}{proxy}"


def _best_first(artefact: Artefact) -> tuple[float, int, str]:
    """Sorts the best to the front: the highest PSNR, then the smallest file."""
    return (-psnr_of(artefact.card), artefact.card.bytes, artefact.card.name)


def _first(artefact: Artefact, capability: Capability) -> float:
    return first_picture_seconds(artefact.card, capability)


def _name(selection: Selection) -> str | None:
    return selection.artefact.card.name if selection.artefact else None
