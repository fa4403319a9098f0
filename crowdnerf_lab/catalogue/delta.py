"""Deltas: what a UE that holds one version of a model fetches in place of the next.

    Ladder(field, students, scene=scene, root=root, after=catalogue.artefacts(event)).build_all()      # the publisher
    encode_graph(graph, new, coding="progressive", step=step, importances=importances, after=old)  # one student alone
    encode_baked(bake(field, cameras=cameras, max_bytes=1_000_000, after=decode_baked(...)[0]), new)      # one field
    delta = delta_of(old, new, path)              # the service; None: fetch the new file whole
    content = apply_delta(old.read_bytes(), delta.read_bytes(), name=path)      # the UE: exactly new.read_bytes()

Coded graphs and baked fields: a residual for every number they hold, entropy-coded, in the same container as they.
Anything else, and what is not made alike: zstd with the old file as its dictionary (`zstd --patch-from`). A delta names
the SHA-256 of the file it begins with and of the one it makes, and both are checked: DeltaError, then fetch whole.
Needs numpy and constriction (graphs and plain files: zstandard; baked fields: numba), as what it updates does.
"""

import hashlib
import logging
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from crowdnerf_lab.coding.layered_file import CodedFileError, Layer, packed_layers, read_layers
from crowdnerf_lab.files import write_bytes

log = logging.getLogger(__name__)

KIND = "crowdnerf_lab.delta/1"
WORTH = 0.8
"""A delta of more than this part of the new file does not pay: applying it costs time, too."""
BYTES_LIMIT = 1 << 28
"""Of a file that a delta begins with or makes, so that a hostile one cannot claim this machine's memory."""
How = Literal["graph", "baked", "patch"]
"""How a file is made of the one before: by the numbers of a coded graph or a baked field, or by its bytes."""
KINDS: dict[How, str] = {"graph": "crowdnerf_lab.coded_graph/1", "baked": "crowdnerf_lab.baked_field/1"}
"""Kinds of layered files whose numbers are known."""


class DeltaError(ValueError):
    """A delta that is damaged or does not fit the file that is here; the message says so. Fetch the file whole."""


def delta_of(old: Path, new: Path, path: Path) -> Path | None:
    """Write, atomically, what makes `new` of `old`; None, and nothing is written, when that does not pay.

    The same two files give the same delta. What is written was applied once, and gave `new`.
    """
    old, new = Path(old), Path(new)
    if max(old.stat().st_size, new.stat().st_size) > BYTES_LIMIT:
        return None
    before, after = old.read_bytes(), new.read_bytes()
    delta = packed_delta(before, after)
    return None if delta is None else write_bytes(Path(path), delta)


def packed_delta(before: bytes, after: bytes) -> bytes | None:
    """The bytes that `delta_of` writes."""
    sides = [[len(content), hashlib.sha256(content).hexdigest()] for content in (before, after)]
    for how in dict.fromkeys((_how(after), "patch")):
        try:
            layers = _layers(how, before, after)
            if layers is None:
                continue
            delta = packed_layers(kind=KIND, header={"how": how, "from": sides[0], "to": sides[1]}, layers=layers)
            if len(delta) <= WORTH * len(after) and apply_delta(before, delta, name="the delta") == after:
                return delta
        except ValueError as error:  # of the decoders: a file that only looks coded
            log.debug("no delta as %s: %s", how, error)
    return None


def apply_delta(old: bytes, delta: bytes, *, name: Path | str) -> bytes:
    """The new file's bytes, checked; name: what to call the delta in errors.

    Raises DeltaError for a delta that is damaged, truncated, hostile or made from another file than `old`.
    """
    try:
        file = read_layers(delta, kind=KIND, name=name)
        how, begins, makes = file.header["how"], _side(file.header["from"]), _side(file.header["to"])
        if not file.complete:
            raise DeltaError(f"{name} is truncated; receive all of it, or fetch the new file whole")
        if begins != _told(old):
            raise DeltaError(
                f"{name} begins with a file of {begins[0]} bytes, SHA-256 {begins[1][:12]}; the one that is here has "
                f"{len(old)} bytes, SHA-256 {_told(old)[1][:12]}; fetch the new file whole"
            )
        new = _applied(how, old, file.layers, makes[0])
    except DeltaError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error) as error:
        raise DeltaError(f"{name} cannot be applied: {error}; fetch the new file whole") from error
    if _told(new) != makes:
        raise DeltaError(f"{name} does not make the file that it names; fetch the new file whole")
    return new


def _how(content: bytes) -> How:
    """How a delta to this file is made."""
    for how, kind in KINDS.items():
        try:
            read_layers(content, kind=kind, name="the new file")
        except CodedFileError:
            continue
        return how
    return "patch"


def _layers(how: How, before: bytes, after: bytes) -> Sequence[Layer] | None:
    """What turns one file into the other; None when they are not made alike."""
    match how:
        case "graph":
            from crowdnerf_lab.coding.graph_delta import graph_residuals

            return graph_residuals(before, after)
        case "baked":
            from crowdnerf_lab.coding.baked_delta import baked_residuals

            return baked_residuals(before, after)
        case "patch":
            from crowdnerf_lab.coding.patches import patch_of

            return [Layer("patch", patch_of(before, after))]


def _applied(how: Any, before: bytes, layers: Sequence[Layer], length: int) -> bytes:
    match how:
        case "graph":
            from crowdnerf_lab.coding.graph_delta import graph_after

            return graph_after(before, layers)
        case "baked":
            from crowdnerf_lab.coding.baked_delta import baked_after

            return baked_after(before, layers)
        case "patch":
            from crowdnerf_lab.coding.patches import patched

            return patched(before, layers[0].payload, length=length)
    raise ValueError(f"{str(how)[:40]!r} is no way to make a file that this package knows; update it")


def _told(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def _side(told: Any) -> tuple[int, str]:
    """Length and SHA-256 of a file, as a header says them."""
    length, sha256 = told
    if type(length) is not int or not 0 <= length <= BYTES_LIMIT or not isinstance(sha256, str):
        raise ValueError(f"a file of {str(length)[:40]} bytes is none that a delta knows")
    return length, sha256
