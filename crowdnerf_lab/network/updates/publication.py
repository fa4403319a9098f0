"""Versions come and go: published once each, withdrawn when they measure worse or when a contributor is forgotten."""

import logging
from collections.abc import Sequence

from crowdnerf_lab.captures.bundle import MANIFEST
from crowdnerf_lab.captures.privacy.forgetting import ForgetError, forget
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError, Version
from crowdnerf_lab.network.updates.event_folder import EventFolder, Round
from crowdnerf_lab.network.updates.intake import photos_of
from crowdnerf_lab.network.uploads.contributions import Contributions

log = logging.getLogger(__name__)

FORGOTTEN = "a contributor asked to be forgotten"


def versions_of(catalogue: Catalogue, event: str) -> tuple[Version, ...]:
    """All versions of an event; none while there are none."""
    try:
        return catalogue.versions(event)
    except CatalogueError:
        return ()


def publish_once(
    catalogue: Catalogue, artefacts: Sequence[Artefact], *, event: str, round_id: str, note: str
) -> Version:
    """Publish the version of a round, unless a worker that died had done so. It is known again by its note."""
    mark = f"[{round_id}]"
    published = next((version for version in versions_of(catalogue, event) if version.note.startswith(mark)), None)
    return published or catalogue.publish(artefacts, event=event, note=f"{mark} {note}")


def forget_contributor(folder: EventFolder, ue: str, *, contributions: Contributions, catalogue: Catalogue) -> None:
    """Fulfil a wish: photos, models that learned from them, and what they were made from go. The wish goes last, so
    that a worker which is killed begins again.

    Versions that learned from the contributor are withdrawn at once.
    """
    for version in versions_of(catalogue, folder.event):
        if version.withdrawn is None and _learned_from(catalogue, version, ue):
            catalogue.withdraw(folder.event, version.number, reason=FORGOTTEN)
    for found in folder.rounds():
        plan = found.plan
        if plan is None or any(file.partition("/")[0] == ue for file in (*plan.photos, *plan.judges)):
            found.remove()
    if (folder.captures / MANIFEST).is_file():
        work = folder.motion / "work"
        try:
            forget(ue, folder.captures, caches=[path for path in (work,) if path.is_dir()])
        except ForgetError as error:
            log.info("%s: nothing of a contributor was taken in (%s)", folder.event, type(error).__name__)
    contributions.forgotten(folder.event, ue)


def settle(folder: EventFolder, published: Round, *, contributions: Contributions, ues: Sequence[str]) -> None:
    """Mark the contributions that a published round has learned from, or that it is judged by."""
    plan, outcome = published.plan, published.outcome
    if plan is None or outcome is None or outcome.version is None:
        return
    learned, judges = set(plan.photos), set(plan.judges)
    for ue in ues:
        for contribution in contributions.of(folder.event, ue):
            if contribution.state != "taken_in":
                continue
            files = photos_of(contribution, (*plan.photos, *plan.judges))
            if files & learned:
                contributions.mark([contribution.id], state="published", version=outcome.version)
            elif files & judges:
                reason = "versions are judged by it, and none learns from it"
                contributions.mark([contribution.id], state="published", reason=reason, version=outcome.version)


def _learned_from(catalogue: Catalogue, version: Version, ue: str) -> bool:
    artefacts = catalogue.artefacts(version.event, version.number)
    return any(contributor.ue == ue for artefact in artefacts for contributor in artefact.card.provenance.trained_on)
