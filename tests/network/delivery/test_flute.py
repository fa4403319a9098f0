"""FLUTE: our packets are understood by flute-alc's own receiver, and its own sender by ours."""

import asyncio
import socket
import struct

import numpy as np
import pytest
from flute import receiver, sender

from crowdnerf_lab.network.delivery.flute import FluteReceiver, flute_packets
from crowdnerf_lab.network.delivery.losses import fates, independent
from crowdnerf_lab.network.delivery.objects import DeliveryError, FluteParameters
from crowdnerf_lab.network.delivery.receiver import receive
from tests.network.delivery.crowd import GROUP, content_of, session_of, to_a_crowd

CONTENT = content_of(200_000)


@pytest.mark.row("S55")
def test_receivers_complete_under_losses_that_the_parity_covers(tmp_path):
    session = session_of(CONTENT, code="flute", rounds=1.6)
    _, received = to_a_crowd(
        session, CONTENT, folder=tmp_path, receivers=10, losses=lambda n: fates(independent(0.1), seed=n), listen_s=3.0
    )
    assert all(one.path.read_bytes() == CONTENT for one in received)


def test_another_receiver_of_flute_understands_our_packets(tmp_path):
    session = session_of(CONTENT, code="flute")
    theirs = receiver.Receiver(
        receiver.UDPEndpoint(GROUP, session.port), 1, receiver.ObjectWriterBuilder(str(tmp_path)), receiver.Config()
    )
    lost = fates(independent(0.1), seed=1)
    for packet in flute_packets(CONTENT, session):
        if not next(lost):
            theirs.push(packet)
        if (tmp_path / "model.bin").exists() and (tmp_path / "model.bin").stat().st_size == len(CONTENT):
            break
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


def test_we_understand_another_sender_of_flute_that_sends_its_table_on_the_air(tmp_path):
    described = session_of(CONTENT, code="flute")
    session = described.model_copy(
        update={"flute": FluteParameters(tsi=77, toi=1, block_symbols=60, parity_symbols=20)}
    )

    async def act():
        task = asyncio.create_task(receive(session, folder=tmp_path, listen_s=3.0))
        await asyncio.sleep(0.05)
        theirs = sender.Sender(77, sender.Oti.new_reed_solomon_rs28(1024, 60, 20), sender.Config())
        theirs.add_object_from_buffer(CONTENT, "application/octet-stream", "file:///model.bin", None)
        theirs.publish()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outgoing:
            outgoing.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            while (packet := theirs.read()) is not None:
                outgoing.sendto(bytes(packet), (GROUP, session.port))
        return await task

    assert asyncio.run(act()).path.read_bytes() == CONTENT


def test_hostile_packets_raise_nothing():
    session = session_of(CONTENT, code="flute")
    ours = FluteReceiver(session)
    rng = np.random.default_rng(0)
    packets = [next(flute_packets(CONTENT, session))]
    for packet in flute_packets(CONTENT, session):
        packets.append(packet)
        if len(packets) == 60:
            break
    for _ in range(1_500):
        damaged = bytearray(packets[int(rng.integers(len(packets)))])
        for place in rng.integers(0, 60, 3):
            damaged[place] = rng.integers(256)
        ours.push(bytes(damaged[: int(rng.integers(0, len(damaged)))]))
        ours.push(bytes(damaged))
    ours.close()


def test_a_table_from_the_air_decides_nothing_where_there_is_one_in_the_description(tmp_path):
    session = session_of(CONTENT, code="flute")
    theirs = sender.Sender(1, sender.Oti.new_reed_solomon_rs28(1280, 120, 36), sender.Config())
    theirs.add_object_from_buffer(bytes(1000), "application/octet-stream", "file:///elsewhere.bin", None)
    theirs.publish()
    ours = FluteReceiver(session)
    assert not ours.push(bytes(theirs.read()))
    assert ours.written == 0
    ours.close()


def test_what_the_code_cannot_carry_is_refused():
    with pytest.raises(DeliveryError, match="parity_fraction 3"):
        session_of(CONTENT, code="flute", parity_fraction=3.0)
    with pytest.raises(DeliveryError, match="use RaptorQ"):
        session_of(bytes(12_000_000), code="flute", symbol_bytes=64)


def test_a_packet_of_another_session_is_passed_over():
    session = session_of(CONTENT, code="flute")
    ours = FluteReceiver(session)
    packet = bytearray(next(flute_packets(CONTENT, session)))
    packet[8:12] = struct.pack("!I", 99 << 16)
    assert not ours.push(bytes(packet))
    ours.close()
