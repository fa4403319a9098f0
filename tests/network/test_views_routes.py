"""Views over real HTTP and WebSockets: as asked for, in time, and unmoved by whatever anybody sends."""

import base64
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from crowdnerf_lab.network.views import view_stream
from crowdnerf_lab.network.views.view_engine import EncodedView, decode_view
from tests.network.service_in_thread import service_in_thread
from tests.network.toy_views import EVENT, publish_field
from tests.network.visit_to_views import EMPTY, Visit, document_of, joined, received, settings_of, shown


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    root = tmp_path_factory.mktemp("service")
    with (
        service_in_thread(settings_of(root / "home")) as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as http,
    ):
        publish_field(running.service.catalogue, root)
        yield shown(Visit(running.url, http, joined(http, EVENT), running.service))


def is_problem(answer: httpx.Response, status: int) -> bool:
    document = answer.json()
    kind = answer.headers["content-type"].split(";")[0]
    return (answer.status_code, document["status"], kind) == (status, status, "application/problem+json")


@pytest.mark.row("S8", "S70", "S71")
@pytest.mark.parametrize("format", ["webp", "jpeg", "avif", "png"])
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
        {"quality": 80.5},
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


def test_a_whole_number_may_have_a_point(visit: Visit) -> None:
    assert visit.ask(document_of() | {"width": 48.0, "quality": 80.0}).status_code == 200


@pytest.mark.parametrize("body", ["", "{", "null", "[]", "[" * 100_000, '"text"', b"\xff\xfe", "NaN"])
def test_bodies_that_are_no_documents_are_refused(visit: Visit, body: str | bytes) -> None:
    answer = visit.ask(body)
    assert answer.status_code in (400, 422)
    assert is_problem(answer, answer.status_code)


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
        socket.send(json.dumps(document_of(210, width=480, height=320)))
        unhurried = received(socket)[0]["width"]
    assert widths[0] == 480
    assert widths[-1] == 240
    assert unhurried == 480


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
    assert visit.service is not None
    engine = visit.service.views
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
