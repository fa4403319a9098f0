"""Coded graphs: exact when asked to be, smaller when not, rendering from any beginning, refused when damaged."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from toy_graphs import COLUMNS, FEED, ROWS, convolution_graph, dequantizing_graph, every_type_graph, toy_weights

from crowdnerf_lab.coding.coded_graph import KIND, decode_graph, encode_graph, packed_graph, step_within
from crowdnerf_lab.coding.graph_content import content_of
from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, packed_layers, read_layers
from crowdnerf_lab.coding.quantization import Importance

CODINGS = ("range", "zstd", "progressive")
GRAPHS = (convolution_graph, dequantizing_graph, every_type_graph)


def image_of(model: bytes, lend=None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if lend is not None:
        lend(options)
    (image,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, FEED)
    return np.asarray(image)


def decoded_image(content: bytes) -> np.ndarray:
    decoded = decode_graph(content, name="a graph")
    return image_of(decoded.model, decoded.lend)


def importances(*, even: bool = False) -> dict[str, Importance]:
    rng = np.random.default_rng(3)
    mixing = np.eye(COLUMNS) if even else rng.normal(0, 1, (COLUMNS, COLUMNS)) + 3 * rng.normal(0, 1, (COLUMNS, 1))
    return {"layer.weight": Importance(np.ones(ROWS) if even else rng.uniform(0.1, 4, ROWS), mixing @ mixing.T)}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_without_a_step_every_weight_and_picture_comes_back_bit_by_bit(tmp_path, graph, coding):
    path = graph(tmp_path / "model.onnx")
    content = encode_graph(path, tmp_path / "model.cnl", coding=coding).read_bytes()
    decoded = decode_graph(content, name="a graph")
    assert decoded.complete
    for tensor in onnx.load(path).graph.initializer:
        if tensor.name in decoded.initializers and "int4" not in tensor.name:
            expected = numpy_helper.to_array(tensor)
            assert decoded.initializers[tensor.name].dtype == expected.dtype
            assert decoded.initializers[tensor.name].tobytes() == expected.tobytes()
    assert image_of(decoded.model, decoded.lend).tobytes() == image_of(path.read_bytes()).tobytes()


def test_weights_of_every_stored_type_leave_the_graph(tmp_path):
    decoded = decode_graph(packed_graph(every_type_graph(tmp_path / "g.onnx")), name="a graph")
    assert set(decoded.initializers) == {"float32", "float16", "int8", "uint8", "int4", "uint4", "int32"}
    assert len(decoded.model) < 2000


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_any_bits_of_float_weights_survive_an_exact_progressive_file(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("graphs") / "g.onnx"
    model = onnx.load(convolution_graph(path))
    weight = model.graph.initializer[0]
    bits = np.random.default_rng(seed).integers(0, 2**32, (ROWS, COLUMNS, 1, 1), dtype=np.uint32)
    bits[0, :2] = [[[0x80000000]], [[0x00000001]]]
    finite = np.where(bits & 0x7F800000 == 0x7F800000, bits & 0xFF7FFFFF & 0xBFFFFFFF, bits).astype(np.uint32)
    weight.CopyFrom(numpy_helper.from_array(finite.view(np.float32), weight.name))
    path.write_bytes(model.SerializeToString())
    decoded = decode_graph(packed_graph(path, coding="progressive"), name="a graph")
    assert decoded.initializers["layer.weight"].tobytes() == finite.tobytes()


def test_weights_that_are_not_finite_stay_exact_under_a_step(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    model = onnx.load(path)
    broken = toy_weights()[:, :, None, None].copy()
    broken[0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "layer.weight"))
    path.write_bytes(model.SerializeToString())
    decoded = decode_graph(packed_graph(path, step=0.1), name="a graph")
    assert decoded.initializers["layer.weight"].tobytes() == broken.tobytes()


def test_a_finer_step_takes_more_bytes_and_errs_less(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    truth = image_of(path.read_bytes())
    contents = [packed_graph(path, step=step) for step in (0.02, 0.1, 0.5)]
    errors = [np.abs(decoded_image(content) - truth).mean() for content in contents]
    assert len(contents[0]) > len(contents[1]) > len(contents[2])
    assert 0 < errors[0] < errors[1] < errors[2]


def test_what_is_no_weight_of_a_layer_stays_exact_under_any_step(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    decoded = decode_graph(packed_graph(path, step=1.0), name="a graph")
    assert np.array_equal(decoded.initializers["grid"].reshape(-1), np.arange(ROWS * ROWS))


def test_importances_make_the_error_that_counts_smaller_for_the_same_bytes(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    importance, weights = importances()["layer.weight"], toy_weights().astype(np.float64)

    def cost(content: bytes) -> float:
        error = decode_graph(content, name="g").initializers["layer.weight"].reshape(ROWS, COLUMNS) - weights
        return float((importance.outputs * np.einsum("ri,ij,rj->r", error, importance.inputs, error)).sum())

    plain = packed_graph(path, step=0.3)
    informed = min(
        (packed_graph(path, step=step, importances=importances()) for step in np.geomspace(0.01, 10, 25)),
        key=lambda content: abs(len(content) - len(plain)),
    )
    assert len(informed) < 1.05 * len(plain)
    assert cost(informed) < 0.5 * cost(plain)


@pytest.mark.parametrize("graph", [convolution_graph, dequantizing_graph])
def test_every_prefix_of_a_progressive_file_renders_better_than_the_one_before(tmp_path, graph):
    path = graph(tmp_path / "g.onnx")
    truth = image_of(path.read_bytes())
    content = packed_graph(path, coding="progressive", shifts=(4, 2, 0))
    ends = read_layers(content, kind=KIND, name="g").ends
    errors = [np.abs(decoded_image(content[:end]) - truth).mean() for end in ends]
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[-1] == 0
    assert not decode_graph(content[: ends[-1] - 1], name="g").complete
    assert np.array_equal(decoded_image(content[: ends[1] + 5]), decoded_image(content[: ends[1]]))


def test_prefixes_render_with_importances_too(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    truth = image_of(path.read_bytes())
    content = packed_graph(path, coding="progressive", step=0.5, importances=importances())
    ends = read_layers(content, kind=KIND, name="g").ends
    errors = [np.square(decoded_image(content[:end]) - truth).mean() for end in ends]
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[0] < 0.2 * truth.var()


def test_a_progressive_file_ends_in_what_the_plain_lossy_one_holds(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    plain = decode_graph(packed_graph(path, step=0.1), name="g").initializers
    whole = decode_graph(packed_graph(path, step=0.1, coding="progressive"), name="g").initializers
    assert all(np.array_equal(plain[name], whole[name]) for name in plain)


def test_integer_weights_become_coarser_integers_that_still_compute_in_int8(tmp_path):
    path = dequantizing_graph(tmp_path / "g.onnx")
    exact, coarse = packed_graph(path), packed_graph(path, step=0.05, importances=importances(even=True))
    before = decode_graph(exact, name="g").initializers["layer.weight_int8"]
    after = decode_graph(coarse, name="g").initializers["layer.weight_int8"]
    assert after.dtype == np.int8
    assert not np.array_equal(before, after)
    assert len(coarse) < 0.9 * len(exact)
    error = np.abs(decoded_image(coarse) - decoded_image(exact)).mean()
    assert 0 < error < 0.3 * np.abs(decoded_image(exact)).mean()


def test_the_finest_step_within_so_many_bytes(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    step = step_within(path, max_bytes=1500)
    assert len(packed_graph(path, step=step)) <= 1500 < len(packed_graph(path, step=step / 1.1))
    with pytest.raises(CodedFileError, match=r"cannot be coded in 100 bytes; allow \d+"):
        step_within(path, max_bytes=100)


def test_coding_is_deterministic(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    first, again = (packed_graph(path, step=0.1, importances=importances()) for _ in range(2))
    assert first == again


def test_importances_of_another_student_are_refused(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    wrong = {"layer.weight": Importance(np.ones(3), np.eye(5))}
    with pytest.raises(CodedFileError, match="3 x 5 weights, not for"):
        packed_graph(path, step=0.1, importances=wrong)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_steps_are_refused(tmp_path, step):
    with pytest.raises(CodedFileError, match="a step is above 0"):
        packed_graph(convolution_graph(tmp_path / "g.onnx"), step=step)


def test_files_that_hold_no_graph_are_refused_by_name(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"\xff\xff nothing of the kind")
    with pytest.raises(CodedFileError, match=r"cannot read the graph .*no\.onnx"):
        encode_graph(tmp_path / "no.onnx", tmp_path / "x.cnl")
    with pytest.raises(CodedFileError, match=r"cannot read the graph .*absent\.onnx"):
        encode_graph(tmp_path / "absent.onnx", tmp_path / "x.cnl")


def tampered(content: bytes, **changes) -> bytes:
    """A file whose checksums are right and whose first layer's header lies."""
    file = read_layers(content, kind=KIND, name="g")
    first = Layer(file.layers[0].name, file.layers[0].payload, dict(file.layers[0].header) | changes)
    return packed_layers(kind=KIND, header=file.header, layers=[first, *file.layers[1:]])


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": []},
        {"tensors": [["w", 1, [2**40, 2**40], "floats"]]},
        {"tensors": [["w", 1, [2**20, 2**10], "integers"]]},
        {"tensors": [["w", 99, [4], "bytes"]]},
        {"tensors": [["w", 1, [-4], "bytes"]]},
        {"tensors": [["w", 1, 7, "bytes"]]},
        {"tensors": [["w", 1, [4], "magic"]]},
        {"tensors": "none"},
        {"tensors": None},
        {"parts": {}},
        {"parts": {"graph": -5}},
        {"parts": [1, 2]},
        {"parts": {"graph": 10**9}},
    ],
)
def test_headers_that_lie_are_refused_with_the_files_name(tmp_path, changes):
    content = packed_graph(convolution_graph(tmp_path / "g.onnx"), step=0.1)
    with pytest.raises(CodedFileError, match=r"shop\.cnl"):
        decode_graph(tampered(content, **changes), name="shop.cnl")


