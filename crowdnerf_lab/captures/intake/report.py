"""What became of every file of an upload: kept, known already, or refused with the reason and the remedy."""

from dataclasses import dataclass
from typing import Literal

from crowdnerf_lab.captures.clocks.synchronisation import SynchronisationReport
from crowdnerf_lab.captures.screening.screen import ScreeningReport


@dataclass(frozen=True)
class IngestRow:
    """What became of one file. file: as it was called in the upload; ue: whose it is, empty when unknown.

    outcome: 'kept'; 'known', because it is in the folder already; 'refused', then with reason and remedy. photos: how
    many were written of it; faces: how many were made unrecognisable in them.
    """

    file: str
    ue: str
    outcome: Literal["kept", "known", "refused"]
    reason: str = ""
    remedy: str = ""
    photos: int = 0
    faces: int = 0


@dataclass(frozen=True)
class IngestReport:
    """What became of every file. seconds: from the first file to the last; interrupted: whether files are left.

    screening: of all that is in the folder, if it was asked for. clocks: how the UEs of this upload were put on one
    clock, if at least two brought clips with sound.
    """

    rows: tuple[IngestRow, ...]
    seconds: float
    workers: int
    interrupted: bool
    screening: ScreeningReport | None = None
    clocks: SynchronisationReport | None = None

    @property
    def refused(self) -> tuple[IngestRow, ...]:
        """Files that could not be taken in, each with reason and remedy."""
        return tuple(row for row in self.rows if row.outcome == "refused")

    @property
    def photos(self) -> int:
        """Photos written by this run."""
        return sum(row.photos for row in self.rows if row.outcome == "kept")

    @property
    def photos_per_second(self) -> float:
        """Photos written a second, 0 when there were none."""
        return self.photos / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> str:
        """One line."""
        known, faces = sum(row.outcome == "known" for row in self.rows), sum(row.faces for row in self.rows)
        return (
            f"{self.photos} photos kept ({self.photos_per_second:.1f} a second, {self.workers} workers), "
            f"{known} files known already, {len(self.refused)} refused, {faces} faces made unrecognisable"
            + ("; stopped before the end: run it again to go on" if self.interrupted else "")
        )


def refusal_row(file: str, ue: str, problem: str) -> IngestRow:
    """A row from a message that ends, as all of the package do, with '; ' and the remedy."""
    reason, _, remedy = problem.rpartition("; ")
    return IngestRow(file, ue, "refused", reason=reason or remedy, remedy=remedy if reason else "leave it out")
