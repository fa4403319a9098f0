"""fit_to: the best model of a ladder for one class of devices and a target, or which limit stands in the way.

The search predicts every rung from those that were built, builds and measures the most promising one, and predicts
again, until nothing that is left promises more. What it returns was measured; where the device itself was not, its
milliseconds and joules are declared proxies.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import ModelCard
from crowdnerf_lab.catalogue.limits import RUNTIME_OF, Constraint, Miss, Target, misses, psnr_of
from crowdnerf_lab.devices.cost import Proxy, energy_of
from crowdnerf_lab.devices.ladder import Candidate, Ladder, LadderError
from crowdnerf_lab.devices.predictions import Prediction, Siblings, computes_in_of, proxy_of, work_of_card
from crowdnerf_lab.devices.profile import DeviceProfile

LatencyOf = Literal["device", "this machine"]
MARGIN = math.log2(1.25)
"""How far beyond a limit a prediction may lie, as log2 of a factor, before the rung is given up unbuilt."""
MARGIN_DB = 0.5
WORTH_DB, WORTH_BYTES = 0.02, 0.95
"""What an unbuilt rung must promise beyond the best that fits: decibels, or a file of this fraction at as many. Models
whose PSNR is closer than that count as equally good, and the smaller one is chosen."""


@dataclass(frozen=True)
class Considered:
    """One rung in the eyes of a device. misses: the limits it breaks; empty: it fits.

    artefact: what was measured; None: it was judged by `predicted` alone, and not built. proxy: the time of a frame on
    the device, where its profile has a roofline and the rung's work is known. refused: why it could not be built.
    """

    name: str
    artefact: Artefact | None
    predicted: Prediction | None
    proxy: Proxy | None
    misses: tuple[Miss, ...]
    refused: str | None = None


@dataclass(frozen=True)
class Fitted:
    """The best artefact for a device, and why; None: none fits, and the reason says what stands in the way.

    considered: every rung. nearest: for each limit that any rung breaks, the least miss of it; of those rungs that the
    device can run at all, if there are any.
    """

    artefact: Artefact | None
    reason: str
    considered: tuple[Considered, ...]
    nearest: tuple[Miss, ...]


def target_of(profile: DeviceProfile) -> Target:
    """What a profile asks of a frame: its time, as often as that allows."""
    return Target(max_ms=profile.frame_ms, frames_per_s=1e3 / profile.frame_ms)


def fit_to(
    profile: DeviceProfile,
    target: Target | None = None,
    *,
    ladder: Ladder | Sequence[Artefact],
    latency_of: LatencyOf = "device",
    most_builds: int = 12,
) -> Fitted:
    """Search a ladder for the artefact of the highest PSNR that a device can run within a target.

    target: limits beside the profile's own of memory and of energy a frame; by default target_of(profile).
    ladder: built as far as the search needs, at most `most_builds` rungs a call; or finished artefacts, from which is
    chosen alone. latency_of: whose time a frame's limit means: the device's (a proxy from its roofline, where the
    profile has one) or this machine's, as measured, when it is such a device.
    """
    judge = _Judge(profile, target or target_of(profile), latency_of)
    if not isinstance(ladder, Ladder):
        return _chosen(judge, _measured(judge, ladder))
    candidates, refused = ladder.candidates(), {}
    built = {candidate: artefact for candidate in candidates if (artefact := ladder.built(candidate)) is not None}
    for _ in range(most_builds):
        siblings = Siblings({candidate: artefact.card for candidate, artefact in built.items()})
        best = _best([each.artefact for each in _measured(judge, built.values()) if each.artefact and not each.misses])
        open_to_try = [each for each in candidates if each not in built and each not in refused]
        promising = _most_promising(judge, open_to_try, siblings, best)
        if promising is None:
            break
        try:
            built[promising] = ladder.build(promising)
        except LadderError as error:
            refused[promising] = str(error)
    siblings = Siblings({candidate: artefact.card for candidate, artefact in built.items()})
    unbuilt = [
        replace(judge.predicted(candidate, siblings.expect(candidate)), refused=refused.get(candidate))
        for candidate in candidates
        if candidate not in built
    ]
    return _chosen(judge, [*_measured(judge, built.values()), *unbuilt])


@dataclass(frozen=True)
class _Judge:
    """A device and its target: says what a rung misses, measured or predicted."""

    profile: DeviceProfile
    target: Target
    latency_of: LatencyOf

    @property
    def capability(self) -> Capability:
        """Of the device, but for its power: the profile's energy of a frame is the limit here."""
        return Capability.from_profile(self.profile).model_copy(update={"battery_wh": None, "power_w": None})

    @property
    def by_proxy(self) -> bool:
        return self.latency_of == "device" and self.profile.compute is not None

    def measured(self, artefact: Artefact, *, best_psnr: float) -> Considered:
        """By everything on the card. best_psnr: of the ladder, for a target that is relative to it."""
        card = artefact.card
        proxy = proxy_of(work_of_card(card), self.profile, kind=card.kind, precision=card.computes_in)
        target = replace(self.target, max_ms=None) if proxy and self.by_proxy else self.target
        found = [*misses(card, self.capability, target, best_psnr=best_psnr), *self._energy_miss(card)]
        if proxy and self.by_proxy:
            found += self._latency_miss(proxy.ms, str(proxy))
        return Considered(card.name, artefact, None, proxy, tuple(found))

    def predicted(self, candidate: Candidate, expected: Prediction) -> Considered:
        """By hard limits, and by soft ones as far as siblings tell."""
        found: list[Miss] = []
        runtime, precision = RUNTIME_OF[candidate.kind], computes_in_of(candidate)
        if runtime not in self.profile.runtimes:
            found.append(Miss("runtime", math.inf, f"needs {runtime}"))
        if precision not in self.profile.precisions:
            found.append(Miss("precision", math.inf, f"computes in {precision}"))
        proxy = proxy_of(expected.work, self.profile, kind=candidate.kind, precision=precision)
        if proxy and self.by_proxy:
            found += self._latency_miss(proxy.ms, str(proxy))
        elif expected.ms is not None:
            found += self._latency_miss(expected.ms, f"predicted {expected.ms:.1f} ms a frame on this machine")
        if expected.bytes is not None and self.target.max_bytes is not None and expected.bytes > self.target.max_bytes:
            by = math.log2(expected.bytes / self.target.max_bytes)
            found.append(Miss("bytes", by, f"predicted {expected.bytes:.0f} bytes, more than {self.target.max_bytes}"))
        if expected.psnr is not None and self.target.min_psnr is not None and expected.psnr < self.target.min_psnr:
            short = self.target.min_psnr - expected.psnr
            found.append(
                Miss("quality", short / 6, f"predicted {expected.psnr:.1f} dB, less than {self.target.min_psnr:.1f}")
            )
        return Considered(candidate.name, None, expected, proxy, tuple(found))

    def _latency_miss(self, ms: float, says: str) -> list[Miss]:
        limit = self.target.max_ms
        if limit is None or ms <= limit:
            return []
        return [Miss("latency", math.log2(ms / limit), f"{says}, more than {limit:.1f}")]

    def _energy_miss(self, card: ModelCard) -> list[Miss]:
        work = work_of_card(card)
        if work is None or proxy_of(work, self.profile, kind=card.kind, precision=card.computes_in) is None:
            return []
        spent, limit = energy_of(self.profile, work, precision=card.computes_in), 1e3 * self.profile.frame_joules
        if spent.frame_mj <= limit:
            return []
        says = f"about {spent.frame_mj:.2g} mJ a frame, more than {limit:.2g} ({spent.assumption})"
        return [Miss("energy", math.log2(spent.frame_mj / limit), says)]