def test_mutants_with_right_checksums_never_crash_the_decoder(tmp_path):
    content = packed_graph(every_type_graph(tmp_path / "g.onnx"), coding="progressive", shifts=(1, 0))
    file = read_layers(content, kind=KIND, name="g")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        layers = []
        for layer in file.layers:
            payload = bytearray(layer.payload)
            for at in rng.integers(0, max(len(payload), 1), rng.integers(0, 3)):
                payload[at : at + 1] = rng.bytes(1)
            layers.append(Layer(layer.name, bytes(payload), layer.header))
        try:
            decode_graph(packed_layers(kind=KIND, header=file.header, layers=layers), name="mutant")
        except CodedFileError:
            refused += 1
    assert refused > 30


def test_decoding_needs_neither_onnx_nor_torch(tmp_path):
    coded = encode_graph(convolution_graph(tmp_path / "g.onnx"), tmp_path / "g.cnl", step=0.1)
    program = (
        "import sys; sys.modules['onnx'] = sys.modules['torch'] = None\n"
        "from crowdnerf_lab.coding.coded_graph import decode_graph\n"
        f"print(sorted(decode_graph(open({str(coded)!r}, 'rb').read(), name='g').initializers))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['grid', 'layer.weight']"


@pytest.mark.row("S40", "S50")
@pytest.mark.parametrize("coding", ["range", "progressive"])
@pytest.mark.parametrize("graph", [convolution_graph, dequantizing_graph])
def test_a_graph_that_follows_takes_over_steps_scales_and_most_integers(tmp_path, graph, coding):
    lossy = {"coding": coding, "step": 0.05, "importances": importances(even=True)}
    old = encode_graph(graph(tmp_path / "old.onnx"), tmp_path / "old.cnlf", **lossy)
    model = onnx.load(graph(tmp_path / "new.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name in ("layer.weight", "layer.weight_scale"):
            values = numpy_helper.to_array(tensor)
            noise = np.random.default_rng(1).normal(1, 0.02, values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values * noise).astype(np.float32), tensor.name))
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    truth = image_of((tmp_path / "new.onnx").read_bytes())
    new = packed_graph(tmp_path / "new.onnx", **lossy, after=old)
    alone = packed_graph(tmp_path / "new.onnx", **lossy)
    contents = [content_of(read_layers(c, kind=KIND, name="g")) for c in (old.read_bytes(), new, alone)]
    before, following, independent = ([m.integers for m in c.lattices] for c in contents)
    moved = [np.mean([np.mean(a != b) for a, b in zip(before, c, strict=True)]) for c in (following, independent)]
    assert moved[0] < 0.7 * moved[1] or moved[0] == 0
    errors = [np.sqrt(np.mean((decoded_image(c) - truth) ** 2)) for c in (alone, new, old.read_bytes())]
    assert errors[1] < max(1.1 * errors[2], 3 * errors[0])
    if graph is dequantizing_graph:
        scales = [decode_graph(c, name="g").initializers for c in (old.read_bytes(), new)]
        assert all(np.array_equal(scales[0][name], scales[1][name]) for name in scales[0] if name.endswith("_scale"))


def test_a_truncated_version_before_is_refused_and_another_one_is_not_followed(tmp_path):
    path = convolution_graph(tmp_path / "g.onnx")
    old = encode_graph(path, tmp_path / "old.cnlf", coding="progressive", step=0.05)
    old.write_bytes(old.read_bytes()[:-1])
    with pytest.raises(CodedFileError, match="truncated"):
        packed_graph(path, coding="progressive", step=0.05, after=old)
    other = encode_graph(dequantizing_graph(tmp_path / "d.onnx"), tmp_path / "d.cnlf", step=0.05)
    assert packed_graph(path, step=0.05, after=other) == packed_graph(path, step=0.05)
