"""Fit a model whose frame is arbitrary to what phones report of themselves: x_world = s R x_model + t.

Phones know which way is down within a degree or two, north within some six, their place within some metres; and all
photos of one phone share most of that error, so that a UE counts once however many photos it took. Where no attitude is
reported, people still hold phones level: the cameras' x axes are horizontal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from crowdnerf_lab.captures.poses.georegistration import Similarity, mean_rotation
from crowdnerf_lab.captures.poses.motion import FEWEST, MotionError

GPS_M = 8.0
"""Horizontal error of a position whose accuracy nobody reported, one standard deviation: 5 m under open sky (GPS.gov),
more between people and stands. The errors of neighbours are alike, so that it is better taken for too large."""
VERTICAL = 1.7
"""How much worse GPS is in height: satellites are above, none below."""
SHOT_SHARE = 0.5
"""Error of the way between two photos of one phone, as a share of its error: most of that they have in common, but a
phone that stands still repeats one fix, which would tell that it did not move at all."""
TILT, NORTH, HELD_LEVEL = math.radians(2), math.radians(6), math.radians(6)
"""Errors, one standard deviation: of the reported vertical, of the compass, of a phone held level by hand."""
ROUNDS = 12
"""Rounds of reweighting."""
WHOLE, NOTHING = 3.0, 6.0
"""Residuals count in full up to 3 robust standard deviations, as 3 up to 6, then not at all (after Hampel 1974)."""
YAWS = 8
"""Directions of north that are tried where nothing but positions tells it."""
LARGEST_LOG = 30.0
"""Scales beyond the exponential of this are tried by no search."""
OPEN_TURN = math.radians(25)
"""A fit whose direction is less certain than this is none."""
OPEN_SCALE = 1.0
"""A fit whose scale is less certain than this share of it is none."""
LEAST_SPREAD = 0.25
"""Positions are never taken for better than this share of the error that was expected, however well a few agree."""


@dataclass(frozen=True)
class Whereabouts:
    """What a phone reports of one photo; None where it reports nothing.

    phone: photos of one phone share their errors. position: east, north, up, metres; accuracy_m: its error, one
    standard deviation. attitude: camera-to-world rotation. heading: radians clockwise from north.
    """

    phone: str
    position: tuple[float, float, float] | None = None
    accuracy_m: float | None = None
    attitude: tuple[tuple[float, float, float], ...] | None = None
    heading: float | None = None


@dataclass(frozen=True)
class WorldFit:
    """A similarity, and how well it is known. One standard deviation: scale_error as a share of the scale, turn_error
    (radians) about the axis that is known worst.
    """

    similarity: Similarity
    scale_error: float
    turn_error: float


def fit_to_reports(poses: Float[np.ndarray, "n 3 4"], reports: Sequence[Whereabouts]) -> WorldFit:
    """The similarity most likely under the errors above, with outliers cut off; poses are the model's, camera-to-world.

    Raises MotionError, with advice, when fewer than three positions are known, or when they leave scale or direction
    open: all from one place, or in a line with nothing that tells the tilt.
    """
    known = _Known.of(np.asarray(poses, dtype=np.float64), reports)
    if len(known.placed) < FEWEST:
        raise MotionError(
            f"{len(known.placed)} of {len(reports)} posed photos have a position to fit the world to, {FEWEST} are "
            "needed; switch location on in the cameras, or keep a frame of its own (align='none')"
        )
    starts = [_start(known, rotation) for rotation in _first_rotations(known)]
    if len(starts) > 1:
        starts = sorted((_settled(known, start, rounds=1) for start in starts), key=lambda fit: _cost(known, fit))
    best = _settled(known, starts[0], rounds=ROUNDS)
    scale_error, turn_error, vertical = _uncertainty(known, best)
    _refuse_open(known, best, scale_error, turn_error, vertical)
    rotation, scale, shift = _parts(best)
    similarity = Similarity(scale, torch.from_numpy(rotation.as_matrix()), torch.from_numpy(shift))
    return WorldFit(similarity, scale_error=scale_error, turn_error=turn_error)


def residuals_against(
    poses: Float[np.ndarray, "n 3 4"], reports: Sequence[Whereabouts]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """How far cameras in the world are from where their phones say: metres, and radians of heading in (-pi, pi].

    NaN where a phone says nothing.
    """
    positions = np.array([report.position or (math.nan,) * 3 for report in reports], dtype=float).reshape(-1, 3)
    turns = np.arctan2(poses[:, 0, 2], poses[:, 1, 2]) - np.array([_heading(report) for report in reports])
    return np.linalg.norm(poses[:, :, 3] - positions, axis=1), np.angle(np.exp(1j * turns))


def _heading(report: Whereabouts) -> float:
    if report.attitude is not None:
        return math.atan2(report.attitude[0][2], report.attitude[1][2])
    return math.nan if report.heading is None else report.heading


@dataclass(frozen=True)
class _Known:
    """The reports as arrays. placed, turned, headed, held: rows with a position, an attitude, a heading only, neither
    attitude nor heading's tilt; shares: one over the number of photos of the same phone.
    """

    centres: Float[np.ndarray, "n 3"]
    axes: Float[np.ndarray, "n 3 3"]
    phones: Int64[np.ndarray, "n"]
    placed: Int64[np.ndarray, "p"]
    positions: Float[np.ndarray, "p 3"]
    errors: Float[np.ndarray, "p 3"]
    turned: Int64[np.ndarray, "t"]
    attitudes: Float[np.ndarray, "t 3 3"]
    headed: Int64[np.ndarray, "h"]
    headings: Float[np.ndarray, "h"]
    held: Int64[np.ndarray, "u"]

    @staticmethod
    def of(poses: Float[np.ndarray, "n 3 4"], reports: Sequence[Whereabouts]) -> "_Known":
        names = {name: number for number, name in enumerate(dict.fromkeys(report.phone for report in reports))}
        placed = _rows(report.position is not None for report in reports)
        turned = _rows(report.attitude is not None for report in reports)
        held = _rows(report.attitude is None for report in reports)
        headed = np.array([row for row in held if reports[row].heading is not None], dtype=np.int64)
        errors = np.array([reports[row].accuracy_m or GPS_M for row in placed])
        return _Known(
            centres=poses[:, :, 3],
            axes=poses[:, :, :3],
            phones=np.array([names[report.phone] for report in reports], dtype=np.int64),
            placed=placed,
            positions=np.array([reports[row].position for row in placed], dtype=float).reshape(-1, 3),
            errors=errors[:, None] * np.array([1.0, 1.0, VERTICAL]),
            turned=turned,
            attitudes=np.array([reports[row].attitude for row in turned], dtype=float).reshape(-1, 3, 3),
            headed=headed,
            headings=np.array([reports[row].heading for row in headed], dtype=float),
            held=held,
        )


Parameters = Float[np.ndarray, "7"]
"""Rotation vector, logarithm of the scale, shift."""


def _parts(fit: Parameters) -> tuple[Rotation, float, Float[np.ndarray, "3"]]:
    return Rotation.from_rotvec(fit[:3]), float(np.exp(np.clip(fit[3], -LARGEST_LOG, LARGEST_LOG))), fit[4:]


def _rows(flags) -> Int64[np.ndarray, "_"]:
    return np.array([row for row, flag in enumerate(flags) if flag], dtype=np.int64)


def _first_rotations(known: _Known) -> list[Float[np.ndarray, "3 3"]]:
    """From attitudes where there are enough; else upright, with north where headings say, or tried all around."""
    if len(known.turned) >= FEWEST:
        differences = known.attitudes @ known.axes[known.turned].transpose(0, 2, 1)
        return [mean_rotation(torch.from_numpy(differences)).numpy()]
    standing = upright(known.axes)
    if len(known.headed) >= FEWEST:
        looked = np.arctan2(*(standing @ known.axes[known.headed])[:, :2, 2].T)
        turns = np.exp(1j * (looked - known.headings))
        yaws = [float(np.angle(np.sum(turns)))]
    else:
        yaws = list(np.linspace(0, 2 * math.pi, YAWS, endpoint=False))
    return [Rotation.from_rotvec([0, 0, yaw]).as_matrix() @ standing for yaw in yaws]


def upright(axes: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "3 3"]:
    """A rotation after which the cameras' x axes lie as horizontal, and their y axes point down, as can be."""
    across, down = axes[:, :, 0], axes[:, :, 1].mean(axis=0)
    spread = across.T @ across / len(across)
    values, vectors = np.linalg.eigh(spread)
    up = vectors[:, 0]
    if values[1] < 0.05:
        up = -down - (-down @ vectors[:, 2]) * vectors[:, 2]
    up = up * (-1 if up @ down > 0 else 1) / np.linalg.norm(up)
    return Rotation.align_vectors([[0.0, 0.0, 1.0]], [up])[0].as_matrix()


