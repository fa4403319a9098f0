"""Rate-distortion optimised quantization: errors as promised, bits saved where the picture forgives."""

import numpy as np
import pytest

from crowdnerf_lab.coding.entropy import bits_of
from crowdnerf_lab.coding.quantization import (
    DAMPING,
    LARGEST,
    Importance,
    laplace_bits,
    quantized,
    step_for_psnr,
    steps_of,
    uninformed,
)

RNG = np.random.default_rng(0)
WEIGHTS = RNG.laplace(0, 0.1, (96, 80))
MIXING = RNG.normal(0, 1, (80, 12)) @ RNG.normal(0, 1, (12, 80)) + 0.3 * RNG.normal(0, 1, (80, 80))
CORRELATED = Importance(RNG.uniform(0.05, 3, 96), MIXING @ MIXING.T / 80)
PLAIN = Importance(np.ones(96), np.eye(80))


def restored(result) -> np.ndarray:
    return result.integers * steps_of(result.rows, result.columns)


def cost(error: np.ndarray, importance: Importance) -> float:
    inputs = importance.inputs if importance.inputs.ndim == 2 else np.diag(importance.inputs)
    return float((importance.outputs * np.einsum("ri,ij,rj->r", error, inputs, error)).sum())


def diagonal(importance: Importance) -> Importance:
    return Importance(importance.outputs, np.diagonal(importance.inputs).copy())


def test_plain_rounding_errs_by_half_a_step_at_most():
    result = quantized(WEIGHTS, PLAIN, step=0.05, slope=0)
    assert (np.abs(restored(result) - WEIGHTS) <= steps_of(result.rows, result.columns) / 2 + 1e-12).all()


def test_the_cost_is_the_one_that_the_step_promises():
    for importance in (PLAIN, diagonal(CORRELATED), CORRELATED):
        result = quantized(WEIGHTS, importance, step=0.02, slope=0)
        promised = WEIGHTS.size * 0.02**2 / 12
        damping = DAMPING * np.trace(importance.inputs) / 80 if importance is CORRELATED else 0
        error = restored(result) - WEIGHTS
        damped = cost(error, importance) + damping * float((importance.outputs * (error**2).sum(1)).sum())
        assert 0.75 < damped / promised < 1.35


def test_the_step_for_a_psnr_costs_that_psnr():
    step = step_for_psnr(30.0, weights=WEIGHTS.size)
    result = quantized(WEIGHTS, PLAIN, step=step, slope=0)
    assert -10 * np.log10(cost(restored(result) - WEIGHTS, PLAIN)) == pytest.approx(30, abs=1.6)


def test_feedback_costs_a_fraction_of_plain_rounding_at_the_same_bits():
    def frontier(importance, step):
        result = quantized(WEIGHTS, importance, step=step)
        return bits_of(result.integers), cost(restored(result) - WEIGHTS, CORRELATED)

    bits, alone = frontier(diagonal(CORRELATED), 0.1)
    steps = np.geomspace(0.003, 0.6, 60)
    nearest = min((frontier(CORRELATED, step) for step in steps), key=lambda point: abs(point[0] - bits))
    assert abs(nearest[0] / bits - 1) < 0.08
    assert nearest[1] < 0.4 * alone


def test_choosing_by_rate_saves_bits_for_little_error():
    plain, chosen = (quantized(WEIGHTS, PLAIN, step=0.2, slope=slope) for slope in (0, 2 * np.log(2) / 12))
    finer = quantized(WEIGHTS, PLAIN, step=0.2 * np.sqrt(2), slope=0)
    assert bits_of(chosen.integers) < bits_of(plain.integers)
    saved = bits_of(plain.integers) - bits_of(chosen.integers)
    lost = cost(restored(chosen) - WEIGHTS, PLAIN) - cost(restored(plain) - WEIGHTS, PLAIN)
    coarser_saves = bits_of(plain.integers) - bits_of(finer.integers)
    coarser_loses = cost(restored(finer) - WEIGHTS, PLAIN) - cost(restored(plain) - WEIGHTS, PLAIN)
    assert lost / saved < coarser_loses / coarser_saves, "a dead zone must be worth more than a coarser step"


