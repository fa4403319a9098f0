"""One clock for a crowd: UEs are synchronised by what their clips heard, corrected for the way from the stage.

A sound leaves the stage at event time tau and reaches phone i, d_i metres away, at tau + d_i / c; in its clip, which
began at T_i, it is heard at t_i = tau + d_i / c - T_i. Two clips that heard it therefore began apart by
T_b - T_a = (d_b - d_a) / c - (t_b - t_a). UEs that nobody can be compared with keep their device's clock, and say so.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import pinhole
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, Clock, Metres3, Photo
from crowdnerf_lab.captures.clocks.clock_network import ClockNetwork, Difference, settled
from crowdnerf_lab.captures.clocks.sound_alignment import (
    RATE,
    SHORTEST_S,
    SPEED_OF_SOUND,
    Offset,
    Sound,
    offset_of_sounds,
)
from crowdnerf_lab.captures.video.videos import VideoError, read_sound
from crowdnerf_lab.scene import focus_point

logger = logging.getLogger(__name__)

NEIGHBOURS = (1, 2, 3, 5, 8, 13, 21)
"""Places along the clips, in the order of their times, at which partners are compared: every clip is a few steps from
every other, and many cycles check one another, for a number of pairs that grows with that of clips only."""
CAMERA_ERROR_M, PHONE_ERROR_M, UNKNOWN_ERROR_M = 0.3, 5.0, 30.0
"""How well a phone's distance to the stage is known: by calibration, by the phone itself, not at all."""
SOUNDS_IN_MEMORY = 48
TURNED = math.cos(math.radians(45))
"""Cameras that look further past the crowd's focus than this have no say in it."""


@dataclass(frozen=True)
class SynchronisationRow:
    """One UE. offset_s: what its times were moved by; confidence in [0, 1]; error_s: one standard deviation, None for
    the device's clock. distance_m: from the stage, None where unknown. partners: UEs it agrees with by sound.
    reason: why its device's clock was kept, or what limits the error; empty when all is well.
    """

    ue: str
    method: str
    offset_s: float
    confidence: float
    error_s: float | None
    distance_m: float | None
    partners: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class ComparedClips:
    """Two clips that were compared. seconds: how much later the sound comes in the second; see `Offset` for the rest.

    residual_s: how far the pair is from what all pairs together say, NaN if it was too doubtful to be asked. used:
    whether it was.
    """

    first: str
    second: str
    seconds: float
    drift: float
    confidence: float
    residual_s: float
    used: bool


@dataclass(frozen=True)
class SynchronisationReport:
    """How every UE's clock was set. stage: metres, where the sound came from; None where that is unknown."""

    rows: tuple[SynchronisationRow, ...]
    pairs: tuple[ComparedClips, ...]
    stage: Metres3 | None

    def summary(self) -> str:
        """One line."""
        heard = [row for row in self.rows if row.method == "audio"]
        used = sum(pair.used for pair in self.pairs)
        return (
            f"{len(heard)} of {len(self.rows)} UEs synchronised by sound, from {used} of {len(self.pairs)} pairs of "
            f"clips; {len(self.rows) - len(heard)} keep their device's clock"
        )


def synchronise(
    captures: CaptureSet,
    *,
    stage: Metres3 | None = None,
    clock_error_s: float = 30.0,
    least_confidence: float = 0.5,
    progress: bool = True,
) -> tuple[CaptureSet, SynchronisationReport]:
    """The captures with the times of every UE's photos and clips moved to one clock, and how that was found.

    stage: where the sound comes from, metres; where the crowd looks unless said. clock_error_s: how far two devices'
    clocks may be apart. least_confidence: pairs below it are not asked. Only differences can be heard: the largest
    group of UEs that heard the same is moved, with median offset zero. No clip raises: what cannot be read is a reason
    in the report.
    """
    stage = stage or _focus(captures) if captures.coordinates != "arbitrary" else None
    tracks = _tracks(captures, stage)
    problems: dict[str, str] = {}
    load = lru_cache(SOUNDS_IN_MEMORY)(lambda file: _sound(captures, file, problems))
    compared: list[tuple[_Track, _Track, Offset]] = []
    pairs = list(_pairs(tracks, clock_error_s))
    for a, b in tqdm(pairs, desc="comparing sound", unit="pair", disable=not progress):
        offset = _offset(a, b, load, within_s=clock_error_s)
        if offset is not None:
            compared.append((a, b, offset))
    differences = [_difference(a, b, offset) for a, b, offset in compared if offset.confidence >= least_confidence]
    network = settled(len(captures.captures), differences)
    evidence = _Evidence(captures, tracks, compared, differences, network, problems)
    report = SynchronisationReport(
        rows=tuple(_row(index, evidence) for index in range(len(captures.captures))),
        pairs=_reported(compared, network, least_confidence),
        stage=stage,
    )
    logger.info("synchronisation of %s: %s", captures.name, report.summary())
    moved = tuple(_moved(capture, row) for capture, row in zip(captures.captures, report.rows, strict=True))
    return replace(captures, captures=moved), report


