"""What is observed of a service whenever somebody asks for its metrics: queues, versions, UEs, and the view engine."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict

from crowdnerf_lab.catalogue.catalogue import CatalogueError, Version
from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.api.metrics import Sample


def observe(service: Service) -> None:
    """Add the figures of a service to its metrics."""
    of_events = (
        ("crowdnerf_ues", "UEs present.", "SELECT event, count(*) FROM ues WHERE left IS NULL GROUP BY event"),
        ("crowdnerf_ues_joined", "UEs that ever joined.", "SELECT event, count(*) FROM ues GROUP BY event"),
        (
            "crowdnerf_unfinished_uploads",
            "Uploads under way.",
            "SELECT event, count(*) FROM uploads WHERE offset < length GROUP BY event",
        ),
        (
            "crowdnerf_contribution_bytes",
            "Bytes of the contributions that are kept.",
            "SELECT event, sum(bytes) FROM contributions GROUP BY event",
        ),
    )
    for name, words, query in of_events:
        service.metrics.observe(name, words, read=lambda query=query: _by_event(service, query))
    service.metrics.observe(
        "crowdnerf_contributions",
        "Contributions by state; received ones wait for the worker.",
        read=lambda: _contributions(service),
    )
    service.metrics.observe("crowdnerf_versions", "Versions by state.", read=lambda: _versions(service))
    service.metrics.observe("crowdnerf_latest_version", "Number of the latest version.", read=lambda: _latest(service))
    service.metrics.observe(
        "crowdnerf_views", "Views by what became of them, and the view engine now.", read=lambda: _views(service)
    )


def _by_event(service: Service, query: str) -> Iterable[Sample]:
    return [({"event": event}, float(count)) for event, count in service.database.connection().execute(query)]


def _contributions(service: Service) -> Iterable[Sample]:
    query = "SELECT event, state, count(*) FROM contributions GROUP BY event, state"
    rows = service.database.connection().execute(query)
    return [({"event": event, "state": state}, float(count)) for event, state, count in rows]


def _versions(service: Service) -> Iterable[Sample]:
    for event, versions in _catalogued(service):
        withdrawn = sum(version.withdrawn is not None for version in versions)
        yield {"event": event, "state": "offered"}, float(len(versions) - withdrawn)
        yield {"event": event, "state": "withdrawn"}, float(withdrawn)


def _latest(service: Service) -> Iterable[Sample]:
    for event, versions in _catalogued(service):
        offered = [version.number for version in versions if version.withdrawn is None]
        yield {"event": event}, float(max(offered, default=0))


def _catalogued(service: Service) -> Iterable[tuple[str, tuple[Version, ...]]]:
    """Events with their versions; what cannot be read is left out, /health tells of it."""
    with suppress(OSError):
        for event in service.catalogue.events():
            with suppress(CatalogueError):
                yield event, service.catalogue.versions(event)


def _views(service: Service) -> Iterable[Sample]:
    if service.views is None:
        return []
    return [({"figure": name}, float(value)) for name, value in asdict(service.views.statistics).items()]
