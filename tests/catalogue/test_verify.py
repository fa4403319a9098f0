"""verify: honest cards pass here, on a busy machine too; cards that lie are found out, with the figure."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from crowdnerf_lab.catalogue.artefact import Artefact, ArtefactError, open_artefact, write_artefact
from crowdnerf_lab.catalogue.remeasurement import Timing, machine, timed
from crowdnerf_lab.catalogue.verify import LATENCY_TOLERANCE, PSNR_TOLERANCE, verify
from tests.toy_catalogue import toy_graph, toy_model, write_toy_artefact

FRAMES = 8


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Of a model that takes some milliseconds, so that time can be told."""
    return write_toy_artefact(tmp_path_factory.mktemp("honest"), content=SLOW, measured_as=toy_model(SLOW))


SLOW = toy_graph(layers=4)


def lying(artefact: Artefact, root: Path, **changes: object) -> Artefact:
    """The artefact with other claims on its card, its files and checksums in order."""
    files = {listed.path: artefact.folder / listed.path for listed in artefact.card.files}
    return write_artefact(artefact.card.model_copy(update=changes), root, files=files)


def with_ms(artefact: Artefact, ms: float, **changes: object) -> dict[str, object]:
    latency = artefact.card.latency
    return {"latency": latency.model_copy(update={"median_ms": ms, "p95_ms": ms, **changes})}


@pytest.mark.row("S29", "S46")
def test_an_honest_card_is_confirmed(honest: Artefact) -> None:
    found = verify(honest.folder)
    assert found.agrees, found.problems
    assert found.same_machine
    assert found.psnr_remeasured == pytest.approx(found.psnr_card, abs=1e-6)
    assert found.ms_card > 1
    assert found == replace(verify(honest), ms_remeasured=found.ms_remeasured, processor_ms=found.processor_ms)


def test_an_honest_card_is_confirmed_on_a_busy_machine(honest: Artefact) -> None:
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(4)]
    try:
        found = verify(honest, frames=5)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert found.agrees, found.problems


@pytest.mark.parametrize("lie", [PSNR_TOLERANCE + 0.05, 3.0, -PSNR_TOLERANCE - 0.05])
def test_a_card_that_lies_about_its_quality_is_found_out(honest: Artefact, tmp_path: Path, lie: float) -> None:
    found = verify(lying(honest, tmp_path, probe_psnr=honest.card.probe_psnr + lie), frames=2)
    (problem,) = found.problems
    assert not found.agrees
    assert f"its card says {honest.card.probe_psnr + lie:.2f} ({-lie:+.2f})" in problem


def test_rounding_is_no_lie(honest: Artefact, tmp_path: Path) -> None:
    assert verify(lying(honest, tmp_path, probe_psnr=honest.card.probe_psnr + 0.19), frames=FRAMES).agrees


@pytest.mark.parametrize("factor", [0.2, 40.0])
def test_a_card_that_lies_about_its_time_is_found_out(honest: Artefact, tmp_path: Path, factor: float) -> None:
    claimed = factor * verify(honest, frames=FRAMES).processor_ms
    found = verify(lying(honest, tmp_path, **with_ms(honest, claimed, processor_ms=claimed)), frames=FRAMES)
    (problem,) = found.problems
    assert f"its card says {claimed:.1f} on the same machine" in problem
    assert abs(found.ms_remeasured / claimed - 1) > LATENCY_TOLERANCE


def test_no_processor_time_excuses_a_promise_of_less(honest: Artefact, tmp_path: Path) -> None:
    processor_ms = honest.card.latency.processor_ms
    assert not verify(lying(honest, tmp_path, **with_ms(honest, 0.1, processor_ms=processor_ms)), frames=2).agrees


def test_a_card_measured_on_a_busy_machine_is_believed_for_its_processor_time(honest: Artefact, tmp_path: Path) -> None:
    here = verify(honest, frames=FRAMES)
    late = 40 * here.ms_remeasured
    busy = lying(honest, tmp_path / "busy", **with_ms(honest, late, processor_ms=here.processor_ms))
    assert verify(busy, frames=FRAMES).agrees
    assert not verify(lying(honest, tmp_path / "says nothing", **with_ms(honest, late, processor_ms=None))).agrees


