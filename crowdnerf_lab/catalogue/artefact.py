"""Artefact: a folder with a model, its card and its probe views, whole or absent, verified whenever it is opened."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from crowdnerf_lab.catalogue.card import CardFile, ModelCard, Prefix
from crowdnerf_lab.catalogue.verification import CARD, ArtefactError, read_card, verified_files
from crowdnerf_lab.files import FileError, inside, sha256_of, write_json
from crowdnerf_lab.findings import first_finding

__all__ = ["Artefact", "ArtefactError", "open_artefact", "write_artefact"]


@dataclass(frozen=True)
class Artefact:
    """A verified folder and its card."""

    folder: Path
    card: ModelCard

    @property
    def model(self) -> Path:
        """The file to load."""
        return self.folder / self.card.model


def card_files(files: Mapping[str, Path]) -> tuple[CardFile, ...]:
    """Size and SHA-256 of files, by their path inside an artefact's folder, as a card lists them."""
    return tuple(CardFile(path=name, bytes=path.stat().st_size, sha256=sha256_of(path)) for name, path in files.items())


def card_layers(
    model: Path, *, ends: Sequence[int], psnr: Mapping[int, float | None] | None = None
) -> tuple[Prefix, ...]:
    """Beginnings of a progressive file as a card lists them: of `ends` bytes each (read_layers finds where layers end),
    with their SHA-256 and, where measured, the PSNR of what they show, by their bytes."""
    content = Path(model).read_bytes()
    return tuple(
        Prefix(bytes=end, sha256=hashlib.sha256(content[:end]).hexdigest(), psnr=(psnr or {}).get(end)) for end in ends
    )


def write_artefact(card: ModelCard, root: Path, *, files: Mapping[str, Path]) -> Artefact:
    """Publish an artefact as root/NAME: either the whole folder appears, verified, or nothing does.

    files: where the files that the card lists come from. An artefact of the same name is replaced. Raises FileError
    when the disk is full, ArtefactError when the files are not what the card says.
    """
    root = Path(root)
    folder = root / card.name
    draft: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=root, prefix=f".{card.name}.", suffix=".partial"))
        for name, source in files.items():
            target = inside(draft, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        write_json(draft / CARD, card.model_dump(mode="json"))
        open_artefact(draft)
        _replace(draft, folder)
    except OSError as error:
        raise FileError(
            f"could not publish {folder}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return Artefact(folder, card)


def open_artefact(folder: Path) -> Artefact:
    """Verify a folder: the card is well formed, and every file it lists is there with its size and SHA-256.

    Raises ArtefactError naming the file and the remedy.
    """
    folder = Path(folder)
    document = read_card(folder)
    try:
        card = ModelCard.model_validate(document)
    except ValidationError as error:
        raise ArtefactError(f"{folder / CARD}: {first_finding(error)}") from error
    verified_files(folder, document)
    return Artefact(folder, card)


def _replace(draft: Path, folder: Path) -> None:
    """Move a finished draft into place; an older folder steps aside first and is removed last."""
    draft.chmod(0o755)
    if not folder.exists():
        os.rename(draft, folder)
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".old"))
    os.rename(folder, aside / "old")
    try:
        os.rename(draft, folder)
    except OSError:
        os.rename(aside / "old", folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
