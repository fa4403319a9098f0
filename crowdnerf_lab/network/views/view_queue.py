"""The queue before the render processes: who asks for the same shares; what would be late, or would make somebody
behind it late, is rendered smaller.

First come, first served. A view is taken in when it can be in time with all before it as small as they may become, so
that nobody is refused while others are shown at their best; how large it is rendered is decided when its turn comes.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crowdnerf_lab.network.views.render_processes import RenderProcess, RenderProcesses
from crowdnerf_lab.network.views.served_fields import ServedField, ServedFields
from crowdnerf_lab.network.views.view_cache import PictureKey
from crowdnerf_lab.network.views.view_codecs import MEDIA_TYPES, Format
from crowdnerf_lab.network.views.view_policy import ViewPolicy
from crowdnerf_lab.network.views.view_request import Busy, RenderError, ViewRequest
from crowdnerf_lab.network.views.view_schedule import finish_times

log = logging.getLogger(__name__)

Encoding = tuple[Format, int]
"""Format and quality."""
ATTEMPTS = 2
"""How often a view is rendered whose process dies: one that ends every process must not end them all."""
LONGEST_RETRY_S = 30.0
THREAD_GAIN = 0.7
"""What another thread adds to the speed of one, of a view that is alone."""


@dataclass(frozen=True)
class ViewTimings:
    """Milliseconds that a view waited, was rendered and was encoded."""

    queue: float
    render: float
    encode: float


@dataclass(frozen=True)
class MadeView:
    """An encoded view as it was made, of a version of its event's models."""

    content: bytes
    media_type: str
    width: int
    height: int
    version: int
    timings: ViewTimings


@dataclass(eq=False)
class Job:
    """A picture to be rendered, its encodings, and how many wait for it. Times are monotonic seconds.

    asked: what was asked for; sizes: pixels at each scale that it may have, the largest first; scale: at which it is
    rendered. deadline: of whoever waits the least; due: when it is ready at its smallest, as predicted at first.
    source: the field that it is rendered from, once it is.
    """

    number: int
    event: str
    key: PictureKey
    asked: ViewRequest
    sizes: dict[float, int]
    submitted: float
    deadline: float
    due: float
    encodings: dict[Encoding, "asyncio.Future[MadeView]"] = field(default_factory=dict)
    waiting: int = 0
    attempts: int = 0
    source: ServedField | None = None
    scale: float = 1.0
    started: float = 0.0

    @property
    def request(self) -> ViewRequest:
        """What is rendered."""
        return self.asked.scaled(self.scale)