def test_weights_that_nothing_depends_on_become_zero():
    outputs = np.ones(96)
    outputs[::2] = 0
    result = quantized(WEIGHTS, Importance(outputs, np.eye(80)), step=0.01)
    assert not result.integers[::2].any()
    assert result.integers[1::2].any()


def test_whole_steps_keep_integers_integers_and_a_fine_step_keeps_them_all():
    integers = np.rint(WEIGHTS * 300).clip(-127, 127).astype(np.int32)
    fine = quantized(integers, PLAIN, step=0.9, whole=True, slope=0)
    assert np.array_equal(fine.integers * steps_of(fine.rows, fine.columns, whole=True), integers)
    coarse = quantized(integers, PLAIN, step=7.0, whole=True)
    assert np.unique(steps_of(coarse.rows, coarse.columns, whole=True)).tolist() == [8.0]


def test_weights_that_lie_on_their_lattice_stay_as_they_are():
    once = quantized(WEIGHTS, CORRELATED, step=0.1)
    again = quantized(restored(once), CORRELATED, step=0.1, slope=0)
    assert np.array_equal(once.integers, again.integers)


def test_bits_of_the_laplace_distribution_sum_to_one():
    integers = np.arange(-4000, 4001, dtype=float)
    for size in (0.05, 0.5, 3.0, 100.0):
        assert (2.0 ** -laplace_bits(integers, np.full(1, size))).sum() == pytest.approx(1, abs=1e-3)


def test_extreme_and_empty_weights_give_integers_of_32_bits():
    wild = np.array([[1e38, -1e38, 1e-38, 0.0]])
    assert np.abs(quantized(wild, uninformed(wild), step=1e-12).integers).max() <= LARGEST
    assert not quantized(np.zeros((3, 4)), uninformed(np.zeros((3, 4))), step=0.1).integers.any()


MOVED = WEIGHTS + np.random.default_rng(1).normal(0, 0.03, WEIGHTS.shape)


@pytest.mark.row("S40", "S50")
@pytest.mark.parametrize("importance", [PLAIN, CORRELATED])
def test_what_follows_a_version_keeps_its_steps_and_pays_for_every_move(importance: Importance) -> None:
    old = quantized(WEIGHTS, importance, step=0.1)
    new, alone = quantized(MOVED, importance, step=0.1, after=old), quantized(MOVED, importance, step=0.1)
    assert np.array_equal(new.rows, old.rows)
    assert np.array_equal(new.columns, old.columns)
    assert bits_of(new.integers - old.integers) < 0.8 * bits_of(alone.integers - old.integers)
    assert bits_of(new.integers) < 1.05 * bits_of(alone.integers)
    stayed, moved, independent = (cost(restored(found) - MOVED, importance) for found in (old, new, alone))
    assert independent < moved < (0.7 if importance is CORRELATED else 1.001) * stayed


def test_what_did_not_change_stays_where_it_is():
    old = quantized(WEIGHTS, CORRELATED, step=0.1)
    assert np.array_equal(quantized(WEIGHTS, CORRELATED, step=0.1, after=old).integers, old.integers)
    integers = np.rint(WEIGHTS * 300).clip(-127, 127).astype(np.int32)
    coarse = quantized(integers, PLAIN, step=7.0, whole=True)
    again = quantized(integers, PLAIN, step=7.0, whole=True, after=coarse)
    assert np.array_equal(again.integers, coarse.integers)


def test_errors_do_not_add_up_over_a_chain_of_versions():
    version, weights, generator = quantized(WEIGHTS, CORRELATED, step=0.1), WEIGHTS, np.random.default_rng(2)
    costs = []
    for _ in range(8):
        weights = weights + generator.normal(0, 0.02, weights.shape)
        version = quantized(weights, CORRELATED, step=0.1, after=version)
        costs.append(cost(restored(version) - weights, CORRELATED))
    assert max(costs[4:]) < 1.3 * max(costs[1:4])
