"""The training worker as a process: one for each home, ending with whoever started it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.updates import worker
from crowdnerf_lab.network.updates.event_folder import STATUS, EventFolder
from crowdnerf_lab.network.updates.worker import WorkerError, work
from tests.network.test_kills import until
from tests.network.toy_event import EVENT, QUICK, send, toy_home


@contextmanager
def started(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker as the service starts it."""
    environment = os.environ | {"CROWDNERF_UPDATES": json.dumps(asdict(QUICK)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "crowdnerf_lab.network.updates.worker", str(home)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def held(home: Path) -> bool:
    """Whether a worker has the home."""
    with (home / worker.LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def status_in(home: Path) -> tuple[str, dict[str, int]]:
    """What the worker is at, and its event's contributions by state."""
    path = EventFolder(home, EVENT).folder / STATUS
    status = json.loads(path.read_text()) if path.exists() else {"stage": "", "contributions": {}}
    return status["stage"], status["contributions"]


@pytest.mark.row("S40", "S61")
def test_a_worker_publishes_is_alone_and_ends_with_its_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = toy_home(tmp_path)
    send(database, count=8)
    monkeypatch.setattr(worker, "LOCK_PATIENCE_S", 0.1)
    with started(tmp_path) as process:
        assert until(lambda: status_in(tmp_path) == ("waiting", {"published": 8}), seconds=120)
        assert [version.number for version in Catalogue(tmp_path / "catalogue").versions(EVENT)] == [1]
        assert held(tmp_path)
        with pytest.raises(WorkerError, match="another worker"):
            work(tmp_path, QUICK, rounds=1)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert not held(tmp_path)


def test_an_interrupt_stops_a_worker_and_the_next_goes_on(tmp_path: Path) -> None:
    database = toy_home(tmp_path)
    send(database, count=8)
    with started(tmp_path) as process:
        assert until(lambda: held(tmp_path), seconds=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    work(tmp_path, QUICK, rounds=1)
    states = {state for (state,) in database.connection().execute("SELECT state FROM contributions")}
    assert states == {"published"}
