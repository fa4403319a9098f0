"""Repair over real HTTP, interruptions, and packets from people who mean no good."""

import asyncio
import os
import socket
import struct
from itertools import islice

import numpy as np
import pytest

from crowdnerf_lab.network.delivery.carousel import broadcast
from crowdnerf_lab.network.delivery.losses import fates, independent
from crowdnerf_lab.network.delivery.objects import DeliveryError, packet_header
from crowdnerf_lab.network.delivery.peer_server import Holdings, PeerServer
from crowdnerf_lab.network.delivery.pieces import object_of
from crowdnerf_lab.network.delivery.raptorq_code import raptorq_packets
from crowdnerf_lab.network.delivery.receiver import receive
from crowdnerf_lab.network.delivery.reception import SymbolReception
from tests.network.delivery.crowd import GROUP, content_of, session_of

CONTENT = content_of(300_000)
K = 235


def repairable(**others):
    session = session_of(CONTENT, **others)
    return session.model_copy(update={"href": f"/objects/{session.sha256}"})


async def with_origin(session, act, *, content=CONTENT):
    """Run `act(url)` while an origin serves the content."""
    holdings = Holdings()
    if content is not None:
        holdings.add(object_of(session), content)
    async with PeerServer(holdings, uploads_at_once=100) as origin:
        return await act(origin.url), origin.bytes_given


def received(session, folder, *, sender=None, content=CONTENT, **others):
    """Receive with repair, while `sender` (by default the carousel) sends."""

    async def act(url):
        task = asyncio.create_task(receive(session, folder=folder, repair=url, quiet_s=0.4, **others))
        await asyncio.sleep(0.05)
        await (broadcast(session, CONTENT) if sender is None else sender())
        return await task

    return asyncio.run(with_origin(session, act, content=content))


def send(packets, session) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outgoing:
        outgoing.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for packet in packets:
            outgoing.sendto(packet, (GROUP, session.port))


@pytest.mark.row("S55")
def test_repair_fetches_the_symbols_that_are_too_few_and_no_more(tmp_path):
    session = repairable(rounds=1.0)
    whole, given = received(session, tmp_path, loss_injection=fates(independent(0.2), seed=3))
    assert whole.path.read_bytes() == CONTENT
    too_few = K - whole.symbols_received
    assert too_few > 20
    assert too_few * 1280 - 1280 <= whole.repaired_bytes <= (too_few + 2) * 1280
    assert given == whole.repaired_bytes


@pytest.mark.parametrize("code", ["none", "flute"])
def test_other_codes_are_repaired_too(tmp_path, code):
    session = repairable(rounds=1.0, code=code)
    whole, _ = received(session, tmp_path, loss_injection=fates(independent(0.3), seed=3))
    assert whole.path.read_bytes() == CONTENT
    assert 0 < whole.repaired_bytes < len(CONTENT)


def test_a_receiver_that_hears_nothing_fetches_all(tmp_path):
    session = repairable()

    async def silent():
        await asyncio.sleep(0)

    whole, _ = received(session, tmp_path, sender=silent)
    assert whole.path.read_bytes() == CONTENT
    assert whole.repaired_bytes == len(CONTENT)


def test_without_repair_it_says_what_is_missing_and_goes_on_from_there_later(tmp_path):
    session = session_of(CONTENT, rounds=0.5)

    async def interrupted():
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=1.0))
        await asyncio.sleep(0.05)
        await broadcast(session, CONTENT)
        with pytest.raises(DeliveryError, match="give a repair URL"):
            await task
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=2.0))
        await asyncio.sleep(0.05)
        packets = list(islice(raptorq_packets(CONTENT, session), 2 * K))[K:]
        send(packets[: K - K // 2 + 2], session)
        return await task

    whole = asyncio.run(interrupted())
    assert whole.path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_cancelled_receiver_keeps_what_it_has(tmp_path):
    session = session_of(CONTENT, rounds=0.5)

    async def cancelled():
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=5.0))
        await asyncio.sleep(0.05)
        await broadcast(session, CONTENT)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_size == round(K / 2) * (1280 + 22)


def test_damaged_notes_of_an_earlier_attempt_do_no_harm(tmp_path):
    session = repairable()
    (tmp_path / f".model.bin.{session.sha256[:16]}.symbols").write_bytes(os.urandom(50_000))
    whole, _ = received(session, tmp_path)
    assert whole.path.read_bytes() == CONTENT


