"""Views over real HTTP and WebSockets: as asked for, in time, and unmoved by whatever anybody sends."""

import base64
import json
import math
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from crowdnerf_lab.network import view_stream
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.view_engine import EncodedView, decode_view
from tests.network.service_in_thread import ServiceInThread, service_in_thread
from tests.network.toy_views import EVENT, publish_field, request_from

EMPTY = "nothing-yet"
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@dataclass(frozen=True)
class Visit:
    """A service with a published field, and a UE that has joined its event."""

    running: ServiceInThread
    http: httpx.Client
    token: str

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, document: Any, *, event: str = EVENT, **options: Any) -> httpx.Response:
        content = document if isinstance(document, str | bytes) else json.dumps(document)
        headers = {"Content-Type": "application/json"} | options.pop("headers", self.authorization)
        return self.http.post(f"/events/{event}/views", content=content, headers=headers, **options)

    @contextmanager
    def stream(self, *, headers: dict[str, str] | None = None, event: str = EVENT) -> Iterator[ClientConnection]:
        url = self.running.url.replace("http", "ws", 1) + f"/events/{event}/views/stream"
        headers = self.authorization if headers is None else headers
        with connect(url, additional_headers=headers, proxy=None, max_size=1 << 24, close_timeout=2) as socket:
            yield socket


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    root = tmp_path_factory.mktemp("service")
    chosen = ServiceSettings(
        home=root / "home",
        events=(EVENT, EMPTY),
        train=False,
        view_processes=1,
        view_deadline_ms=8000.0,
        requests_per_second=1e4,
        burst=10**6,
        refused_per_minute=10**6,
    )
    with service_in_thread(chosen) as running, httpx.Client(base_url=running.url, timeout=30, trust_env=False) as http:
        publish_field(running.service.catalogue, root)
        visit = Visit(running, http, joined(http, EVENT))
        for _ in range(600):
            if visit.ask(document_of()).status_code == 200:
                break
            time.sleep(0.05)
        yield visit


def joined(http: httpx.Client, event: str) -> str:
    answer = http.post(f"/events/{event}/ues", json={"device": "a test", "consent": {"train": True, "publish": True}})
    assert answer.status_code == 201, answer.text
    return answer.json()["token"]


def document_of(place: float = 0.0, *, width: int = 48, height: int = 32, **others: Any) -> dict[str, Any]:
    request = request_from(place, width=width, height=height)
    document = {
        "camera_to_world": np.array(request.camera_to_world).tolist(),
        "focal": list(request.focal),
        "centre": list(request.centre),
        "width": width,
        "height": height,
    }
    return document | others


def is_problem(answer: httpx.Response, status: int) -> bool:
    document = answer.json()
    kind = answer.headers["content-type"].split(";")[0]
    return (answer.status_code, document["status"], kind) == (status, status, "application/problem+json")


@pytest.mark.row("S8", "S70", "S71")
@pytest.mark.parametrize("format", ["webp", "jpeg", "avif"])
def test_a_view_comes_with_what_it_is_and_took(visit: Visit, format: str) -> None:
    answer = visit.ask(document_of(1.5, format=format, quality=90))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"image/{format}"
    shown = {name: answer.headers[f"x-view-{name}"] for name in ("version", "cached", "width", "height")}
    assert shown == {"version": "1", "cached": "false", "width": "48", "height": "32"}
    stages = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert stages.keys() == {"queue", "render", "encode"}
    assert float(stages["render"]) > 0
    assert decode_view(EncodedView(answer.content, f"image/{format}", 48, 32, 0, 0)).std() > 1


@pytest.mark.row("S72")
def test_a_popular_view_is_made_once(visit: Visit) -> None:
    first, second = visit.ask(document_of(2.5)), visit.ask(document_of(2.5))
    assert [answer.headers["x-view-cached"] for answer in (first, second)] == ["false", "true"]
    assert first.content == second.content


@pytest.mark.row("S41")
def test_too_late_is_told_in_time(visit: Visit) -> None:
    started = time.monotonic()
    answer = visit.ask(document_of(3.5, width=640, height=480, deadline_ms=1))
    assert time.monotonic() - started < 2
    assert is_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


def test_an_event_without_a_version_is_not_served_yet(visit: Visit) -> None:
    token = joined(visit.http, EMPTY)
    answer = visit.ask(document_of(), event=EMPTY, headers={"Authorization": f"Bearer {token}"})
    assert is_problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


def test_views_are_for_those_who_joined(visit: Visit) -> None:
    assert is_problem(visit.ask(document_of(), headers={}), 401)
    assert is_problem(visit.ask(document_of(), headers={"Authorization": "Bearer nonsense"}), 401)
    assert is_problem(visit.ask(document_of(), event=EMPTY), 403)
    assert is_problem(visit.ask(document_of(), event="no-such-event"), 404)


