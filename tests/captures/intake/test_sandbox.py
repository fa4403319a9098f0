"""A worker may crash, hang or swell: the caller gets one clear error, and the next job runs."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crowdnerf_lab.captures.intake.sandbox import Job, Sandbox, SandboxError, SandboxLimits, sandboxed

TIGHT = SandboxLimits(cpu_seconds=1, wall_seconds=20, memory_mb=200, file_mb=1, open_files=32)
HASTY = SandboxLimits(wall_seconds=0.3)


class AwkwardError(Exception):
    """Cannot be pickled: its constructor wants two arguments."""

    def __init__(self, first, second):
        super().__init__(first)


def doubled(number):
    return 2 * number


def own_pid(_):
    return os.getpid()


def crash(_):
    ctypes.string_at(0)


def abort(_):
    os.abort()


def leave(_):
    os._exit(3)


def swell(_):
    return len(bytearray(1 << 30))


def loop(_):
    while True:
        pass


def sleep(seconds):
    time.sleep(seconds)


def refuse(name):
    raise FileNotFoundError(f"{name} does not exist; put it back")


def awkward(_):
    raise AwkwardError("first", "second")


def write_much(path):
    Path(path).write_bytes(bytes(2 << 20))


def open_many(path):
    return [Path(path).open() for _ in range(64)]


def unpicklable(_):
    return lambda: None


def core_limit(_):
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, preload=(__name__,)) as opened:
        yield opened


def job(function, argument="photo.jpg", limits=TIGHT):
    return Job(function, (argument,), about="photo.jpg", limits=limits)


def test_a_value_comes_back(sandbox):
    assert sandbox.run(job(doubled, 21)) == 42
    assert sandbox.run(job(core_limit)) == 0


@pytest.mark.parametrize(
    ("function", "limits", "message"),
    [
        (crash, TIGHT, "photo.jpg crashed the program that reads it (SIGSEGV)"),
        (abort, TIGHT, "(SIGABRT)"),
        (leave, TIGHT, "(exit code 3)"),
        (swell, TIGHT, "photo.jpg needs more than 200 MB of memory"),
        (sleep, HASTY, "photo.jpg took longer than 0.3 s"),
    ],
)
def test_a_crash_or_a_broken_limit_is_named_and_the_next_job_runs(sandbox, function, limits, message):
    with pytest.raises(SandboxError) as error:
        sandbox.run(job(function, 60.0, limits=limits))
    assert message in str(error.value)
    assert "; leave it out" in str(error.value)
    assert sandbox.run(job(doubled, 4)) == 8


def test_processor_time_is_limited_job_by_job(sandbox):
    with pytest.raises(SandboxError, match=r"used more than 1 s of processor time"):
        sandbox.run(job(loop))


def test_files_and_open_files_are_limited(sandbox, tmp_path):
    with pytest.raises(OSError, match="too large"):
        sandbox.run(job(write_much, str(tmp_path / "big")))
    (tmp_path / "small").touch()
    with pytest.raises(OSError, match="Too many open files"):
        sandbox.run(job(open_many, str(tmp_path / "small")))


def test_an_ordinary_error_arrives_as_itself(sandbox):
    with pytest.raises(FileNotFoundError, match=r"a\.jpg does not exist; put it back"):
        sandbox.run(job(refuse, "a.jpg"))
    with pytest.raises(SandboxError, match="AwkwardError: first"):
        sandbox.run(job(awkward))
    with pytest.raises(SandboxError, match=r"photo\.jpg: its result cannot leave"):
        sandbox.run(job(unpicklable))


def test_many_jobs_are_taken_lazily_and_one_bad_one_stops_nothing(sandbox):
    taken = []

    def jobs():
        for number in range(12):
            taken.append(number)
            yield job(crash) if number == 5 else job(doubled, number)

    values, errors = [], []
    for outcome in sandbox.results(jobs()):
        # Never more than two in hand beyond those finished.
        assert len(taken) <= len(values) + len(errors) + 3
        (errors if outcome.error else values).append(outcome.value)
    assert sorted(values) == [2 * n for n in range(12) if n != 5]
    assert len(errors) == 1


def test_a_worker_serves_many_jobs_and_is_replaced_in_time():
    with Sandbox(preload=(__name__,), jobs_per_worker=3) as sandbox:
        pids = [sandbox.run(job(own_pid)) for _ in range(7)]
    assert [len(set(pids[i : i + 3])) for i in (0, 3)] == [1, 1]
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


def test_a_caller_that_stops_early_ends_the_jobs_in_hand(sandbox):
    began = time.monotonic()
    results = sandbox.results([job(doubled, 1), job(sleep, 30.0), job(sleep, 30.0)])
    assert next(results).value == 2
    results.close()
    assert time.monotonic() - began < 5
    assert sandbox.run(job(doubled, 3)) == 6


def test_workers_end_with_the_program_that_asked(tmp_path):
    program = tmp_path / "ask.py"
    program.write_text(
        "import os, sys, time\n"
        f"sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "import test_sandbox as t\n"
        "from crowdnerf_lab.captures.intake.sandbox import Sandbox\n"
        "with Sandbox(preload=('test_sandbox',)) as sandbox:\n"
        "    print(sandbox.run(t.job(t.own_pid)), flush=True)\n"
        "    time.sleep(60)\n"
    )
    # No `if __name__ == '__main__'` in it: the caller's script is never run again in a worker.
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_one_call_needs_no_pool():
    assert sandboxed(doubled, 4) == 8
    with pytest.raises(SandboxError, match="put it into a module"):
        sandboxed(lambda: None)


def test_a_pool_of_nobody_is_refused():
    with pytest.raises(SandboxError, match="at least 1"):
        Sandbox(workers=0)


def test_a_module_that_cannot_be_imported_is_reported():
    with pytest.raises(SandboxError, match="can be imported"), Sandbox(preload=("no_such_module",)) as sandbox:
        sandbox.run(job(doubled, 1))
