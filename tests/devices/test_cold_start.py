"""A cold start is a start: in a process of its own, without torch, with the memory that the model takes there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crowdnerf_lab.catalogue.card import Probe
from crowdnerf_lab.devices.cold_start import ColdStartError, measure_cold_start

POSE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
PROBE = Probe(path="probe.png", camera_to_world=POSE, focal=(60.0, 60.0), centre=(30.5, 21.5))


@pytest.mark.row("S36", "S46")
def test_a_graph_starts_in_a_process_of_its_own(graph: Path) -> None:
    start = measure_cold_start(graph, PROBE, kind="light_field", coded=False, width=61, height=43, threads=1)
    assert 0 < start.ms < 60_000
    assert 0.1 < start.peak_memory_mb < 500


def test_the_process_of_a_light_field_loads_neither_torch_nor_numba(graph: Path) -> None:
    request = {
        "model": str(graph),
        "kind": "light_field",
        "coded": False,
        "size": [61, 43],
        "threads": 1,
        "view": [POSE, (60.0, 60.0), (30.5, 21.5)],
    }
    script = (
        "import json, sys\nfrom crowdnerf_lab.devices.cold_start import _started\n"
        "_started(json.load(sys.stdin))\nprint([m for m in ('torch', 'numba', 'onnx') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(request), capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_model_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(
        ColdStartError, match=r"model\.onnx does not start in a process of its own: .*refuses the graph"
    ):
        measure_cold_start(broken, PROBE, kind="light_field", coded=False, width=61, height=43, threads=1)