def _measured(judge: _Judge, artefacts: Iterable[Artefact]) -> list[Considered]:
    measured = list(artefacts)
    best_psnr = max((psnr_of(artefact.card) for artefact in measured), default=0.0)
    return [judge.measured(artefact, best_psnr=best_psnr) for artefact in measured]


def _most_promising(
    judge: _Judge, candidates: Sequence[Candidate], siblings: Siblings, best: Artefact | None
) -> Candidate | None:
    """The rung that promises most of those that may fit and may beat what does; of equals the smaller file."""
    promising = []
    for candidate in candidates:
        expected = siblings.expect(candidate)
        if any(_is_hopeless(miss) for miss in judge.predicted(candidate, expected).misses):
            continue
        psnr = math.inf if expected.psnr is None else expected.psnr
        size = expected.bytes or 0.0
        gain = psnr - psnr_of(best.card) if best else math.inf
        if gain > WORTH_DB or (best and gain > -WORTH_DB and size < WORTH_BYTES * best.card.bytes):
            promising.append((-psnr, size, candidate.name, candidate))
    return min(promising)[-1] if promising else None


def _best(fitting: Sequence[Artefact]) -> Artefact | None:
    """The highest PSNR, and of those about as high the smallest file."""
    highest = max((psnr_of(artefact.card) for artefact in fitting), default=0.0)
    good = [artefact for artefact in fitting if psnr_of(artefact.card) >= highest - WORTH_DB]
    return min(good, key=lambda artefact: (artefact.card.bytes, artefact.card.name), default=None)


