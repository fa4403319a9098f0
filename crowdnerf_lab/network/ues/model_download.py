"""From an offer of the network to a model that renders: by a delta where one leads there, else layer by layer."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path

from crowdnerf_lab.catalogue.verification import ArtefactError
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.ues.answers import NetworkError, Offer, TokenEndedError, UntrustedAnswerError
from crowdnerf_lab.network.ues.download import fetch
from crowdnerf_lab.network.ues.event_connection import EventConnection, Patience
from crowdnerf_lab.network.ues.local_models import HeldModel, LocalModels

log = logging.getLogger(__name__)


async def arriving_model(
    connection: EventConnection,
    offer: Offer,
    *,
    version: int,
    local: LocalModels,
    memory: float,
    most_bytes: int,
    patience: Patience,
    note: Callable[[str], None] = lambda _stage: None,
) -> AsyncGenerator[tuple[HeldModel, LocalModel], None]:
    """The offered model, loaded: first as soon as a progressive file's first layers are here, at last whole.

    note: called as each stage ends: "first layer" (is here), "whole" (file is here). When the consumer stops early,
    what has arrived stays for the next attempt. Raises NetworkError, ArtefactError.
    """
    if offer.model.bytes > most_bytes:
        raise UntrustedAnswerError(
            f"{offer.name} has {offer.model.bytes} bytes, this UE takes {most_bytes}; raise its most_model_bytes"
        )
    here = local.find(version, offer.name)
    if here is not None and here.card == offer.card and (ready := await _still_good(here, local, memory)):
        yield here, ready
        return
    model = local.expect(offer, version=version)
    path = await _by_delta(connection, offer, local)
    if path is None and offer.card.layers and not local.store.holds(offer.model.sha256, size=offer.model.bytes):
        async with aclosing(_in_layers(connection, offer, model, local, memory, patience, note)) as layers:
            async for loaded in layers:
                yield model, loaded
    if path is None:
        path = await _whole(connection, offer, local, patience)
    note("whole")
    kept = local.keep(model, path)
    yield kept, await local.load(kept, memory=memory)


async def _still_good(model: HeldModel, local: LocalModels, memory: float) -> LocalModel | None:
    """A model that is here; None when its file was damaged on the UE's disk, and is gone."""
    try:
        return await local.load(model, memory=memory)
    except ArtefactError as error:
        log.warning("%s", error)
        return None


async def fetch_probes(connection: EventConnection, offer: Offer, *, model: HeldModel, local: LocalModels) -> None:
    """The other files of an artefact: the views by which a receiver measures it again."""
    for file in offer.files:
        if file.path != offer.card.model:
            path = await fetch(connection, file.href, size=file.bytes, sha256=file.sha256, store=local.store)
            local.link(model, path, file=file.path)


async def _whole(connection: EventConnection, offer: Offer, local: LocalModels, patience: Patience) -> Path:
    file = offer.model
    return await fetch(connection, file.href, size=file.bytes, sha256=file.sha256, store=local.store, patience=patience)


async def _by_delta(connection: EventConnection, offer: Offer, local: LocalModels) -> Path | None:
    """The model file made of the one held and a delta; None when there is none to be had, or it does not verify."""
    delta, file = offer.delta, offer.model
    old = None if delta is None else local.find(delta.since, offer.name)
    if delta is None or old is None or delta.bytes >= file.bytes:
        return None
    from crowdnerf_lab.catalogue.delta import DeltaError, apply_delta

    asked = f"downloading the delta of {offer.name} from version {delta.since}"
    try:
        answer = await connection.ask("GET", connection.link(delta.href), asked=asked, most_bytes=delta.bytes)
        before = await asyncio.to_thread(old.artefact.model.read_bytes)
        content = await asyncio.to_thread(apply_delta, before, answer.content, name=offer.name)
        if len(content) != file.bytes or sha256(content).hexdigest() != file.sha256:
            raise DeltaError(f"{asked}: it makes another file than the card announces")
    except TokenEndedError:
        raise
    except (NetworkError, DeltaError) as error:
        log.warning("%s; the whole file instead", error)
        return None
    return await asyncio.to_thread(local.store.add, content, sha256=file.sha256)


async def _in_layers(
    connection: EventConnection,
    offer: Offer,
    model: HeldModel,
    local: LocalModels,
    memory: float,
    patience: Patience,
    note: Callable[[str], None],
) -> AsyncGenerator[LocalModel, None]:
    """What the layers show that are here, each time that more could be shown, until the file is whole."""
    ends, file = [layer.bytes for layer in offer.card.layers], offer.model
    size, news = 0, asyncio.Event()

    def arrived(total: int) -> None:
        nonlocal size
        if size < ends[0] <= total:
            note("first layer")
        size = total
        news.set()

    download = asyncio.create_task(
        fetch(
            connection,
            file.href,
            size=file.bytes,
            sha256=file.sha256,
            store=local.store,
            begun=lambda path: local.link(model, path),
            arrived=arrived,
            patience=patience,
        )
    )
    download.add_done_callback(lambda _task: news.set())
    shown = 0
    try:
        while not download.done():
            await news.wait()
            news.clear()
            here = sum(1 for end in ends if end <= size)
            if here > shown and not download.done():
                try:
                    loaded = await local.load(model, memory=memory, partial=True)
                except ArtefactError as error:  # a damaged layer: the whole file's checksum decides
                    log.warning("%s", error)
                else:
                    yield loaded
                shown = here
        await download
    finally:
        download.cancel()
        await asyncio.gather(download, return_exceptions=True)