class ViewQueue:
    """Jobs that wait and jobs that are rendered, on processes that hold the fields."""

    def __init__(self, processes: RenderProcesses, fields: ServedFields, *, policy: ViewPolicy) -> None:
        self._processes, self._fields, self._policy = processes, fields, policy
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._number = 0
        self._by_key: dict[PictureKey, Job] = {}
        self._waiting: list[Job] = []
        self._running: dict[int, Job] = {}

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return len(self._waiting)

    @property
    def rendering(self) -> int:
        """Pictures that processes are at."""
        return len(self._running)

    def joined(self, key: PictureKey, encoding: Encoding, *, deadline: float) -> Job | None:
        """A job that makes this very picture in time; the caller waits for it with `made`."""
        job = self._by_key.get(key)
        if job is None or job.due > deadline:
            return None
        if encoding not in job.encodings:
            if job.number in self._running:
                return None
            job.encodings[encoding] = _future()
        job.deadline = min(job.deadline, deadline)
        job.waiting += 1
        return job

    def submitted(
        self,
        key: PictureKey,
        asked: ViewRequest,
        *,
        at_most: float,
        source: ServedField,
        encoding: Encoding,
        deadline: float,
    ) -> Job | None:
        """A new job, or None when it would be late however small; the caller waits for it with `made`.

        Where nobody else asks it is tried even so: what is never tried is never learned to be faster.
        """
        now = time.monotonic()
        sizes = {scale: pixels_of(asked, scale) for scale in self._policy.scales_for(asked, at_most=at_most)}
        job = Job(self._number, source.event, key, asked, sizes, submitted=now, deadline=deadline, due=now)
        own_ms = self._fields.times[source.key].predicted_ms(min(sizes.values()))
        job.due += finish_times(self._free_ms(source.key), [*self._least_work_ms(self._waiting), own_ms])[-1] / 1e3
        if job.due > deadline and (self._waiting or self._running):
            return None
        self._number += 1
        job.encodings[encoding] = _future()
        job.waiting = 1
        self._by_key[key] = job
        self._waiting.append(job)
        self.dispatch()
        return job

    async def made(self, job: Job, encoding: Encoding, *, deadline: float) -> MadeView:
        """What a job makes. Raises Busy at the deadline."""
        try:
            future = asyncio.shield(job.encodings[encoding])
            return await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise self.busy() from None
        finally:
            job.waiting -= 1

    def busy(self) -> Busy:
        """That too much is asked for, and until when."""
        drained_ms = finish_times(self._free_ms(None), [*self._least_work_ms(self._waiting), 0.0])[-1]
        return Busy(
            "more views are asked for than can be rendered in time; ask again later, or for fewer pixels",
            retry_after_s=min(LONGEST_RETRY_S, max(0.1, drained_ms / 1e3)),
        )

    def dispatch(self) -> None:
        """Give idle processes what waits: one picture, or as many small ones as a batch may take."""
        for process in self._processes.alive:
            if not process.jobs and self._waiting and (batch := self._batch_for(process)):
                self._render(process, batch)

    def on_rendered(self, process: RenderProcess, header: Mapping[str, Any], body: bytes) -> tuple[Job, list[MadeView]]:
        """Give out what a process has rendered; returns the job and its views, in the order of its encodings."""
        process.jobs.discard(header["rendered"])
        job = self._running.pop(header["rendered"])
        self._forget(job)
        source, request = job.source, job.request
        assert source is not None
        if source.key in self._fields.times:
            alone_ms = header["render_ms"] * (1 + THREAD_GAIN * (header["threads"] - 1))
            ms = alone_ms + sum(header["encode_ms"])
            self._fields.times[source.key].learn(pixels=request.width * request.height, ms=ms)
        views, end = [], 0
        for (encoding, future), size, encode_ms in zip(
            job.encodings.items(), header["bytes"], header["encode_ms"], strict=True
        ):
            end += size
            view = MadeView(
                content=body[end - size : end],
                media_type=MEDIA_TYPES[encoding[0]],
                width=request.width,
                height=request.height,
                version=source.version,
                timings=ViewTimings(1e3 * (job.started - job.submitted), header["render_ms"], encode_ms),
            )
            views.append(view)
            if not future.done():
                future.set_result(view)
        return job, views

    def on_refused(self, process: RenderProcess, number: int, *, reason: str) -> None:
        """A process cannot render a view that was checked: too little memory, or a mistake of ours."""
        process.jobs.discard(number)
        log.error("a view could not be rendered: %s", reason)
        self._fail(self._running.pop(number), RenderError("the view could not be rendered; ask for fewer pixels"))

    def on_end(self, process: RenderProcess) -> None:
        """A process is gone: what it was rendering is rendered again, before what waits."""
        lost = [self._running.pop(number) for number in sorted(process.jobs)]
        process.jobs.clear()
        for job in reversed(lost):
            job.attempts += 1
            if job.attempts < ATTEMPTS:
                self._waiting.insert(0, job)
            else:
                log.error("a view of %s ended %d render processes: %s", job.event, ATTEMPTS, job.request)
                self._fail(job, RenderError("the view could not be rendered; ask for another one"))

    def end_all(self, error: Exception) -> None:
        """Tell all who wait."""
        for job in [*self._waiting, *self._running.values()]:
            self._fail(job, error)
        self._waiting.clear()
        self._running.clear()

    def _free_ms(self, key: str | None) -> list[float]:
        """Milliseconds until each process that holds a field (None: any process) is idle."""
        now = time.monotonic()
        able = [each for each in self._processes.alive if key is None or key in each.loaded]
        # Without a process the first one will be back after it has loaded the field again.
        return [1e3 * (each.free_at - now) for each in able] or [1e3 * self._fields.loading_s]

    def _least_work_ms(self, jobs: Sequence[Job]) -> list[float]:
        """What jobs are expected to take when each is rendered as small as it may be."""
        sources = [self._fields.current(job.event) for job in jobs]
        return [
            0.0 if source is None else self._fields.times[source.key].expected_ms(min(job.sizes.values()))
            for job, source in zip(jobs, sources, strict=True)
        ]

    def _expected_ms(self, job: Job, source: ServedField, scale: float) -> float:
        return self._fields.times[source.key].expected_ms(job.sizes[scale])

    def _batch_for(self, process: RenderProcess) -> list[Job]:
        """Jobs of one field, out of the queue, for a process: several only where others wait and they are small."""
        batch: list[Job] = []
        planned_ms = 0.0
        for job in tuple(self._waiting):
            source = self._fields.current(job.event)
            if source is None or source.key not in process.loaded or (batch and source != batch[0].source):
                continue
            scale = self._scale_in_time(job, source)
            if scale is None or job.waiting == 0:
                self._waiting.remove(job)
                self._fail(job, self.busy())
                continue
            planned_ms += self._expected_ms(job, source, scale)
            if batch and planned_ms > self._policy.batch_ms:
                break
            self._waiting.remove(job)
            job.source, job.scale = source, scale
            batch.append(job)
            if len(self._waiting) < sum(not each.jobs for each in self._processes.alive):
                break  # the other processes are idle
        return batch

    def _scale_in_time(self, job: Job, source: ServedField) -> float | None:
        """The largest scale at which a job, and with it all behind it, is in time; None when it is late anyway."""
        now, scales = time.monotonic(), list(job.sizes)
        behind = self._waiting[self._waiting.index(job) + 1 :]
        least_ms = self._expected_ms(job, source, scales[-1])
        finished = finish_times(self._free_ms(source.key), [least_ms, *self._least_work_ms(behind)])[1:]
        slack_ms = min((1e3 * (b.deadline - now) - ms for b, ms in zip(behind, finished, strict=True)), default=1e9)
        for scale in scales:
            own_ms = self._fields.times[source.key].predicted_ms(job.sizes[scale])
            more_ms = self._expected_ms(job, source, scale) - least_ms
            if own_ms <= 1e3 * (job.deadline - now) and more_ms <= max(slack_ms, 0.0):
                return scale
        alone = not behind and not self._running
        return scales[-1] if alone and job.deadline > now else None

    def _render(self, process: RenderProcess, batch: list[Job]) -> None:
        """Tell a process to render, on its share of the cores: a view that is alone takes them all."""
        source, now = batch[0].source, time.monotonic()
        assert source is not None
        wanted = 1 + sum(bool(each.jobs) for each in self._processes.alive) + len(self._waiting)
        threads = max(1, self._cores // min(wanted, len(self._processes.alive)))
        for job in batch:
            job.started = now
            self._running[job.number] = job
            process.jobs.add(job.number)
        process.free_at = now + sum(self._expected_ms(job, source, job.scale) for job in batch) / 1e3
        views = [_described(job) for job in batch]
        process.send(do="render", field=source.key, threads=threads, views=views)

    def _forget(self, job: Job) -> None:
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _fail(self, job: Job, error: Exception) -> None:
        self._forget(job)
        for future in job.encodings.values():
            if not future.done():
                future.set_exception(error)


def pixels_of(request: ViewRequest, scale: float) -> int:
    """Pixels of a view at a scale of its width and height."""
    sized = request.scaled(scale)
    return sized.width * sized.height


def _described(job: Job) -> dict[str, Any]:
    """A job as its render process is told of it."""
    request = job.request
    return {
        "id": job.number,
        "pose": request.pose.ravel().tolist(),
        "focal": request.focal,
        "centre": request.centre,
        "width": request.width,
        "height": request.height,
        "encodings": list(job.encodings),
    }


def _future() -> "asyncio.Future[MadeView]":
    """A future whose error nobody has to fetch."""
    future: asyncio.Future[MadeView] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
