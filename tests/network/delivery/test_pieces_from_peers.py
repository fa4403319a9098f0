"""UEs give each other verified pieces over real HTTP; liars are found out; the fastest source is asked most."""

import asyncio
import contextlib
from contextlib import AsyncExitStack

import httpx
import pytest

from crowdnerf_lab.network.delivery.objects import DeliveryError
from crowdnerf_lab.network.delivery.peer_server import Holdings, PeerServer
from crowdnerf_lab.network.delivery.peers import Source, SourceChoice, fetch_object
from crowdnerf_lab.network.delivery.pieces import VerifiedPieces, shared_object
from crowdnerf_lab.network.delivery.spans import SpanError, fetch_span, joined
from tests.network.delivery.crowd import content_of

CONTENT = content_of(500_000)
MODEL = shared_object("model.bin", CONTENT)
PIECES = len(MODEL.pieces.sha256)


class Liar(VerifiedPieces):
    """Claims pieces and gives other bytes."""

    def read(self, span):
        return bytes(span[1] - span[0])


def holding(pieces) -> Holdings:
    holdings = Holdings()
    held = holdings.of(MODEL)
    for piece in pieces:
        first, end = held.span(piece)
        assert held.take(piece, CONTENT[first:end])
    return holdings


def lying() -> Holdings:
    holdings = Holdings()
    holdings._objects[MODEL.sha256] = Liar(MODEL)
    return holdings


def source(server, kind="peer", pieces=None) -> Source:
    return Source(kind, f"{server.url}/objects/{MODEL.sha256}", None if pieces is None else frozenset(pieces))


def fetched(*servers, **others):
    """Fetch the model from servers of (kind, holdings, claimed pieces, what PeerServer takes)."""

    async def act():
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=5.0))
            opened = [await stack.enter_async_context(PeerServer(held, **more)) for _, held, _, more in servers]
            sources = [source(one, kind, pieces) for one, (kind, _, pieces, _) in zip(opened, servers, strict=True)]
            result = await fetch_object(MODEL, sources=sources, client=client, **others)
            return result, [one.bytes_given for one in opened]

    return asyncio.run(act())


@pytest.mark.row("S53")
@pytest.mark.parametrize("order", ["rarest", "random"])
def test_pieces_come_from_whoever_has_them_and_the_cloud_gives_the_rest(order):
    half, other = range(PIECES // 2), range(PIECES // 2, PIECES - 1)
    result, given = fetched(
        ("cloud", holding(range(PIECES)), None, {}),
        ("peer", holding(half), half, {}),
        ("peer", holding(other), other, {}),
        prefer="near",
        order=order,
    )
    assert result.content == CONTENT
    assert result.dropped == {}
    assert given[0] == len(CONTENT) - (PIECES - 1) * MODEL.pieces.bytes
    assert result.bytes_from["cloud"] + result.bytes_from["peer"] == len(CONTENT)


@pytest.mark.row("S53")
def test_a_liar_is_dropped_with_its_first_pieces_and_the_object_is_right():
    result, given = fetched(
        ("cloud", holding(range(PIECES)), None, {}),
        ("peer", lying(), range(PIECES), {}),
        prefer="near",
    )
    assert result.content == CONTENT
    (reason,) = result.dropped.values()
    assert "another SHA-256" in reason
    assert given[1] <= 4 * MODEL.pieces.bytes
    assert result.bytes_from["peer"] == 0


def test_when_all_lie_there_is_no_object():
    with pytest.raises(DeliveryError, match="no source is left"):
        fetched(("peer", lying(), range(PIECES), {}), ("edge", lying(), None, {}))


@pytest.mark.row("S53")
def test_the_faster_source_gives_more():
    result, given = fetched(
        ("cloud", holding(range(PIECES)), None, {"upload_mbit_s": 1.0}),
        ("edge", holding(range(PIECES)), None, {"upload_mbit_s": 100.0}),
        prefer="fast",
        at_once=2,
    )
    assert result.content == CONTENT
    assert given[1] > 2 * given[0] > 0


def test_a_busy_peer_is_left_alone_for_a_while():
    result, given = fetched(
        ("cloud", holding(range(PIECES)), None, {}),
        ("peer", holding(range(PIECES)), None, {"uploads_at_once": 0}),
    )
    assert result.content == CONTENT
    assert given == [len(CONTENT), 0]


def test_a_peer_that_is_gone_is_given_up():
    async def act():
        gone = Source("peer", f"http://127.0.0.1:9/objects/{MODEL.sha256}")
        async with httpx.AsyncClient() as client, PeerServer(holding(range(PIECES))) as origin:
            return await fetch_object(MODEL, sources=[gone, source(origin, "cloud")], client=client)

    assert asyncio.run(act()).content == CONTENT


def test_patience_ends_when_nobody_gives_what_is_missing():
    with pytest.raises(DeliveryError, match="no piece came for"):
        fetched(("peer", holding([0, 1]), [0, 1], {}), patience_s=0.2)


@pytest.mark.row("S53", "S54")
def test_a_swarm_of_eight_spares_the_origin():
    async def act():
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=5.0))
            origin = await stack.enter_async_context(PeerServer(holding(range(PIECES)), uploads_at_once=50))
            ues = [(Holdings(), seed) for seed in range(8)]
            servers = [await PeerServer(held, uploads_at_once=50).__aenter__() for held, _ in ues]
            stack.push_async_callback(lambda: asyncio.gather(*(one.__aexit__(None, None, None) for one in servers)))

            async def one(held, server, seed):
                async def others():
                    return [
                        source(other, pieces=other.holdings.of(MODEL).held) for other in servers if other is not server
                    ]

                return await fetch_object(
                    MODEL,
                    sources=[source(origin, "cloud")],
                    client=client,
                    pieces=held.of(MODEL),
                    prefer="near",
                    seed=seed,
                    discover=others,
                    discover_s=0.02,
                    at_once=2,
                )

            results = await asyncio.gather(
                *(one(held, server, seed) for (held, seed), server in zip(ues, servers, strict=True))
            )
            return results, origin.bytes_given

    results, given = asyncio.run(act())
    assert all(one.content == CONTENT for one in results)
    assert given < 0.7 * 8 * len(CONTENT)


