"""Rehearsal: a simulated event's phones as UEs of a real service, for lessons and benchmarks.

Every phone joins, and sends its photos over HTTP with the camera that a positioning service would have told it: in a
rehearsal, the true one.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, GivenCamera, Photo
from crowdnerf_lab.captures.study import truth_of
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.api.running import end_server
from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.serving import RunningService, serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue_client import UE, capture_of
from crowdnerf_lab.network.ues.answers import ContributionStatus, LatestVersion, NetworkError, read_answer
from crowdnerf_lab.network.ues.event_connection import http_client
from crowdnerf_lab.workbench import Workbench

EVENT = "concert"
POLL_S = 5.0
PAUSE_S = 0.5
AT_ONCE = 8
"""Uploads under way at a time."""


def service_of(
    bench: Workbench, *, home: str = "service", broadcast: BroadcastSettings | None = None
) -> RunningService:
    """A service whose event offers the artefacts of notebook 6; it trains nothing. broadcast: and sends them to all.

    home: its folder on the bench. A server that is still there ends: notebooks that are open at the same time have
    folders of their own.
    """
    folder, offered = bench.root / home, bench.artefacts()
    end_server(folder)
    catalogue = Catalogue(folder / "catalogue")
    held = catalogue.artefacts(EVENT) if EVENT in catalogue.events() else ()
    if {each.card.name: each.card for each in held} != {each.card.name: each.card for each in offered}:
        catalogue.publish(offered, event=EVENT, note="the ladder of notebook 6")
    return serve(folder, events=(EVENT,), settings=ServiceSettings(folder, train=False, broadcast=broadcast))


def live_service_of(bench: Workbench) -> RunningService:
    """A service whose event is only beginning: nothing was sent to it, and it trains on what will be.

    What an earlier run of a notebook left here ends, and goes.
    """
    home = bench.root / "live_event"
    end_server(home)
    shutil.rmtree(home, ignore_errors=True)
    return serve(home, events=(EVENT,), settings=ServiceSettings(home, updates=bench.preset.live))


class Rehearsal:
    """The phones of `captures` at an event of the service at `url`; `async with` ends them.

    ues: by the pseudonym that each phone has in the captures, the UE that it has become.
    """

    def __init__(self, url: str, captures: CaptureSet, *, event: str = "concert", home: Path | None = None) -> None:
        self.captures, self.ues = captures, dict[str, UE]()
        self._sender: dict[str, str] = {}
        self._url, self._event, self._home = url, event, home
        self._client = http_client(connections=AT_ONCE)
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the phones; what they contributed stays."""
        for ue in self.ues.values():
            await ue.close()
        await self._client.aclose()

    def early_and_late(self, *, phones: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Pseudonyms of those who come early, two thirds of the first `phones` (0: of all), and of the others."""
        names = [capture.ue for capture in self.captures.captures][: phones or None]
        return tuple(name for name in names if name not in names[2::3]), tuple(names[2::3])

    async def send(self, phones: Sequence[str]) -> int:
        """These phones join, where they have not yet, and send their photos. How many the service acknowledged."""
        captures = [capture for capture in self.captures.captures if capture.ue in set(phones)]
        for capture in captures:
            await self._joined(capture)
        sending = [self._sent(capture.ue, photo) for capture in captures for photo in capture.photos]
        return len(await asyncio.gather(*sending))

    async def statuses(self) -> tuple[ContributionStatus, ...]:
        """What became of all that was sent, as each phone is told of its own; in the order of sending."""
        return tuple([await self.ues[phone].status(id) for id, phone in self._sender.items()])

    async def version_after(self, version: int, *, patience_s: float = 600.0) -> int:
        """Wait until the event has a newer version; its number. Raises NetworkError when it has none in time."""
        connection = next(iter(self.ues.values())).connection
        asked, until = "waiting for a newer version", time.monotonic() + patience_s
        while time.monotonic() < until:
            path = f"{connection.path('versions', 'latest')}?newer_than={version}&wait_s={POLL_S:g}"
            answer = await connection.ask("GET", path, asked=asked)
            found = read_answer(LatestVersion, answer.content, asked=asked).version if answer.content else 0
            if found > version:
                return found
            if found:  # the latest is an older one: this version was withdrawn
                await asyncio.sleep(PAUSE_S)
        raise NetworkError(f"{asked} than {version}: none within {patience_s:g} s; look into the service's log")

    async def _joined(self, capture: Capture) -> None:
        if capture.ue in self.ues:
            return
        home = None if self._home is None else self._home / capture.ue
        ue = UE(self._url, event=self._event, home=home, client=self._client, keep_fresh=False)
        consent = capture.consent
        await ue.join(device=capture.device, train=consent.train, publish=consent.publish, licence=capture.licence)
        self.ues[capture.ue] = ue

    async def _sent(self, phone: str, photo: Photo) -> None:
        async with self._at_once:
            uploaded = await self.ues[phone].send(self.captures.path_of(photo.file), capture=positioned(photo))
        self._sender[uploaded.id] = phone


def positioned(photo: Photo) -> dict[str, Any]:
    """What an upload of a simulated photo says, with the true camera as the one that the phone was told."""
    if photo.focal_px is None:
        return capture_of(photo)
    camera = GivenCamera(
        camera_to_world=truth_of(photo).camera_to_world,
        focal_px=(photo.focal_px, photo.focal_px),
        centre_px=photo.centre_px or (photo.width / 2, photo.height / 2),
    )
    return capture_of(photo.model_copy(update={"camera": camera}))
