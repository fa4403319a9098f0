import hashlib
import json
import logging
import math
import threading
import time

import pytest

from crowdnerf_lab.catalogue.delta import apply_delta
from crowdnerf_lab.network.ues.answers import SelectAnswer, read_answer
from tests.network.toy_service import CAPABILITY, toy_service

SELECT = "/events/concert/models:select"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with toy_service(tmp_path_factory.mktemp("models"), burst=10_000, requests_per_second=1e4) as toy:
        toy.publish(0, names=("toy", "twin"))
        yield toy


@pytest.fixture
def own(tmp_path):
    """A service whose versions a test may change."""
    with toy_service(tmp_path) as toy:
        yield toy


@pytest.fixture(scope="module")
def ue(toy):
    return toy.token()


@pytest.mark.row("S67")
def test_a_ue_gets_the_model_that_fits_it_and_why(toy, ue):
    answer = toy.client.post(SELECT, json={"capability": CAPABILITY}, headers=ue)
    assert answer.status_code == 200
    selected = read_answer(SelectAnswer, answer.content, asked="select")  # as the UE client reads it
    assert (selected.version, selected.inference, len(selected.artefacts)) == (1, "device", 1)
    assert selected.artefacts[0].name in ("toy", "twin")
    assert "best of 2 that fit" in selected.reason
    for file in selected.artefacts[0].files:
        content = toy.client.get(file.href, headers=ue).content
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)


@pytest.mark.row("S67")
def test_who_cannot_run_any_asks_the_network(toy, ue):
    weak = CAPABILITY | {"runtimes": []}
    answer = toy.client.post(SELECT, json={"capability": weak}, headers=ue).json()
    assert (answer["version"], answer["artefacts"], answer["inference"]) == (1, [], "network")
    assert "needs onnxruntime" in answer["reason"]


@pytest.mark.row("S38")
def test_a_ue_asks_for_a_set(toy, ue):
    slow = CAPABILITY | {"link_mbit_s": 0.1, "rtt_ms": 10}
    for most in (2, 8):
        answer = toy.client.post(SELECT, json={"capability": slow, "most": most}, headers=ue).json()
        assert 1 <= len(answer["artefacts"]) <= most
        assert "within 1 s" in answer["reason"]


def test_an_event_without_models_has_none(own):
    answer = own.client.post(SELECT, json={"capability": CAPABILITY}, headers=own.token())
    assert answer.json() == {
        "version": None,
        "reason": "ask the network: the event has no models yet",
        "artefacts": [],
        "inference": "network",
    }
    assert own.client.get("/events/concert/versions", headers=own.token()).json() == {"latest": None, "versions": []}


def test_newer_ues_may_say_more(toy, ue):
    newer = CAPABILITY | {"version": "1.7", "antigravity": True, "runtimes": ["onnxruntime", "holograms"]}
    body = {"capability": newer, "mood": "curious", "target": {"max_ms": 1e9, "max_smell": 3}}
    answer = toy.client.post(SELECT, json=body, headers=ue)
    assert (answer.status_code, answer.json()["inference"]) == (200, "device")


def test_a_ue_cannot_write_lines_of_the_log(toy, ue, caplog):
    forged = "x\nERROR the stage is on fire"
    with caplog.at_level(logging.INFO):
        body = {"capability": CAPABILITY | {"version": "1.7", forged: 1, "\x1b[2J": 2}}
        assert toy.client.post(SELECT, json=body, headers=ue).status_code == 200
    assert "not understood" in caplog.text
    assert forged not in caplog.text
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"capability": {}},
        {"capability": CAPABILITY | {"version": "2.0"}},
        {"capability": CAPABILITY | {"memory_mb": -1}},
        {"capability": CAPABILITY | {"link_mbit_s": 0}},
        {"capability": CAPABILITY | {"unknown": 1}},
        {"capability": CAPABILITY, "task": "teleport"},
        {"capability": CAPABILITY, "most": 0},
        {"capability": CAPABILITY, "most": 10**30},
        {"capability": CAPABILITY, "held": [{"version": 0, "name": "toy"}]},
        {"capability": CAPABILITY, "held": [{"version": 1, "name": "../toy"}]},
        {"capability": CAPABILITY, "target": {"max_bytes": -5}},
        {"capability": CAPABILITY | {"relative_speed": 5e-324, "busy": 0.9999}},
    ],
)
def test_what_cannot_be_understood_is_a_problem(toy, ue, body):
    answer = toy.client.post(SELECT, json=body, headers=ue)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e300, 1.7e308])
