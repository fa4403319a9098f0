"""Damage done to files, the same in every run, and what must hold of whatever a reader still accepts.

CROWDNERF_FUZZ=20 asks for twenty times as many mutants as `make test` does.
"""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from crowdnerf_lab.captures.bundle import CaptureSet, Manifest
from crowdnerf_lab.captures.documents import CaptureError

TIMES = int(os.environ.get("CROWDNERF_FUZZ", "1"))
HUGE = (b"\xff" * 4, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f", b"\x00\x00\x00\x80", b"\x00" * 8)
NUMBERS = [np.array([value], kind).tobytes() for value in (math.nan, math.inf, -1e30, 0.0) for kind in ("<f8", "<f4")]
MAGICS = (
    b"PK\x03\x04",
    b"\x93NUMPY",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF",
    b"\x00" * 16,
    b"\xef\xbb\xbf",
)
NAN, INFINITE = "\ufdd0nan", "\ufdd0inf"
"""Stand in for what JSON has no number for; written as NaN and 1e999."""
VALUES = (
    NAN,
    INFINITE,
    -1,
    0,
    1e300,
    -1e300,
    10**400,
    2**63,
    True,
    None,
    "",
    "0",
    "nan",
    "../../etc/passwd",
    "/etc/passwd",
    "a\x00b",
    "\ud800",
    "x" * 5000,
    [],
    {},
    [[]],
    [0] * 17,
    {"a": {}},
)
NO_NUMBERS = (NAN, INFINITE, None, "", "nan", [], {}, [[]])
"""Values that no reader may take for a number."""


def many(mutants: int) -> settings:
    """How long a fuzz test goes on. Failing mutants are not shrunk unless a long campaign is asked for."""
    phases = [Phase.explicit, Phase.generate] + ([Phase.shrink] if TIMES > 1 else [])
    return settings(
        max_examples=mutants * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Mutant:
    """A damaged file. how: what was done; noticed: whether a reader must refuse it or leave something out."""

    content: bytes
    how: str
    noticed: bool = False


@st.composite
def mutants(draw: st.DrawFn, content: bytes, *, cut_noticed: bool = False) -> Mutant:
    """A file's bytes cut, flipped, overwritten, doubled, moved, or with another beginning.

    cut_noticed: a reader must notice when the end is missing.
    """
    position = st.integers(0, len(content) - 1)
    how = draw(st.sampled_from(("cut", "flip", "huge", "number", "double", "drop", "zero", "magic", "append", "swap")))
    at = draw(position)
    if how == "cut":
        return Mutant(content[:at], f"cut to {at} of {len(content)}", noticed=cut_noticed)
    changed = bytearray(content)
    if how == "flip":
        for place in draw(st.lists(position, min_size=1, max_size=8)):
            changed[place] ^= 1 << draw(st.integers(0, 7))
    elif how in ("huge", "number"):
        value = draw(st.sampled_from(HUGE if how == "huge" else NUMBERS))
        changed[at : at + len(value)] = value
        del changed[len(content) :]
    elif how == "magic":
        magic = draw(st.sampled_from(MAGICS))
        changed[: len(magic)] = magic
    elif how == "append":
        changed += draw(st.binary(min_size=1, max_size=64))
    else:
        end = min(at + draw(st.integers(1, 64)), len(content))
        piece = bytes(changed[at:end])
        if how == "double":
            changed[at:at] = piece
        elif how == "drop":
            del changed[at:end]
        elif how == "zero":
            changed[at:end] = bytes(end - at)
        else:
            to = draw(position)
            changed[to : to + len(piece)] = piece
    return Mutant(bytes(changed), f"{how} at {at}")


@st.composite
def json_mutants(draw: st.DrawFn, document: Any, *, numbers: Callable[[tuple[Any, ...]], bool]) -> Mutant:
    """A document with a value replaced, removed, repeated or buried, or its text damaged.

    numbers: whether at this path there must be a number, so that anything else has to be noticed.
    """
    how = draw(st.sampled_from(("value",) * 5 + ("remove", "repeat", "bury", "bytes", "twice")))
    if how == "bytes":
        return draw(mutants(_text(document), cut_noticed=True))
    path = draw(st.sampled_from(list(_paths(document))))
    changed = copy.deepcopy(document)
    parent, last = _reach(changed, path[:-1]), path[-1]
    if how == "value":
        required = numbers(path)
        value = draw(st.sampled_from(NO_NUMBERS if required and draw(st.booleans()) else VALUES))
        parent[last] = value
        noticed = required and any(value is bad or value == bad for bad in NO_NUMBERS) and value is not False
        return Mutant(_text(changed), f"{path} = {value!r:.40}", noticed=noticed and not _is_number(value))
    if how == "remove":
        del parent[last]
        return Mutant(_text(changed), f"without {path}", noticed=numbers(path))
    if how == "repeat" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
        return Mutant(_text(changed), f"{path} twice", noticed=numbers(path))
    if how == "twice":
        return Mutant(_text(document) + _text(document), "twice in one file", noticed=True)
    parent[last] = "\ufdd1"
    buried = _text(changed).replace(b'"\\ufdd1"', b"[" * 100_000 + b"]" * 100_000)
    return Mutant(buried, f"{path} = 100,000 lists in each other", noticed=numbers(path))


def accepted(read: Callable[[Path], CaptureSet], path: Path) -> CaptureSet | None:
    """What a reader makes of a path: captures that are sound, or None when it refuses with the error it documents."""
    refusal = ""
    try:
        captures = read(path)
    except CaptureError as error:
        captures, refusal = None, str(error)
    if captures is not None:
        assert_sound(captures)
    else:
        assert len(refusal) > 20
        assert ";" in refusal
    return captures


def assert_noticed(mutant: Mutant, captures: CaptureSet | None) -> None:
    """A mutant that must be noticed was refused, or something was left out and said so."""
    if mutant.noticed and captures is not None:
        assert captures.source.left_out, f"accepted in silence: {mutant.how}"


def assert_sound(captures: CaptureSet) -> None:
    """Files inside, one record each; rotations that are rotations; sizes, focal lengths and numbers that can be."""
    manifest = Manifest(
        name=captures.name,
        licence=captures.licence,
        origin_wgs84=captures.origin_wgs84,
        captures=captures.captures,
        coordinates=captures.coordinates,
        views=captures.views,
        began=captures.began,
    )
    assert Manifest.model_validate_json(manifest.model_dump_json(), strict=True) == manifest
    files = [photo.file for photo in captures.photos]
    assert len(set(files)) == len(files)
    for file in files:
        assert captures.path_of(file).is_file()
    ues = [capture.ue for capture in captures.captures]
    assert len(set(ues)) == len(ues)
    for photo in captures.photos:
        assert photo.width > 0
        assert photo.height > 0
        poses = [record.camera_to_world for record in (photo.camera, photo.reported) if record is not None]
        for pose in np.array(poses, np.float64).reshape(-1, 3, 4):
            assert np.isfinite(pose).all()
            assert np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max() < 5e-3
            assert np.linalg.det(pose[:, :3]) > 0
        if photo.camera is not None:
            assert min(photo.camera.focal_px) > 0
            assert np.isfinite([*photo.camera.focal_px, *photo.camera.centre_px, *photo.camera.distortion]).all()
    for left in captures.source.left_out:
        assert left.file
        assert left.problem


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(document: Any) -> bytes:
    text = json.dumps(document)
    return text.replace(json.dumps(NAN), "NaN").replace(json.dumps(INFINITE), "1e999").encode()


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _paths(value, (*path, index))


def _reach(document: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        document = document[part]
    return document
