import threading

import pytest

from crowdnerf_lab.network.api import limits
from crowdnerf_lab.network.api.limits import MOST_BODY_BYTES, MOST_HEADER_BYTES, Rates
from crowdnerf_lab.network.api.problems import Problem
from tests.network.direct_asgi import DirectClient
from tests.network.toy_service import JOINING, bearer, toy_service


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate():
    clock = Clock()
    rates = Rates(rate=2.0, burst=3, clock=clock)
    assert [rates.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert rates.wait_s("a") == pytest.approx(0.5)
    clock.now = 0.5
    assert rates.wait_s("a") == 0
    clock.now = 100.0
    assert [rates.wait_s("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_buckets_are_apart():
    rates = Rates(rate=1.0, burst=1, clock=Clock())
    assert rates.wait_s("a") == rates.wait_s("b") == 0
    assert rates.wait_s("a") > 0


def test_the_problem_says_when_to_come_back():
    rates = Rates(rate=0.1, burst=1, clock=Clock())
    rates.take("a", what="requests")
    with pytest.raises(Problem, match="too many requests; at most 6 a minute") as raised:
        rates.take("a", what="requests")
    assert raised.value.status == 429
    assert raised.value.headers == {"Retry-After": "10"}


def test_strangers_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(limits, "MOST_BUCKETS", 10)
    rates = Rates(rate=1.0, burst=1, clock=Clock())
    for i in range(100):
        rates.wait_s(f"stranger {i}")
    assert len(rates._buckets) == 10


def test_a_ue_that_asks_too_often_waits_and_others_do_not(tmp_path):
    with toy_service(tmp_path, requests_per_second=0.5, burst=3) as toy:
        hasty, calm = toy.token(), toy.token()
        statuses = [toy.client.get("/events/concert/versions", headers=hasty).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = toy.client.get("/events/concert/versions", headers=hasty)
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert refused.json()["type"] == "/problems/rate-limited"
        assert toy.client.get("/events/concert/versions", headers=calm).status_code == 200


def test_an_address_joins_so_many_a_minute(tmp_path):
    with toy_service(tmp_path, joins_per_minute=2) as toy:
        statuses = [toy.client.post("/events/concert/ues", json=JOINING).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]


def test_guessing_tokens_is_slowed_down(tmp_path):
    with toy_service(tmp_path, refused_per_minute=3) as toy:
        good = toy.token()
        guesses = [
            toy.client.get("/events/concert/versions", headers=bearer(f"guess{i}")).status_code for i in range(5)
        ]
        assert guesses == [401, 401, 401, 429, 429]
        assert toy.client.get("/events/concert/versions", headers=good).status_code == 200


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    with toy_service(tmp_path_factory.mktemp("limits")) as toy:
        client = DirectClient(toy.client.app)
        yield client
        client.close()


JSON = {"Content-Type": "application/json"}


def test_a_body_that_says_it_is_too_large_is_not_read(direct):
    headers = JSON | {"Content-Length": str(MOST_BODY_BYTES + 1)}
    answer = direct.ask("POST", "/events/concert/ues", headers=headers, body=[])
    assert (answer.status, answer.json["type"]) == (413, "/problems/too-large")


def test_a_body_that_does_not_say_so_is_cut_off(direct):
    pieces = [b" " * 65536] * (MOST_BODY_BYTES // 65536 + 2)
    answer = direct.ask("POST", "/events/concert/ues", headers=JSON, body=pieces)
    assert (answer.status, answer.json["type"]) == (413, "/problems/too-large")


@pytest.mark.parametrize("path", ["/events/uploads/ues", "/events/concert/uploadsx", "/uploads", "/events/a/b/uploads"])
def test_only_uploads_may_be_as_large_as_captures(direct, path):
    headers = JSON | {"Content-Length": str(MOST_BODY_BYTES + 1)}
    assert direct.ask("POST", path, headers=headers, body=[]).status == 413


def test_an_upload_may_be_larger(direct):
    headers = {"Content-Length": str(MOST_BODY_BYTES + 1)}
    assert direct.ask("PATCH", "/events/concert/uploads/x", headers=headers, body=[]).status != 413


def test_threads_that_ask_at_once_get_the_burst_and_no_more():
    rates = Rates(rate=1e-9, burst=50)
    granted: list[bool] = []

    def ask() -> None:
        granted.extend(rates.wait_s("crowd") == 0 for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 50


def test_headers_without_end_are_refused(direct):
    answer = direct.ask("GET", "/events", headers={"X-Long": "x" * MOST_HEADER_BYTES})
    assert answer.status == 431


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "1 2", "9" * 40, "\u00b2"])
def test_a_length_that_is_no_number_is_refused(direct, length):
    answer = direct.ask("POST", "/events/concert/ues", headers=JSON | {"Content-Length": length}, body=b"{}")
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")


def test_two_lengths_are_refused(direct):
    headers = [("Content-Type", "application/json"), ("Content-Length", "2"), ("Content-Length", "3")]
    assert direct.ask("POST", "/events/concert/ues", headers=headers, body=[b"{}"]).status == 400
