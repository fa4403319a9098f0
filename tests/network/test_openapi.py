"""Schemathesis against the service's own description: everything that it sends is answered as described.

`SCHEMATHESIS_EXAMPLES=100 pytest tests/network/test_openapi.py` sends more; `schemathesis run` does it from outside.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from schemathesis.cli import schemathesis

from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.direct_asgi import DirectClient, DirectUE
from tests.network.mortal_server import MortalServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "2")
ENDING = ("leave_event", "renew_token")
"""Operations behind which a token is no longer good."""
OF_THE_OPERATOR = ("make_event", "list_ues", "revoke_tokens")


def settings(home: Path) -> ServiceSettings:
    often = {"requests_per_second": 1e6, "burst": 10**6, "joins_per_minute": 10**6, "refused_per_minute": 10**6}
    return ServiceSettings(home=home, events=("concert",), train=False, view_processes=0, **often)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MortalServer, Path]]:
    home = tmp_path_factory.mktemp("service")
    with MortalServer(settings(home)) as running:
        yield running, home


def run(url: str, token: str, *arguments: str, folder: Path) -> None:
    """What `schemathesis run` says, when it says anything but that all is well."""
    config = folder / "schemathesis.toml"
    known = '\n[parameters]\n"path.event" = "concert"\n"query.wait_s" = 0\n'
    config.write_text((ROOT / "schemathesis.toml").read_text() + known)
    command = ["--config-file", str(config), "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {token}"]
    limits = [
        "--checks",
        "all",
        "--max-examples",
        EXAMPLES,
        "--seed",
        "6",
        "--no-color",
        "--generation-database",
        "none",
    ]
    result = CliRunner().invoke(schemathesis, [*command, *limits, *arguments])
    assert result.exit_code == 0, result.output


def selected(how: str, operations: tuple[str, ...]) -> list[str]:
    return [word for operation in operations for word in (f"--{how}-operation-id", operation)]


def ue_token(url: str) -> str:
    document = {"device": "a phone", "consent": {"train": True, "publish": False}}
    return httpx.post(f"{url}/events/concert/ues", json=document, timeout=30).json()["token"]


def test_schemathesis_runs_clean_for_a_ue(server: tuple[MortalServer, Path], tmp_path: Path) -> None:
    url = server[0].url
    run(url, ue_token(url), *selected("exclude", ENDING + OF_THE_OPERATOR), folder=tmp_path)


@pytest.mark.parametrize("operation", ENDING)
def test_schemathesis_runs_clean_where_a_token_ends(
    server: tuple[MortalServer, Path], tmp_path: Path, operation: str
) -> None:
    url = server[0].url
    run(url, ue_token(url), *selected("include", (operation,)), folder=tmp_path)


def test_schemathesis_runs_clean_for_the_operator(server: tuple[MortalServer, Path], tmp_path: Path) -> None:
    token = (server[1] / "operator.token").read_text().strip()
    run(server[0].url, token, *selected("include", OF_THE_OPERATOR), folder=tmp_path)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectClient]:
    opened = DirectClient(create_app(settings(tmp_path_factory.mktemp("service"))))
    yield opened
    opened.close()


def test_everything_is_described(client: DirectClient) -> None:
    document = client.ask("GET", "/openapi.json").json
    operations = [(path, method, what) for path, each in document["paths"].items() for method, what in each.items()]
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(names) == len(set(names))
    for path, method, operation in operations:
        about = f"{method} {path}"
        assert operation.get("description") or operation.get("summary"), about
        named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert named == {part.strip("{}") for part in path.split("/") if part.startswith("{")}, about
        assert any(status.startswith("2") for status in operation["responses"]), about
        assert ("401" in operation["responses"]) == bool(operation.get("security")), about
        for status, answer in operation["responses"].items():
            if status.startswith("4"):
                assert list(answer["content"]) == ["application/problem+json"], f"{about}: {status}"


@pytest.mark.parametrize("path", ["/nowhere", "/events/concert/nowhere", "/events/concert/uploads/x/y", "/%00", "//"])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "BREW"])
def test_what_is_not_there_is_a_problem_too(client: DirectClient, method: str, path: str) -> None:
    answer = client.ask(method, path, headers=DirectUE(client).token)
    assert answer.status in (404, 405, 501)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
