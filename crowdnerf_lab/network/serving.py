"""serve: the service in the background of a notebook, in one line, and away when the notebook is."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import httpx

from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.api.running import LOCK, Running, RunningError, is_claimed, running_on
from crowdnerf_lab.network.api.tokens import OPERATOR_FILE
from crowdnerf_lab.network.settings import ServiceSettings

log = logging.getLogger(__name__)

LOG = "service.log"
START_S = 60.0
STOP_S = 10.0
LOOK_S = 0.05


class RunningService:
    """A service that runs. url: of its API. home: its folder. pid: of its process. Ends at `close`, at the end of a
    `with`, or with this process; one that somebody else started goes on (`ours` is False)."""

    def __init__(self, running: Running, home: Path, process: subprocess.Popen[bytes] | None) -> None:
        self.url, self.pid, self.home = running.url, running.pid, home
        self.ours = process is not None
        self._end = partial(_ended, process)
        atexit.register(self._end)

    @property
    def operator_token(self) -> str:
        """The token that makes events and revokes UEs' tokens."""
        return (self.home / OPERATOR_FILE).read_text().strip()

    @property
    def log(self) -> Path:
        """What the service wrote of itself."""
        return self.home / LOG

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Stop the service and whatever it started, within seconds. Nothing that it acknowledged is lost."""
        atexit.unregister(self._end)
        self._end()

    def __enter__(self) -> "RunningService":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RunningService(url={self.url!r}, home={str(self.home)!r}, pid={self.pid}, ours={self.ours})"


def serve(
    home: Path,
    *,
    events: tuple[str, ...] | None = None,
    port: int = 0,
    settings: ServiceSettings | None = None,
    host: str = "127.0.0.1",
    workers: int = 1,
) -> RunningService:
    """Start the service as a process of its own, and wait until it answers.

    events: to make, open to everybody (default: those of `settings`). port: 0 for any free one. settings: its home is
    replaced by this one. A server that runs on this home already is used as it is. Raises RunningError when the port is
    taken, when a server of another version of the package has this home, or when it does not start.
    """
    home = Path(home).resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot keep the service's state in {home}: {error.strerror}; choose another folder"
        ) from error
    if is_claimed(home):
        return _joined(home, port=port)
    settings = replace(settings or ServiceSettings(home), home=home)
    if events is not None:
        settings = replace(settings, events=tuple(events))
    command = [sys.executable, "-m", "crowdnerf_lab.network", "--host", host, "--port", str(port)]
    command += ["--workers", str(workers), "--end-with-input"]
    with (home / LOG).open("ab") as written:
        begins_at = written.tell()
        # Its own session: interrupting a notebook's kernel must not stop the service half-way.
        process = subprocess.Popen(
            command,
            env=os.environ | settings.to_environment(),
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        running = _answering(home, process, begins_at=begins_at)
    except BaseException:  # an interrupt too: no server without somebody who can close it
        _ended(process)
        raise
    log.info("the service runs at %s, its state is in %s", running.url, home)
    return RunningService(running, home, process)


def _joined(home: Path, *, port: int) -> RunningService:
    """The server that has this home already."""
    until = time.monotonic() + STOP_S
    while (running := running_on(home)) is None or not _answers(running):
        if time.monotonic() > until:
            raise RunningError(
                f"a server holds {home / LOCK} and does not answer; end it, or give another home. Its log: {home / LOG}"
            )
        time.sleep(LOOK_S)
    if running.version != version("crowdnerf-lab"):
        raise RunningError(
            f"a server of version {running.version} runs at {running.url} with its home in {home}; stop process "
            f"{running.pid}, or give another home"
        )
    if port not in (0, httpx.URL(running.url).port):
        raise RunningError(f"a server with its home in {home} runs at {running.url}, not at port {port}; stop it first")
    log.info("using the service that runs at %s", running.url)
    return RunningService(running, home, None)


def _answering(home: Path, process: subprocess.Popen[bytes], *, begins_at: int) -> Running:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            words = _last_words(home / LOG, begins_at)
            raise RunningError(f"the service did not start: {words} (log: {home / LOG})")
        running = running_on(home)
        if running is not None and running.pid == process.pid and _answers(running):
            return running
        time.sleep(LOOK_S)
    raise RunningError(f"the service did not answer within {START_S:.0f} s; its log is {home / LOG}")


def _answers(running: Running) -> bool:
    try:
        return httpx.get(f"{running.url}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _last_words(path: Path, begins_at: int) -> str:
    with path.open("rb") as file:
        file.seek(begins_at)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def _ended(process: subprocess.Popen[bytes] | None) -> None:
    """End a server of ours: by its input, by a signal, or by force."""
    if process is None:
        return
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    for end in (lambda: process.send_signal(signal.SIGTERM), process.kill):
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return
        end()
    process.wait()