def test_extreme_numbers_are_answered(toy, ue, value):
    for name in ("memory_mb", "link_mbit_s", "relative_speed", "power_w", "battery_wh", "battery_hours", "rtt_ms"):
        answer = toy.client.post(SELECT, json={"capability": CAPABILITY | {name: value}}, headers=ue)
        assert answer.status_code in (200, 422), (name, answer.text)
    for name in ("max_ms", "max_download_s", "frames_per_s"):
        answer = toy.client.post(SELECT, json={"capability": CAPABILITY, "target": {name: value}}, headers=ue)
        assert answer.status_code == 200, (name, answer.text)
    assert math.isfinite(value)


def test_the_same_question_is_answered_from_memory_until_the_versions_change(own):
    headers, body = own.token(), {"capability": CAPABILITY}
    own.publish(0)
    first = own.client.post(SELECT, json=body, headers=headers)
    assert own.client.post(SELECT, json=body, headers=headers).content == first.content
    own.publish(1)
    assert own.client.post(SELECT, json=body, headers=headers).json()["version"] == 2
    own.service.catalogue.withdraw("concert", 2, reason="worse")
    assert own.client.post(SELECT, json=body, headers=headers).content == first.content


def test_quick_answers_ask_for_tokens_too(toy, ue):
    toy.client.post("/events", json={"event": "encore"}, headers=toy.operator)
    stranger = toy.token(event="encore")
    file = "/events/concert/versions/1/artefacts/toy/files/model.onnx"
    body = {"capability": CAPABILITY}
    for headers, status in ((ue, 200), ({}, 401), ({"Authorization": "Bearer x"}, 401), (stranger, 403)):
        assert toy.client.post(SELECT, json=body, headers=headers).status_code == status
        assert toy.client.get(file, headers=headers).status_code == status


def test_quick_and_thorough_answers_are_the_same(toy, ue):
    body = json.dumps({"capability": CAPABILITY}).encode()
    files = "/events/concert/versions/{}/artefacts/toy/files/model.onnx{}"
    quick, thorough = (
        [
            toy.client.post(SELECT, content=body, headers=ue | {"Content-Type": media_type}),
            toy.client.get(files.format(number, query), headers=ue | {"Accept-Encoding": "identity"}),
        ]
        for media_type, number, query in (("application/json", "1", ""), ("application/json; x=y", "01", "?x=y"))
    )
    for one, other in zip(quick, thorough, strict=True):
        assert (one.status_code, one.content, one.headers) == (other.status_code, other.content, other.headers)


def test_versions_are_listed_with_their_cards(toy, ue):
    listed = toy.client.get("/events/concert/versions", headers=ue).json()
    assert listed["latest"] == 1
    assert listed["versions"][0]["artefacts"] == ["toy", "twin"]
    version = toy.client.get("/events/concert/versions/1", headers=ue).json()
    assert [card["name"] for card in version["cards"]] == ["toy", "twin"]
    assert toy.client.get("/events/concert/versions/2", headers=ue).status_code == 404
    for number in ("0", "-1", "x", "1.5", "9" * 30):
        assert toy.client.get(f"/events/concert/versions/{number}", headers=ue).status_code == 422


def test_a_withdrawn_version_is_gone(own):
    headers = own.token()
    own.publish(0)
    own.publish(1)
    file = "/events/concert/versions/{}/artefacts/toy/files/model.onnx"
    assert own.client.get(file.format(2), headers=headers).status_code == 200
    own.service.catalogue.withdraw("concert", 2, reason="it measured worse")
    for path in ("/events/concert/versions/2", file.format(2)):
        gone = own.client.get(path, headers=headers)
        assert (gone.status_code, gone.json()["type"]) == (410, "/problems/version-withdrawn")
        assert "it measured worse" in gone.json()["detail"]
    assert own.client.get(file.format(1), headers=headers).status_code == 200
    listed = own.client.get("/events/concert/versions", headers=headers).json()
    assert (listed["latest"], listed["versions"][1]["withdrawn"]) == (1, "it measured worse")


