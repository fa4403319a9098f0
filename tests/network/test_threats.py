"""The table of SECURITY.md: every test that it names is there. And the threats that belong to no single part."""

import ast
import importlib
import json
import pkgutil
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import crowdnerf_lab.network
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.direct_asgi import DirectClient, DirectUE, metadata_of, photo

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a-home-that-nobody-should-hear-of")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[DirectClient]:
    opened = DirectClient(create_app(ServiceSettings(home=home, events=("concert",), train=False, view_processes=0)))
    yield opened
    opened.close()


@pytest.fixture
def ue(client: DirectClient) -> DirectUE:
    return DirectUE(client)


def rows() -> list[list[str]]:
    """The cells of the threat table."""
    table = (ROOT / "SECURITY.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| **")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_threat_names_what_stops_it_and_tests_that_exist() -> None:
    assert len(rows()) >= 20
    for row in rows():
        assert len(row) == 3, row
        named = re.findall(r"`([^`]+)::([^`]+)`", row[2])
        assert named, row[0]
        for file, name in named:
            tree = ast.parse((ROOT / file).read_text())
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            found = [node.name for node in ast.walk(tree) if isinstance(node, functions)]
            assert name in found, f"{file} has no {name}, which SECURITY.md names for {row[0]}"


@pytest.mark.parametrize(
    "threat",
    [
        *("spoofed ue", "poisoned capture", "tampered model", "replay", "denial of service", "path traversal"),
        *("server-side request forgery", "leak in an error", "leak in exif", "stolen token", "one ue against another"),
        *("half-written upload", "lies on its card"),
    ],
)
def test_no_threat_is_left_out(threat: str) -> None:
    assert any(threat in row[0].lower() for row in rows())


@pytest.mark.row("S63")
def test_one_ue_cannot_touch_what_is_another_s(ue: DirectUE) -> None:
    whole = ue.upload(photo(), metadata=metadata_of(capture='{"time_s": 4}'))
    half = ue.create(400, body=photo(seed=1)[:100]).headers["location"]
    before = ue.ask("GET", ue.contributions).json
    other = DirectUE(ue.client)
    for upload in (whole, half):
        assert other.ask("HEAD", upload).status == 404
        assert other.send(upload, b"x", offset=100).status == 404
        assert other.ask("DELETE", upload).status == 404
        assert other.ask("GET", f"{ue.contributions}/{upload.rpartition('/')[2]}").status == 404
    assert other.ask("DELETE", other.contributions).json == {"contributions": 0, "bytes": 0}
    assert ue.ask("GET", ue.contributions).json == before


def test_a_ue_is_no_operator(ue: DirectUE) -> None:
    made = ue.client.ask("POST", "/events", headers=ue.token | JSON, body=b'{"event": "mine"}')
    listed = ue.ask("GET", "/events/concert/ues")
    ended = ue.ask("DELETE", f"/events/concert/ues/{ue.name}/tokens")
    assert (made.status, listed.status, ended.status) == (403, 403, 403)


@pytest.mark.parametrize(
    "consent", [{"train": 1, "publish": 0}, {"train": "yes", "publish": "no"}, {"train": True}, None]
)
def test_consent_is_said_and_not_guessed(client: DirectClient, consent: Any) -> None:
    body = json.dumps({"device": "a phone", "consent": consent}).encode()
    assert client.ask("POST", "/events/concert/ues", headers=JSON, body=body).status == 422


def test_a_piece_that_is_replayed_changes_nothing(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400).headers["location"]
    assert ue.send(upload, content[:150], offset=0).status == 204
    assert ue.send(upload, content[:150], offset=0).status == 409
    assert ue.offset(upload) == 150
    assert ue.send(upload, content[150:], offset=150).status == 204
    assert ue.send(upload, content[150:], offset=150).status == 409
    assert ue.status(upload)["state"] == "received"


@pytest.mark.parametrize(
    "file", ["..%2f..%2fservice.sqlite", "../../service.sqlite", "%2fetc%2fpasswd", "a%00b", "..%5c.."]
)
def test_no_path_leads_out_of_the_catalogue(ue: DirectUE, file: str) -> None:
    for path in (f"versions/1/artefacts/toy/files/{file}", f"versions/1/artefacts/{file}/files/card.json"):
        answer = ue.ask("GET", f"/events/concert/{path}")
        assert answer.status in (404, 422), answer
        assert b"SQLite" not in answer.body


