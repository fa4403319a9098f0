"""Cost: operations are those of the graph, fits recover what they were made from, and a proxy always says so."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from crowdnerf_lab.devices.cost import (
    CostError,
    CostModel,
    Timed,
    Work,
    calibrated,
    energy_of,
    predicted_ms,
    work_of_graph,
    work_of_march,
)
from crowdnerf_lab.devices.profile import device_profile, device_profiles
from crowdnerf_lab.fields.baking import bake
from tests.toy_artefacts import random_grid, small_profile, small_scene

WORK = Work(multiply_adds=500_000_000, other=0, bytes_moved=30_000_000, parameters=400_000)


def graph_of(nodes, *, inputs, outputs, weights) -> onnx.ModelProto:
    def described(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "made up for a test",
        [described(*entry) for entry in inputs.items()],
        [described(*entry) for entry in outputs.items()],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_convolution_costs_what_its_definition_says():
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    work = work_of_graph(
        graph_of([node], inputs={"x": [1, 3, 8, 8]}, outputs={"y": [1, 5, 4, 4]}, weights={"w": (5, 3, 3, 3)})
    )
    assert work.multiply_adds == 5 * 4 * 4 * 3 * 3 * 3
    assert work.flops == 2 * work.multiply_adds
    assert work.bytes_moved == 4 * (3 * 64 + 5 * 27 + 5 * 16)
    assert work.parameters == 5 * 27


def test_a_transposed_convolution_a_product_and_an_activation():
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("MatMul", ["z", "m"], ["out"]),
    ]
    work = work_of_graph(
        graph_of(
            nodes,
            inputs={"x": [1, 3, 4, 4]},
            outputs={"out": [1, 5, 8, 6]},
            weights={"w": (3, 5, 2, 2), "m": (8, 6)},
        )
    )
    assert work.multiply_adds == 3 * 16 * 5 * 4 + 5 * 8 * 8 * 6
    assert work.other == 5 * 8 * 8


def test_what_is_constant_costs_nothing_and_a_dequantized_weight_travels_as_integers():
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    work = work_of_graph(
        graph_of(nodes, inputs={"x": [2, 4]}, outputs={"y": [2, 4]}, weights={"a": (4, 4), "b": (4, 4)})
    )
    assert (work.multiply_adds, work.other) == (2 * 4 * 4, 0)


def test_a_quantized_student_does_the_same_products_with_fewer_bytes(graph: Path, tmp_path: Path):
    from crowdnerf_lab.devices.quantize import quantize_static_int8, weight_only_int8

    feed = {
        "camera_to_world": np.eye(3, 4, dtype=np.float32),
        "focal": np.full(2, 60, np.float32),
        "centre": np.array([30, 20], np.float32),
    }
    plain = work_of_graph(graph)
    full = work_of_graph(quantize_static_int8(graph, tmp_path / "int8.onnx", feeds=[feed]))
    weights = work_of_graph(weight_only_int8(graph, tmp_path / "weights.onnx"))
    assert plain.multiply_adds == full.multiply_adds == weights.multiply_adds > 1e6
    assert full.bytes_moved < 0.6 * plain.bytes_moved
    assert weights.bytes_moved < plain.bytes_moved


def test_the_operations_of_a_student_grow_with_its_picture(student, tmp_path: Path):
    from crowdnerf_lab.devices.export import export_onnx

    small = work_of_graph(export_onnx(student, tmp_path / "s.onnx", width=64, height=48))
    large = work_of_graph(export_onnx(student, tmp_path / "l.onnx", width=128, height=96))
    assert large.multiply_adds == 4 * small.multiply_adds


def test_a_graph_without_shapes_is_refused():
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = graph_of(
        [node], inputs={"x": ["n", 3, "h", "w"]}, outputs={"y": ["n", 5, "a", "b"]}, weights={"w": (5, 3, 1, 1)}
    )
    with pytest.raises(CostError, match="the shape of 'y' at Conv '' is unknown; export the graph with a fixed size"):
        work_of_graph(model)


def test_a_march_costs_in_proportion_to_its_rays_and_what_they_meet():
    scene, baked = small_scene(), bake(random_grid())
    cameras = scene.cameras[:3]
    small, large = (work_of_march(baked, cameras, width=48 * n, height=40 * n) for n in (1, 2))
    assert large.flops == pytest.approx(4 * small.flops, rel=0.1)
    shallow = work_of_march(bake(random_grid(), levels=1), cameras, width=48, height=40)
    assert shallow.multiply_adds == pytest.approx(small.multiply_adds / 2, rel=0.1)
    nothing = bake(random_grid(), min_density=1e9)
    assert work_of_march(nothing, cameras, width=48, height=40).multiply_adds == 0


def test_a_march_looks_up_no_more_samples_than_its_steps_allow():
    scene, baked = small_scene(), bake(random_grid())
    work = work_of_march(baked, scene.cameras[:2], width=48, height=40)
    most = 48 * 40 * baked.steps * baked.finest * len(baked.resolutions) * 8 * 13
    assert 0 < work.multiply_adds <= most


@pytest.mark.row("S29", "S36")
def test_a_proxy_says_that_it_is_one_and_whose_roofline_bounds_it():
    watch = device_profile("smart_watch")
    proxy = predicted_ms(watch, WORK, precision="float32")
    assert proxy.ms == pytest.approx(WORK.flops / 13.6e9 / 0.4 * 1e3)
    assert proxy.bound == "arithmetic"
    assert str(proxy).startswith("about 180 ms (proxy: roofline of Smart watch: one Cortex-A53 core")
    assert str(proxy).endswith("not measured)")
    assert not hasattr(proxy, "median_ms"), "a proxy must not pass for a measurement"
    still = Work(multiply_adds=1, other=0, bytes_moved=3_000_000_000, parameters=1)
    assert predicted_ms(watch, still, precision="int8").ms == pytest.approx(1000)
    assert predicted_ms(watch, still, precision="int8").bound == "memory"


@pytest.mark.row("S36")
def test_every_bundled_device_has_a_proxy_for_each_of_its_precisions():
    for profile in device_profiles():
        proxies = [predicted_ms(profile, WORK, precision=precision).ms for precision in profile.precisions]
        assert all(0.01 < ms < 10_000 for ms in proxies)
        assert energy_of(profile, WORK, precision=profile.precisions[0]).frame_mj > 0


def test_what_a_profile_does_not_say_is_not_guessed():
    with pytest.raises(CostError, match=r"laptop_cpu does not say .*; add a \[compute\] table"):
        predicted_ms(small_profile(compute=None), WORK, precision="float32")
    with pytest.raises(CostError, match="ar_glasses: no peak for float32, only for int8; choose one of them or add it"):
        energy_of(device_profile("ar_glasses"), WORK, precision="float32")


def test_energy_is_that_of_operations_and_bytes_and_names_its_assumption():
    energy = energy_of(device_profile("laptop_cpu"), WORK, precision="float32")
    assert energy.frame_mj == pytest.approx(1e9 * 45e-9 + 30e6 * 100e-9)
    assert energy.assumption.startswith("estimated, not measured: 45 pJ an operation in float32 and 100 pJ a byte")


@pytest.mark.row("S45")
def test_calibration_recovers_the_machine_that_the_times_came_from():
    generator = np.random.default_rng(0)
    machine = CostModel(ms_per_gflop=11.0, ms_per_megabyte=0.05, overhead_ms=0.4, fitted_on=0, error=None)
    works = [
        Work(int(m), 0, int(b), 1)
        for m, b in zip(generator.uniform(1e7, 2e9, 8), generator.uniform(1e6, 3e8, 8), strict=True)
    ]
    fitted = calibrated([Timed(work, machine.ms(work)) for work in works])
    assert (fitted.ms_per_gflop, fitted.ms_per_megabyte) == pytest.approx((11.0, 0.05), rel=1e-3)
    assert fitted.error == pytest.approx(0, abs=1e-3)
    noisy = calibrated([Timed(work, machine.ms(work) * math.exp(generator.normal(0, 0.2))) for work in works])
    assert 0.02 < noisy.error < 0.5


def test_few_measurements_carry_few_coefficients():
    one = calibrated([Timed(WORK, 10.0)])
    assert one.ms(WORK) == pytest.approx(10.0)
    assert (one.overhead_ms, one.ms_per_megabyte, one.error) == (0, 0, None)
    double = Work(2 * WORK.multiply_adds, 0, WORK.bytes_moved, 1)
    two = calibrated([Timed(WORK, 10.0), Timed(double, 15.0)])
    assert two.overhead_ms == pytest.approx(5.0, rel=1e-3)
    with pytest.raises(CostError, match="nothing was measured; build one artefact"):
        calibrated([])


def test_a_cost_model_never_predicts_a_negative_time():
    faster_when_larger = [Timed(Work(10**8 * n, 0, 10**6, 1), 10.0 / n) for n in range(1, 6)]
    model = calibrated(faster_when_larger)
    assert min(model.ms_per_gflop, model.ms_per_megabyte, model.overhead_ms) >= 0
    assert torch.isfinite(torch.tensor(model.ms(WORK)))
