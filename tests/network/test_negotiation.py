from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.models.negotiation import MOST_RANGES, accepted_codings, matches, ranges_of

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("bytes=0-0", [(0, 0)]),
        ("bytes=0-499", [(0, 499)]),
        ("bytes=500-", [(500, 999)]),
        ("bytes=-1", [(999, 999)]),
        ("bytes=-5000", [(0, 999)]),
        ("bytes=990-99999999999999999999999999", [(990, 999)]),
        ("Bytes = 0-9", [(0, 9)]),
        ("bytes=0-9, 20-29", [(0, 9), (20, 29)]),
        ("bytes=20-29,0-9", [(20, 29), (0, 9)]),
        ("bytes=,0-9 ,,", [(0, 9)]),
        ("bytes=0-9,5-20,15-30", [(0, 30)]),
        ("bytes=0-9,2000-", [(0, 9)]),
        ("bytes=0-" + ",0-" * 50, [(0, 999)]),
    ],
)
def test_ranges_are_what_rfc_9110_says(header, ranges):
    assert ranges_of(header, SIZE) == ranges


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=5-4", "bytes=1-2-3", "bytes=+1-2",
        "bytes=0x1-2", "bytes=\u0661-\u0662", "lines=1-2", "bytes 0-9", "bytes=0-9;x", "bytes=,",
        "bytes=" + ",".join(f"{20 * i}-{20 * i}" for i in range(MOST_RANGES + 1)),
    ],
)  # fmt: skip
def test_what_is_no_range_is_ignored(header):
    assert ranges_of(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=-0", "bytes=5000-6000,7000-", "bytes=99999999999999999999-"])
def test_ranges_outside_are_not_satisfiable(header):
    with pytest.raises(Problem) as raised:
        ranges_of(header, SIZE)
    assert raised.value.status == 416
    assert (raised.value.headers or {})["Content-Range"] == "bytes */1000"


@given(st.text(max_size=60) | st.from_regex(r"bytes=[0-9,\- ]{0,30}", fullmatch=True), st.integers(1, 10**6))
def test_no_range_header_breaks_anything(header, size):
    found = None
    with suppress(Problem):  # 416
        found = ranges_of(header, size)
    assert found is None or all(0 <= first <= last < size for first, last in found)
    assert found is None or sum(last - first + 1 for first, last in found) <= size


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        (None, {"identity": 1.0}),
        ("", {"identity": 1.0}),
        ("gzip", {"gzip": 1.0, "identity": 1.0}),
        ("zstd, gzip;q=0.5", {"zstd": 1.0, "gzip": 0.5, "identity": 1.0}),
        ("GZIP;Q=0.3", {"gzip": 0.3, "identity": 1.0}),
        ("x-gzip", {"gzip": 1.0, "identity": 1.0}),
        ("*", {"zstd": 1.0, "gzip": 1.0, "identity": 1.0}),
        ("gzip, *;q=0", {"gzip": 1.0}),
        ("identity;q=0", {}),
        ("zstd;q=0, *", {"gzip": 1.0, "identity": 1.0}),
        ("br", {"identity": 1.0}),
    ],
)
def test_codings_are_what_is_accepted(header, codings):
    assert accepted_codings(header) == codings


@given(st.text(max_size=80))
def test_no_coding_header_breaks_anything(header):
    assert set(accepted_codings(header)) <= {"identity", "zstd", "gzip"}


@pytest.mark.parametrize(
    ("header", "weakly", "found"),
    [
        ('"a"', True, '"a"'),
        ('"x", "b"', True, '"b"'),
        ('W/"a"', True, '"a"'),
        ('W/"a"', False, None),
        ("*", False, '"a"'),
        ('"x"', True, None),
        ("a", True, None),
        ('"a', True, None),
    ],
)
def test_entity_tags_are_compared(header, weakly, found):
    assert matches(header, ['"a"', '"b"'], weakly=weakly) == found
