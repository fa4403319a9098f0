"""Shared views: which poses are one, and what leaves the cache first."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.views.view_cache import PoseSteps, ViewCache, picture_key
from tests.network.toy_views import request_from

STEPS = PoseSteps()


@dataclass(frozen=True)
class Content:
    content: bytes


@pytest.mark.row("S72")
def test_poses_that_look_the_same_share_a_picture() -> None:
    request = request_from(0.0)
    nearly = replace(request, camera_to_world=request.pose + np.float32(1e-4))
    assert picture_key("v1", request, steps=STEPS) == picture_key("v1", nearly, steps=STEPS)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 47},
        {"height": 31},
        {"focal": (40.0, 40.2)},
        {"centre": (24.2, 16.0)},
        {"camera_to_world": request_from(0.01).pose},
    ],
)
def test_other_views_have_keys_of_their_own(changes: dict[str, object]) -> None:
    request = request_from(0.0)
    assert picture_key("v1", replace(request, **changes), steps=STEPS) != picture_key("v1", request, steps=STEPS)


def test_another_version_shows_another_picture() -> None:
    assert picture_key("v1", request_from(), steps=STEPS) != picture_key("v2", request_from(), steps=STEPS)


@given(st.floats(-1e8, 1e8), st.floats(-0.5, 0.5))
def test_whoever_shares_a_picture_is_within_a_step(place: float, away: float) -> None:
    one, other = request_from(place), request_from(place + away)
    if picture_key("v", one, steps=STEPS) == picture_key("v", other, steps=STEPS):
        assert abs(float(one.pose[0, 3]) - float(other.pose[0, 3])) <= STEPS.translation_m


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_a_cache_never_holds_more_than_it_may(puts: list[tuple[int, int]]) -> None:
    cache: ViewCache[Content] = ViewCache(6000)
    for key, size in puts:
        cache.put(key, Content(bytes(size)))
        held = [view for key in range(10) if (view := cache.get(key)) is not None]
        assert len(held) == len(cache)
        assert cache.bytes == sum(len(view.content) + cache.ENTRY_BYTES for view in held) <= 6000


def test_what_was_used_last_leaves_last() -> None:
    cache: ViewCache[Content] = ViewCache(2 * (1000 + ViewCache.ENTRY_BYTES))
    cache.put("first", Content(bytes(1000)))
    cache.put("second", Content(bytes(1000)))
    assert cache.get("first") is not None
    cache.put("third", Content(bytes(1000)))
    assert cache.get("second") is None
    assert cache.get("first") is not None


def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    cache: ViewCache[Content] = ViewCache(2000)
    cache.put("small", Content(b"x"))
    cache.put("large", Content(bytes(5000)))
    assert (cache.get("large"), cache.get("small")) == (None, Content(b"x"))
