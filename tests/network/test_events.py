import time

import pytest

from tests.network.toy_service import JOINING, bearer, toy_service


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with toy_service(tmp_path_factory.mktemp("events")) as toy:
        yield toy


def test_the_operator_makes_events_and_everybody_finds_them(toy):
    made = toy.client.post("/events", json={"event": "opening", "title": "The opening"}, headers=toy.operator)
    assert made.status_code == 201
    assert made.headers["location"] == "/events/opening"
    assert made.json()["join_code_required"] is False
    assert "opening" in [event["event"] for event in toy.client.get("/events").json()["events"]]
    assert toy.client.get("/events/opening").json() == made.json()
    again = toy.client.post("/events", json={"event": "opening"}, headers=toy.operator)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/event-exists")


def test_nobody_else_makes_events(toy):
    assert toy.client.post("/events", json={"event": "mine"}).status_code == 401
    assert toy.client.post("/events", json={"event": "mine"}, headers=toy.token()).status_code == 403
    assert toy.client.get("/events/mine").status_code == 404


@pytest.mark.parametrize("event", ["", "../x", "a/b", ".hidden", "a b", "x" * 200, "caf\u00e9", None, 7, ["a"]])
def test_an_event_needs_a_name_that_can_be_a_folder(toy, event):
    answer = toy.client.post("/events", json={"event": event}, headers=toy.operator)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.row("S63")
def test_ues_that_are_present_join_and_are_accounted_for(toy):
    code = {"join_code": "stage left"}
    toy.client.post("/events", json={"event": "gated"} | code, headers=toy.operator)
    for wrong in ({}, {"join_code": "stage right"}, {"join_code": ""}):
        refused = toy.client.post("/events/gated/ues", json=JOINING | wrong)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/wrong-join-code")
    one, other = toy.join(event="gated", **code), toy.join(event="gated", **code)
    assert one["ue"] != other["ue"]
    assert time.time() < one["expires"] <= time.time() + 24 * 3600
    toy.client.delete("/events/gated/ues/me", headers=bearer(other["token"]))
    accounts = {ue["ue"]: ue for ue in toy.client.get("/events/gated/ues", headers=toy.operator).json()["ues"]}
    assert set(accounts) == {one["ue"], other["ue"]}
    assert accounts[one["ue"]]["left"] is None
    assert accounts[other["ue"]]["left"] is not None
    assert (accounts[one["ue"]]["tokens"], accounts[other["ue"]]["tokens"]) == (1, 0)
    assert accounts[one["ue"]]["contributions"] == accounts[one["ue"]]["bytes"] == 0


def test_a_ue_learns_nothing_of_others(toy):
    answer = toy.client.get("/events/concert/ues", headers=toy.token())
    assert answer.status_code == 403
    assert "ue" not in answer.json()


@pytest.mark.parametrize(
    "change",
    [
        {"device": None},
        {"device": ""},
        {"device": "a\x00b"},
        {"device": "x" * 1000},
        {"consent": None},
        {"consent": {"train": True}},
        {"consent": {"train": "perhaps", "publish": True}},
        {"licence": "<script>"},
        {"operating_system": "symbian"},
        {"name": "Ada"},
    ],
)
def test_joining_takes_what_is_asked_for_and_no_more(toy, change):
    assert toy.client.post("/events/concert/ues", json=JOINING | change).status_code == 422


def test_a_token_opens_its_own_event_only(toy):
    toy.client.post("/events", json={"event": "elsewhere"}, headers=toy.operator)
    headers = toy.token()
    assert toy.client.get("/events/concert/versions", headers=headers).status_code == 200
    assert toy.client.get("/events/elsewhere/versions", headers=headers).status_code == 403
    assert toy.client.get("/events/nowhere/versions", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer unknown", "bearer  x y", "Bearer \xff\xfe"]
)
def test_who_is_not_known_is_challenged(toy, authorization):
    headers = {"Authorization": authorization.encode("latin-1")}
    answer = toy.client.get("/events/concert/versions", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="crowdnerf_lab"')
    assert answer.json()["status"] == 401


def test_a_token_is_renewed_and_the_old_one_ends(toy):
    joined = toy.join()
    old = bearer(joined["token"])
    renewed = toy.client.post("/events/concert/ues/me/token", headers=old)
    assert (renewed.status_code, renewed.json()["ue"]) == (201, joined["ue"])
    assert renewed.headers["cache-control"] == "no-store"
    assert toy.client.get("/events/concert/versions", headers=old).status_code == 401
    assert toy.client.get("/events/concert/versions", headers=bearer(renewed.json()["token"])).status_code == 200


def test_the_operator_revokes_a_ues_tokens(toy):
    joined = toy.join()
    path = f"/events/concert/ues/{joined['ue']}/tokens"
    assert toy.client.delete(path, headers=bearer(joined["token"])).status_code == 403
    assert toy.client.delete(path, headers=toy.operator).json() == {"revoked": 1}
    assert toy.client.get("/events/concert/versions", headers=bearer(joined["token"])).status_code == 401
    assert toy.client.delete("/events/concert/ues/ue00000000/tokens", headers=toy.operator).status_code == 404


def test_who_has_left_is_gone(toy):
    headers = toy.token()
    assert toy.client.delete("/events/concert/ues/me", headers=headers).status_code == 204
    assert toy.client.delete("/events/concert/ues/me", headers=headers).status_code == 401
    assert toy.client.post("/events/concert/ues/me/token", headers=headers).status_code == 401


def test_the_operator_is_no_ue(toy):
    assert toy.client.delete("/events/concert/ues/me", headers=toy.operator).status_code == 403


def test_state_outlives_the_application(tmp_path):
    with toy_service(tmp_path) as toy:
        headers = toy.token()
        operator = toy.operator
    with toy_service(tmp_path) as toy:
        assert toy.client.get("/events/concert/versions", headers=headers).status_code == 200
        assert toy.operator == operator
