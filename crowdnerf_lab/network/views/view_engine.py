"""Network inference: a UE asks for a view, the network renders and encodes it, in time or not at all.

`ViewEngine` renders from the catalogue in processes of its own, so that whoever calls it never computes. A view comes
from the cache, or from the render of somebody who asked for the same, or takes its turn. What would be late is rendered
smaller, and refused (`Busy`) when that does not help: no answer comes after its deadline. A new version is swapped in,
a withdrawn one left, and a process that dies replaced, while views go on being served.

`render_and_encode` does the same for one field, here and now.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.views.render_processes import RenderProcess, RenderProcesses
from crowdnerf_lab.network.views.served_fields import ServedFields
from crowdnerf_lab.network.views.view_cache import ViewCache, picture_key
from crowdnerf_lab.network.views.view_codecs import (
    MEDIA_TYPES,
    EncodedView,
    Format,
    check_encoding,
    decode_view,
    encode_picture,
)
from crowdnerf_lab.network.views.view_messages import Message
from crowdnerf_lab.network.views.view_policy import ViewLimits, ViewPolicy
from crowdnerf_lab.network.views.view_queue import MadeView, ViewQueue, ViewTimings
from crowdnerf_lab.network.views.view_request import MAX_PIXELS, Busy, NoModel, RenderError, ViewError, ViewRequest

if TYPE_CHECKING:
    from crowdnerf_lab.fields.field import RadianceField

__all__ = [
    "MAX_PIXELS",
    "MEDIA_TYPES",
    "Busy",
    "EncodedView",
    "Format",
    "NoModel",
    "RenderError",
    "ServedView",
    "ViewEngine",
    "ViewError",
    "ViewPolicy",
    "ViewRequest",
    "ViewStatistics",
    "ViewTimings",
    "decode_view",
    "render_and_encode",
]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedView:
    """An encoded view of a version of the event's models. cached: nothing was rendered or encoded for it; degraded:
    its width and height are smaller than asked for. timings: of whoever had it made; 0 from the cache."""

    content: bytes
    media_type: str
    width: int
    height: int
    version: int
    cached: bool
    degraded: bool
    timings: ViewTimings


@dataclass(frozen=True)
class ViewStatistics:
    """What an engine has done, and is at. served: views given out; of these cached, shared (made for somebody else who
    asked at the same time) and degraded (smaller than asked for). refused: would have been late. failed: see
    RenderError. restarts: of processes. waiting, rendering: pictures, now."""

    served: int
    cached: int
    shared: int
    degraded: int
    refused: int
    failed: int
    restarts: int
    waiting: int
    rendering: int
    processes: int
    cache_bytes: int


class ViewEngine:
    """Views of the events of a catalogue, rendered by processes. Belongs to the event loop that started it.

    streams: how many each viewer has open, by whatever tells viewers apart.
    """

    def __init__(self, catalogue: Catalogue, *, settings: ViewLimits, policy: ViewPolicy | None = None) -> None:
        self.settings, self.policy = settings, policy or ViewPolicy()
        self.streams: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._cache: ViewCache[MadeView] = ViewCache(self.policy.cache_bytes)
        self._processes = RenderProcesses(
            settings.view_processes,
            on_start=lambda _process: self._fields.assign(),
            on_message=self._on_message,
            on_end=self._on_end,
        )
        self._fields = ServedFields(catalogue, self._processes, most_events=self.policy.events)
        self._queue = ViewQueue(self._processes, self._fields, policy=self.policy)
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the processes, and have them load the fields of events that have versions; waits for neither."""
        await self._fields.follow_all()
        self._processes.start()
        self._keeper = asyncio.create_task(self._keep_current())

    async def close(self) -> None:
        """End the processes; whoever still waits is told to ask again."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._processes.close()
        self._queue.end_all(Busy("the service is stopping; ask again in a moment", retry_after_s=1.0))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the render processes that run now."""
        return tuple(process.pid for process in self._processes.alive)

    @property
    def ready(self) -> bool:
        """Whether processes run and hold the field of every event that has one."""
        return bool(self._processes.alive) and self._fields.ready

    @property
    def statistics(self) -> ViewStatistics:
        """Counts since the engine was made, and what is going on now."""
        names = ("served", "cached", "shared", "degraded", "refused", "failed")
        counts = {name: self._counts[name] for name in names}
        return ViewStatistics(
            **counts,
            restarts=self._processes.restarts,
            waiting=self._queue.waiting,
            rendering=self._queue.rendering,
            processes=len(self._processes.alive),
            cache_bytes=self._cache.bytes,
        )

    async def view(
        self,
        event: str,
        request: ViewRequest,
        *,
        format: Format = "webp",
        quality: int = 80,
        deadline_ms: float | None = None,
        at_most: float = 1.0,
    ) -> ServedView:
        """The view of an event's latest version, before the deadline (milliseconds from now).

        at_most: scale of width and height that is enough, as a moving camera may ask for. Raises ViewError for what
        nobody can render, NoModel without a version, Busy when it would be late, RenderError.
        """
        asked_ms = self.settings.view_deadline_ms if deadline_ms is None else deadline_ms
        if not asked_ms > 0:
            raise ViewError(f"a deadline of {asked_ms} ms; give more than 0")
        deadline = time.monotonic() + min(asked_ms, self.policy.longest_deadline_ms) / 1e3
        request.check(most_pixels=self.settings.max_view_pixels)
        check_encoding(format, quality, longest_side=max(request.width, request.height))
        try:
            made, how = await self._made(event, request, (format, quality), deadline, at_most)
        except Busy:
            self._counts["refused"] += 1
            raise
        except RenderError:
            self._counts["failed"] += 1
            raise
        degraded = (made.width, made.height) != (request.width, request.height)
        self._counts.update(["served", how, *(["degraded"] if degraded else [])])
        return ServedView(
            content=made.content,
            media_type=made.media_type,
            width=made.width,
            height=made.height,
            version=made.version,
            cached=how == "cached",
            degraded=degraded,
            timings=ViewTimings(0.0, 0.0, 0.0) if how == "cached" else made.timings,
        )

    async def _made(
        self, event: str, request: ViewRequest, encoding: tuple[Format, int], deadline: float, at_most: float
    ) -> tuple[MadeView, str]:
        """The view, and whether it was cached, shared or rendered."""
        source = await self._fields.awaited(event, deadline=deadline)
        scales = self.policy.scales_for(request, at_most=at_most)
        keys = [picture_key(source, request.scaled(scale), steps=self.policy.steps) for scale in scales]
        if (made := self._cache.get((keys[0], *encoding))) is not None:
            return made, "cached"
        if (job := self._queue.joined(keys[0], encoding, deadline=deadline)) is not None:
            return await self._queue.made(job, encoding, deadline=deadline), "shared"
        job = self._queue.submitted(
            keys[0], request, at_most=at_most, source=source, encoding=encoding, deadline=deadline
        )
        if job is not None:
            return await self._queue.made(job, encoding, deadline=deadline), "rendered"
        for key in keys[1:]:
            if (made := self._cache.get((key, *encoding))) is not None:
                return made, "cached"
        raise self._queue.busy()

    def _on_message(self, process: RenderProcess, message: Message) -> None:
        header = message.header
        if "rendered" in header:
            job, views = self._queue.on_rendered(process, header, message.body)
            key = picture_key(job.source, job.request, steps=self.policy.steps)
            for encoding, view in zip(job.encodings, views, strict=True):
                self._cache.put((key, *encoding), view)
        elif "refused" in header:
            self._queue.on_refused(process, header["refused"], reason=header["reason"])
        else:
            process.loading = None
            if "loaded" in header:
                process.loaded.add(header["loaded"])
                trial = {name: header[name] for name in ("seconds", "pixels", "ms")}
                self._fields.loaded(header["loaded"], **trial)
            else:
                self._fields.failed(header["failed"], reason=header["reason"])
        self._queue.dispatch()

    def _on_end(self, process: RenderProcess) -> None:
        self._queue.on_end(process)
        self._fields.assign()
        self._queue.dispatch()

    async def _keep_current(self) -> None:
        """Look at the catalogue and at the processes, again and again."""
        while True:
            await asyncio.sleep(self.policy.look_s)
            try:
                await self._fields.look()
                self._end_stuck()
                self._queue.dispatch()
            except Exception:
                log.exception("could not look after the render processes; the next look tries again")

    def _end_stuck(self) -> None:
        now = time.monotonic()
        for process in self._processes.alive:
            if process.jobs and now > process.free_at + self.policy.stuck_s:
                log.error("render process %d does not answer; it is replaced", process.pid)
                process.kill()


def render_and_encode(
    field: "RadianceField", request: ViewRequest, *, format: Format = "webp", quality: int = 80
) -> EncodedView:
    """Render the view of a request and encode it. quality: 1 (small) to 100 (good), the codec's own scale."""
    import torch

    from crowdnerf_lab.rendering import render_view

    check_encoding(format, quality)
    cameras = request.cameras()
    started = time.perf_counter()
    colour = render_view(field, cameras).colour
    rendered = time.perf_counter()
    picture = np.ascontiguousarray((colour * 255).round().to(torch.uint8).numpy())
    content = encode_picture(picture, format=format, quality=quality)
    encoded = time.perf_counter()
    return EncodedView(
        content=content,
        media_type=MEDIA_TYPES[format],
        width=request.width,
        height=request.height,
        render_ms=1e3 * (rendered - started),
        encode_ms=1e3 * (encoded - rendered),
    )
