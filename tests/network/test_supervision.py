import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from crowdnerf_lab.network.api import supervision
from crowdnerf_lab.network.api.supervision import Supervised, lock_of

OBEDIENT = (sys.executable, "-c", "import sys; sys.stdin.read()")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); [time.sleep(1) for _ in range(60)]",
)
DYING = (sys.executable, "-c", "raise SystemExit(3)")


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(supervision, "SHORTEST_WAIT_S", 0.05)
    monkeypatch.setattr(supervision, "LOOK_S", 0.05)
    monkeypatch.setattr(supervision, "PATIENCE_S", 0.5)


async def until(condition, *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_lock_is_one_holders(tmp_path):
    held = lock_of(tmp_path / "lock")
    assert held is not None
    assert lock_of(tmp_path / "lock") is None
    os.close(held)
    again = lock_of(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_who_dies_is_started_again(tmp_path):
    async def kill_it() -> None:
        restarts = []
        one = Supervised(OBEDIENT, lock=tmp_path / "lock", on_restart=lambda: restarts.append(1))
        one.start()
        await until(lambda: one.status.state == "running")
        first = one.status.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: one.status.state == "running" and one.status.pid != first)
        assert one.status.restarts == len(restarts) == 1
        await one.close()
        assert one.status == supervision.Status("stopped", None, 1)

    asyncio.run(kill_it())


def test_who_dies_at_once_is_started_less_and_less_often(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(supervision, "SHORTEST_WAIT_S", 0.1)

    async def watch() -> None:
        one = Supervised(DYING, lock=tmp_path / "lock", on_restart=lambda: started.append(time.monotonic()))
        one.start()
        await until(lambda: len(started) == 3)
        assert one.status.state in ("waiting", "running")
        await one.close()

    asyncio.run(watch())
    assert started[2] - started[1] > started[1] - started[0] > 0.3


def test_one_for_each_home_and_another_takes_over(tmp_path):
    async def compete() -> None:
        one, other = (Supervised(OBEDIENT, lock=tmp_path / "lock") for _ in range(2))
        one.start()
        await until(lambda: one.status.state == "running")
        other.start()
        await asyncio.sleep(0.2)
        assert (other.status.state, other.status.pid) == ("elsewhere", None)
        await one.close()
        await until(lambda: other.status.state == "running")
        await other.close()

    asyncio.run(compete())


def test_who_does_not_want_to_end_is_killed(tmp_path):
    async def stop() -> float:
        one = Supervised(STUBBORN, lock=tmp_path / "lock")
        one.start()
        await until(lambda: one.status.state == "running")
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await one.close()
        return time.monotonic() - started

    assert 0.9 < asyncio.run(stop()) < 10


def test_a_program_that_is_not_there_is_tried_again(tmp_path):
    async def watch() -> None:
        one = Supervised((str(tmp_path / "nothing"),), lock=tmp_path / "lock")
        one.start()
        await until(lambda: one.status.restarts >= 2)
        await one.close()

    asyncio.run(watch())


def test_it_ends_with_a_killed_parent_and_frees_the_lock(tmp_path):
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from crowdnerf_lab.network.api.supervision import Supervised\n"
        "async def run():\n"
        f"    one = Supervised({OBEDIENT!r}, lock=Path(sys.argv[1]))\n"
        "    one.start()\n"
        "    while one.status.pid is None: await asyncio.sleep(0.01)\n"
        "    print(one.status.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(run())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert lock_of(tmp_path / "lock") is None
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    patience = time.monotonic() + 20
    while (held := lock_of(tmp_path / "lock")) is None and time.monotonic() < patience:
        time.sleep(0.02)
    assert held is not None, f"process {child} is still there"
    os.close(held)
