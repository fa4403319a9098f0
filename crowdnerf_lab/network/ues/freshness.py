"""Freshness: a task in the background that keeps a UE on the best model that the event has for it as it is now."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.network.ues.answers import LatestVersion, NetworkError, RefusedError, TokenEndedError, read_answer
from crowdnerf_lab.network.ues.event_connection import EventConnection, Patience

log = logging.getLogger(__name__)

LEAST_PAUSE_S = 0.1
"""Between two questions for a newer version, however quickly the network answers them."""


class Freshness:
    """Calls `refresh` whenever the event's newest version is another one than before, or the UE's circumstances change.

    poll_s: how long one question for a newer version may wait for its answer. considered: the version of which the UE
    last knew; None: of none.
    """

    def __init__(
        self,
        connection: EventConnection,
        refresh: Callable[[], Awaitable[object]],
        *,
        poll_s: float,
        patience: Patience,
    ) -> None:
        self.considered: int | None = None
        self._connection, self._refresh, self._poll_s, self._patience = connection, refresh, poll_s, patience
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, once."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name=f"freshness of {self._connection.ue}")

    def circumstances_changed(self) -> None:
        """Have another model looked for: this UE is no longer what it was."""
        self._changed.set()

    async def close(self) -> None:
        """End, and wait until it has."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if await self._news():
                    await self._refresh()
                failures = 0
                await asyncio.sleep(LEAST_PAUSE_S)
            except TokenEndedError as error:
                log.warning("models are followed no longer: %s", error)
                return
            except (NetworkError, ArtefactError, OSError) as error:
                failures += 1
                wait_s = error.retry_after_s if isinstance(error, RefusedError) else None
                log.info("%s", error)
                await asyncio.sleep(max(LEAST_PAUSE_S, self._patience.pause_s(failures, retry_after_s=wait_s)))

    async def _news(self) -> bool:
        """Wait for a reason to look for another model: True when there is one."""
        asking = asyncio.create_task(self._newest_version())
        changing = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({asking, changing}, return_when=asyncio.FIRST_COMPLETED)
            if changing.done():
                self._changed.clear()
                return True
            newest, before = asking.result(), self.considered
            self.considered = newest or before
            return newest is not None and newest != before
        finally:
            asking.cancel()
            changing.cancel()
            await asyncio.gather(asking, changing, return_exceptions=True)

    async def _newest_version(self) -> int | None:
        """The event's newest version, as soon as that is not the one considered: a newer one, or an older one when that
        was withdrawn. None: nothing new within the time of one question."""
        asked, since = "waiting for a newer version", self.considered or 0
        address = self._connection.path("versions", "latest") + f"?newer_than={since}&wait_s={self._poll_s:g}"
        answer = await self._connection.ask("GET", address, asked=asked, timeout_s=self._poll_s + 10)
        return read_answer(LatestVersion, answer.content, asked=asked).version if answer.status == 200 else None