@dataclass(frozen=True)
class _Track:
    """A clip with sound. ue: index of its capture. distance_m: from the stage; error_m: of that distance."""

    ue: int
    clip: Clip
    distance_m: float | None
    error_m: float


@dataclass(frozen=True)
class _Evidence:
    """All that rows of the report are written from. differences: of the sure pairs; problems: of files' sound."""

    captures: CaptureSet
    tracks: Sequence[_Track]
    compared: Sequence[tuple[_Track, _Track, Offset]]
    differences: Sequence[Difference]
    network: ClockNetwork
    problems: dict[str, str]

    def pairs_of(self, ue: int) -> list[tuple[Difference, bool]]:
        """The sure pairs of a UE, and whether each was kept."""
        pairs = zip(self.differences, self.network.kept, strict=True)
        return [(each, kept) for each, kept in pairs if ue in (each.first, each.second)]


def _tracks(captures: CaptureSet, stage: Metres3 | None) -> list[_Track]:
    """Clips that may have sound, in the order of their times."""
    tracks = []
    for index, capture in enumerate(captures.captures):
        for clip in capture.clips:
            if clip.audio is False:
                continue
            position, error_m = _place(capture, clip)
            known = stage is not None and position is not None
            distance_m = math.dist(stage, position) if stage is not None and position is not None else None
            tracks.append(_Track(index, clip, distance_m, error_m if known else UNKNOWN_ERROR_M))
    return sorted(tracks, key=lambda track: (track.clip.time_s, track.clip.file))


def _place(capture: Capture, clip: Clip) -> tuple[Metres3 | None, float]:
    """Where a clip was taken, as calibrated from its frames or the UE's photos, else as the phone says; its error."""
    own = [photo for photo in capture.photos if photo.from_clip == clip.file]
    for photos in (own, capture.photos):
        calibrated = [_centre(photo.camera.camera_to_world) for photo in photos if photo.camera is not None]
        if calibrated:
            return _median(calibrated), CAMERA_ERROR_M
    said = [place for place in map(_said, (clip, *own)) if place] or [p for p in map(_said, capture.photos) if p]
    if not said:
        return None, UNKNOWN_ERROR_M
    return _median([position for position, _ in said]), float(np.median([error for _, error in said]))


def _said(record: Clip | Photo) -> tuple[Metres3, float] | None:
    if record.reported is not None:
        return _centre(record.reported.camera_to_world), PHONE_ERROR_M
    if record.gps is not None:
        return record.gps.position, record.gps.accuracy_m or PHONE_ERROR_M
    return None


def _centre(pose: Sequence[Sequence[float]]) -> Metres3:
    return pose[0][3], pose[1][3], pose[2][3]


def _median(positions: Sequence[Metres3]) -> Metres3:
    x, y, z = np.median(np.array(positions), axis=0).tolist()
    return x, y, z


def _focus(captures: CaptureSet) -> Metres3 | None:
    """Where the crowd looks: the point nearest to the optical axes of those that face it."""
    records = [record for capture in captures.captures for record in (*capture.photos, *capture.clips)]
    poses = [pose for pose in map(_attitude, records) if pose is not None]
    if len(poses) < 3:
        return None
    cameras = pinhole(torch.tensor(poses), torch.ones(len(poses)), width=1, height=1)
    first = focus_point(cameras)
    towards = torch.nn.functional.normalize(first - cameras.positions, dim=-1)
    facing = (towards * cameras.forward).sum(-1) > TURNED
    if int(facing.sum()) < max(2, len(poses) / 2):
        return None
    x, y, z = focus_point(cameras[facing]).tolist()
    return x, y, z


def _attitude(record: Photo | Clip) -> Sequence[Sequence[float]] | None:
    if isinstance(record, Photo) and record.camera is not None:
        return record.camera.camera_to_world
    return record.reported.camera_to_world if record.reported is not None else None


def _pairs(tracks: Sequence[_Track], clock_error_s: float) -> Iterator[tuple[_Track, _Track]]:
    """Clips of different UEs that may have heard the same."""
    for index, first in enumerate(tracks):
        for step in NEIGHBOURS:
            if index + step < len(tracks):
                second = tracks[index + step]
                end = first.clip.time_s + (first.clip.duration_s or math.inf)
                if first.ue != second.ue and end + clock_error_s - second.clip.time_s >= SHORTEST_S:
                    yield first, second


def _sound(captures: CaptureSet, file: str, problems: dict[str, str]) -> Sound | None:
    try:
        return Sound(read_sound(captures.path_of(file), rate=RATE))
    except VideoError as error:
        problems[file] = str(error)
        return None


def _offset(a: _Track, b: _Track, load: Callable[[str], Sound | None], *, within_s: float) -> Offset | None:
    first, second = load(a.clip.file), load(b.clip.file)
    if first is None or second is None:
        return None
    expected_s = _travel(a, b) - (b.clip.time_s - a.clip.time_s)
    return offset_of_sounds(first, second, expected_s=expected_s, within_s=within_s)