def _start(known: _Known, rotation: Float[np.ndarray, "3 3"]) -> Parameters:
    """Scale by the middle of the ratios of distances, shift by the middle of the rest: neither minds outliers."""
    phones = known.phones[known.placed]
    turned, positions = known.centres[known.placed] @ rotation.T, known.positions
    if len(np.unique(phones)) >= FEWEST:
        turned, positions = _middle_of_each(turned, phones), _middle_of_each(positions, phones)
    reach = np.linalg.norm(turned - np.median(turned, axis=0), axis=1)
    target = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    scale = max(float(np.median(target)) / max(float(np.median(reach)), 1e-9), 1e-9)
    shift = np.median(positions - scale * turned, axis=0)
    return np.concatenate([Rotation.from_matrix(rotation).as_rotvec(), [math.log(scale)], shift])


def _middle_of_each(values: Float[np.ndarray, "p 3"], phones: Int64[np.ndarray, "p"]) -> Float[np.ndarray, "u 3"]:
    return np.array([np.median(values[phones == phone], axis=0) for phone in np.unique(phones)])


def _off(known: _Known, fit: Parameters) -> Float[np.ndarray, "p 3"]:
    rotation, scale, shift = _parts(fit)
    return scale * rotation.apply(known.centres[known.placed]) + shift - known.positions