def test_no_document_names_an_address_that_the_service_would_fetch(client: DirectClient) -> None:
    """Peers alone say where they are: to other UEs, which go there; the service does not."""
    document = client.ask("GET", "/openapi.json").json
    schemas = document["components"]["schemas"]
    fetched = re.compile(r"(^|_)(url|uri|href|callback|webhook|address|host|proxy|redirect)s?($|_)", re.IGNORECASE)

    def names(schema: Any, seen: frozenset[str] = frozenset()) -> Iterator[str]:
        if isinstance(schema, list):
            for inner in schema:
                yield from names(inner, seen)
        if isinstance(schema, dict):
            target = str(schema.get("$ref", "")).rpartition("/")[2]
            if target and target not in seen:
                yield from names(schemas[target], seen | {target})
            yield from schema.get("properties", {})
            for inner in schema.values():
                yield from names(inner, seen)

    for path, methods in document["paths"].items():
        for operation in methods.values():
            asked = [parameter["name"] for parameter in operation.get("parameters", [])]
            asked += names(operation.get("requestBody", {}))
            assert not [name for name in asked if fetched.search(name)], path


def test_an_address_in_metadata_is_not_visited(ue: DirectUE) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/x.jpg"
        ue.upload(photo(), metadata=metadata_of(filename=address, relativePath=address))
        body = json.dumps({"device": address, "consent": {"train": True, "publish": True}}).encode()
        assert ue.client.ask("POST", "/events/concert/ues", headers=JSON, body=body).status == 201
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("text", ["'; DROP TABLE uploads; --", '" OR 1=1 --', "x' UNION SELECT sha256 FROM tokens --"])
def test_what_looks_like_sql_is_text(ue: DirectUE, text: str) -> None:
    assert ue.ask("GET", f"{ue.contributions}/{text}").status == 404
    assert ue.create(400, metadata=metadata_of(filename=text)).status == 201
    assert ue.create(400, key=text.replace(" ", "")).status == 201
    assert len(ue.ask("GET", ue.contributions).json["contributions"]) == 2


def test_no_problem_tells_where_the_service_lives(ue: DirectUE, home: Path) -> None:
    upload = ue.create(400).headers["location"]
    refused = [
        ue.send(upload, b"no photo" * 20, offset=0),
        ue.send(upload, photo(), offset=0),
        ue.create(0),
        ue.create(1 << 50),
        ue.ask("GET", "/events/concert/versions/9"),
        ue.ask("GET", "/events/concert/versions/latest?wait_s=x"),
        ue.ask("GET", "/events/nowhere/contributions"),
        ue.ask("PUT", upload),
        ue.client.ask("POST", "/events/concert/models:select", headers=ue.token | JSON, body=b"{"),
        ue.client.ask("POST", "/events/concert/views", headers=ue.token | JSON, body=b"{}"),
    ]
    assert all(answer.status >= 400 for answer in refused)
    for answer in [*refused, ue.client.ask("GET", "/health"), ue.client.ask("GET", "/")]:
        assert home.name.encode() not in answer.body
        assert b"Traceback" not in answer.body
        assert b".py" not in answer.body


def test_what_waits_is_readable_to_the_service_alone(ue: DirectUE, home: Path) -> None:
    ue.upload(photo())
    ue.create(400, body=photo()[:100])
    private = [home / "inbox", home / "uploads", *(home / "inbox").iterdir(), *home.glob("service.sqlite*")]
    private += [home / "operator.token", *(home / "uploads").iterdir(), *(home / "inbox").glob("*/*")]
    assert len(private) > 6
    for path in private:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path.name


def test_nothing_of_the_network_is_unpickled() -> None:
    for module in pkgutil.walk_packages(crowdnerf_lab.network.__path__, "crowdnerf_lab.network."):
        source = Path(importlib.util.find_spec(module.name).origin or "").read_text()  # type: ignore[union-attr]
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(source))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, module.name
        assert "torch.load(" not in source, module.name
