"""Who asked to be forgotten, without saying who: salted hashes that a returning pseudonym can be checked against."""

import hashlib
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from crowdnerf_lab.captures.privacy.records import read_record
from crowdnerf_lab.files import write_json

TOMBSTONES = "forgotten.json"
"""Beside the manifest of the captures."""
_COST = 1 << 13
"""Of scrypt: 8 MB and some 20 ms a guess, since pseudonyms can be short."""


class Tombstones(BaseModel):
    """forgotten.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["crowdnerf_lab.forgotten"] = "crowdnerf_lab.forgotten"
    version: Literal[1] = 1
    salt: str
    hashes: tuple[str, ...] = ()


def was_forgotten(root: Path, ue: str) -> bool:
    """Whether a pseudonym asked to be forgotten from the captures in this folder. CaptureError: a damaged file."""
    stones = _read(Path(root) / TOMBSTONES)
    return stones is not None and _hash(ue, stones.salt) in stones.hashes


def set_tombstone(root: Path, ue: str) -> None:
    """Remember that a pseudonym asked to be forgotten."""
    path = Path(root) / TOMBSTONES
    stones = _read(path) or Tombstones(salt=secrets.token_hex(16))
    hashed = _hash(ue, stones.salt)
    if hashed not in stones.hashes:
        write_json(path, stones.model_copy(update={"hashes": (*stones.hashes, hashed)}).model_dump(mode="json"))


def _read(path: Path) -> Tombstones | None:
    return read_record(path, Tombstones) if path.is_file() else None


def _hash(ue: str, salt: str) -> str:
    return hashlib.scrypt(ue.encode(), salt=bytes.fromhex(salt), n=_COST, r=8, p=1).hex()
