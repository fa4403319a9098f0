"""K symbols of any kind are enough, one more in a hundred cases; the wire is RFC 6330's."""

from itertools import islice

import numpy as np
import pytest
import raptorq

from crowdnerf_lab.network.delivery import objects, raptorq_code
from crowdnerf_lab.network.delivery.raptorq_code import BlockDecoder, BlockEncoder, raptorq_packets
from tests.network.delivery.crowd import content_of, session_of


def solved(encoder: BlockEncoder, esis) -> BlockDecoder:
    decoder = BlockDecoder(encoder.source_symbols, symbol_bytes=encoder.symbol_bytes)
    for esi in esis:
        decoder.add(int(esi), encoder.symbol(int(esi)))
    decoder.solve()
    return decoder


@pytest.mark.row("S55")
def test_any_k_to_k_plus_two_symbols_decode():
    content = content_of(60 * 1280 - 77)
    encoder = BlockEncoder(content, symbol_bytes=1280)
    rng = np.random.default_rng(1)
    successes = dict.fromkeys((-1, 0, 1, 2), 0)
    for _ in range(50):
        order = rng.permutation(300)
        for extra in successes:
            block = solved(encoder, order[: 60 + extra]).block
            successes[extra] += block is not None
            assert block is None or block[: len(content)] == content
    assert successes[-1] == 0
    assert successes[0] >= 47
    assert successes[2] == 50


def test_source_symbols_are_the_object_itself():
    content = content_of(10_000)
    packets = list(islice(raptorq_packets(content, session_of(content)), 8))
    assert b"".join(packet[22:] for packet in packets)[:10_000] == content


def test_packets_are_those_of_the_reference_implementation():
    content = content_of(30_000)
    session = session_of(content)
    ours = [packet[18:] for packet in islice(raptorq_packets(content, session), 24 + 40)]
    assert ours == raptorq.Encoder.with_defaults(content, 1280).get_encoded_packets(40)


def test_repair_symbols_stay_fresh_and_then_come_again():
    content = content_of(4_000)
    session = session_of(content, symbol_bytes=8)
    encoder = BlockEncoder(content, symbol_bytes=8)
    count = 500 + encoder.repair_symbols
    packets = list(islice(raptorq_packets(content, session), 3_000))
    assert len(set(packets)) == 3_000
    assert count >= 3_000
    with pytest.raises(ValueError, match="there are"):
        encoder.symbol(count)


def test_a_carousel_keeps_little_memory_and_goes_round(monkeypatch):
    monkeypatch.setattr(raptorq_code, "LARGEST_BATCH_BYTES", 1)
    content = content_of(8_000)
    packets = list(islice(raptorq_packets(content, session_of(content, symbol_bytes=80)), 400))
    assert packets[:100] != packets[100:200]
    assert packets[100:200] == packets[200:300] == packets[300:]


def test_large_objects_are_several_blocks_sent_in_turns(monkeypatch):
    monkeypatch.setattr(objects, "BLOCK_SYMBOLS", 50)
    content = content_of(120 * 64 + 3)
    session = session_of(content, symbol_bytes=64)
    assert session.source_blocks == 3
    packets = list(islice(raptorq_packets(content, session), 121))
    assert [packet[18] for packet in packets[:6]] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("esi", [0, 3, 70, (1 << 24) - 1])
def test_a_forged_symbol_never_raises(esi):
    encoder = BlockEncoder(content_of(60 * 64), symbol_bytes=64)
    decoder = BlockDecoder(60, symbol_bytes=64)
    decoder.add(esi, bytes(64))
    for number in range(60, 125):
        decoder.add(number, encoder.symbol(number))
    decoder.solve()
    assert len(decoder.symbols) <= 60 + BlockDecoder.SPARE
    assert not decoder.add(5, b"too short")
