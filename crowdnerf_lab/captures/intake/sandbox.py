"""Untrusted files are parsed in processes of their own, which may crash, hang or swell without harm to anything else.

One nursery process imports what the work needs, once, and forks a worker whenever one is asked for: a worker costs
milliseconds, shares the imported code with its siblings, handles many jobs and is replaced after a crash, a limit or
`jobs_per_worker` jobs. Every job has limits of its own: processor and wall-clock time, address space, size of the files
written, open files; no core dumps. When the program that asked dies, nursery and workers end by themselves.

Linux enforces every limit. macOS ignores the one on memory and has all others; Windows has no fork and no sandbox.
A sandbox guards against accidents and exhaustion. It is no jail: a worker has its user's rights.
"""

import json
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

REPLY_BYTES = 512 << 20
"""Largest pickled result that is taken from a worker."""
GRACE_SECONDS = 5.0
"""A worker that outlives its wall-clock limit by so much is killed from outside."""
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from crowdnerf_lab.captures.intake.sandbox_worker import tend; tend(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
PID = struct.Struct("=q")
"""How nursery and pool write the id of a process, and a worker's exit status, to each other."""
FORK = 0
"""What the nursery is asked instead of the id of a worker to bury."""


class SandboxError(ValueError):
    """A job that crashed or broke a limit; the message names the job, what happened and the remedy."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one job may use.

    cpu_seconds: of all its threads together; wall_seconds: on the clock; memory_mb: of address space beyond what the
    worker had at the start; file_mb: the largest file it may write; open_files: at a time.
    """

    cpu_seconds: int = 30
    wall_seconds: float = 60.0
    memory_mb: int = 1536
    file_mb: int = 256
    open_files: int = 128


@dataclass(frozen=True)
class Job:
    """A call to be made in a worker. function: importable by its name; about: what it handles, for messages."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    about: str
    limits: SandboxLimits = SandboxLimits()


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its value, or the error that it raised or died of."""

    job: Job
    value: Any = None
    error: Exception | None = None

    def unwrapped(self) -> Any:
        """The value; raises the error if there was one."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass
class _Worker:
    """A forked process and the job it has in hand."""

    pid: int
    connection: Connection
    jobs_done: int = 0
    job: Job | None = None
    deadline: float = math.inf


@dataclass
class Sandbox:
    """A pool of limited workers, used as a context. preload: modules the nursery imports before it forks.

    workers: processes at work at a time. jobs_per_worker: after so many jobs a worker is replaced by a fresh one.
    """

    workers: int = 1
    preload: tuple[str, ...] = ()
    jobs_per_worker: int = 500
    _idle: list[_Worker] = field(default_factory=list, init=False)
    _nursery: "_Nursery | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.workers < 1 or self.jobs_per_worker < 1:
            raise SandboxError(f"a sandbox of {self.workers} workers does nothing; give at least 1")

    def __enter__(self) -> "Sandbox":
        self._nursery = _Nursery(self.preload)
        return self

    def __exit__(self, *_: object) -> None:
        if self._nursery is not None:
            for worker in self._idle:
                worker.connection.close()
            self._idle.clear()
            self._nursery.close()
            self._nursery = None

    def run(self, job: Job) -> Any:
        """The value of one job. Raises what the job raised, or SandboxError if it crashed or broke a limit."""
        return next(self.results([job])).unwrapped()

    def results(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Outcomes as they come. Jobs are taken from `jobs` only when a worker is free for them.

        A caller that stops early ends the jobs in hand.
        """
        waiting = iter(jobs)
        busy: dict[Connection, _Worker] = {}
        try:
            while True:
                while len(busy) < self.workers and (job := next(waiting, None)) is not None:
                    worker = self._given(job)
                    busy[worker.connection] = worker
                if not busy:
                    return
                patience = min(worker.deadline for worker in busy.values()) - time.monotonic()
                for ready in wait(list(busy), timeout=max(patience, 0)):
                    yield self._finished(busy.pop(ready))  # type: ignore[arg-type]
                late = [worker for worker in busy.values() if time.monotonic() > worker.deadline]
                for worker in late:
                    del busy[worker.connection]
                    yield self._late(worker)
        finally:
            for worker in busy.values():
                self._bury(worker)

    def _given(self, job: Job) -> _Worker:
        """A worker that has taken the job."""
        if self._nursery is None:
            raise SandboxError("the sandbox is not open; use it as a context: `with Sandbox() as sandbox:`")
        message = _pickled_call(job)
        worker = self._idle.pop() if self._idle else self._nursery.fork()
        try:
            worker.connection.send_bytes(message)
        except OSError:
            # It died while it had nothing to do.
            self._bury(worker)
            worker = self._nursery.fork()
            worker.connection.send_bytes(message)
        worker.job, worker.deadline = job, time.monotonic() + job.limits.wall_seconds + GRACE_SECONDS
        return worker

    def _finished(self, worker: _Worker) -> Outcome:
        """The outcome of a worker that has replied or died."""
        job = worker.job
        assert job is not None
        try:
            value, error, healthy = pickle.loads(worker.connection.recv_bytes(REPLY_BYTES))
        except EOFError:
            return Outcome(job, error=_death(job, self._bury(worker)))
        except Exception as problem:
            self._bury(worker)
            return Outcome(job, error=SandboxError(f"{job.about}: its result cannot be taken over ({problem})"))
        worker.job, worker.deadline, worker.jobs_done = None, math.inf, worker.jobs_done + 1
        if healthy and worker.jobs_done < self.jobs_per_worker:
            self._idle.append(worker)
        else:
            self._bury(worker)
        return Outcome(job, value=value, error=error)

    def _late(self, worker: _Worker) -> Outcome:
        job = worker.job
        assert job is not None
        self._bury(worker)
        return Outcome(job, error=_death(job, -signal.SIGALRM))

    def _bury(self, worker: _Worker) -> int:
        """End a worker; its exit status, negative for the signal that ended it before."""
        worker.connection.close()
        return self._nursery.bury(worker.pid) if self._nursery is not None else 0


def sandboxed(
    function: Callable[..., Any], *arguments: Any, limits: SandboxLimits = SandboxLimits(), about: str | None = None
) -> Any:
    """Call a function in a process of its own, within limits. For many calls open one `Sandbox`.

    Raises what the function raised, or SandboxError naming `about` (the first argument unless given).
    """
    name = about or (str(arguments[0]) if arguments else function.__name__)
    with Sandbox(preload=(function.__module__,)) as sandbox:
        return sandbox.run(Job(function, arguments, about=name, limits=limits))


class _Nursery:
    """The process that forks workers, seen from outside."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        if not hasattr(os, "fork"):
            raise SandboxError("a sandbox needs Linux or macOS; on Windows use the Windows Subsystem for Linux")
        self.control, theirs = socket.socketpair()
        paths = [str(Path(entry or ".").resolve()) for entry in sys.path]
        modules = [module for module in preload if module != "__main__"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(paths), str(theirs.fileno()), json.dumps(modules)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ONE_THREAD,
        )
        theirs.close()

    def fork(self) -> _Worker:
        """A new worker."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = self._asked(FORK, [theirs.fileno()])
            return _Worker(pid=pid, connection=Connection(ours.detach()))

    def bury(self, pid: int) -> int:
        """Kill a worker unless it is dead, and tell how it died: its exit code, or minus the signal."""
        return os.waitstatus_to_exitcode(self._asked(pid))

    def close(self) -> None:
        """End the nursery; workers end when their connections close."""
        self.control.close()
        try:
            self.process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _asked(self, question: int, descriptors: Sequence[int] = ()) -> int:
        reply = b""
        try:
            socket.send_fds(self.control, [PID.pack(question)], descriptors)
            while len(reply) < PID.size:
                more = self.control.recv(PID.size - len(reply))
                if not more:
                    raise EOFError
                reply += more
        except (OSError, EOFError):
            raise SandboxError(
                "the sandbox did not start or was killed; see whether the modules it needs can be imported"
            ) from None
        return int(PID.unpack(reply)[0])


def _pickled_call(job: Job) -> bytes:
    try:
        call = pickle.dumps((job.function, job.arguments, job.about))
        if job.function.__module__ == "__main__":
            raise pickle.PicklingError("it is defined in the running script or notebook")
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SandboxError(
            f"{job.function} cannot be called in another process ({error}); put it into a module and give plain data"
        ) from None
    return pickle.dumps((job.limits, call))


def _death(job: Job, status: int) -> SandboxError:
    """Why a worker died with a job in hand."""
    limits = job.limits
    if status == -signal.SIGXCPU:
        what = f"used more than {limits.cpu_seconds} s of processor time"
    elif status == -signal.SIGALRM:
        what = f"took longer than {limits.wall_seconds:g} s"
    elif status == -signal.SIGKILL:
        what = "was killed, as systems do when memory runs out"
    elif status < 0:
        what = f"crashed the program that reads it ({signal.Signals(-status).name})"
    else:
        what = f"ended the program that reads it (exit code {status})"
    return SandboxError(f"{job.about} {what}; leave it out, or save it again with another program")
