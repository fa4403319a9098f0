import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.live_rendering.adaptive import (
    LEAST_PIXELS,
    RUNG,
    AdaptiveResolution,
    RayRate,
    sharper_scale,
)
from crowdnerf_lab.network.views.view_request import ViewRequest
from tests.live_rendering.test_sources import view_of


def rate_of(rays_per_second: float) -> RayRate:
    rate = RayRate()
    rate.drew(round(rays_per_second), seconds=1.0)
    return rate


def pixels(view: ViewRequest, scale: float) -> int:
    scaled = view.scaled(scale)
    return scaled.width * scaled.height


VIEW = view_of(width=640, height=480)


@given(st.floats(3e4, 1e9), st.floats(1, 60))
def test_a_moving_frame_takes_no_longer_than_it_may(rays_per_second, frames_per_second):
    rate = rate_of(rays_per_second)
    scale = AdaptiveResolution(frames_per_second).scale(VIEW, rate)
    assert 0 < scale <= 1
    rays = pixels(VIEW, scale)
    assert rays <= 1.02 * rays_per_second / frames_per_second or rays <= 1.5 * LEAST_PIXELS
    # The next larger one would not fit.
    assert scale == 1 or pixels(VIEW, scale / RUNG) > 0.98 * rays_per_second / frames_per_second


def test_a_slow_reader_gets_smaller_pictures():
    quick, slow = AdaptiveResolution(24), AdaptiveResolution(24)
    for _ in range(20):
        slow.delivered(0.02)
    assert slow.scale(VIEW, rate_of(1e6)) < quick.scale(VIEW, rate_of(1e6))


def test_sizes_do_not_flicker():
    resolution = AdaptiveResolution(24)
    scales = {resolution.scale(VIEW, rate_of(1e6 * change)) for change in (1.0, 1.06, 0.99, 1.08, 1.0, 1.07)}
    assert len(scales) == 1


def test_much_faster_or_slower_is_followed():
    resolution = AdaptiveResolution(24)
    usual = resolution.scale(VIEW, rate_of(1e6))
    assert resolution.scale(VIEW, rate_of(2e5)) < usual
    assert resolution.scale(VIEW, rate_of(5e6)) > usual


def test_the_rate_follows_the_frames():
    rate = rate_of(1e6)
    for _ in range(20):
        rate.drew(1000, seconds=0.01)
    assert rate.rays_per_second == pytest.approx(1e5, rel=0.02)
    assert rate.seconds(200_000) == pytest.approx(2, rel=0.02)


def test_pictures_at_rest_grow_to_the_whole():
    slow, middling, quick = rate_of(1e4), rate_of(2e5), rate_of(1e9)
    assert sharper_scale(0.1, rate=slow, view=VIEW) == 0.2
    assert sharper_scale(0.2, rate=slow, view=VIEW) == 0.4
    assert sharper_scale(0.4, rate=slow, view=VIEW) == 1
    # 0.2 would be done in a blink; 0.4 takes a quarter of a second.
    assert sharper_scale(0.05, rate=middling, view=VIEW) == 0.2
    assert sharper_scale(0.05, rate=quick, view=VIEW) == 1


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        AdaptiveResolution(0)
