"""The inside of a sandbox: the nursery that forks workers, and a worker that makes calls within limits.

Runs in processes of its own, started by `sandbox`, and imports next to nothing before it is told to.
"""

import math
import os
import pickle
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from crowdnerf_lab.captures.intake.sandbox import FORK, PID, SandboxError, SandboxLimits


def tend(control: int, modules: list[str]) -> None:
    """What the nursery does: import `modules`, then fork and bury workers until `control` (a socket) is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        __import__(module)
    with socket.socket(fileno=control) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, PID.size, 1)
            if len(message) < PID.size:
                os._exit(0)
            pid = int(PID.unpack(message)[0])
            if pid == FORK:
                pid = os.fork()
                if pid == 0:
                    asked.close()
                    _serve(Connection(descriptors[0]))
                os.close(descriptors[0])
                asked.sendall(PID.pack(pid))
            else:
                asked.sendall(PID.pack(_buried(pid)))


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