def _travel(a: _Track, b: _Track) -> float:
    """How much later sound reaches b than a, seconds; 0 where either distance is unknown."""
    if a.distance_m is None or b.distance_m is None:
        return 0.0
    return (b.distance_m - a.distance_m) / SPEED_OF_SOUND


def _difference(a: _Track, b: _Track, offset: Offset) -> Difference:
    """What two clips say of their UEs' clocks."""
    return Difference(
        first=a.ue,
        second=b.ue,
        seconds=_travel(a, b) - offset.seconds - (b.clip.time_s - a.clip.time_s),
        confidence=offset.confidence,
        error_s=math.hypot(offset.error_s, a.error_m / SPEED_OF_SOUND, b.error_m / SPEED_OF_SOUND),
    )


def _reported(
    compared: Sequence[tuple[_Track, _Track, Offset]], network: ClockNetwork, least_confidence: float
) -> tuple[ComparedClips, ...]:
    asked = iter(zip(network.kept, network.residuals_s, strict=True))
    rows = []
    for a, b, offset in compared:
        used, residual_s = next(asked) if offset.confidence >= least_confidence else (False, math.nan)
        rows.append(
            ComparedClips(
                first=a.clip.file,
                second=b.clip.file,
                seconds=offset.seconds,
                drift=offset.drift,
                confidence=offset.confidence,
                residual_s=residual_s,
                used=used,
            )
        )
    return tuple(rows)


def _row(ue: int, evidence: _Evidence) -> SynchronisationRow:
    network, capture = evidence.network, evidence.captures.captures[ue]
    distances = [track.distance_m for track in evidence.tracks if track.ue == ue and track.distance_m is not None]
    distance_m = float(np.median(distances)) if distances else None
    pairs = evidence.pairs_of(ue)
    together = network.groups[0] if network.groups else ()
    if ue not in together:
        return SynchronisationRow(
            ue=capture.ue,
            method="device",
            offset_s=0.0,
            confidence=0.0,
            error_s=None,
            distance_m=distance_m,
            partners=(),
            reason=_why_not(ue, evidence),
        )
    partners = sorted({each.first + each.second - ue for each, kept in pairs if kept})
    return SynchronisationRow(
        ue=capture.ue,
        method="audio",
        offset_s=float(network.corrections[ue]),
        confidence=_confidence(pairs),
        error_s=float(network.errors_s[ue]),
        distance_m=distance_m,
        partners=tuple(evidence.captures.captures[partner].ue for partner in partners),
        reason="" if distances else "its distance from the stage is unknown: 2.9 ms a metre are not corrected",
    )


def _confidence(pairs: Sequence[tuple[Difference, bool]]) -> float:
    """That at least one of the pairs that agree is right, lowered by those that do not agree."""
    agreeing = [each.confidence for each, kept in pairs if kept]
    doubt = math.prod(1 - 0.95 * confidence for confidence in agreeing)
    return (1 - doubt) * sum(agreeing) / sum(each.confidence for each, _ in pairs)


def _why_not(ue: int, evidence: _Evidence) -> str:
    """Why a UE's clock is its device's."""
    files = [track.clip.file for track in evidence.tracks if track.ue == ue]
    confidences = [offset.confidence for a, b, offset in evidence.compared if ue in (a.ue, b.ue)]
    if not evidence.captures.captures[ue].clips:
        return "no clips: only sound can be compared"
    if not files:
        return "its clips have no sound"
    if all(file in evidence.problems for file in files):
        return evidence.problems[files[0]]
    partners = [
        evidence.captures.captures[each.first + each.second - ue].ue for each, kept in evidence.pairs_of(ue) if kept
    ]
    if partners:
        return f"heard the same as {', '.join(sorted(set(partners)))}, but as nobody of the largest group that did"
    if evidence.pairs_of(ue):
        return "what it heard contradicts what the others heard"
    if not confidences:
        return "no other UE recorded sound at that time"
    return f"no other UE surely heard the same (best confidence {max(confidences):.2f})"


def _moved(capture: Capture, row: SynchronisationRow) -> Capture:
    """A capture with its times moved by what was found, on top of what they were moved by before."""
    before = capture.clock.offset_s if capture.clock else 0.0
    clock = Clock(
        method="audio" if row.method == "audio" else "device",
        offset_s=before + row.offset_s,
        confidence=row.confidence,
        error_s=row.error_s,
    )
    if row.method == "device" and capture.clock is not None:
        clock = capture.clock
    return capture.model_copy(
        update={
            "clock": clock,
            "photos": tuple(p.model_copy(update={"time_s": p.time_s + row.offset_s}) for p in capture.photos),
            "clips": tuple(c.model_copy(update={"time_s": c.time_s + row.offset_s}) for c in capture.clips),
        }
    )
