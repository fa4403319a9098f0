"""When views will be ready: queues by hand, and times that are learned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.views.view_schedule import GROWTH, OVERHEAD_MS, RenderTimes, finish_times

WORK = st.lists(st.floats(0, 1000), min_size=1, max_size=30)


def test_two_processes_share_a_queue() -> None:
    assert finish_times([0, 30], [50, 50, 10]) == [50, 80, 60]


def test_a_process_that_is_late_already_counts_as_idle() -> None:
    assert finish_times([-500], [20]) == [20]


@given(WORK, st.integers(1, 4))
def test_no_queue_is_faster_than_all_processes_together(work: list[float], processes: int) -> None:
    last = max(finish_times([0.0] * processes, work))
    assert last >= max(sum(work) / processes, max(work)) * (1 - 1e-9)
    assert last <= sum(work) / processes + max(work) + 1e-6


@given(WORK, st.integers(1, 3))
def test_another_process_makes_nobody_wait_longer(work: list[float], processes: int) -> None:
    fewer, more = finish_times([0.0] * processes, work), finish_times([0.0] * (processes + 1), work)
    assert all(b <= a + 1e-6 for a, b in zip(fewer, more, strict=True))


def test_times_are_learned() -> None:
    times = RenderTimes(pixels=10_000, ms=20.0)
    for _ in range(60):
        times.learn(pixels=10_000, ms=80.0)
    assert times.expected_ms(10_000) == pytest.approx(80.0 + OVERHEAD_MS, rel=0.02)
    assert times.expected_ms(40_000) == pytest.approx(80.0 * 4**GROWTH + OVERHEAD_MS, rel=0.02)


@given(st.lists(st.floats(1, 200), min_size=1, max_size=50))
def test_a_prediction_leaves_room_above_the_mean(times_ms: list[float]) -> None:
    times = RenderTimes(pixels=1000, ms=times_ms[0])
    for ms in times_ms:
        times.learn(pixels=1000, ms=ms)
    assert times.predicted_ms(1000) >= times.expected_ms(1000)
