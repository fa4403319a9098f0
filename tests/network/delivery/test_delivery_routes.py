"""The service tells who broadcasts what and who holds what; UEs find each other through it."""

import asyncio
import hashlib
import time

import httpx
import pytest

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.catalogue.delta import apply_delta
from crowdnerf_lab.network.delivery.broadcaster import Broadcaster, BroadcastSettings, sessions_of
from crowdnerf_lab.network.delivery.objects import DeliveryError, read_session
from crowdnerf_lab.network.delivery.on_air import objects_of
from crowdnerf_lab.network.delivery.peer_server import Holdings, PeerServer
from crowdnerf_lab.network.delivery.peers import fetch_object
from crowdnerf_lab.network.delivery.receiver import receive
from crowdnerf_lab.network.delivery.tracker import Peer, PeerBook, Tracker
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.delivery.crowd import free_port
from tests.network.service_in_thread import service_in_thread
from tests.toy_catalogue import toy_graph, write_toy_artefact

JOIN = {"device": "phone", "consent": {"train": True, "publish": True}}


@pytest.fixture
def event(tmp_path):
    """A service with one event that has one version, and a way to join it."""
    settings = ServiceSettings(home=tmp_path / "home", events=("concert",), train=False, view_processes=0)
    artefact = write_toy_artefact(tmp_path / "made", "tiny")
    with service_in_thread(settings) as service:
        service.service.catalogue.publish([artefact], event="concert")
        yield service, artefact


def join(url: str) -> dict[str, str]:
    answer = httpx.post(f"{url}/events/concert/ues", json=JOIN, trust_env=False)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def digest(artefact) -> str:
    return hashlib.sha256(artefact.model.read_bytes()).hexdigest()


@pytest.mark.row("S53")
def test_ues_find_each_other_and_share_a_model(event):
    service, artefact = event
    content, sha256 = artefact.model.read_bytes(), digest(artefact)

    async def act():
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            giver = Tracker(client, service.url, "concert", join(service.url))
            taker = Tracker(client, service.url, "concert", join(service.url))
            described = (await giver.ask(sha256)).object
            holdings = Holdings()
            holdings.add(described, content)
            async with PeerServer(holdings) as server:
                await giver.announce(sha256, port=server.port, pieces=holdings.of(described).held)
                peers = await taker.ask(sha256)
                assert [peer.url for peer in peers.peers] == [f"{server.url}/objects/{sha256}"]
                fetched = await fetch_object(
                    described, sources=taker.sources(peers), client=client, prefer="near", at_once=1
                )
                assert (await giver.ask(sha256)).peers == ()
                assert (await giver.announce(sha256, port=server.port, pieces=())).peers == ()
                assert (await taker.ask(sha256)).peers == ()
                from_cloud = await fetch_object(
                    described, sources=taker.sources(await taker.ask(sha256)), client=client
                )
                return fetched, from_cloud

    fetched, from_cloud = asyncio.run(act())
    assert fetched.content == from_cloud.content == content
    assert fetched.bytes_from == {"cloud": 0, "peer": len(content)}
    assert from_cloud.bytes_from == {"cloud": len(content)}


def test_a_ue_cannot_send_others_to_an_address_that_is_not_its_own(event):
    service, artefact = event
    sha256, token, other = digest(artefact), join(service.url), join(service.url)
    peers = f"{service.url}/events/concert/peers"
    told = {"sha256": sha256, "port": 2000, "pieces": [0]}
    assert httpx.post(peers, json=told | {"host": "192.0.2.1"}, headers=token).status_code == 422
    assert httpx.post(peers, json=told, headers=token).status_code == 200
    (peer,) = httpx.get(peers, params={"sha256": sha256}, headers=other).json()["peers"]
    assert peer["url"] == f"http://127.0.0.1:2000/objects/{sha256}"


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"port": 80}, 422),
        ({"port": 70000}, 422),
        ({"port": "2000"}, 422),
        ({"port": True}, 422),
        ({"pieces": [1]}, 422),
        ({"pieces": [-1]}, 422),
        ({"pieces": list(range(300))}, 422),
        ({"pieces": "all"}, 422),
        ({"sha256": "0" * 64}, 404),
        ({"sha256": "../../etc/passwd"}, 422),
        ({"extra": 1}, 422),
    ],
)
def test_announcements_that_cannot_be_are_refused(event, document, status):
    service, artefact = event
    told = {"sha256": digest(artefact), "port": 2000, "pieces": [0]} | document
    answer = httpx.post(f"{service.url}/events/concert/peers", json=told, headers=join(service.url))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_members_ask(event):
    service, artefact = event
    for path in ("broadcasts", f"peers?sha256={digest(artefact)}"):
        assert httpx.get(f"{service.url}/events/concert/{path}").status_code == 401
    operator = {"Authorization": f"Bearer {service.operator_token}"}
    told = {"sha256": digest(artefact), "port": 2000, "pieces": [0]}
    assert httpx.post(f"{service.url}/events/concert/peers", json=told, headers=operator).status_code == 403
    assert httpx.get(f"{service.url}/events/concert/broadcasts", headers=operator).json() == {"sessions": []}


def peer_of(sha256: str) -> Peer:
    return Peer(url=f"http://127.0.0.1:2000/objects/{sha256}", pieces=(0,))


