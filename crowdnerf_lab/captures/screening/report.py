"""What screening finds: one row for every check of every photo, with the value measured and the limit it met."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Check = Literal[
    "consent",
    "readable",
    "small",
    "drawn",
    "framed",
    "display",
    "time",
    "place",
    "direction",
    "dark",
    "over",
    "blur",
    "noise",
    "duplicate",
    "copied",
    "speed",
    "frozen",
    "position",
    "attitude",
]
"""In the order in which a photo meets them; the last five are of `consistency`."""
LARGE_IS_BAD: frozenset[Check] = frozenset(
    (
        "drawn",
        "framed",
        "display",
        "time",
        "place",
        "direction",
        "over",
        "noise",
        "copied",
        "speed",
        "frozen",
        "position",
        "attitude",
    )
)
"""Checks whose threshold is the largest value allowed; that of the others is the smallest."""


@dataclass(frozen=True)
class ScreeningRow:
    """One check of one photo. kept: whether it passed this check; measured and threshold are in the check's unit.

    At most the threshold must be: drawn and framed, fractions of the picture that no lens made; display, dB by which a
    regular grid stands out; time, seconds from the middle of the event; place, metres from the middle of the crowd;
    direction, angle to where the crowd looks, radians; over, fraction clipped; noise, stops of the full range; copied,
    other UEs at the very same coordinates; speed, metres per second between the UE's photos; frozen, metres that the UE
    moved at the very same coordinates; position and attitude, metres and radians from the reconstruction. At least:
    small, pixels of the shorter side; dark, highlights in stops; blur, sharpness in stops; consent, readable and
    duplicate, 1 where all is well. NaN stands where there was nothing to measure or to compare with.
    """

    ue: str
    photo: str
    path: Path
    check: Check
    kept: bool
    reason: str
    measured: float
    threshold: float

    @property
    def margin(self) -> float:
        """How far the photo is inside (above 0) or outside the limit, in the check's unit; NaN where unknown."""
        inside = self.threshold - self.measured
        return inside if self.check in LARGE_IS_BAD else -inside


@dataclass(frozen=True)
class ScreeningReport:
    """Every check of every photo, in the order of the photos."""

    rows: tuple[ScreeningRow, ...]

    @property
    def rejected(self) -> tuple[ScreeningRow, ...]:
        """The first check that each rejected photo failed, one row a photo."""
        first: dict[str, ScreeningRow] = {}
        for row in self.rows:
            if not row.kept:
                first.setdefault(row.photo, row)
        return tuple(first.values())

    @property
    def kept(self) -> tuple[str, ...]:
        """The photos that passed every check."""
        rejected = {row.photo for row in self.rejected}
        return tuple(dict.fromkeys(row.photo for row in self.rows if row.photo not in rejected))

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that were made, in the order in which a photo meets them."""
        return tuple(dict.fromkeys(row.check for row in self.rows))

    def summary(self) -> str:
        """One line: how many photos were kept, and how many were rejected for what."""
        checks = [row.check for row in self.rejected]
        counts = ", ".join(f"{checks.count(check)} {check}" for check in dict.fromkeys(checks))
        return f"kept {len(self.kept)} of {len(self.kept) + len(checks)} photos" + (
            f", rejected {counts}" if counts else ""
        )
