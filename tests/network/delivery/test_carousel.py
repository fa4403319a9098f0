"""Tens of receivers on this machine's sockets: losses, late joiners, several objects at once, the promised rate."""

import asyncio
import hashlib
import time

import pytest

from crowdnerf_lab.network.delivery.carousel import TokenBucket, broadcast, broadcast_together
from crowdnerf_lab.network.delivery.losses import bursts, fates, independent
from crowdnerf_lab.network.delivery.objects import DeliveryError
from crowdnerf_lab.network.delivery.receiver import listening_socket, receive
from tests.network.delivery.crowd import content_of, session_of, to_a_crowd

CONTENT = content_of(300_000)


@pytest.mark.row("S32", "S54", "S55")
@pytest.mark.parametrize("loss", [independent(0.1), independent(0.2), bursts(0.1, 8.0)], ids=["10%", "20%", "bursts"])
def test_thirty_receivers_complete_at_k_symbols_whatever_each_of_them_loses(tmp_path, loss):
    session = session_of(CONTENT, rounds=1.8)
    _, received = to_a_crowd(
        session, CONTENT, folder=tmp_path, receivers=30, losses=lambda n: fates(loss, seed=n), listen_s=5.0
    )
    assert [one.path.read_bytes() == CONTENT for one in received] == [True] * 30
    assert max(one.symbols_received - one.K for one in received) <= 2
    assert {one.repaired_bytes for one in received} == {0}


@pytest.mark.row("S33")
def test_a_crowd_has_a_model_long_before_unicast_could_have_served_it_over_the_same_link(tmp_path):
    session = session_of(CONTENT, rounds=1.2, rate_mbit_s=4.0)
    _, received = to_a_crowd(session, CONTENT, folder=tmp_path, receivers=20, listen_s=10.0)
    one_by_one_s = 20 * 8 * len(CONTENT) / 4e6
    assert 8 * len(CONTENT) / 4e6 < max(one.seconds for one in received) < one_by_one_s / 2


@pytest.mark.row("S55")
def test_without_multicast_addresses_are_served_one_by_one(tmp_path):
    async def deliver():
        probe = session_of(CONTENT)
        sockets = [listening_socket(probe, address=("127.0.0.1", 0)) for _ in range(5)]
        session = session_of(CONTENT, addresses=[each.getsockname() for each in sockets])
        tasks = [
            asyncio.create_task(receive(session, folder=tmp_path / str(n), listener=each, listen_s=3.0))
            for n, each in enumerate(sockets)
        ]
        sent = await broadcast(session, CONTENT)
        return sent, await asyncio.gather(*tasks)

    sent, received = asyncio.run(deliver())
    assert all(one.path.read_bytes() == CONTENT for one in received)
    assert sent.bytes == 5 * sent.symbols * (1280 + 22)


def test_a_late_joiner_needs_no_more_symbols_than_an_early_one(tmp_path):
    session = session_of(CONTENT, rounds=None, rate_mbit_s=60.0)

    async def deliver():
        stop = asyncio.Event()
        sending = asyncio.create_task(broadcast(session, CONTENT, stop=stop))
        await asyncio.sleep(0.02)
        first = await receive(session, folder=tmp_path / "first", listen_s=3.0)
        late = await receive(session, folder=tmp_path / "late", listen_s=3.0)
        stop.set()
        return await sending, first, late

    sent, first, late = asyncio.run(deliver())
    assert sent.symbols > 2 * session.source_symbols
    assert first.symbols_received <= first.K + 2
    assert late.symbols_received <= late.K + 2


def test_losses_before_the_crowd_are_made_up_for_by_the_next_round(tmp_path):
    session = session_of(CONTENT, rounds=2.0)

    async def deliver():
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=3.0))
        await asyncio.sleep(0.05)
        sent = await broadcast(session, CONTENT, loss_injection=fates(independent(0.3), seed=1))
        return sent, await task

    sent, received = asyncio.run(deliver())
    assert received.path.read_bytes() == CONTENT
    assert 0.2 < sent.lost / sent.symbols < 0.4


@pytest.mark.row("S32")
def test_first_layers_are_complete_before_the_file_that_they_begin(tmp_path):
    layers = session_of(CONTENT[:40_000], name="layers", object_number=1, rate_mbit_s=50.0)
    whole = session_of(CONTENT, name="whole", priority=1, port=layers.port, session=layers.session, rate_mbit_s=50.0)

    async def deliver():
        tasks = [asyncio.create_task(receive(each, folder=tmp_path, listen_s=3.0)) for each in (layers, whole)]
        await asyncio.sleep(0.05)
        sent = await broadcast_together([(whole, CONTENT), (layers, CONTENT[:40_000])])
        return sent, await asyncio.gather(*tasks)

    sent, (first, second) = asyncio.run(deliver())
    assert [one.symbols for one in sent] == [round(1.4 * each.source_symbols) for each in (whole, layers)]
    assert first.path.read_bytes() == CONTENT[:40_000]
    assert second.path.read_bytes() == CONTENT
    assert first.seconds < second.seconds


@pytest.mark.row("S72")
def test_a_popular_view_is_an_object_like_any_other(tmp_path):
    view = content_of(9_000)
    camera = {"camera_to_world": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "width": 256, "height": 192}
    session = session_of(view, name="stage.webp", kind="view", media_type="image/webp", view=camera)
    _, received = to_a_crowd(session, view, folder=tmp_path, receivers=10, listen_s=3.0)
    assert {hashlib.sha256(one.path.read_bytes()).hexdigest() for one in received} == {session.sha256}
    assert session.view == camera


def test_the_rate_is_kept():
    async def ten_hundredths() -> float:
        bucket, began = TokenBucket(rate=1e6), time.monotonic()
        for _ in range(100):
            await bucket.take(1_000)
        return time.monotonic() - began

    assert asyncio.run(ten_hundredths()) > 0.085


def test_other_bytes_than_those_described_are_not_sent():
    with pytest.raises(DeliveryError, match="not the bytes that were described"):
        asyncio.run(broadcast(session_of(CONTENT), CONTENT[:-1]))


def test_a_session_that_leads_nowhere_is_refused():
    with pytest.raises(DeliveryError, match="no destination"):
        asyncio.run(broadcast(session_of(CONTENT, addresses=[]), CONTENT))


def test_an_interface_that_is_not_here_is_named():
    with pytest.raises(DeliveryError, match=r"192\.0\.2\.200"):
        asyncio.run(broadcast(session_of(CONTENT), CONTENT, interface="192.0.2.200"))


def test_an_expired_session_sends_nothing():
    session = session_of(CONTENT, rounds=None, expires_in_s=-1.0)
    assert asyncio.run(broadcast(session, CONTENT)).symbols == 0
