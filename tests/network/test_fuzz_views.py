"""Whatever a UE sends, the service goes on: documents and frames that nobody thought of, to a process of its own.

No service in this very process: what it does in the background would disturb how examples are drawn.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.serving import serve
from tests.network.toy_views import EVENT, publish_field
from tests.network.visit_to_views import Visit, document_of, joined, received, settings_of, shown

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def distant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """A service that is a process of its own: nothing it does in the background disturbs what is drawn here."""
    root = tmp_path_factory.mktemp("distant")
    publish_field(Catalogue(root / "home" / "catalogue"), root)
    with (
        serve(root / "home", settings=settings_of(root / "home")) as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as http,
    ):
        yield shown(Visit(running.url, http, joined(http, EVENT)))


@FUZZ
@given(document=JSON, name=st.sampled_from(sorted(document_of())), value=JSON)
def test_no_document_whatever_breaks_the_service(distant: Visit, document: Any, name: str, value: Any) -> None:
    for sent in (document, document_of() | {name: value}):
        assert distant.ask(sent).status_code in (200, 422)


FRAMES = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=30),
    JSON.map(json.dumps),
    st.tuples(st.sampled_from([*sorted(document_of()), "sequence", "frames_per_s", "token"]), JSON).map(
        lambda changed: json.dumps(document_of() | dict([changed]))
    ),
)


@settings(FUZZ, max_examples=40)
@given(frames=st.lists(FRAMES, min_size=1, max_size=6), token_first=st.booleans())
def test_no_frame_whatever_breaks_the_service(distant: Visit, frames: list[str | bytes], token_first: bool) -> None:
    with distant.stream(headers={} if token_first else None) as socket, suppress(ConnectionClosed):
        for frame in frames:
            socket.send(frame)
        socket.send(json.dumps(document_of()))
        received(socket)
    assert distant.ask(document_of()).status_code == 200
