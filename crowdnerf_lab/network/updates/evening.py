"""Evening: an event as its service recorded it, for the figure that sums it up."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates.event_folder import EventFolder


@dataclass(frozen=True)
class PublishedVersion:
    """A version of an event's models. seconds: since the first contribution; psnr: of its field on the photos that
    judge, dB; withdrawn: why it is given out no longer."""

    seconds: float
    version: int
    psnr: float
    withdrawn: str | None = None


@dataclass(frozen=True)
class Evening:
    """What became of an event so far. contributions: when each was received, seconds since the first."""

    versions: tuple[PublishedVersion, ...]
    contributions: tuple[float, ...]


def evening_of(home: Path, *, event: str = "concert") -> Evening:
    """What the records in a service's home say of an event: its contributions, its versions and what they measured."""
    with closing(Database(home)) as database:
        rows = database.connection().execute("SELECT received FROM contributions WHERE event = ?", (event,))
        received = sorted(row[0] for row in rows)
    begun = received[0] if received else 0.0
    outcomes = (found.outcome for found in EventFolder(home, event).rounds())
    psnr = {outcome.version: outcome.psnr for outcome in outcomes if outcome is not None and outcome.psnr is not None}
    versions = Catalogue(home / "catalogue").versions(event)
    return Evening(
        tuple(
            PublishedVersion(each.published - begun, each.number, psnr[each.number], each.withdrawn)
            for each in versions
            if each.number in psnr
        ),
        tuple(seconds - begun for seconds in received),
    )
