"""SIGKILL at any moment, twenty times each: the worker, the API and the render process, under uploads, publishing and
downloads.

Nothing acknowledged is lost, what is downloaded verifies, the catalogue stays whole, the service recovers.
"""

import base64
import hashlib
import json
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from crowdnerf_lab.captures.bundle import read_bundle
from crowdnerf_lab.captures.intake.sandbox import Job, Outcome, Sandbox
from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.updates.intake import photos_of
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.network.uploads.contributions import Contributions
from tests.network.toy_event import EVENT, QUICK, capture_of, photos_of_concert, send, toy_home

KILLS = 20
SETTLED = {"published", "refused"}
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["crowdnerf_lab.network.service", "crowdnerf_lab.network.updates.pipeline", "onnxruntime", "uvicorn"]
)


class Here(Sandbox):
    """Makes calls in its own process: a sandbox takes seconds to start, and is killed in tests of its own."""

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def results(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        for job in jobs:
            try:
                yield Outcome(job, value=job.function(*job.arguments))
            except Exception as error:
                yield Outcome(job, error=error)


def _work(home: Path, settings: UpdateSettings) -> None:
    """A worker's life, without what takes seconds to start."""
    import torch

    from crowdnerf_lab.network.updates.pipeline import EventUpdates

    torch.set_num_threads(1)
    updates = EventUpdates(home, EVENT, settings=settings, sandbox=Here())
    while True:
        if updates.update() is None:
            time.sleep(0.02)


def _serve(home: Path, listening: socket.socket) -> None:
    import uvicorn

    from crowdnerf_lab.network.service import create_app

    os.setpgid(0, 0)
    settings = ServiceSettings(home=home, events=(EVENT,), train=False, view_processes=1)
    uvicorn.Server(uvicorn.Config(create_app(settings), log_level="critical")).run(sockets=[listening])


class Mortal:
    """A process that can be killed and started again at once."""

    def __init__(self, target: Any, *arguments: object) -> None:
        self._target, self._arguments = target, arguments
        self._process: BaseProcess | None = None
        self.kills = 0

    def __enter__(self) -> "Mortal":
        self._process = _PROCESSES.Process(target=self._target, args=self._arguments, daemon=True)
        self._process.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()
        self.kills -= 1

    def kill(self) -> None:
        """SIGKILL: no handler, no flush, no good-bye."""
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self.kills += 1

    def again(self) -> None:
        self.kill()
        self.__enter__()

    def kill_child(self) -> bool:
        """Kill one of its children; whether there was one."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
                return True
        return False


def check_whole(home: Path) -> None:
    """The catalogue and the captures are what they say, and every version came of one round."""
    catalogue = Catalogue(home / "catalogue")
    versions = catalogue.versions(EVENT)
    rounds = [version.note.split()[0] for version in versions]
    assert len(set(rounds)) == len(rounds)
    for version in versions:
        for artefact in catalogue.artefacts(EVENT, version.number):
            open_artefact(artefact.folder)
    captures = read_bundle(home / "events" / EVENT / "captures")
    files = [photo.file for photo in captures.photos]
    assert len(set(files)) == len(files)
    contributions = Contributions(Database(home))
    for (id,) in Database(home).connection().execute("SELECT id FROM contributions WHERE state = 'published'"):
        found = contributions.one(id)
        assert found is not None
        assert len(photos_of(found, files)) == 1


def until(done: Any, *, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.05)
    return bool(done())


@pytest.mark.row("S40")
def test_the_worker_is_killed_twenty_times_and_every_contribution_ends_in_one_version(tmp_path: Path) -> None:
    home, moments = tmp_path / "home", random.Random(0)
    database = toy_home(home)
    ids = send(database, count=8)
    with Mortal(_work, home, QUICK) as worker:
        for kill in range(KILLS):
            time.sleep(moments.uniform(0.05, 1.0))
            worker.again()
            if kill % 4 == 3:
                ids += send(database, start=len(ids), count=2)

        def settled() -> bool:
            states = [state for (state,) in database.connection().execute("SELECT state FROM contributions")]
            return set(states) <= SETTLED

        assert until(settled, seconds=120)
    assert worker.kills == KILLS
    check_whole(home)
    assert len(database.connection().execute("SELECT id FROM contributions").fetchall()) == len(set(ids))
    assert not list((home / "inbox" / EVENT).iterdir())


class Crowd:
    """UEs that upload, and one that downloads, however often the service is away. acknowledged: ids of uploads that the
    service said are complete; verified: downloads that came whole."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/events/{EVENT}"
        self.acknowledged: list[str] = []
        self.verified, self.wrong = 0, 0
        self.over = threading.Event()
        consent = {"train": True, "publish": True}
        joined = self._ask("POST", "/ues", json={"device": "phone", "consent": consent})
        self.token = {"Authorization": f"Bearer {joined.json()['token']}"}

    def _ask(self, method: str, path: str, **named: Any) -> httpx.Response:
        """With the patience of a client whose service is away now and then."""
        while True:
            try:
                return httpx.request(method, f"{self.url}{path}", timeout=10, trust_env=False, **named)
            except httpx.TransportError:
                time.sleep(0.02)

    def upload(self, *, start: int, count: int) -> None:
        for number, (_, photo, path) in enumerate(photos_of_concert(start=start, count=count)):
            content = path.read_bytes()
            capture = capture_of(photo).model_dump_json(exclude_none=True)
            told = {"filename": path.name, "filetype": "image/jpeg", "capture": capture}
            metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in told.items())
            headers = self.token | {
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(len(content)),
                "Upload-Metadata": metadata,
                "Idempotency-Key": f"photo-{start + number}",
            }
            created = self._ask("POST", "/uploads", headers=headers)
            assert created.status_code in (200, 201), created.text
            id = created.headers["location"].rpartition("/")[2]
            self._send(id, content)
            self.acknowledged.append(id)

    def _send(self, id: str, content: bytes) -> None:
        headers = self.token | {"Tus-Resumable": "1.0.0"}
        while True:
            head = self._ask("HEAD", f"/uploads/{id}", headers=headers)
            assert head.status_code == 200
            offset = int(head.headers["upload-offset"])
            if offset == len(content):
                return
            piece = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            self._ask("PATCH", f"/uploads/{id}", headers=headers | piece, content=content[offset : offset + 9000])

    def download(self) -> None:
        while not self.over.is_set():
            latest = self._ask("GET", "/versions/latest", headers=self.token)
            if latest.status_code != 200:
                time.sleep(0.05)
                continue
            number = latest.json()["version"]
            cards = self._ask("GET", f"/versions/{number}", headers=self.token)
            for card in cards.json()["cards"] if cards.status_code == 200 else ():
                for file in card["files"]:
                    path = f"/versions/{number}/artefacts/{card['name']}/files/{file['path']}"
                    answer = self._ask("GET", path, headers=self.token | {"Accept-Encoding": "identity"})
                    if answer.status_code == 200:
                        right = hashlib.sha256(answer.content).hexdigest() == file["sha256"]
                        self.verified, self.wrong = self.verified + right, self.wrong + (not right)

    def states(self) -> dict[str, str]:
        found = self._ask("GET", "/contributions", headers=self.token).json()["contributions"]
        return {each["id"]: each["state"] for each in found}

    def view(self) -> int:
        _, photo, _ = photos_of_concert(count=1)[0]
        assert photo.truth is not None
        document = {
            "camera_to_world": photo.truth.camera_to_world,
            "focal": [60.0, 60.0],
            "centre": [32.0, 24.0],
            "width": 64,
            "height": 48,
            "deadline_ms": 20000,
        }
        headers = self.token | {"Content-Type": "application/json"}
        return self._ask("POST", "/views", headers=headers, content=json.dumps(document)).status_code


