"""An upload storm: 200 UEs send 4 photos each while the API is killed twice with SIGKILL, and the worker once.

A real service with its worker on loopback; every UE is the package's own client, which goes on where it was cut off.
Photos are the concert's, each with a comment of its own, so that no two files are alike. After the storm every upload
that a UE was told is complete must be known to the service, with its bytes in the inbox or its photo in the captures.
"""

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crowdnerf_lab.captures.bundle import Photo, concert, read_bundle
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.api.running import RunningError
from crowdnerf_lab.network.serving import RunningService, serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue_client import UE, capability_here
from crowdnerf_lab.network.ues.answers import NetworkError
from crowdnerf_lab.network.ues.event_connection import http_client
from crowdnerf_lab.network.ues.rehearsal import positioned
from crowdnerf_lab.network.updates.intake import photos_of
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.network.uploads.contributions import Contributions

EVENT = "concert"
UES, PHOTOS = 200, 4
KILL_AT = (0.25, 0.6)
"""Parts of the uploads that are acknowledged when the API is killed; the worker dies with the second kill."""
QUICK_UPDATES = UpdateSettings(
    first_fit_steps=200,
    refine_steps=50,
    students=(),
    tiers=("200kB",),
    importance_batches=4,
    photo_downscale=2,
    faces=False,
    most_at_once=200,
)
RESTART_S = 60.0
SETTLE_S = 60.0
"""For the worker to take in what it can, after the storm; what still waits then counts as kept, not as lost."""


def measure(*, quick: bool) -> dict[str, Any]:
    """acknowledged_lost, how many were acknowledged, seconds of the storm, and what became of the contributions."""
    ues = 20 if quick else UES
    with tempfile.TemporaryDirectory(prefix="storm.") as folder:
        home, sent = Path(folder) / "home", Path(folder) / "sent"
        files = _photos(sent, ues * PHOTOS)
        settings = ServiceSettings(home=home, events=(EVENT,), updates=QUICK_UPDATES)
        started = time.perf_counter()
        acknowledged, interruptions = asyncio.run(_storm(settings, files, ues=ues))
        seconds = time.perf_counter() - started
        database = Database(home)
        lost, states = _account(home, database, acknowledged)
        database.close()
    return {
        "acknowledged_lost": lost,
        "storm_ues": ues,
        "storm_acknowledged": len(acknowledged),
        "storm_sent_once": int(len(set(acknowledged)) == len(acknowledged) == ues * PHOTOS),
        "storm_interruptions": interruptions,
        "storm_kills": len(KILL_AT) + 1,
        "storm_seconds": round(seconds, 1),
        "storm_states": states,
    }


async def _storm(settings: ServiceSettings, files: Sequence[tuple[Photo, Path]], *, ues: int) -> tuple[list[str], int]:
    """Ids of the acknowledged uploads, and how often uploads were interrupted."""
    acknowledged: list[str] = []
    interruptions = 0
    port = _lasting_port()
    service = await asyncio.to_thread(serve, settings.home, settings=settings, port=port)
    client, capability = http_client(connections=64), capability_here()
    in_hand = asyncio.Semaphore(64)

    async def contribute(number: int) -> None:
        nonlocal interruptions
        home = settings.home.parent / "ues" / str(number)
        async with UE(service.url, event=EVENT, capability=capability, home=home, client=client) as ue:
            for photo, path in files[PHOTOS * number : PHOTOS * (number + 1)]:
                while True:
                    try:
                        async with in_hand:
                            if ue.name is None:
                                await ue.join()
                            uploaded = await ue.send(path, capture=positioned(photo))
                        break
                    except NetworkError:
                        interruptions += 1
                        await asyncio.sleep(0.2)
                acknowledged.append(uploaded.id)
                interruptions += uploaded.interruptions

    storm = [asyncio.create_task(contribute(number)) for number in range(ues)]
    try:
        for number, part in enumerate(KILL_AT):
            while len(acknowledged) < part * len(files):
                await asyncio.sleep(0.02)
            if number:
                _kill_worker(service)
            os.kill(service.pid, signal.SIGKILL)
            await asyncio.to_thread(service.close)
            service = await _served_again(settings, port)
        await asyncio.gather(*storm)
        await _settled(settings.home)
    finally:
        for task in storm:
            task.cancel()
        await client.aclose()
        await asyncio.to_thread(service.close)
    return acknowledged, interruptions


async def _served_again(settings: ServiceSettings, port: int) -> RunningService:
    """The service again, as soon as what is left of the killed one lets go."""
    end = time.monotonic() + RESTART_S
    while True:
        try:
            return await asyncio.to_thread(serve, settings.home, settings=settings, port=port)
        except RunningError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


def _lasting_port() -> int:
    """A free port that no connection gets by chance while the service is away: clients on loopback that knock at a port
    of the ephemeral range (above 32767 on Linux) can be connected to themselves, and then hold it."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port between 20000 and 32000 is free; end what holds them")


def _kill_worker(service: RunningService) -> None:
    """SIGKILL for the training worker, whatever it is at."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"crowdnerf_lab.network.updates.worker" in words and str(service.home).encode() in words:
            os.kill(int(process.parent.name), signal.SIGKILL)


async def _settled(home: Path) -> None:
    """Wait until nothing waits in the inbox, or SETTLE_S have passed."""
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end and any((home / "inbox" / EVENT).glob("*")):
        await asyncio.sleep(0.5)


def _account(home: Path, database: Database, acknowledged: Sequence[str]) -> tuple[int, dict[str, int]]:
    """How many acknowledged uploads are nowhere, and the states of all."""
    contributions, lost, states = Contributions(database), 0, dict[str, int]()
    manifest = home / "events" / EVENT / "captures" / "manifest.json"
    files = [photo.file for photo in read_bundle(manifest).photos] if manifest.is_file() else []
    for id in acknowledged:
        found = contributions.one(id)
        state = found.state if found else "unknown"
        states[state] = states.get(state, 0) + 1
        told = found is not None and state == "refused" and bool(found.reason)
        lost += not (found and (told or found.path.is_file() or photos_of(found, files)))
    return lost, states


def _photos(folder: Path, count: int) -> list[tuple[Photo, Path]]:
    """So many different files of the concert's photos."""
    captures = concert()
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        photo = captures.photos[number % len(captures.photos)]
        content, path = captures.path_of(photo.file).read_bytes(), folder / f"{number:04d}.jpg"
        words = f"photo {number}".encode()
        # A comment (ITU-T T.81, B.2.4.5) behind the start of the image.
        comment = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words
        path.write_bytes(content[:2] + comment + content[2:])
        files.append((photo, path))
    return files


if __name__ == "__main__":
    import argparse
    import json

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 UEs instead of 200")
    print(json.dumps(measure(quick=parser.parse_args().quick)))
