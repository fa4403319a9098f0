"""What of an event's latest version goes on the air: deltas from the version before, first layers, whole models."""

import asyncio
import time
from dataclasses import dataclass

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError, Version
from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.delivery.objects import BroadcastSession, Kind, describe
from crowdnerf_lab.network.models.deltas import MEDIA_TYPE, Deltas
from crowdnerf_lab.network.models.downloads import StoredFile

DELTAS_S = 5.0
"""How long a new version waits for its deltas before it goes on the air without those that are not made yet."""
FIRST, THEN = 0, 1
"""Priorities on the carousel."""


@dataclass(frozen=True)
class OnAir:
    """One event's carousel: the version it carries, and the objects with their sessions."""

    version: int
    objects: tuple[tuple[BroadcastSession, bytes], ...]


def objects_of(catalogue: Catalogue, event: str, settings: BroadcastSettings) -> OnAir | None:
    """The latest version's models as a carousel: first layers of progressive ones first, small models before large."""
    latest = _latest(catalogue, event)
    if latest is None:
        return None
    objects: list[tuple[BroadcastSession, bytes]] = []
    left = settings.most_bytes
    for artefact in _smallest_first(catalogue, latest):
        content = artefact.model.read_bytes()
        if len(content) > left:
            break
        left -= len(content)
        objects += _with_layers(artefact, content, latest, settings)
    return OnAir(latest.number, tuple(objects))


async def deltas_of(
    catalogue: Catalogue, event: str, settings: BroadcastSettings, deltas: Deltas
) -> tuple[tuple[BroadcastSession, bytes], ...]:
    """What leads from the version before to the latest one, for the UEs that have been here longer, where that pays."""
    steps, begun = await asyncio.to_thread(_steps, catalogue, event), time.monotonic()
    objects: list[tuple[BroadcastSession, bytes]] = []
    for latest, before, name, old, new in steps:
        left = DELTAS_S - (time.monotonic() - begun)
        if left <= 0:
            break
        delta = await deltas.between(old, new, wait_s=left)
        if delta is not None:
            content = await asyncio.to_thread(delta.path.read_bytes)
            session = _described(
                content,
                latest,
                settings,
                kind="delta",
                name=f"{name}-from-{before.number}.delta",
                since=before.number,
                priority=FIRST,
                href=f"{_place(latest, name)}/delta?from={before.number}",
                media_type=MEDIA_TYPE,
            )
            objects.append((session, content))
    return tuple(objects)


def _steps(catalogue: Catalogue, event: str) -> list[tuple[Version, Version, str, StoredFile, StoredFile]]:
    """Latest version, the one before, and an artefact that changed between them: its name, its old and new model."""
    given_out = [version for version in catalogue.versions(event) if version.withdrawn is None]
    if len(given_out) < 2:
        return []
    before, latest = given_out[-2:]
    held = {artefact.card.name: artefact for artefact in catalogue.artefacts(event, before.number)}
    steps = []
    for artefact in _smallest_first(catalogue, latest):
        name = artefact.card.name
        if name in held:
            old, new = _model(held[name]), _model(artefact)
            if old.sha256 != new.sha256:
                steps.append((latest, before, name, old, new))
    return steps


def _latest(catalogue: Catalogue, event: str) -> Version | None:
    try:
        return catalogue.latest(event)
    except CatalogueError:  # no version yet
        return None


def _smallest_first(catalogue: Catalogue, version: Version) -> list[Artefact]:
    return sorted(catalogue.artefacts(version.event, version.number), key=lambda artefact: artefact.card.bytes)


def _model(artefact: Artefact) -> StoredFile:
    (listed,) = [file for file in artefact.card.files if file.path == artefact.card.model]
    return StoredFile(artefact.model, listed.bytes, listed.sha256)


def _place(version: Version, name: str) -> str:
    return f"/events/{version.event}/versions/{version.number}/artefacts/{name}"


def _with_layers(
    artefact: Artefact, content: bytes, version: Version, settings: BroadcastSettings
) -> list[tuple[BroadcastSession, bytes]]:
    """An artefact's model, and its first layers as an object of their own."""
    card, file = artefact.card, artefact.model.name
    parts = [(content, f"{card.name}-{file}", THEN)]
    for layer in card.layers[:1]:
        if layer.bytes < len(content):
            parts.insert(0, (content[: layer.bytes], f"{card.name}-first-{layer.bytes}-{file}", FIRST))
    href = f"{_place(version, card.name)}/files/{card.model}"
    return [
        (_described(part, version, settings, kind="model", name=name, priority=priority, href=href), part)
        for part, name, priority in parts
    ]


def _described(
    content: bytes,
    version: Version,
    settings: BroadcastSettings,
    *,
    kind: Kind,
    name: str,
    priority: int,
    href: str,
    since: int | None = None,
    media_type: str = "application/octet-stream",
) -> BroadcastSession:
    return describe(
        content,
        kind=kind,
        name=name[-256:],
        event=version.event,
        version=version.number,
        code=settings.code,
        port=settings.port,
        group=settings.group,
        rate_mbit_s=settings.rate_mbit_s,
        expires_in_s=settings.expires_s,
        priority=priority,
        href=href,
        since=since,
        media_type=media_type,
    )
