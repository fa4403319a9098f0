"""Losses: their long-run shares and bursts are those of their parameters, and every seed gives the same ones."""

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.delivery.losses import (
    GilbertElliott,
    LossError,
    LossProcess,
    bursts,
    fates,
    independent,
    loss_model,
)

LINKS = [independent(0.1), bursts(0.1, 5.0), bursts(0.3, 2.0), GilbertElliott(0.02, 0.2, 0.01, 0.6)]


def burst_lengths(lost: np.ndarray) -> np.ndarray:
    """Lengths of all runs of losses of one receiver."""
    edges = np.diff(np.concatenate([[0], lost.astype(int), [0]]))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


@pytest.mark.row("S52")
@pytest.mark.parametrize("loss", LINKS)
def test_losses_and_bursts_are_as_frequent_and_as_long_as_their_parameters_say(loss: GilbertElliott) -> None:
    lost = LossProcess(loss, 400, seed=1).next(2000)
    of_receivers = lost.mean(axis=0)
    assert abs(lost.mean() - loss.mean_loss) < 4 * of_receivers.std() / math.sqrt(400)
    lengths = np.concatenate([burst_lengths(column) for column in lost.T])
    assert lengths.mean() == pytest.approx(loss.mean_burst, rel=0.03)


@given(st.floats(0.01, 0.6), st.floats(1.0, 50.0))
def test_bursts_are_what_was_asked_for(mean_loss: float, longer: float) -> None:
    loss = bursts(mean_loss, longer / (1 - mean_loss))
    assert loss.mean_loss == pytest.approx(mean_loss)
    assert loss.mean_burst == pytest.approx(longer / (1 - mean_loss))


@given(st.floats(0, 0.9, allow_subnormal=False))
def test_independent_losses_burst_as_chance_has_it(probability: float) -> None:
    loss = independent(probability)
    assert loss.mean_loss == pytest.approx(probability)
    assert loss.mean_burst == pytest.approx(1 / (1 - probability) if probability else 0)
    assert loss_model(probability) == loss


@pytest.mark.parametrize("loss", LINKS)
def test_a_stretch_in_pieces_is_the_stretch_at_once(loss: GilbertElliott) -> None:
    whole = LossProcess(loss, 7, seed=3).next(60)
    process = LossProcess(loss, 7, seed=3)
    pieces = np.concatenate([process.next(count) for count in (1, 0, 19, 40)])
    assert np.array_equal(whole, pieces)
    assert not np.array_equal(whole, LossProcess(loss, 7, seed=4).next(60))
    one = LossProcess(loss, 1, seed=3).next(2500)[:, 0]
    assert list(islice(fates(loss, seed=3), 2500)) == list(one)


def test_receivers_lose_different_packets() -> None:
    lost = LossProcess(bursts(0.3, 4.0), 50, seed=0).next(500).astype(float)
    correlations = np.corrcoef(lost.T)[np.triu_indices(50, 1)]
    assert abs(correlations.mean()) < 0.02


def test_extremes() -> None:
    assert not LossProcess(independent(0.0), 3, seed=0).next(100).any()
    assert LossProcess(independent(1.0), 3, seed=0).next(100).all()
    assert independent(1.0).mean_burst == math.inf
    assert LossProcess(bursts(0.0, 5.0), 3, seed=0).next(100).sum() == 0


@pytest.mark.parametrize(
    ("describe", "says"),
    [
        (lambda: independent(1.5), r"loss_when_good is 1.5; give a probability"),
        (lambda: GilbertElliott(math.nan, 0.5), "into_bad is nan"),
        (lambda: GilbertElliott(0.0, 0.0), "never changes its state"),
        (lambda: bursts(1.0, 5.0), "up to but not 1"),
        (lambda: bursts(0.5, 1.5), "give at least 2"),
        (lambda: LossProcess(independent(0.1), 0, seed=0), "0 receivers"),
    ],
)
def test_what_describes_no_link_is_refused(describe, says: str) -> None:
    with pytest.raises(LossError, match=says):
        describe()
