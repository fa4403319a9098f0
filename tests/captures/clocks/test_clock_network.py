"""Clocks from differences between pairs, a minority of them wrong."""

import itertools

import numpy as np
import pytest

from crowdnerf_lab.captures.clocks.clock_network import Difference, settled


def differences(
    truth: np.ndarray, *, wrong: dict[tuple[int, int], float] | None = None, noise_s: float = 0.0, seed: int = 0
) -> list[Difference]:
    """Every pair, some of them off by so much."""
    rng = np.random.default_rng(seed)
    return [
        Difference(
            a, b, float(truth[b] - truth[a] + rng.normal(0, noise_s) + (wrong or {}).get((a, b), 0.0)), 0.9, 0.01
        )
        for a, b in itertools.combinations(range(len(truth)), 2)
    ]


TRUTH = np.array([0.3, -1.2, 4.0, 0.0, -0.7])


def test_exact_differences_give_exact_clocks_with_median_zero() -> None:
    network = settled(5, differences(TRUTH))
    assert network.corrections == pytest.approx(TRUTH - np.median(TRUTH), abs=1e-9)
    assert all(network.kept)
    assert max(map(abs, network.residuals_s)) < 1e-9


def test_wrong_pairs_are_thrown_out_by_the_cycles_they_break() -> None:
    wrong = {(0, 1): 0.5, (2, 4): -0.25, (1, 3): 3.0}
    network = settled(5, differences(TRUTH, wrong=wrong, noise_s=0.001))
    assert network.corrections == pytest.approx(TRUTH - np.median(TRUTH), abs=0.003)
    pairs = list(itertools.combinations(range(5), 2))
    assert {pair for pair, kept in zip(pairs, network.kept, strict=True) if not kept} == set(wrong)


def test_errors_shrink_with_the_number_of_pairs() -> None:
    few = settled(3, [Difference(0, 1, 0.0, 0.9, 0.01), Difference(1, 2, 0.0, 0.9, 0.01)])
    many = settled(5, differences(TRUTH))
    assert 0 < many.errors_s.max() < few.errors_s.max() < 0.02


def test_what_does_not_hang_together_is_kept_apart() -> None:
    pairs = [Difference(0, 1, 1.0, 0.9, 0.01), Difference(1, 2, 1.0, 0.9, 0.01), Difference(3, 4, 2.0, 0.9, 0.01)]
    network = settled(6, pairs)
    assert network.groups == ((0, 1, 2), (3, 4))
    assert network.corrections[:5] == pytest.approx([-1.0, 0.0, 1.0, -1.0, 1.0])
    assert np.isnan(network.corrections[5])


def test_no_differences_no_clocks() -> None:
    network = settled(3, [])
    assert network.groups == ()
    assert np.isnan(network.corrections).all()
