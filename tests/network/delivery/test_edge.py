"""An edge gives what the service gives, once from the cloud and then from here, to those whom the service admits."""

import asyncio
import hashlib

import httpx
import pytest

from crowdnerf_lab.network.delivery.edge import Edge
from crowdnerf_lab.network.delivery.peers import Source, fetch_object
from crowdnerf_lab.network.delivery.pieces import shared_object
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.delivery.test_delivery_routes import join
from tests.network.service_in_thread import service_in_thread
from tests.toy_catalogue import write_toy_artefact


@pytest.fixture
def event(tmp_path):
    settings = ServiceSettings(home=tmp_path / "home", events=("concert",), train=False, view_processes=0)
    artefact = write_toy_artefact(tmp_path / "made", "tiny")
    with service_in_thread(settings) as service:
        service.service.catalogue.publish([artefact], event="concert")
        href = f"/events/concert/versions/1/artefacts/tiny/files/{artefact.card.model}"
        yield service, artefact.model.read_bytes(), href


def through_an_edge(service, folder, act, **others):
    async def run():
        async with (
            Edge(others.pop("origin", service.url), folder, **others) as edge,
            httpx.AsyncClient(base_url=edge.url, timeout=10.0, trust_env=False) as client,
        ):
            return await act(edge, client), edge

    return asyncio.run(run())


@pytest.mark.row("S53")
def test_a_file_leaves_the_cloud_once(event, tmp_path):
    service, content, href = event
    tokens = [join(service.url) for _ in range(3)]

    async def act(edge, client):
        answers = await asyncio.gather(*(client.get(href, headers=token) for token in tokens * 4))
        part = await client.get(href, headers=tokens[0] | {"Range": "bytes=10-19"})
        etag = answers[0].headers["etag"]
        known = await client.get(href, headers=tokens[0] | {"If-None-Match": etag})
        head = await client.head(href, headers=tokens[0])
        return answers, part, known, head

    (answers, part, known, head), edge = through_an_edge(service, tmp_path / "edge", act)
    assert all(answer.content == content for answer in answers)
    assert (part.status_code, part.content) == (206, content[10:20])
    assert known.status_code == 304
    assert (head.status_code, int(head.headers["content-length"])) == (200, len(content))
    kept = list(edge.folder.glob("??/*"))
    assert [path.name for path in kept] == [hashlib.sha256(content).hexdigest()]
    given = {
        sample.labels["coding"]: sample.value
        for metric in service.service.metrics.sent.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert given == {"identity": len(content)}


@pytest.mark.row("S53")
def test_an_edge_is_a_source_among_others(event, tmp_path):
    service, content, href = event
    token = join(service.url)

    async def act(edge, client):
        sources = [
            Source("cloud", service.url + href, headers=token),
            Source("edge", edge.url + href, headers=token),
        ]
        return await fetch_object(shared_object("model.onnx", content), sources=sources, client=client, prefer="near")

    fetched, _ = through_an_edge(service, tmp_path / "edge", act)
    assert fetched.content == content
    assert fetched.bytes_from["edge"] == len(content)


def test_whom_the_service_does_not_admit_the_edge_does_not_either(event, tmp_path):
    service, content, href = event
    token = join(service.url)

    async def act(edge, client):
        admitted = await client.get(href, headers=token)
        return admitted, await client.get(href), await client.get(href, headers={"Authorization": "Bearer no"})

    (admitted, nobody, stranger), _ = through_an_edge(service, tmp_path / "edge", act)
    assert admitted.content == content
    for refused in (nobody, stranger):
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/events",
        "/events/concert/contributions",
        "/events/concert/versions/1/artefacts/tiny/files/../../../../../operator.token",
        "/events/concert/versions/1/artefacts/tiny/files/%2e%2e/%2e%2e/operator.token",
        "//elsewhere/events/concert/versions/1/artefacts/tiny/files/card.json",
    ],
)
def test_an_edge_is_no_open_proxy(event, tmp_path, path):
    service, _, _ = event
    token = join(service.url)

    async def act(edge, _client):
        reader, writer = await asyncio.open_connection(edge.host, edge.port)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token['Authorization']}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()
        return answer

    answer, edge = through_an_edge(service, tmp_path / "edge", act)
    assert answer.startswith(b"HTTP/1.1 404")
    assert list(edge.folder.glob("??/*")) == []


def test_a_file_that_is_not_there_and_a_service_that_is_gone(event, tmp_path):
    service, _, href = event
    token = join(service.url)

    async def act(_edge, client):
        return await client.get(href + "x", headers=token), await client.put(href, headers=token)

    (absent, written), _ = through_an_edge(service, tmp_path / "edge", act)
    assert (absent.status_code, written.status_code) == (404, 405)

    async def ask(_edge, client):
        return await client.get(href, headers=token)

    gone, _ = through_an_edge(service, tmp_path / "edge", ask, origin="http://127.0.0.1:9")
    assert gone.status_code == 502


def test_an_origin_that_gives_other_bytes_is_not_relayed(tmp_path):
    async def act():
        async def liar(reader, writer):
            request = await reader.readuntil(b"\r\n\r\n")
            etag = hashlib.sha256(b"promised").hexdigest()
            body = b"" if request.startswith(b"HEAD") else b"received"
            writer.write(
                f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nContent-Length: 8\r\nConnection: close\r\n\r\n'.encode() + body
            )
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(liar, "127.0.0.1", 0)
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Edge(origin, tmp_path) as edge, httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"{edge.url}/events/e/versions/1/artefacts/a/files/model.onnx")

    assert asyncio.run(act()).status_code == 502
    assert list(tmp_path.glob("??/*")) == []


def test_what_nobody_asks_for_makes_room(event, tmp_path):
    service, content, href = event
    token = join(service.url)

    async def act(_edge, client):
        await client.get(href, headers=token)
        return await client.get(href.replace("model.onnx", "probe_0.png"), headers=token)

    picture, edge = through_an_edge(service, tmp_path / "edge", act, most_bytes=len(content))
    assert picture.status_code == 200
    assert [path.read_bytes() for path in edge.folder.glob("??/*")] == [picture.content]