def test_who_has_the_latest_waits_and_hears_of_the_next(own):
    headers, latest = own.token(), "/events/concert/versions/latest"
    assert own.client.get(latest, headers=headers).status_code == 204
    own.publish(0)
    assert own.client.get(latest, headers=headers).json()["version"] == 1
    assert own.client.get(latest, params={"newer_than": 1}, headers=headers).status_code == 204
    started = time.perf_counter()
    answers = []

    def wait() -> None:
        answers.append(own.client.get(latest, params={"newer_than": 1, "wait_s": 20}, headers=headers).json())

    waiting = [threading.Thread(target=wait) for _ in range(5)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    assert answers == []
    own.publish(1)
    for thread in waiting:
        thread.join()
    assert [answer["version"] for answer in answers] == [2] * 5
    assert time.perf_counter() - started < 10


def test_who_has_a_withdrawn_version_is_told_to_go_back(own):
    headers = own.token()
    own.publish(0)
    own.publish(1)
    own.service.catalogue.withdraw("concert", 2, reason="worse")
    answer = own.client.get("/events/concert/versions/latest", params={"newer_than": 2}, headers=headers)
    assert answer.json()["version"] == 1


@pytest.mark.parametrize("params", [{"newer_than": -1}, {"wait_s": 1e9}, {"wait_s": "nan"}, {"newer_than": 10**20}])
def test_waiting_has_bounds(toy, ue, params):
    assert toy.client.get("/events/concert/versions/latest", params=params, headers=ue).status_code == 422


def test_a_delta_leads_to_the_same_bytes(own):
    headers = own.token()
    own.publish(0)
    old = own.client.get("/events/concert/versions/1/artefacts/toy/files/model.onnx", headers=headers).content
    own.publish(1)
    body = {"capability": CAPABILITY, "held": [{"version": 1, "name": "toy"}, {"version": 7, "name": "toy"}]}
    body["held"].pop()
    until = time.monotonic() + 20
    while True:
        offer = own.client.post(SELECT, json=body, headers=headers).json()["artefacts"][0]
        if "delta" in offer or time.monotonic() > until:
            break
    model = next(file for file in offer["files"] if file["path"] == offer["delta"]["path"])
    answer = own.client.get(offer["delta"]["href"], headers=headers)
    assert answer.headers["content-type"] == "application/vnd.crowdnerf.delta"
    assert (offer["delta"]["from"], len(answer.content)) == (1, offer["delta"]["bytes"])
    assert len(answer.content) < model["bytes"]
    new = apply_delta(old, answer.content, name="delta")
    assert hashlib.sha256(new).hexdigest() == model["sha256"]
    part = own.client.get(offer["delta"]["href"], headers=headers | {"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, answer.content[:10])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("versions/1/artefacts/toy/delta", 422),
        ("versions/1/artefacts/toy/delta?from=0", 422),
        ("versions/1/artefacts/toy/delta?from=9", 404),
        ("versions/1/artefacts/nobody/delta?from=1", 404),
        ("versions/9/artefacts/toy/delta?from=1", 404),
        ("versions/1/artefacts/toy/files/nothing", 404),
        ("versions/1/artefacts/toy/files/../../../version.json", 404),
        ("versions/1/artefacts/toy/files/..%2f..%2fversion.json", 404),
        ("versions/1/artefacts/toy/files/%00", 404),
        ("versions/1/artefacts/..%2ftoy/files/model.onnx", 404),
        ("versions/1/artefacts/toy/files/" + "x" * 600, 422),
    ],
)
def test_what_does_not_exist_is_not_found(toy, ue, path, status):
    answer = toy.client.get(f"/events/concert/{path}", headers=ue)
    assert answer.status_code == status
    assert str(toy.home) not in answer.text


def test_models_are_for_members_of_the_event(toy):
    for path in ("versions", "versions/1", "versions/latest", "versions/1/artefacts/toy/files/model.onnx"):
        assert toy.client.get(f"/events/concert/{path}").status_code == 401
        assert toy.client.get(f"/events/concert/{path}", headers=toy.operator).status_code == 200
    assert toy.client.post(SELECT, json={"capability": CAPABILITY}).status_code == 401