def test_a_source_never_asked_is_tried_and_the_faster_one_preferred_afterwards():
    sources = [Source("peer", f"http://peer{n}/") for n in range(3)]
    choice = SourceChoice(sources, prefer="fast", seed=0)
    for one in choice.alive()[:2]:
        one.measured(1000, 0.1 if one.source.url == "http://peer0/" else 0.001)
    assert choice.choose(0).source.url == "http://peer2/"
    choice.standings["http://peer2/"].measured(1000, 0.01)
    assert choice.choose(0).source.url == "http://peer1/"


@pytest.mark.parametrize("kind", ["peer", "edge"])
def test_a_source_that_fails_again_and_again_is_given_up(kind):
    choice = SourceChoice([Source(kind, "http://x/")], prefer="fast", seed=0)
    for _ in range(3):
        choice.alive()[0].failed(SpanError("it broke off"))
    assert choice.choose(0) is None
    assert choice.alive() == []


async def asked(server, headers=None, path=None, method="GET"):
    async with httpx.AsyncClient() as client:
        return await client.request(method, server.url + (path or f"/objects/{MODEL.sha256}"), headers=headers)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, None, 404),
        ({"Range": "bytes=0-99"}, None, 206),
        ({"Range": "bytes=16380-16390"}, None, 206),
        ({"Range": "bytes=40000-50000"}, None, 404),
        ({"Range": "bytes=9999999-"}, None, 416),
        ({"Range": "bananas"}, None, 404),
        ({}, "/objects/" + "0" * 64, 404),
        ({}, "/objects/../../etc/passwd", 404),
        ({}, "/", 404),
    ],
)
def test_a_peer_answers_by_rfc_9110(headers, path, status):
    async def act():
        async with PeerServer(holding([0, 1])) as server:
            return await asked(server, headers, path)

    response = asyncio.run(act())
    assert response.status_code == status
    if status == 206:
        first = int(headers["Range"][6:].split("-")[0])
        assert response.content == CONTENT[first : first + len(response.content)]
        assert response.headers["content-range"].endswith(f"/{len(CONTENT)}")
    else:
        assert response.headers["content-type"] == "application/problem+json"


def test_a_peer_takes_nothing():
    async def act():
        async with PeerServer(holding([0])) as server:
            return await asked(server, method="POST")

    assert asyncio.run(act()).status_code == 405


def test_a_port_that_is_taken_is_named():
    async def act():
        async with PeerServer(Holdings()) as one, PeerServer(Holdings(), port=one.port):
            pass

    with pytest.raises(DeliveryError, match="use port 0"):
        asyncio.run(act())


def test_only_the_object_described_can_be_held_whole():
    with pytest.raises(DeliveryError, match="not the object"):
        Holdings().add(MODEL, CONTENT[:-1])


def test_a_source_that_ends_early_is_found_out():
    async def act():
        async def short(_reader, writer):
            writer.write(b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-99/500\r\nContent-Length: 10\r\n\r\n0123456789")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(short, "127.0.0.1", 0)
        async with server, httpx.AsyncClient() as client:
            await fetch_span(client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", (0, 100))

    with pytest.raises(SpanError, match="10 of 100"):
        asyncio.run(act())


def test_a_source_that_trickles_is_given_up(monkeypatch):
    monkeypatch.setattr("crowdnerf_lab.network.delivery.spans.LEAST_S", 0.2)

    async def act():
        async def trickle(_reader, writer):
            writer.write(b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-99/500\r\nContent-Length: 100\r\n\r\n")
            with contextlib.suppress(asyncio.CancelledError):
                for _ in range(100):
                    writer.write(b".")
                    await asyncio.sleep(0.02)
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        async with server, httpx.AsyncClient() as client:
            await fetch_span(client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", (0, 100))

    with pytest.raises(SpanError, match="TimeoutError"):
        asyncio.run(act())


def test_who_takes_an_upload_too_slowly_frees_its_place(monkeypatch):
    monkeypatch.setattr("crowdnerf_lab.network.delivery.spans.LEAST_S", 0.8)
    monkeypatch.setattr("crowdnerf_lab.network.delivery.spans.SLOWEST_BYTES_PER_S", 1e9)
    content = content_of(8_000_000)
    large = shared_object("large.bin", content)

    async def act():
        holdings = Holdings()
        holdings.add(large, content)
        async with PeerServer(holdings, uploads_at_once=1) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
            writer.write(f"GET /objects/{large.sha256} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readline()
            busy = await asked(server, {"Range": "bytes=0-9"}, f"/objects/{large.sha256}")
            for _ in range(50):
                free = await asked(server, {"Range": "bytes=0-9"}, f"/objects/{large.sha256}")
                if free.status_code != 503:
                    break
                await asyncio.sleep(0.1)
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            return busy, free

    busy, free = asyncio.run(act())
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert (free.status_code, free.content) == (206, content[:10])


def test_neighbours_are_asked_for_together():
    assert joined([(20, 30), (0, 10), (10, 20), (40, 50)], most_bytes=25) == [(0, 20), (20, 30), (40, 50)]
