"""UE: a phone, tablet or pair of glasses at an event, as a few awaitable calls. Needs httpx and websockets, no torch.

    async with UE("http://127.0.0.1:8000", event="concert", capability=capability, home=folder) as ue:
        await ue.join()
        await ue.upload("photo.jpg", capture=capture_of(photo))
        model = await ue.model()                      # the best that fits this UE, or None: the network's views
        view = await ue.view(pose, focal, centre, width=320, height=240)
        ue.circumstances(battery_wh=0.1)              # the next view comes from where that now is best

In a notebook `await` works at the top level; in a script, put the calls into a coroutine and `asyncio.run` it.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from crowdnerf_lab.catalogue.capability import Capability, CapabilityError
from crowdnerf_lab.catalogue.limits import Target, Task
from crowdnerf_lab.catalogue.select import FIELDS_OF_TRIGGER, Trigger
from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.files import inside
from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.ues.answers import (
    ContributionStatus,
    Joined,
    NetworkError,
    Offer,
    RefusedError,
    SelectAnswer,
    TokenEndedError,
    read_answer,
)
from crowdnerf_lab.network.ues.capability_here import capability_here
from crowdnerf_lab.network.ues.event_connection import EventConnection, Patience, http_client
from crowdnerf_lab.network.ues.freshness import Freshness
from crowdnerf_lab.network.ues.local_models import HeldModel, LocalModels
from crowdnerf_lab.network.ues.model_download import arriving_model, fetch_probes
from crowdnerf_lab.network.ues.network_views import view_over_http, views_over_websocket
from crowdnerf_lab.network.ues.path_choice import Choice, Hysteresis, PathChoice
from crowdnerf_lab.network.ues.shown_view import View, shown
from crowdnerf_lab.network.ues.uploading import CHUNK_BYTES, Uploaded, capture_of, upload_file
from crowdnerf_lab.network.views.view_codecs import Format
from crowdnerf_lab.network.views.view_request import ViewRequest

__all__ = ["UE", "NoViewError", "UESettings", "View", "capability_here", "capture_of"]

log = logging.getLogger(__name__)


class NoViewError(NetworkError):
    """Neither the device nor the network shows the view; the message says what is wrong with each."""


@dataclass(frozen=True)
class UESettings:
    """How a UE behaves. deadline_ms: of a view, and of a frame where the target sets no other time. threads: for its
    models. most_model_bytes: of a download, whatever the network says. poll_s: how long one question for a newer
    version may wait. chunk_bytes: of an upload. format, quality: of the network's views, the codec's own scale.
    """

    deadline_ms: float = 1000.0
    threads: int = 1
    most_model_bytes: int = 256 << 20
    poll_s: float = 20.0
    chunk_bytes: int = CHUNK_BYTES
    format: Format = "webp"
    quality: int = 80
    patience: Patience = field(default_factory=Patience)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)


class UE:
    """One UE at one event. home: the folder of its token and models; None: a temporary one that ends with it.

    target, task: what its models and views must do. client: shared by many UEs; None: its own. keep_fresh: once it has
    asked for a model, follow the event's newer versions in the background.

    `reason` says why its models come from where they do; `arrival`: milliseconds from asking for the last model until
    each stage was reached: select, first layer, first model, whole, model.
    """

    def __init__(
        self,
        url: str,
        *,
        event: str = "concert",
        capability: Capability | None = None,
        home: Path | None = None,
        target: Target | None = None,
        task: Task = "novel_view",
        settings: UESettings | None = None,
        client: httpx.AsyncClient | None = None,
        keep_fresh: bool = True,
    ) -> None:
        self.settings, self.target, self.task = settings or UESettings(), target or Target(), task
        self.capability = capability or capability_here()
        self._temporary = tempfile.TemporaryDirectory(prefix="ue.") if home is None else None
        folder = inside(Path(self._temporary.name if self._temporary else home or "."), event)
        self._client, self._owns_client = client or http_client(), client is None
        self.connection = EventConnection(url, event=event, client=self._client, identity=folder / "identity.json")
        self._local = LocalModels(folder / "models", threads=self.settings.threads)
        budget_ms = self.target.max_ms or self.settings.deadline_ms
        self._paths = PathChoice(self.target, budget_ms=budget_ms, task=task, hysteresis=self.settings.hysteresis)
        self._arriving: tuple[HeldModel, LocalModel] | None = None
        self._updating = asyncio.Lock()
        self._keep_fresh = keep_fresh
        self._freshness = Freshness(
            self.connection, self.refresh, poll_s=self.settings.poll_s, patience=self.settings.patience
        )
        self.reason = "no model was asked for yet"
        self.arrival: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what runs in the background, close the connections, and give the models' memory back."""
        await self._freshness.close()
        self._local.unload()
        if self._owns_client:
            await self._client.aclose()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def name(self) -> str | None:
        """The pseudonym under which this UE has joined; None before."""
        return self.connection.ue

    @property
    def version(self) -> int | None:
        """The newest version of which this UE holds a model."""
        held = self._local.held
        return held[0].version if held else None

    @property
    def bytes_received(self) -> int:
        """Over the air, without the headers."""
        return self.connection.bytes_received

    async def join(
        self,
        *,
        join_code: str | None = None,
        device: str = "crowdnerf_lab UE",
        train: bool = True,
        publish: bool = True,
        licence: str = "CC-BY-4.0",
        anew: bool = False,
    ) -> Joined:
        """Join the event under a pseudonym, or take up the one of before. train, publish: the consent to use photos.

        Raises TokenEndedError when the event ended the token of before; `anew=True` asks for a new pseudonym then.
        """
        document: dict[str, Any] = {
            "device": device,
            "operating_system": self.capability.operating_system,
            "consent": {"train": train, "publish": publish},
            "licence": licence,
        }
        if join_code is not None:
            document["join_code"] = join_code
        try:
            return await self.connection.join(document, anew=anew)
        except TokenEndedError as error:
            raise TokenEndedError(f"{error}: `await ue.join(anew=True)`", status=error.status) from error

    async def leave(self) -> None:
        """Leave the event: the token ends, what was contributed stays."""
        await self.connection.leave()

    async def upload(self, path: Path | str, *, capture: Mapping[str, Any]) -> ContributionStatus:
        """Upload a photo or clip, resumed however often it breaks off, and its status once the network has all of it.

        capture: when, where and how it was taken, as `capture_of` makes it of a bundle's photo; time_s at least.
        """
        uploaded = await self.send(path, capture=capture)
        return await self.status(uploaded.id)

    async def send(self, path: Path | str, *, capture: Mapping[str, Any]) -> Uploaded:
        """As `upload`, but says how the upload went instead of asking for its status."""
        return await upload_file(
            self.connection,
            Path(path),
            capture=capture,
            chunk_bytes=self.settings.chunk_bytes,
            patience=self.settings.patience,
        )

    async def status(self, id: str) -> ContributionStatus:
        """What became of a contribution."""
        asked = f"the status of contribution {id}"
        answer = await self.connection.ask("GET", self.connection.path("contributions", id), asked=asked)
        return read_answer(ContributionStatus, answer.content, asked=asked)

    async def forget_me(self) -> None:
        """Have the event forget all that this UE contributed, and what was learned from it."""
        await self.connection.ask(
            "DELETE", self.connection.path("contributions"), asked="having all contributions forgotten"
        )

    async def model(self, *, probes: bool = False) -> LocalModel | None:
        """The event's best model for this UE as it is, fetched where it is not here yet, verified and loaded.

        None: views come from the network, `reason` says why. probes: also fetch the pictures to measure it again by.
        """
        loaded = None
        async for loaded in self.models_as_they_arrive(probes=probes):  # noqa: B007  the last one is whole
            pass
        return loaded

    async def models_as_they_arrive(self, *, most: int = 1, probes: bool = False) -> AsyncGenerator[LocalModel, None]:
        """As `model`, but of a progressive file also what its first layers show, while the rest arrives.

        most: models of a set; with two, a small one comes first when the best takes long to arrive.
        """
        async with self._updating:
            arrival, asked = {}, time.perf_counter()

            def note(stage: str) -> None:
                arrival.setdefault(stage, 1e3 * (time.perf_counter() - asked))

            self.arrival = arrival
            answer = await self.select(most=most)
            note("select")
            self.reason, self._freshness.considered = answer.reason, answer.version
            if self._keep_fresh:
                self._freshness.start()
            if not answer.artefacts or answer.version is None:
                return
            try:
                for offer in answer.artefacts[:most]:
                    async with aclosing(self._arriving_model(offer, answer.version, note)) as arriving:
                        async for loaded in arriving:
                            yield loaded
                    if probes and (held := self._local.find(answer.version, offer.name)):
                        await fetch_probes(self.connection, offer, model=held, local=self._local)
            except (NetworkError, ArtefactError):
                self._freshness.considered = None  # what did not arrive is still news
                raise
            finally:
                self._arriving = None
            for withdrawn in [held for held in self._local.held if held.version > answer.version]:
                self._local.drop(withdrawn)
            self._paths.forget_models()

    async def _arriving_model(
        self, offer: Offer, version: int, note: Callable[[str], None]
    ) -> AsyncGenerator[LocalModel, None]:
        """One offered model, in `view`'s reach as soon as it shows something."""
        arriving = arriving_model(
            self.connection,
            offer,
            version=version,
            local=self._local,
            memory=self.capability.memory_mb,
            most_bytes=self.settings.most_model_bytes,
            patience=self.settings.patience,
            note=note,
        )
        async with aclosing(arriving):
            async for held, loaded in arriving:
                note("model" if loaded.complete else "first model")
                self._arriving = (held, loaded)
                yield loaded

    async def select(self, *, most: int = 1) -> SelectAnswer:
        """Ask the network which model, or which set of so many at most, fits this UE as it is now."""
        document = {
            "capability": self.capability.model_dump(mode="json", exclude_none=True),
            "target": {name: value for name, value in asdict(self.target).items() if value is not None},
            "task": self.task,
            "held": [{"version": held.version, "name": held.name} for held in self._local.held],
            "most": most,
        }
        asked = "selecting a model"
        answer = await self.connection.ask(
            "POST", self.connection.path("models:select"), document=document, asked=asked
        )
        return read_answer(SelectAnswer, answer.content, asked=asked)

    async def refresh(self) -> bool:
        """Fetch what the event now has for this UE, as a delta where that is smaller. Whether anything changed."""
        before = [(held.version, held.name) for held in self._local.held[:1]]
        await self.model()
        return [(held.version, held.name) for held in self._local.held[:1]] != before

    def circumstances(
        self,
        *,
        battery_wh: float | None = None,
        battery_hours: float | None = None,
        power_w: float | None = None,
        memory_mb: float | None = None,
        busy: float | None = None,
        relative_speed: float | None = None,
        link_mbit_s: float | None = None,
        rtt_ms: float | None = None,
        position: tuple[float, float, float] | None = None,
    ) -> tuple[Trigger, ...]:
        """Say what has changed about this UE, as `Capability` describes it; None is no change.

        The next view comes from where that is best now, and a model that fits better is looked for in the background.
        Returns which of place, energy, processor and memory changed.
        """
        said = {
            "battery_wh": battery_wh,
            "battery_hours": battery_hours,
            "power_w": power_w,
            "memory_mb": memory_mb,
            "busy": busy,
            "relative_speed": relative_speed,
            "link_mbit_s": link_mbit_s,
            "rtt_ms": rtt_ms,
            "position": position,
        }
        before = self.capability
        document = before.model_dump() | {name: value for name, value in said.items() if value is not None}
        try:
            self.capability = Capability.model_validate(document)
        except ValidationError as error:
            raise CapabilityError(f"circumstances: {first_finding(error)}") from error
        changed: tuple[Trigger, ...] = tuple(
            trigger
            for trigger, names in FIELDS_OF_TRIGGER.items()
            if any(getattr(before, name) != getattr(self.capability, name) for name in names)
        )
        if changed:
            self._freshness.circumstances_changed()
        return changed

    async def view(
        self,
        camera_to_world: ArrayLike,
        focal: tuple[float, float],
        centre: tuple[float, float],
        *,
        width: int,
        height: int,
    ) -> View:
        """The view of an ideal camera (OpenCV axes, metres; focal and centre in pixels of width x height).

        Rendered here when a model is here that fits and keeps its frame time, else by the network; whichever fails, the
        other one is asked. Raises NoViewError when neither has an answer, ViewError for a camera that cannot be.
        """
        request = ViewRequest(
            np.asarray(camera_to_world, np.float32),
            (float(focal[0]), float(focal[1])),
            (float(centre[0]), float(centre[1])),
            width,
            height,
        )
        request.check()
        choice = self._choice()
        if choice.path == "network":
            try:
                return await self._network_view(request, choice)
            except NetworkError as error:
                if isinstance(error, TokenEndedError):
                    self.reason = str(error)
                return await self._instead_of_the_network(request, error, choice)
        try:
            return await self._device_view(request, choice)
        except ArtefactError as error:
            self._paths.device_failed(now=time.monotonic())
            log.warning("%s", error)
            try:
                return await self._network_view(request, Choice("network", None, f"the device fails ({error})"))
            except NetworkError as network_error:
                raise NoViewError(
                    f"no view: the device fails ({error}), and so does the network ({network_error})"
                ) from network_error

    async def views_along(
        self,
        poses: Iterable[ArrayLike] | AsyncIterator[ArrayLike],
        focal: tuple[float, float],
        centre: tuple[float, float],
        *,
        width: int,
        height: int,
        frames_per_s: float = 30.0,
    ) -> AsyncGenerator[View, None]:
        """The network's views of a moving camera, in order; poses that it is too late for are left out and counted."""

        def request(pose: ArrayLike) -> ViewRequest:
            made = ViewRequest(np.asarray(pose, np.float32), focal, centre, width, height)
            made.check()
            return made

        async def later(moving: AsyncIterator[ArrayLike]) -> AsyncIterator[ViewRequest]:
            async for pose in moving:
                yield request(pose)

        size = (width, height)
        requests = later(poses) if isinstance(poses, AsyncIterator) else (request(pose) for pose in poses)
        views = views_over_websocket(
            self.connection,
            requests,
            frames_per_s=frames_per_s,
            format=self.settings.format,
            quality=self.settings.quality,
        )
        async with aclosing(views):
            async for sent in views:
                total_ms = sent.milliseconds["request"] + sent.milliseconds["decode"]
                yield shown(sent, size, reason="a stream of views was asked for", total_ms=total_ms)

    def _choice(self) -> Choice:
        """Where the next view should come from. While a model arrives, its first layers may do."""
        held = [each.artefact for each in self._usable()]
        return self._paths.choose(held, self.capability, now=time.monotonic())

    def _usable(self) -> list[HeldModel]:
        """Models of the newest version that is here whole; else the one whose first layers are here."""
        held = self._local.held
        if held:
            return [each for each in held if each.version == held[0].version]
        return [self._arriving[0]] if self._arriving else []

    async def _device_view(self, request: ViewRequest, choice: Choice) -> View:
        held = next(each for each in self._usable() if each.artefact is choice.artefact)
        started = time.perf_counter()
        model = await self._loaded(held)
        loaded = time.perf_counter()
        try:
            picture = await asyncio.to_thread(
                model.render,
                request.pose,
                request.focal,
                request.centre,
                width=request.width,
                height=request.height,
            )
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise ArtefactError(f"{held.name} cannot be run here ({error}); fetch it again") from error
        ended = time.perf_counter()
        render_ms, load_ms = 1e3 * (ended - loaded), 1e3 * (loaded - started)
        self._paths.device_took(render_ms, now=time.monotonic())
        return View(
            picture=picture,
            path="device",
            reason=choice.reason,
            version=held.version,
            milliseconds={"load": load_ms, "render": render_ms, "total": load_ms + render_ms},
            rendered=(model.width, model.height),
            because=choice.because,
        )

    async def _loaded(self, held: HeldModel) -> LocalModel:
        if self._arriving is not None and self._arriving[0] is held:
            return self._arriving[1]
        return await self._local.load(held, memory=self.capability.memory_mb)

    async def _network_view(self, request: ViewRequest, choice: Choice) -> View:
        self._local.fit_into(self.capability.memory_mb)
        started = time.perf_counter()
        try:
            sent = await view_over_http(
                self.connection,
                request,
                format=self.settings.format,
                quality=self.settings.quality,
                deadline_ms=self.settings.deadline_ms,
            )
        except NetworkError as error:
            wait_s = error.retry_after_s if isinstance(error, RefusedError) else None
            self._paths.network_failed(str(error), now=time.monotonic(), retry_after_s=wait_s)
            raise
        self._paths.network_answered()
        total_ms = 1e3 * (time.perf_counter() - started)
        return shown(
            sent, (request.width, request.height), reason=choice.reason, total_ms=total_ms, because=choice.because
        )

    async def _instead_of_the_network(self, request: ViewRequest, error: NetworkError, before: Choice) -> View:
        """The device's view when the network has none to give."""
        choice = self._choice()
        if choice.path == "network":
            here = "the device: " + before.reason
            raise NoViewError(f"no view: {error}; and {here}") from error
        try:
            return await self._device_view(request, choice)
        except ArtefactError as device_error:
            raise NoViewError(f"no view: {error}; and the device fails too ({device_error})") from error
