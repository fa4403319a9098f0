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
from contextlib import suppress
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
    "from crowdnerf_lab.captures.sandbox import tend; tend(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
_PID = struct.Struct("=q")
_FORK = 0
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
            pid = self._asked(_FORK, [theirs.fileno()])
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
            socket.send_fds(self.control, [_PID.pack(question)], descriptors)
            while len(reply) < _PID.size:
                more = self.control.recv(_PID.size - len(reply))
                if not more:
                    raise EOFError
                reply += more
        except (OSError, EOFError):
            raise SandboxError(
                "the sandbox did not start or was killed; see whether the modules it needs can be imported"
            ) from None
        return int(_PID.unpack(reply)[0])


def tend(control: int, modules: list[str]) -> None:
    """What the nursery does: import `modules`, then fork and bury workers until `control` (a socket) is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        __import__(module)
    with socket.socket(fileno=control) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, _PID.size, 1)
            if len(message) < _PID.size:
                os._exit(0)
            pid = int(_PID.unpack(message)[0])
            if pid == _FORK:
                pid = os.fork()
                if pid == 0:
                    asked.close()
                    _serve(Connection(descriptors[0]))
                os.close(descriptors[0])
                asked.sendall(_PID.pack(pid))
            else:
                asked.sendall(_PID.pack(_buried(pid)))


def _buried(pid: int) -> int:
    """The wait status of a worker that has died or, given a moment, still does not."""
    patience = time.monotonic() + 0.2
    while time.monotonic() < patience:
        dead, status = os.waitpid(pid, os.WNOHANG)
        if dead:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _serve(connection: Connection) -> None:
    """A worker's life: calls in, results out, until the connection closes."""
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        reply = _attempt(message)
        try:
            connection.send_bytes(reply)
        except OSError:
            os._exit(0)


def _attempt(message: bytes) -> bytes:
    """Make the pickled call: value, error, and whether the worker may go on, pickled."""
    limits = SandboxLimits()
    try:
        limits, call = pickle.loads(message)
        _limit(limits)
        function, arguments, about = pickle.loads(call)
        try:
            value = function(*arguments)
        except Exception as error:
            return _pickled_error(error, about, limits)
        try:
            return pickle.dumps((value, None, True))
        except Exception as error:
            problem = SandboxError(f"{about}: its result cannot leave the sandbox ({error}); return plain data")
            return pickle.dumps((None, problem, True))
    except Exception as error:
        return _pickled_error(error, "a job", limits)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(limits: SandboxLimits) -> None:
    """Set this process's limits for its next job."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + limits.cpu_seconds,
        resource.RLIMIT_FSIZE: limits.file_mb << 20,
        resource.RLIMIT_NOFILE: limits.open_files,
    }
    if (size := _address_space()) is not None:
        wanted[resource.RLIMIT_AS] = size + (limits.memory_mb << 20)
    for kind, soft in wanted.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    for limit in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(limit, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)


def _address_space() -> int | None:
    """Bytes of address space of this process, or None where the system does not tell."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return None


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


def _pickled_error(error: Exception, about: str, limits: SandboxLimits) -> bytes:
    """An error as a worker sends it; memory that ran out is a broken limit, after which the worker is not trusted."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        exhausted = SandboxError(
            f"{about} needs more than {limits.memory_mb} MB of memory; leave it out, or make it smaller"
        )
        return pickle.dumps((None, exhausted, False))
    try:
        reply = pickle.dumps((None, error, True))
        pickle.loads(reply)
    except Exception:
        return pickle.dumps((None, SandboxError(f"{about}: {type(error).__name__}: {error}"), True))
    return reply


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