def hostile_packets(session, rng):
    """Wrong lengths, foreign marks, wrong versions, blocks and symbols that cannot be."""
    header = packet_header(session)
    yield b""
    yield header
    yield from (rng.bytes(int(size)) for size in rng.integers(1, 9000, 200))
    yield from (header + rng.bytes(int(size)) for size in rng.integers(0, 1284, 200))
    yield from (header + struct.pack("!I", block << 24) + bytes(1280) for block in range(1, 256))
    yield from (header[:-4] + struct.pack("!II", version, 3) + bytes(1280) for version in range(4, 100))


def test_hostile_packets_do_not_disturb(tmp_path):
    session = repairable()

    async def both():
        send(hostile_packets(session, np.random.default_rng(0)), session)
        await broadcast(session, CONTENT)

    whole, _ = received(session, tmp_path, sender=both)
    assert whole.path.read_bytes() == CONTENT
    assert (whole.poisonings, whole.repaired_bytes) == (0, 0)


def forged(session, esis, rng):
    header = packet_header(session)
    return [header + struct.pack("!I", esi) + rng.bytes(1280) for esi in esis]


def test_forged_symbols_are_thrown_away_and_the_right_pieces_kept(tmp_path):
    session = repairable(rounds=1.2)

    async def both():
        send(forged(session, [1, 100], np.random.default_rng(0)), session)
        await broadcast(session, CONTENT)

    whole, _ = received(session, tmp_path, sender=both)
    assert whole.path.read_bytes() == CONTENT
    assert whole.poisonings == 1
    assert whole.repaired_bytes == 2 * session.pieces.bytes


def test_without_repair_a_poisoned_object_is_collected_again(tmp_path):
    session = session_of(CONTENT, rounds=3.0)

    async def act():
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=3.0))
        await asyncio.sleep(0.05)
        send(forged(session, range(40, 60), np.random.default_rng(0)), session)
        await broadcast(session, CONTENT)
        return await task

    whole = asyncio.run(act())
    assert whole.path.read_bytes() == CONTENT
    assert whole.poisonings >= 1


def test_a_flood_of_forged_symbols_fills_no_memory():
    session = session_of(CONTENT)
    reception = SymbolReception(session)
    rng = np.random.default_rng(0)
    for esi in range(1_000, 4_000):
        reception.push(forged(session, [esi], rng)[0])
        assert len(reception.packed()) <= (K + 32) * (1280 + 22)
    assert reception.content is None
    assert reception.poisonings > 5


def test_packets_of_another_sender_count_for_nothing(tmp_path):
    session = repairable(source="192.0.2.9")
    whole, _ = received(session, tmp_path)
    assert whole.symbols_received == 0
    assert whole.repaired_bytes == len(CONTENT)


def test_a_repair_that_lies_is_found_out(tmp_path):
    session = repairable(rounds=0.5)
    other = content_of(300_000, seed=9)
    session_of_other = session_of(other)

    async def act():
        holdings = Holdings()
        held = holdings.add(object_of(session_of_other), other)
        holdings._objects[session.sha256] = held
        async with PeerServer(holdings, uploads_at_once=100) as liar:
            task = asyncio.create_task(receive(session, folder=tmp_path, repair=liar.url, quiet_s=0.4))
            await asyncio.sleep(0.05)
            await broadcast(session, CONTENT)
            with pytest.raises(DeliveryError, match="not what was described"):
                await task

    asyncio.run(act())
    assert not (tmp_path / "model.bin").exists()


def test_a_repair_that_is_not_there_is_named_without_its_query(tmp_path):
    session = session_of(CONTENT, rounds=0.5)

    async def act():
        await receive(session, folder=tmp_path, repair="http://127.0.0.1:9/x?token=secret", quiet_s=0.1)

    with pytest.raises(DeliveryError, match=r"repair failed: 127\.0\.0\.1") as raised:
        asyncio.run(act())
    assert "secret" not in str(raised.value)


def test_a_machine_without_that_interface_says_what_to_do(tmp_path):
    with pytest.raises(DeliveryError, match="ask for unicast"):
        asyncio.run(receive(session_of(CONTENT), folder=tmp_path, interface="192.0.2.200"))
