import json
import sqlite3

import pytest

from tests.network.direct_asgi import DirectClient
from tests.network.toy_service import JOINING, toy_service


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with toy_service(tmp_path_factory.mktemp("problems")) as toy:
        yield toy


def problem(answer, status: int) -> dict:
    """Checks what every problem must be; its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["status"] == status
    assert set(document) <= {"type", "title", "status", "detail", "instance"}
    assert document["title"]
    assert document["detail"]
    return document


@pytest.mark.parametrize(
    "path", ["/nothing", "/events/concert/nothing", "/events/a%2Fb", "/events/..%2f..%2fetc", "/events/"]
)
def test_what_is_not_there_is_a_problem(toy, path):
    answer = toy.client.get(path)
    assert problem(answer, answer.status_code)["status"] in (404, 422)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/events", "GET, HEAD, POST"),
        ("DELETE", "/health", "GET, HEAD"),
        ("GET", "/events/concert/models:select", "POST"),
        ("BREW", "/events", "GET, HEAD, POST"),
    ],
)
def test_the_wrong_method_is_told_the_right_ones(toy, method, path, allowed):
    answer = toy.client.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b"1" * 5000, "application/json", 400),
        (b'{"device": "\xff"}', "application/json", 400),
        (b'"text"', "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"device": NaN}', "application/json", 422),
        (json.dumps(JOINING | {"device": "\ud800"}).encode(), "application/json", 422),
        (json.dumps({"\ud800": "\ud800"}).encode(), "application/json", 422),
        (json.dumps(JOINING).encode(), "text/plain", 415),
        (b"device=phone", "application/x-www-form-urlencoded", 415),
        (b"<a/>", "", 415),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(toy, content, media_type, status):
    headers = {"Content-Type": media_type} if media_type else {}
    document = problem(toy.client.post("/events/concert/ues", content=content, headers=headers), status)
    assert str(toy.home) not in json.dumps(document)


def test_a_wrong_field_is_named_with_what_was_seen(toy):
    answer = toy.client.post("/events/concert/ues", json=JOINING | {"device": 7})
    assert problem(answer, 422)["detail"].startswith("body.device: Input should be a valid string, not 7")


def test_a_bug_tells_nothing_but_where_the_operator_finds_it(tmp_path, caplog):
    with toy_service(tmp_path) as toy:

        @toy.client.app.get("/broken")
        def broken() -> None:
            raise RuntimeError("the secret path /etc/secret")

        document = problem(toy.client.get("/broken"), 500)
    assert "secret" not in json.dumps(document)
    incident = document["instance"].removeprefix("urn:incident:")
    assert any(incident in record.getMessage() for record in caplog.records)


def test_a_database_that_cannot_be_written_is_no_bug(tmp_path, monkeypatch):
    with toy_service(tmp_path) as toy:

        def full():
            raise sqlite3.OperationalError(f"database or disk is full: {tmp_path}")

        monkeypatch.setattr(toy.service.database, "transaction", full)
        answer = toy.client.post("/events/concert/ues", json=JOINING)
        assert str(tmp_path) not in problem(answer, 503)["detail"]
        assert answer.headers["retry-after"] == "5"


def test_head_is_get_without_its_body(toy):
    for path, status in (("/", 200), ("/health", 200), ("/events", 200), ("/nothing", 404)):
        get, head = toy.client.get(path), toy.client.head(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_paths_that_are_no_text_are_answered(toy):
    client = DirectClient(toy.client.app)
    for path in ("/events/%ff%fe", "/events/%00", "/events/\u2028", "/%", "/events/concert/ues/%2e%2e/tokens"):
        assert client.ask("GET", path).status in (404, 405, 422)
    client.close()
