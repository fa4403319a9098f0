"""Tokens: who may ask. Only their SHA-256 is stored; each expires, can be renewed, and can be revoked at once."""

import hashlib
import os
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crowdnerf_lab.network.api.database import Database

Role = Literal["ue", "operator"]
OPERATOR_FILE = "operator.token"
OPERATOR_HOURS = 24.0 * 3650
"""The operator's token lasts until its file is removed and the service starts anew, or ten years."""
KEPT_HOURS = 24.0 * 7
"""For which a token is remembered after it has expired, so that its UE is told so."""


class TokenError(ValueError):
    """A token that is not good; the message says why, not whose it is."""


@dataclass(frozen=True)
class Token:
    """A token as it is handed out, once. expires: Unix time."""

    text: str
    expires: float


@dataclass(frozen=True)
class Holder:
    """Whom a good token belongs to: a UE of an event, or the operator (event and ue None). sha256: of the token."""

    sha256: str
    role: Role
    event: str | None
    ue: str | None
    expires: float


def digest_of(secret: str) -> str:
    """What is stored of a secret. Tokens carry 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def issue(connection: sqlite3.Connection, *, role: Role, event: str | None, ue: str | None, hours: float) -> Token:
    """Make a token, in the caller's transaction."""
    now = time.time()
    token = Token(secrets.token_urlsafe(32), now + 3600 * hours)
    _store(connection, token, role=role, event=event, ue=ue, issued=now)
    return token


def holder_of(database: Database, text: str) -> Holder:
    """Whose token this is. Raises TokenError for one that is unknown, has expired, was revoked, or whose UE has left.

    One look-up by primary key: microseconds, and no writer is waited for.
    """
    row = (
        database.connection()
        .execute(
            "SELECT tokens.sha256, role, tokens.event, tokens.ue, expires, revoked, ues.left FROM tokens "
            "LEFT JOIN ues ON ues.event = tokens.event AND ues.ue = tokens.ue WHERE tokens.sha256 = ?",
            (digest_of(text),),
        )
        .fetchone()
    )
    if row is None:
        raise TokenError("the token is unknown; join the event to get one")
    if row["revoked"] is not None:
        raise TokenError("the token was revoked; join the event again")
    if row["left"] is not None:
        raise TokenError("its UE has left the event; join again")
    if row["expires"] <= time.time():
        raise TokenError("the token has expired; join the event again, and renew the next one in time")
    return Holder(row["sha256"], row["role"], row["event"], row["ue"], row["expires"])


def revoke(connection: sqlite3.Connection, *, event: str, ue: str) -> int:
    """End all tokens of a UE, in the caller's transaction. Returns how many were still good."""
    now = time.time()
    return connection.execute(
        "UPDATE tokens SET revoked = ? WHERE event = ? AND ue = ? AND revoked IS NULL AND expires > ?",
        (now, event, ue, now),
    ).rowcount


def remove_expired(database: Database) -> int:
    """Forget tokens that ended long ago. Returns how many."""
    with database.transaction() as connection:
        return connection.execute("DELETE FROM tokens WHERE expires < ?", (time.time() - 3600 * KEPT_HOURS,)).rowcount


def operator_token(database: Database, home: Path) -> str:
    """The operator's token, in a file that only its owner reads; made when there is none, which ends older ones."""
    path = Path(home) / OPERATOR_FILE
    with database.transaction() as connection:  # one process at a time
        text = path.read_text().strip() if path.exists() else ""
        if len(text) < 32:
            text = secrets.token_urlsafe(32)
            _write_private(path, text + "\n")
        now = time.time()
        connection.execute(
            "UPDATE tokens SET revoked = ? WHERE role = 'operator' AND sha256 != ? AND revoked IS NULL",
            (now, digest_of(text)),
        )
        if connection.execute("SELECT 1 FROM tokens WHERE sha256 = ?", (digest_of(text),)).fetchone() is None:
            lasting = Token(text, now + 3600 * OPERATOR_HOURS)
            _store(connection, lasting, role="operator", event=None, ue=None, issued=now)
    return text


def _store(
    connection: sqlite3.Connection, token: Token, *, role: Role, event: str | None, ue: str | None, issued: float
) -> None:
    connection.execute(
        "INSERT INTO tokens (sha256, event, ue, role, issued, expires) VALUES (?, ?, ?, ?, ?, ?)",
        (digest_of(token.text), event, ue, role, issued, token.expires),
    )


def _write_private(path: Path, text: str) -> None:
    """Readable by nobody else at any moment, and whole or absent."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