def _turn_off(known: _Known, fit: Parameters) -> Float[np.ndarray, "t 3"]:
    """Rotation vectors in the world from the reported to the fitted attitudes, in standard deviations."""
    fitted = _parts(fit)[0].as_matrix() @ known.axes[known.turned]
    turns = Rotation.from_matrix(fitted @ known.attitudes.transpose(0, 2, 1)).as_rotvec()
    return turns / np.array([TILT, TILT, NORTH])


def _heading_off(known: _Known, fit: Parameters) -> Float[np.ndarray, "h"]:
    looked = (_parts(fit)[0].as_matrix() @ known.axes[known.headed])[:, :, 2]
    turns = np.arctan2(looked[:, 0], looked[:, 1]) - known.headings
    return np.angle(np.exp(1j * turns)) * np.hypot(looked[:, 0], looked[:, 1]) / NORTH


def _level_off(known: _Known, fit: Parameters) -> Float[np.ndarray, "u"]:
    return (_parts(fit)[0].as_matrix() @ known.axes[known.held])[:, 2, 0] / HELD_LEVEL


Weights = tuple[Float[np.ndarray, "p"], Float[np.ndarray, "t"], Float[np.ndarray, "h"], Float[np.ndarray, "u"]]


def _sizes(known: _Known, fit: Parameters) -> Weights:
    """Length of every residual in standard deviations: of positions, attitudes, headings, levels.

    A position counts as far off when it is far from its report, or far from where its phone's other photos are off to.
    """
    off, phones = _off(known, fit) / known.errors, known.phones[known.placed]
    usual = {phone: np.median(off[phones == phone], axis=0) for phone in np.unique(phones).tolist()}
    apart = off - np.array([usual[phone] for phone in phones.tolist()])
    places = np.maximum(np.linalg.norm(off, axis=1), np.linalg.norm(apart, axis=1) / SHOT_SHARE)
    turns = np.linalg.norm(_turn_off(known, fit), axis=1)
    return places, turns, np.abs(_heading_off(known, fit)), np.abs(_level_off(known, fit))


def _weights(known: _Known, sizes: Weights) -> Weights:
    rows = (known.placed, known.turned, known.headed, known.held)
    places, turns, headings, levels = (
        hampel_weights(size, _root_share(np.ones(len(size)), known.phones[chosen]) ** 2)
        for size, chosen in zip(sizes, rows, strict=True)
    )
    return places, turns, headings, levels


def hampel_weights(
    sizes: Float[np.ndarray, "n"], shares: Float[np.ndarray, "n"] | None = None
) -> Float[np.ndarray, "n"]:
    """Weights of residuals by their length in robust standard deviations: 1, then falling as 1/r, then 0.

    shares: how much each says in the median; all the same by default.

    That deviation is 1.4826 of the median, but at least LEAST_SPREAD of what was expected.
    """
    if not len(sizes):
        return sizes
    order = np.argsort(sizes)
    said = np.cumsum(shares[order] if shares is not None else np.ones(len(sizes)))
    middle = sizes[order[np.searchsorted(said, said[-1] / 2)]]
    relative = sizes / max(1.4826 * float(middle), LEAST_SPREAD)
    return np.where(relative > NOTHING, 0.0, np.minimum(1.0, WHOLE / np.maximum(relative, 1e-9)))