def _is_hopeless(miss: Miss) -> bool:
    return miss.by > (MARGIN_DB / 6 if miss.constraint == "quality" else MARGIN)


def _chosen(judge: _Judge, considered: Sequence[Considered]) -> Fitted:
    fitting = [each for each in considered if each.artefact is not None and not each.misses]
    best = _best([each.artefact for each in fitting if each.artefact is not None])
    runnable = [each for each in considered if not any(math.isinf(miss.by) for miss in each.misses)] or considered
    nearest, title = _nearest(runnable), judge.profile.title
    if best is None:
        return Fitted(None, f"no model fits {title}: {_obstacles(runnable)}", tuple(considered), nearest)
    card = best.card
    proxy = next(each.proxy for each in fitting if each.artefact is best)
    there = f"; on {title} {proxy}" if proxy else ""
    measured = sum(each.artefact is not None for each in considered)
    reason = (
        f"{card.name}: {psnr_of(card):.2f} dB, {card.bytes / 1e3:.0f} kB, {card.latency.median_ms:.1f} ms a frame on "
        f"{card.latency.machine}{there}; best of {len(fitting)} that fit, {measured} measured of {len(considered)}"
    )
    return Fitted(best, reason, tuple(considered), nearest)


def _nearest(considered: Sequence[Considered]) -> tuple[Miss, ...]:
    least: dict[Constraint, Miss] = {}
    for miss in (miss for each in considered for miss in each.misses):
        if miss.constraint not in least or miss.by < least[miss.constraint].by:
            least[miss.constraint] = miss
    return tuple(least.values())


def _obstacles(considered: Sequence[Considered]) -> str:
    """Limits that no rung keeps, each with its nearest miss; else the rung that comes nearest to keeping all."""
    if not considered:
        return "the ladder has no rungs"
    always = [
        miss
        for miss in _nearest(considered)
        if all(any(other.constraint == miss.constraint for other in each.misses) for each in considered)
    ]
    if always:
        return "; ".join(f"{_limit(miss)} at best: {miss.says}" for miss in always)
    closest = min(considered, key=lambda each: (sum(miss.by for miss in each.misses), each.name))
    missed = "; ".join(f"{_limit(miss)}: {miss.says}" for miss in closest.misses)
    return f"each limit is kept by some rung but not all by one; the nearest, {closest.name}, misses {missed}"


def _limit(miss: Miss) -> str:
    """A limit's name and how far it is missed."""
    name = miss.constraint.replace("_", " ")
    if math.isinf(miss.by):
        return name
    return (
        f"{name} by {6 * miss.by:.2f} dB" if miss.constraint == "quality" else f"{name} by a factor of {2**miss.by:.2f}"
    )
