"""The page at /ue: its files, and what they are allowed."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowdnerf_lab.network.browser_ue_routes import FILES
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.widgets.built import RUNTIME, built_file
from tests.network.direct_asgi import DirectClient


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectClient]:
    home: Path = tmp_path_factory.mktemp("service")
    opened = DirectClient(create_app(ServiceSettings(home, events=("concert",), train=False, view_processes=0)))
    yield opened
    opened.close()


def test_the_page_loads_only_what_is_served_beside_it(client: DirectClient):
    answer = client.ask("GET", "/ue?event=concert")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', answer.body.decode())
    assert {address.removeprefix("/ue/") for address in addresses if address.startswith("/")} <= set(FILES)
    assert not [address for address in addresses if not address.startswith(("/ue/", "data:"))]


def test_the_page_is_allowed_little(client: DirectClient):
    headers = client.ask("GET", "/ue").headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not [rule for rule in policy.values() if "*" in rule or "http" in rule or "unsafe-inline" in rule]
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file", FILES)
def test_its_files_come_as_they_were_built_and_are_not_sent_twice(client: DirectClient, file: str):
    answer = client.ask("GET", f"/ue/{file}")
    assert answer.body == built_file(file).read_bytes()
    again = client.ask("GET", f"/ue/{file}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_the_runtime_is_sent_gzip_d(client: DirectClient):
    assert gzip.decompress(client.ask("GET", f"/ue/{RUNTIME}").body).startswith(b"\0asm")


@pytest.mark.parametrize("file", ["explorer.js", "built.json", "..%2fbuilt.py", "%2e%2e"])
def test_nothing_else_of_the_package_is_given_out(client: DirectClient, file: str):
    answer = client.ask("GET", f"/ue/{file}")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_learns_of_links_to_simulate(client: DirectClient):
    assert [link["name"] for link in client.ask("GET", "/ue/links").json] == list(LINKS)