@pytest.mark.parametrize(
    "wrong",
    [
        {"camera_to_world": [[math.nan] * 4] * 3},
        {"camera_to_world": [[1e300] * 4] * 3},
        {"camera_to_world": [[1, 0, 0, 0]] * 3},
        {"camera_to_world": [[1, 0, 0, 0]] * 2},
        {"camera_to_world": "a pose"},
        {"camera_to_world": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"camera_to_world": [[1, 0, 0, 1e12], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"focal": [0, 100]},
        {"focal": [math.inf, 100]},
        {"focal": [-5, 100]},
        {"focal": [10**400, 100]},
        {"centre": [math.inf, 0]},
        {"centre": [0]},
        {"width": 0},
        {"width": 10**9},
        {"width": 2**64},
        {"width": 16000, "height": 16000},
        {"width": 48.5},
        {"width": "48"},
        {"width": True},
        {"height": -1},
        {"format": "bmp"},
        {"format": None},
        {"quality": 0},
        {"quality": 101},
        {"deadline_ms": 0},
        {"deadline_ms": -1},
        {"deadline_ms": math.nan},
        {"colour": "blue"},
    ],
)
def test_views_that_cannot_be_are_refused(visit: Visit, wrong: dict[str, Any]) -> None:
    answer = visit.ask(document_of() | wrong)
    assert is_problem(answer, 422), answer.text
    assert "/" not in answer.json()["detail"].replace("3 x 4", "")


@pytest.mark.parametrize("body", ["", "{", "null", "[]", "[" * 100_000, '"text"', b"\xff\xfe", "NaN"])
def test_bodies_that_are_no_documents_are_refused(visit: Visit, body: str | bytes) -> None:
    answer = visit.ask(body)
    assert answer.status_code in (400, 422)
    assert is_problem(answer, answer.status_code)


@FUZZ
@given(document=JSON, name=st.sampled_from(sorted(document_of())), value=JSON)
def test_no_document_whatever_breaks_the_service(visit: Visit, document: Any, name: str, value: Any) -> None:
    for sent in (document, document_of() | {name: value}):
        assert visit.ask(sent).status_code in (200, 422)


def received(socket: ClientConnection) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """The next message: a view's header and picture, or a problem."""
    message = socket.recv(timeout=20)
    if isinstance(message, str):
        return json.loads(message), None
    (length,) = struct.unpack_from(">I", message)
    header = json.loads(message[4 : 4 + length])
    size = header["width"], header["height"]
    return header, decode_view(EncodedView(bytes(message[4 + length :]), header["media_type"], *size, 0, 0))


def closed_with(socket: ClientConnection) -> int:
    """The code that the service closes with; problems before it are read."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=20)
    assert socket.protocol.close_rcvd is not None
    return socket.protocol.close_rcvd.code


@pytest.mark.row("S70", "S71")
def test_a_moving_camera_is_shown_its_views(visit: Visit) -> None:
    with visit.stream() as socket:
        for sequence in (7, 8):
            socket.send(json.dumps(document_of(sequence) | {"sequence": sequence}))
            header, picture = received(socket)
            assert picture is not None
            assert picture.shape == (32, 48, 3)
            assert (header["sequence"], header["version"], header["dropped"]) == (sequence, 1, 0)
            assert header["timings"].keys() == {"queue", "render", "encode"}


def test_a_browser_shows_its_token_first(visit: Visit) -> None:
    with visit.stream(headers={}) as socket:
        socket.send(json.dumps({"token": visit.token}))
        socket.send(json.dumps(document_of()))
        assert received(socket)[0]["sequence"] == 1


@pytest.mark.parametrize("first", ['{"token": "nonsense"}', "{}", "not JSON", '{"token": 5}'])
def test_nobody_is_shown_anything_without_a_token(visit: Visit, first: str) -> None:
    with visit.stream(headers={}) as socket:
        socket.send(first)
        assert received(socket)[0]["status"] == 401
        assert closed_with(socket) == 1008


@pytest.mark.parametrize(
    ("authorization", "event", "status"),
    [("Bearer nonsense", EVENT, 401), ("Basic x", EVENT, 401), ("", EMPTY, 403), ("", "no-such-event", 404)],
)
def test_the_handshake_refuses_strangers(visit: Visit, authorization: str, event: str, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else None
    with pytest.raises(InvalidStatus) as refused, visit.stream(headers=headers, event=event):
        pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["status"] == status


@pytest.mark.row("S71")
def test_the_newest_pose_wins_and_the_others_are_counted(visit: Visit) -> None:
    with visit.stream() as socket:
        for sequence in range(1, 61):
            socket.send(json.dumps(document_of(100 + sequence, width=320, height=240) | {"sequence": sequence}))
        seen, dropped = [], 0
        while not seen or seen[-1] < 60:
            header, _ = received(socket)
            seen.append(header["sequence"])
            dropped += header["dropped"]
    assert seen == sorted(seen)
    assert len(seen) + dropped == 60
    assert dropped > 0


def test_a_frame_rate_that_cannot_be_kept_makes_views_smaller(visit: Visit) -> None:
    with visit.stream() as socket:
        widths = []
        for step in range(4):
            socket.send(json.dumps(document_of(200 + step, width=480, height=320, frames_per_s=240)))
            widths.append(received(socket)[0]["width"])
    assert widths[0] == 480
    assert widths[-1] == 240


def test_one_senseless_message_costs_only_itself(visit: Visit) -> None:
    with visit.stream() as socket:
        for message in ("", "{", "[]", json.dumps(document_of(width=0)), json.dumps(document_of(focal=[math.nan, 1]))):
            socket.send(message)
            problem, picture = received(socket)
            assert (problem["status"], picture) == (422, None)
        socket.send(json.dumps(document_of()))
        assert received(socket)[1] is not None


@pytest.mark.parametrize(("message", "code"), [(b"binary", 1003), (b"", 1003), ("x" * 70_000, 1009)])
def test_messages_that_nobody_should_send_end_the_stream(visit: Visit, message: str | bytes, code: int) -> None:
    with visit.stream() as socket:
        socket.send(message)
        assert closed_with(socket) == code


def test_a_flood_ends_the_stream(visit: Visit) -> None:
    with visit.stream() as socket:
        with suppress(ConnectionClosed):
            for _ in range(4000):
                socket.send(json.dumps(document_of()))
        assert closed_with(socket) == 1008


def test_endless_nonsense_ends_the_stream(visit: Visit) -> None:
    with visit.stream() as socket:
        with suppress(ConnectionClosed):
            for _ in range(view_stream.MOST_PROBLEMS):
                socket.send("nonsense")
        assert closed_with(socket) == 1008


def test_a_token_that_ends_closes_its_stream(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_stream, "TOKEN_AGAIN_S", 0.05)
    token = joined(visit.http, EVENT)
    headers = {"Authorization": f"Bearer {token}"}
    with visit.stream(headers=headers) as socket:
        socket.send(json.dumps(document_of()))
        assert received(socket)[1] is not None
        assert visit.http.delete(f"/events/{EVENT}/ues/me", headers=headers).is_success
        assert closed_with(socket) == 1008


def test_one_ue_has_so_many_streams_and_no_more(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_stream, "MOST_STREAMS", 1)
    with visit.stream() as first:
        first.send(json.dumps(document_of()))
        assert received(first)[1] is not None
        with pytest.raises(InvalidStatus) as refused, visit.stream():
            pass
    assert refused.value.response.status_code == 429


def test_nothing_is_rendered_for_who_has_gone(visit: Visit) -> None:
    engine = visit.running.service.views
    assert engine is not None
    for _ in range(5):
        with visit.stream() as socket:
            socket.send(json.dumps(document_of(300, width=640, height=480)))
            socket.socket.close()  # without goodbye
    end = time.monotonic() + 10
    while (engine.streams or engine.statistics.rendering or engine.statistics.waiting) and time.monotonic() < end:
        time.sleep(0.02)
    assert not engine.streams
    assert (engine.statistics.waiting, engine.statistics.rendering) == (0, 0)


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
def test_no_frame_whatever_breaks_the_service(visit: Visit, frames: list[str | bytes], token_first: bool) -> None:
    with visit.stream(headers={} if token_first else None) as socket, suppress(ConnectionClosed):
        for frame in frames:
            socket.send(frame)
        socket.send(json.dumps(document_of()))
        received(socket)
    assert visit.ask(document_of()).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x81\xff" + b"\xff" * 8,  # a frame that claims 2^63 bytes
        b"\xa1\x80" + bytes(4),  # a reserved bit
        b"\x8f\x80" + bytes(4),  # an unknown opcode
        b"\x01\x01x",  # unmasked
        b"\x81\x82" + bytes(4) + b"\xff\xfe",  # text that is no UTF-8
    ],
)
def test_broken_frames_end_their_connection_alone(visit: Visit, raw: bytes) -> None:
    with visit.stream() as socket:
        socket.socket.sendall(raw)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
    assert visit.ask(document_of()).status_code == 200


def test_a_handshake_without_a_key_is_answered(visit: Visit) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    for headers in (
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "7"},
        {},
    ):
        answer = visit.http.get(f"/events/{EVENT}/views/stream", headers=headers)
        assert 400 <= answer.status_code < 500
