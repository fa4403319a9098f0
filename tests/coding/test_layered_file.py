"""The container: whole or in part it reads, damaged or hostile it is refused by name."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.coding.layered_file import (
    CONTENTS_LIMIT,
    LAYERS_LIMIT,
    CodedFileError,
    Layer,
    packed_layers,
    read_layers,
    write_layers,
)

LAYERS = (
    Layer("coarse", b"first" * 20, {"step": 0.25, "names": ["a", "b"]}),
    Layer("finer", bytes(range(256))),
    Layer("finest", b"", {"step": 0.0625}),
)
HEADER = {"width": 320, "title": "concert"}


def packed(layers=LAYERS) -> bytes:
    return packed_layers(kind="test/1", header=HEADER, layers=layers)


def with_contents(contents: bytes, *, tail: bytes = b"", version: int = 1) -> bytes:
    return struct.pack("<4sBII", b"CNLF", version, zlib.crc32(contents), len(contents)) + contents + tail


def declaring(**changes) -> bytes:
    contents = {"kind": "test/1", "header": {}, "layers": [["coarse", 99, 1]]} | changes
    return with_contents(zlib.compress(json.dumps(contents).encode()), tail=bytes(99))


@given(
    st.lists(
        st.builds(Layer, st.text(max_size=8), st.binary(max_size=40), st.dictionaries(st.text(), st.integers())),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_layers_come_back(layers):
    read = read_layers(packed(layers), kind="test/1", name="a file")
    assert (read.layers, read.complete, read.header) == (tuple(layers), True, HEADER)


def test_written_files_are_the_packed_bytes(tmp_path):
    path = write_layers(tmp_path / "model.cnl", kind="test/1", header=HEADER, layers=LAYERS)
    assert path.read_bytes() == packed()


def test_every_prefix_reads_the_layers_it_holds_and_no_more():
    content = packed()
    ends = read_layers(content, kind="test/1", name="whole").ends
    assert ends[-1] == len(content)
    for length in range(len(content)):
        whole = sum(end <= length for end in ends)
        if whole == 0:
            with pytest.raises(CodedFileError, match=r"too few|receive more"):
                read_layers(content[:length], kind="test/1", name="a prefix")
        else:
            read = read_layers(content[:length], kind="test/1", name="a prefix")
            assert (read.layers, read.complete, read.ends) == (LAYERS[:whole], False, ends)


def test_every_flipped_bit_is_noticed():
    content = packed()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CodedFileError, match=r"shop\.cnl"):
            read_layers(bytes(damaged), kind="test/1", name="shop.cnl")


def test_ten_thousand_mutants_are_read_or_refused_but_never_crash():
    rng, content = np.random.default_rng(0), packed()
    refused = 0
    for _ in range(10_000):
        mutant = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            at, length = rng.integers(0, len(mutant) + 1), int(rng.integers(0, 12))
            mutant[at : at + int(rng.integers(0, 12))] = rng.bytes(length)
        try:
            read_layers(bytes(mutant), kind="test/1", name="mutant")
        except CodedFileError:
            refused += 1
    assert refused > 9_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "too few"),
        (b"PK\x03\x04" + bytes(40), "is no coded file"),
        (with_contents(b"", version=9), "update the package"),
        (struct.pack("<4sBII", b"CNLF", 1, 0, 2**32 - 1) + bytes(50), f"more than {CONTENTS_LIMIT}"),
        (with_contents(b"no zlib"), "its header cannot be read"),
        (with_contents(zlib.compress(b"[" * 100_000)), "its header cannot be read"),
        (with_contents(zlib.compress(b"[1, 2]")), "no JSON object"),
        (with_contents(zlib.compress(bytes(1 << 28))), "longer than it may be"),
        (with_contents(zlib.compress(b'{"kind": NaN}')), "no JSON number"),
        (declaring(kind="other/1"), "holds 'other/1', not 'test/1'"),
        (declaring(header=3), "malformed"),
        (declaring(layers=[]), "malformed"),
        (declaring(layers=[["coarse", 99, 1]] * (LAYERS_LIMIT + 1)), "malformed"),
        (declaring(layers=[["coarse", -5, 1]]), "malformed"),
        (declaring(layers=[["coarse", 2**60, 1]]), "malformed"),
        (declaring(layers=[["coarse", True, 1]]), "malformed"),
        (declaring(layers=[["coarse", 99]]), "malformed"),
        (declaring(layers=[["coarse", 2**40, 1]]), "receive more"),
        (declaring(layers=[["coarse", 99, 1]]), "fails its checksum"),
        (declaring(layers=[["coarse", 99, zlib.crc32(bytes(99))]]), "its header cannot be read"),
        (packed() + b"x", "follow its last layer"),
    ],
)
def test_hostile_files_are_refused_with_their_name_and_a_remedy(content, says):
    with pytest.raises(CodedFileError, match=says) as refusal:
        read_layers(content, kind="test/1", name="shop.cnl")
    assert "shop.cnl" in str(refusal.value)


def test_a_layer_whose_own_header_claims_too_much_is_refused():
    body = struct.pack("<I", 2**31) + bytes(20)
    table = [["coarse", len(body), zlib.crc32(body)]]
    contents = zlib.compress(json.dumps({"kind": "test/1", "header": {}, "layers": table}).encode())
    with pytest.raises(CodedFileError, match="layer 'coarse' is damaged: its header claims"):
        read_layers(with_contents(contents, tail=body), kind="test/1", name="shop.cnl")


def test_nothing_is_written_that_would_not_be_read(tmp_path):
    with pytest.raises(CodedFileError, match="0 layers"):
        write_layers(tmp_path / "x", kind="test/1", header={}, layers=[])
    with pytest.raises(CodedFileError, match="put arrays into the payload"):
        packed([Layer("big", b"", {"x": "y" * (1 << 23)})])
    assert not list(tmp_path.iterdir())
