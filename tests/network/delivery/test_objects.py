"""Descriptions that are wrong are refused; packets that are foreign are none of ours."""

import hashlib
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.network.delivery.objects import (
    BLOCK_SYMBOLS,
    DeliveryError,
    block_sizes,
    packet_header,
    pieces_of,
    read_packet,
    read_session,
    symbols_and_blocks,
)
from tests.network.delivery.crowd import content_of, session_of

CONTENT = content_of(50_000)


@pytest.mark.parametrize("code", ["raptorq", "flute", "none"])
def test_a_description_survives_its_json(code):
    session = session_of(CONTENT, code=code)
    assert read_session(session.model_dump_json()) == session
    assert session.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert session.source_symbols == 40


def test_fields_of_a_newer_service_are_passed_over():
    session = session_of(CONTENT)
    assert read_session(session.model_dump(mode="json") | {"orbit": "geostationary"}) == session


@pytest.mark.parametrize(
    "wrong",
    [
        {"source_symbols": 41},
        {"source_blocks": 2},
        {"bytes": 49_999_999},
        {"bytes": 1 << 40},
        {"sha256": "0" * 63},
        {"oti": "0" * 24},
        {"oti": None},
        {"code": "flute"},
        {"name": "../model.bin"},
        {"name": ".model"},
        {"name": "a/b"},
        {"name": "a#b"},
        {"href": "//elsewhere/file"},
        {"href": "https://elsewhere/file"},
        {"group": "192.0.2.1"},
        {"symbol_bytes": 1279},
        {"port": 0},
        {"expires": "NaN"},
    ],
)
def test_a_description_that_contradicts_itself_or_leads_elsewhere_is_refused(wrong):
    with pytest.raises(DeliveryError, match="ask the service again"):
        read_session(session_of(CONTENT).model_dump(mode="json") | wrong)


def test_an_object_of_no_bytes_cannot_be_described():
    with pytest.raises(DeliveryError, match="0 bytes"):
        session_of(b"")


def test_the_oti_is_that_of_rfc_6330():
    session = session_of(CONTENT)
    assert session.oti is not None
    size, reserved, symbol, blocks, sub_blocks, alignment = struct.unpack("!5sBHBHB", bytes.fromhex(session.oti))
    assert (int.from_bytes(size, "big"), reserved, symbol) == (50_000, 0, 1280)
    assert (blocks, sub_blocks, alignment) == (1, 1, 8)


@given(st.integers(1, 1 << 28), st.sampled_from([8, 512, 1280, 1400]))
def test_blocks_share_all_symbols_and_none_is_too_long(size, symbol_bytes):
    symbols, blocks = symbols_and_blocks(size, symbol_bytes=symbol_bytes)
    sizes = block_sizes(symbols, blocks)
    assert sum(sizes) == symbols
    assert len(sizes) == blocks
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= BLOCK_SYMBOLS


@given(st.integers(1, 6_000_000))
def test_pieces_cover_the_object_and_are_few(size):
    pieces = pieces_of(bytes(size))
    spans = [pieces.span(number, size=size) for number in range(len(pieces.sha256))]
    assert len(spans) <= 256
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(end == first for (_, end), (first, _) in pairwise(spans))
    assert all(first < end for first, end in spans)


@given(st.binary(max_size=2000))
def test_foreign_packets_are_none(packet):
    session = session_of(CONTENT)
    assert read_packet(packet, header=packet_header(session), symbol_bytes=1280) is None


def test_a_packet_of_another_version_is_foreign():
    session = session_of(CONTENT)
    packet = packet_header(session) + struct.pack("!I", 7) + bytes(1280)
    newer = session.model_copy(update={"version": 4})
    assert read_packet(packet, header=packet_header(session), symbol_bytes=1280) == (0, 7, bytes(1280))
    assert read_packet(packet, header=packet_header(newer), symbol_bytes=1280) is None
    assert read_packet(packet + b"x", header=packet_header(session), symbol_bytes=1280) is None