def test_a_peer_that_is_silent_is_forgotten_and_nobody_holds_everything(tmp_path, monkeypatch):
    book = PeerBook(tmp_path / "peers.sqlite")
    for number in range(64):
        book.announce("concert", f"{number:064x}", ue="ue1", peer=peer_of(f"{number:064x}"))
    with pytest.raises(DeliveryError, match="at most 64"):
        book.announce("concert", "f" * 64, ue="ue1", peer=peer_of("f" * 64))
    assert len(book.peers("concert", f"{3:064x}", but="ue2")) == 1
    assert PeerBook(tmp_path / "peers.sqlite").peers("concert", f"{3:064x}", but="ue2")
    now = time.time()
    monkeypatch.setattr("crowdnerf_lab.network.delivery.tracker.time.time", lambda: now + 31)
    assert book.peers("concert", f"{3:064x}", but="ue2") == ()


@pytest.mark.row("S32", "S55")
def test_a_published_version_is_on_the_air_and_the_next_one_after_it(event, tmp_path):
    service, artefact = event
    token = join(service.url)
    settings = BroadcastSettings(port=free_port(), rate_mbit_s=50.0)
    broadcaster = Broadcaster(service.service.settings.home, service.service.catalogue, settings)
    broadcaster.start()
    try:
        first = wait_for_session(service.url, token, version=1)
        received = asyncio.run(receive(first, folder=tmp_path / "one", listen_s=5.0))
        assert received.path.read_bytes() == artefact.model.read_bytes()
        service.service.catalogue.publish([artefact], event="concert")
        second = wait_for_session(service.url, token, version=2)
        repaired = asyncio.run(
            receive(second, folder=tmp_path / "two", repair=service.url, headers=token, listen_s=0.0)
        )
        assert repaired.repaired_bytes == second.bytes
    finally:
        broadcaster.close()
    assert sessions_of(service.service.settings.home, "concert") == ()


@pytest.mark.row("S32", "S55")
def test_those_who_have_the_version_before_receive_a_delta(event, tmp_path):
    service, _ = event
    token = join(service.url)
    changed = write_toy_artefact(tmp_path / "changed", "tiny", content=toy_graph(padding=3000))
    again = write_toy_artefact(tmp_path / "again", "tiny", content=toy_graph(padding=3001))
    service.service.catalogue.publish([changed], event="concert")
    service.service.catalogue.publish([again], event="concert")
    settings = BroadcastSettings(port=free_port(), rate_mbit_s=50.0)
    broadcaster = Broadcaster(service.service.settings.home, service.service.catalogue, settings)
    broadcaster.start()
    try:
        delta = wait_for_session(service.url, token, version=3, kind="delta")
        received = asyncio.run(receive(delta, folder=tmp_path / "delta", listen_s=5.0))
        repaired = asyncio.run(
            receive(delta, folder=tmp_path / "repaired", repair=service.url, headers=token, listen_s=0.0)
        )
    finally:
        broadcaster.close()
    assert delta.since == 2
    assert delta.bytes < again.card.bytes / 2
    assert received.path.read_bytes() == repaired.path.read_bytes()
    made = apply_delta(changed.model.read_bytes(), received.path.read_bytes(), name="delta")
    assert made == again.model.read_bytes()


def test_a_service_that_is_told_to_broadcasts(tmp_path):
    settings = ServiceSettings(
        home=tmp_path / "home",
        events=("concert",),
        train=False,
        view_processes=0,
        broadcast=BroadcastSettings(port=free_port(), rate_mbit_s=50.0),
    )
    artefact = write_toy_artefact(tmp_path / "made", "tiny")
    with service_in_thread(settings) as service:
        service.service.catalogue.publish([artefact], event="concert")
        session = wait_for_session(service.url, join(service.url), version=1)
        received = asyncio.run(receive(session, folder=tmp_path / "here", listen_s=5.0))
    assert received.path.read_bytes() == artefact.model.read_bytes()


def test_a_destination_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no multicast address"):
        BroadcastSettings(group="192.0.2.1")


def wait_for_session(url: str, token: dict[str, str], *, version: int, kind: str = "model"):
    for _ in range(200):
        answer = httpx.get(f"{url}/events/concert/broadcasts", headers=token, trust_env=False)
        assert answer.status_code == 200, answer.text
        found = [one for one in answer.json()["sessions"] if (one["version"], one["kind"]) == (version, kind)]
        if found:
            return read_session(found[0])
        time.sleep(0.02)
    raise AssertionError(f"version {version} was never on the air")


def test_small_models_come_first_and_a_carousel_carries_no_more_than_it_may(tmp_path):
    catalogue = Catalogue(tmp_path / "catalogue")
    made = [write_toy_artefact(tmp_path / "made", name) for name in ("b", "a")]
    catalogue.publish(made, event="concert")
    size = made[0].model.stat().st_size
    on_air = objects_of(catalogue, "concert", BroadcastSettings())
    assert on_air is not None
    assert len(on_air.objects) == 2
    one = objects_of(catalogue, "concert", BroadcastSettings(most_bytes=size))
    assert one is not None
    assert len(one.objects) == 1
    assert objects_of(catalogue, "nowhere", BroadcastSettings()) is None
    assert {session.href for session, _ in on_air.objects} == {
        f"/events/concert/versions/1/artefacts/{one.card.name}/files/{one.card.model}" for one in made
    }


def test_a_damaged_note_is_no_session(tmp_path):
    (tmp_path / "broadcasts").mkdir()
    (tmp_path / "broadcasts" / "concert.json").write_text('[{"half":')
    assert sessions_of(tmp_path, "concert") == ()
