"""Which packets a link loses: independently, or in bursts (Gilbert 1960, Elliott 1963).

One description serves the injection into real sockets (`fates`, packet by packet) and the simulation of thousands of
receivers (`LossProcess`, whole stretches at once). Losses are reproducible from their seed, and a stretch drawn in
pieces is the stretch drawn at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Packets that `fates` draws at a time."""


class LossError(ValueError):
    """Loss parameters that describe no link; the message names the value and the remedy."""


@dataclass(frozen=True)
class GilbertElliott:
    """A link that is in a good or a bad state and loses packets with the probability of its state.

    into_bad, out_of_bad: probability of the change of state from one packet to the next. loss_when_good,
    loss_when_bad: probability that a packet is lost. Equal states make losses independent: `independent`.
    """

    into_bad: float
    out_of_bad: float
    loss_when_good: float = 0.0
    loss_when_bad: float = 1.0

    def __post_init__(self) -> None:
        for name in ("into_bad", "out_of_bad", "loss_when_good", "loss_when_bad"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise LossError(f"{name} is {value}; give a probability, 0 to 1")
        if self.into_bad + self.out_of_bad == 0:
            raise LossError("the link never changes its state; give into_bad or out_of_bad above 0")

    @property
    def bad_fraction(self) -> float:
        """Share of packets that meet the bad state."""
        return self.into_bad / (self.into_bad + self.out_of_bad)

    @property
    def mean_loss(self) -> float:
        """Share of packets that are lost."""
        bad = self.bad_fraction
        return (1 - bad) * self.loss_when_good + bad * self.loss_when_bad

    @property
    def mean_burst(self) -> float:
        """Mean number of packets lost in a row, once one is lost; infinite where nothing arrives, 0 without loss."""
        bad, good = self.bad_fraction, 1 - self.bad_fraction
        after_good = (1 - self.into_bad) * self.loss_when_good + self.into_bad * self.loss_when_bad
        after_bad = self.out_of_bad * self.loss_when_good + (1 - self.out_of_bad) * self.loss_when_bad
        twice = good * self.loss_when_good * after_good + bad * self.loss_when_bad * after_bad
        ends = self.mean_loss - twice
        if self.mean_loss == 0:
            return 0.0
        return self.mean_loss / ends if ends > 1e-12 * self.mean_loss else math.inf


def independent(probability: float) -> GilbertElliott:
    """Every packet is lost with the same probability, whatever happened to the one before."""
    return GilbertElliott(0.5, 0.5, loss_when_good=probability, loss_when_bad=probability)


def bursts(mean_loss: float, mean_burst: float) -> GilbertElliott:
    """Losses that come in bursts of a mean length, in packets: the bad state loses all, the good one nothing.

    A mean burst of 1 / (1 - mean_loss) makes losses independent; a shorter one would mean that losses avoid each other.
    """
    if not 0 <= mean_loss < 1:
        raise LossError(f"mean loss {mean_loss}; give a fraction, 0 up to but not 1")
    if mean_burst * (1 - mean_loss) < 1 - 1e-9:
        raise LossError(f"bursts of {mean_burst} packets at loss {mean_loss}; give at least {1 / (1 - mean_loss):.4g}")
    out_of_bad = min(1.0, 1 / mean_burst)
    return GilbertElliott(into_bad=min(1.0, out_of_bad * mean_loss / (1 - mean_loss)), out_of_bad=out_of_bad)


def loss_model(mean_loss: float, mean_burst: float = 1.0) -> GilbertElliott:
    """Independent losses where the mean burst is 1, or the chance's own 1 / (1 - mean_loss); else `bursts`."""
    by_chance = mean_burst == 1 or math.isclose(mean_burst * (1 - mean_loss), 1)
    return independent(mean_loss) if by_chance else bursts(mean_loss, mean_burst)


class LossProcess:
    """The losses of many receivers of the same packets, each on its own link, packet after packet.

    Every link begins in a state drawn from its long-run shares.
    """

    def __init__(self, loss: GilbertElliott, receivers: int, *, seed: int) -> None:
        if receivers < 1:
            raise LossError(f"{receivers} receivers; give at least one")
        self.loss, self.receivers = loss, receivers
        beginning, self._changes, self._luck = (
            np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence(seed).spawn(3)
        )
        self._bad = beginning.random(receivers) < loss.bad_fraction

    def next(self, packets: int) -> NDArray[np.bool_]:
        """Whether each receiver loses each of the next packets: [packets receivers]."""
        loss = self.loss
        if loss.loss_when_good == loss.loss_when_bad:
            return self._luck.random((packets, self.receivers)) < loss.loss_when_good
        bad = np.empty((packets, self.receivers), bool)
        state = self._bad
        for packet, change in enumerate(self._changes.random((packets, self.receivers))):
            bad[packet] = state
            state = np.where(state, change >= loss.out_of_bad, change < loss.into_bad)
        self._bad = state
        if (loss.loss_when_good, loss.loss_when_bad) == (0.0, 1.0):
            return bad
        luck = self._luck.random((packets, self.receivers))
        return luck < np.where(bad, loss.loss_when_bad, loss.loss_when_good)


def fates(loss: GilbertElliott, *, seed: int) -> Iterator[bool]:
    """Whether one receiver loses its first packet, its second, and so on without end."""
    process = LossProcess(loss, 1, seed=seed)
    while True:
        for lost in process.next(BLOCK)[:, 0]:
            yield bool(lost)