def _cost(known: _Known, fit: Parameters) -> float:
    """How badly a fit does, with outliers bounded: for comparing starts."""
    return float(sum(np.minimum(size, NOTHING).sum() for size in _sizes(known, fit)))


def _settled(known: _Known, start: Parameters, *, rounds: int) -> Parameters:
    """Weighted least squares again and again, with the weights that its residuals call for."""
    fit = start
    for _ in range(rounds):
        weights = _weights(known, _sizes(known, fit))
        found = least_squares(lambda guess, w=weights: _residuals(known, guess, w), fit, x_scale="jac", max_nfev=20)
        moved = float(np.abs(found.x - fit).max())
        fit = found.x
        if moved < 1e-7:
            break
    return fit


def _residuals(known: _Known, fit: Parameters, weights: Weights) -> Float[np.ndarray, "_"]:
    places, turns, headings, levels = weights
    return np.concatenate(
        [
            _shared(_off(known, fit) / known.errors, places, known.phones[known.placed]).ravel(),
            (_turn_off(known, fit) * _root_share(turns, known.phones[known.turned])[:, None]).ravel(),
            _heading_off(known, fit) * _root_share(headings, known.phones[known.headed]),
            _level_off(known, fit) * _root_share(levels, known.phones[known.held]),
        ]
    )


def _root_share(weights: Float[np.ndarray, "n"], phones: Int64[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Square roots of weights that make the photos of one phone count as one."""
    return np.sqrt(weights / np.maximum(np.bincount(phones)[phones], 1)) if len(phones) else weights


def _shared(
    off: Float[np.ndarray, "p 3"], weights: Float[np.ndarray, "p"], phones: Int64[np.ndarray, "p"]
) -> Float[np.ndarray, "p 3"]:
    """Position residuals made independent: the mean of each phone counts once, the ways between its photos less.

    With errors b + w_i, b shared by the phone and w_i of SHOT_SHARE its size, the mean has variance 1 + SHOT_SHARE^2/n
    and what is left of each photo SHOT_SHARE^2.
    """
    photos = np.bincount(phones).astype(float)
    totals = np.maximum(np.bincount(phones, weights), 1e-12)
    means = np.stack([np.bincount(phones, weights * off[:, axis]) for axis in range(3)], axis=1) / totals[:, None]
    alone = (off - means[phones]) / SHOT_SHARE * np.sqrt(weights)[:, None]
    trust = np.sqrt(totals / np.maximum(photos, 1) / (1 + SHOT_SHARE**2 / np.maximum(photos, 1)))
    return alone + (means * (trust / np.sqrt(np.maximum(photos, 1)))[:, None])[phones]


def _uncertainty(known: _Known, fit: Parameters) -> tuple[float, float, float]:
    """Standard deviations of scale (share of it) and of the turn about the worst known axis, and how vertical that is.

    The scale's from the actual spread of the positions' residuals; 1.54 is the median length of three standard normal
    numbers.
    """
    sizes = _sizes(known, fit)
    rest = least_squares(lambda guess: _residuals(known, guess, _weights(known, sizes)), fit, x_scale="jac", max_nfev=1)
    spread = max(LEAST_SPREAD, float(np.median(sizes[0])) / 1.54)
    information = rest.jac.T @ rest.jac + 1e-12 * np.eye(7)
    covariance = np.linalg.inv(information)
    values, vectors = np.linalg.eigh(covariance[:3, :3])
    return spread * float(np.sqrt(covariance[3, 3])), float(np.sqrt(values[-1])), float(abs(vectors[2, -1]))


def _refuse_open(known: _Known, fit: Parameters, scale_error: float, turn_error: float, vertical: float) -> None:
    reach = float(np.linalg.norm(known.positions - np.median(known.positions, axis=0), axis=1).max())
    keep = "or keep a frame of its own (align='none')"
    if scale_error > OPEN_SCALE:
        raise MotionError(
            f"the reported positions do not tell how large the scene is (scale known to {100 * scale_error:.0f} %): "
            f"they lie within {reach:.0f} m of each other, or contradict the pictures; add photos from places further "
            f"apart than GPS errs, {keep}"
        )
    if turn_error > OPEN_TURN:
        missing = "where north is" if vertical > 0.7 else "which way is up"
        raise MotionError(
            f"the reported positions do not tell {missing} (known to {math.degrees(turn_error):.0f} degrees): they lie "
            f"in a line or in one place; add photos from the side, photos with compass and attitude, {keep}"
        )