@pytest.mark.row("S59")
def test_all_processes_are_killed_twenty_times_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    home, moments = tmp_path / "home", random.Random(1)
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Mortal(_serve, home, listening) as api, Mortal(_work, home, QUICK) as worker:
            crowds = [Crowd(url), Crowd(url)]
            uploading = [
                threading.Thread(target=crowd.upload, kwargs={"start": 12 * i, "count": 12})
                for i, crowd in enumerate(crowds)
            ]
            downloading = threading.Thread(target=crowds[0].download)
            for thread in (*uploading, downloading):
                thread.start()
            renders = 0
            for _ in range(KILLS):
                renders += until(api.kill_child, seconds=30)
                time.sleep(moments.uniform(0.0, 0.3))
                api.again()
                worker.again()
            for thread in uploading:
                thread.join(timeout=60)
            assert not any(thread.is_alive() for thread in uploading)
            assert until(lambda: all(set(crowd.states().values()) <= SETTLED for crowd in crowds), seconds=60)
            assert until(lambda: crowds[0].view() == 200, seconds=30)
            assert until(lambda: crowds[0].verified > 0, seconds=30)
            crowds[0].over.set()
            downloading.join(timeout=60)
            for crowd in crowds:
                states = crowd.states()
                assert len(set(crowd.acknowledged)) == 12
                assert set(crowd.acknowledged) <= states.keys()
                assert len(states) == 12
                assert "published" in states.values()
    assert (api.kills, worker.kills, renders) == (KILLS, KILLS, KILLS)
    assert (crowds[0].wrong, crowds[0].verified > 0) == (0, True)
    check_whole(home)