@pytest.mark.parametrize("changes", [{"machine": "a faster one"}, {"runtime": "onnxruntime 0.1"}])
def test_times_of_other_machines_are_only_reported(
    honest: Artefact, tmp_path: Path, changes: dict[str, object]
) -> None:
    found = verify(lying(honest, tmp_path, **with_ms(honest, 0.01, **changes)), frames=2)
    assert (found.agrees, found.same_machine, found.ms_card) == (True, False, 0.01)
    assert found.ms_remeasured > 0.01


def test_another_model_under_the_same_card_is_found_out(honest: Artefact, tmp_path: Path) -> None:
    """Whoever swaps the model can make the checksums right, but not the pictures."""
    other = toy_graph(seed=1)
    swapped = write_toy_artefact(tmp_path, content=other, probe_psnr=honest.card.probe_psnr)
    found = verify(swapped, frames=2)
    assert not found.agrees
    assert found.psnr_remeasured < found.psnr_card - 1


def test_a_tampered_artefact_is_not_measured_at_all(honest: Artefact, tmp_path: Path) -> None:
    copy = lying(honest, tmp_path)
    content = bytearray(copy.model.read_bytes())
    content[7] ^= 1
    copy.model.write_bytes(content)
    with pytest.raises(ArtefactError, match="SHA-256"):
        verify(copy)


def test_no_round_at_all_is_refused(honest: Artefact) -> None:
    with pytest.raises(ValueError, match="rounds is 0; measure at least one"):
        verify(honest, rounds=0)


def test_the_least_disturbed_round_counts() -> None:
    drawn = []

    def disturbed_at_first(i: int) -> None:
        drawn.append(i)
        time.sleep(0.03 if 3 <= len(drawn) <= 9 else 0.002)

    timing = timed(disturbed_at_first, frames=5, rounds=2)
    assert timing.frames == 5
    assert 2 <= timing.median_ms < 25
    assert drawn == [0, 1, 2, *range(5), *range(5)]


def test_waiting_is_no_work_of_the_processor() -> None:
    timing = timed(lambda _: time.sleep(0.02), frames=4)
    assert isinstance(timing, Timing)
    assert timing.processor_ms < 10 < timing.median_ms <= timing.p95_ms


def test_a_machine_has_a_name() -> None:
    assert "cores" in machine()
    assert machine() == machine()


def test_verification_opens_what_the_catalogue_opens(honest: Artefact) -> None:
    assert verify(open_artefact(honest.folder), frames=2).name == "toy"


@pytest.mark.parametrize(
    ("claimed", "found_ms", "processor_ms", "believed"),
    [
        (10.0, 10.0, 10.0, True),
        (10.0, 12.0, 12.0, True),
        (10.0, 30.0, 10.0, True),  # measured in peace, met again on a busy machine
        (10.0, 30.0, 12.5, True),
        (10.0, 30.0, 15.0, False),  # no peace makes it that fast
        (10.0, 14.5, 14.5, False),
        (10.0, 2.0, 2.0, False),
        (10.0, 8.0, 7.9, True),
    ],
)
def test_what_lies_between_the_processors_time_and_the_clocks_is_believed(
    honest: Artefact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    claimed: float,
    found_ms: float,
    processor_ms: float,
    believed: bool,
) -> None:
    rounds = iter([found_ms + 5, found_ms, found_ms + 9])
    monkeypatch.setattr(
        "crowdnerf_lab.catalogue.verify.timed_on_probes",
        lambda *_, **__: Timing(next(rounds), 2 * found_ms, processor_ms, 5),
    )
    found = verify(lying(honest, tmp_path, **with_ms(honest, claimed, processor_ms=None)), rounds=3)
    assert found.agrees == believed, found.problems
    assert found.ms_remeasured in (found_ms, found_ms + 5)
