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
    try:
        listed = [(str(file["path"]), int(file["bytes"]), str(file["sha256"])) for file in card["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{folder / CARD}: its list of files is damaged ({error}); fetch the artefact again"
        ) from error
    for name, size, sha256 in listed:
        try:
            path = inside(folder, name)
            content = path.read_bytes() if path.stat().st_size == size else None
        except FileError as error:
            raise ArtefactError(f"{folder / CARD}: {error}") from error
        except OSError as error:
            raise ArtefactError(f"{folder / name} is missing ({error.strerror}); fetch the artefact again") from error
        if content is None:
            raise ArtefactError(
                f"{path} has {path.stat().st_size} bytes, its card says {size}; fetch the artefact again"
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtefactError(f"{path} does not have the SHA-256 that its card says; do not use it, fetch it again")
        contents[name] = content
    return contents
