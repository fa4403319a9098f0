"""The check that every receiver of an artefact makes before it loads anything; needs Python alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

from crowdnerf_lab.files import FileError, inside

CARD = "card.json"
FORMAT, VERSION = "crowdnerf_lab.artefact", 2
READABLE = ((FORMAT, 1), (FORMAT, VERSION))


class ArtefactError(ValueError):
    """An artefact that must not be loaded; the message names the file and the remedy."""


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an artefact as JSON says it, of this format and a version that can be read."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(
            f"cannot read {path}: {error.strerror}; give an artefact's folder or fetch it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not JSON ({error}); fetch the artefact again") from error
    found = (card.get("format"), card.get("version")) if isinstance(card, dict) else None
    if found not in READABLE:
        raise ArtefactError(
            f"{path} says format and version {found}, not {(FORMAT, VERSION)}; update the package or fetch it again"
        )
    return card


def verified_files(folder: Path, card: dict[str, Any]) -> dict[str, bytes]:
    """The content of every file that the card lists, after its size and SHA-256 agreed; nothing else is read.

    What is loaded later must be these bytes, not the files again: between the two somebody could swap them.
    """
    contents = {}
    for name, size, sha256 in _listed(folder, card):
        content = _beginning(folder, name, size + 1)
        if len(content) != size:
            found = (folder / name).stat().st_size
            raise ArtefactError(f"{folder / name} has {found} bytes, its card says {size}; fetch the artefact again")
        contents[name] = _checked(content, sha256, folder / name)
    return contents


def verified_model(folder: Path, card: dict[str, Any]) -> bytes:
    """The model of an artefact, after all its files agreed with the card."""
    contents = verified_files(folder, card)
    model = card.get("model")
    if not isinstance(model, str) or model not in contents:
        raise ArtefactError(f"{folder / CARD}: its card is incomplete ('model'); fetch the artefact again")
    return contents[model]


def verified_prefix(folder: Path, card: dict[str, Any]) -> bytes:
    """The longest beginning of the model that is here and has a SHA-256 on the card: some layers, or the whole file.

    The other files of the artefact may still be on their way.
    """
    whole = [(size, sha256) for name, size, sha256 in _listed(folder, card) if name == card.get("model")]
    try:
        layers = [(int(layer["bytes"]), str(layer["sha256"])) for layer in card.get("layers", ())]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{folder / CARD}: its list of layers is damaged ({error}); fetch it again") from error
    if not whole:
        raise ArtefactError(f"{folder / CARD}: its card is incomplete ('model'); fetch the artefact again")
    path, ends = folder / card["model"], sorted({*layers, *whole}, reverse=True)
    content = _beginning(folder, card["model"], ends[0][0])
    for size, sha256 in ends:
        if len(content) >= size:
            return _checked(content[:size], sha256, path)
    raise ArtefactError(f"{path}: {len(content)} bytes are here, it shows nothing before {ends[-1][0]}; receive more")


def _listed(folder: Path, card: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Path, bytes and SHA-256 of every file of the card."""
    try:
        return [(str(file["path"]), int(file["bytes"]), str(file["sha256"])) for file in card["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{folder / CARD}: its list of files is damaged ({error}); fetch the artefact again"
        ) from error


def _beginning(folder: Path, name: str, most: int) -> bytes:
    """At most so many bytes of a file of the artefact; a path that leaves the folder is refused."""
    try:
        with inside(folder, name).open("rb") as file:
            return file.read(max(most, 0))
    except FileError as error:
        raise ArtefactError(f"{folder / CARD}: {error}") from error
    except OSError as error:
        raise ArtefactError(f"{folder / name} is missing ({error.strerror}); fetch the artefact again") from error


def _checked(content: bytes, sha256: str, path: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtefactError(f"{path} does not have the SHA-256 that its card says; do not use it, fetch it again")
    return content
