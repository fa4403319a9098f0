import json
import re
import sqlite3

import pytest

from crowdnerf_lab.network.api.service_routes import health_of
from crowdnerf_lab.network.models.models_routes import router as models_router
from crowdnerf_lab.network.service import ROUTERS, create_app
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.toy_service import CAPABILITY, toy_service


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with toy_service(tmp_path_factory.mktemp("service")) as toy:
        toy.publish(0)
        yield toy


@pytest.fixture(scope="module")
def description(toy):
    return toy.client.get("/openapi.json").json()


def operations(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_says_what_it_is(toy):
    welcome = toy.client.get("/").json()
    for name in ("events", "description", "documentation", "health"):
        assert toy.client.get(welcome[name]).status_code == 200


def test_a_healthy_service_says_so(toy):
    health = toy.client.get("/health").json()
    assert {name: health[name] for name in ("status", "database", "catalogue", "views", "worker")} == {
        "status": "ready",
        "database": "ready",
        "catalogue": "ready",
        "views": "off",
        "worker": "off",
    }


def test_a_part_that_is_not_ready_makes_it_degraded(tmp_path):
    with toy_service(tmp_path, view_processes=1) as toy:
        toy.service.views = None
        answer = toy.client.get("/health")
        assert (answer.status_code, answer.json()["views"], answer.json()["status"]) == (200, "failed", "degraded")


def test_a_service_without_its_database_or_catalogue_says_so(tmp_path, monkeypatch):
    with toy_service(tmp_path) as toy:
        (tmp_path / "catalogue/events").rename(tmp_path / "catalogue/elsewhere")
        answer = toy.client.get("/health")
        assert (answer.status_code, answer.json()["catalogue"], answer.json()["status"]) == (503, "failed", "failed")

        def broken() -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(toy.service.database, "connection", broken)
        assert health_of(toy.service).database == "failed"


def test_metrics_count_what_happened(toy):
    headers = toy.token()
    toy.client.post("/events/concert/models:select", json={"capability": CAPABILITY}, headers=headers)
    toy.client.get("/events/concert/versions/1/artefacts/toy/files/model.onnx", headers=headers)
    toy.client.get("/nothing/of/the/kind")
    answer = toy.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in answer.text.splitlines() if line[0] != "#"
    }
    file = "/events/{event}/versions/{number}/artefacts/{name}/files/{path:path}"
    assert samples[f'crowdnerf_requests_total{{method="GET",route="{file}",status="200"}}'] == 1
    assert samples[f'crowdnerf_request_seconds_count{{route="{file}"}}'] == 1
    assert samples['crowdnerf_requests_total{method="GET",route="unmatched",status="404"}'] == 1
    assert samples['crowdnerf_selections_total{inference="device"}'] == 1
    assert samples['crowdnerf_latest_version{event="concert"}'] == 1
    assert samples['crowdnerf_versions{event="concert",state="offered"}'] == 1
    assert samples['crowdnerf_ues{event="concert"}'] == 1
    assert sum(value for name, value in samples.items() if name.startswith("crowdnerf_model_bytes_total")) > 0


def test_metrics_name_no_ue(toy):
    joined = toy.join()
    assert joined["ue"] not in toy.client.get("/metrics").text


def test_every_route_is_described_and_every_problem_declared(description):
    seen = set()
    for path, method, operation in operations(description):
        assert operation["operationId"] not in seen, operation["operationId"]
        seen.add(operation["operationId"])
        assert re.fullmatch(r"[a-z][a-z_]*", operation["operationId"])
        assert operation["description"] or operation["summary"]
        assert "HTTPValidationError" not in json.dumps(operation)
        for status, response in operation["responses"].items():
            if status.startswith("4") and path != "/health":
                assert "application/problem+json" in response["content"], (path, method, status)
        if "401" in operation["responses"]:
            assert operation["security"] == [{"bearer": []}]
    assert {"select_models", "download_file", "join_event", "create_upload", "view", "health"} <= seen


def test_references_in_the_description_lead_somewhere(description):
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(description)))
    assert names <= set(description["components"]["schemas"])


def test_every_parameter_of_a_path_is_described(description):
    for path, _, operation in operations(description):
        described = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)", path)), path


def test_the_page_needs_no_other_server(toy, description):
    page = toy.client.get("/docs").text
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page.replace("https://tus.io", "")
    for path, _, _ in operations(description):
        assert path in page


def test_the_crowds_routes_come_first():
    assert ROUTERS[0] is models_router


def test_two_api_processes_share_a_home(tmp_path):
    with toy_service(tmp_path) as one, toy_service(tmp_path) as other:
        headers = one.token()
        one.publish(0)
        assert other.client.get("/events/concert/versions/1", headers=headers).status_code == 200
        one.client.delete("/events/concert/ues/me", headers=headers)
        assert other.client.get("/events/concert/versions/1", headers=headers).status_code == 401


def test_an_application_needs_no_start_to_be_described(tmp_path):
    assert create_app(ServiceSettings(tmp_path)).openapi()["info"]["title"] == "crowdnerf_lab.network"
