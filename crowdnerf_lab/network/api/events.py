"""Events and the UEs present at them: made by the operator, joined by phones under pseudonyms, and accounted for."""

import hmac
import json
import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from crowdnerf_lab.captures.bundle import Consent
from crowdnerf_lab.catalogue.catalogue import EVENT
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.api.tokens import Token, digest_of, issue, revoke


class EventError(ValueError):
    """What an event does not allow; the message says why and what to do."""


class EventExistsError(EventError):
    """An event of this name is there already."""


class NoEventError(EventError):
    """There is no such event."""


class NotAdmittedError(EventError):
    """A join code that is missing or wrong."""


@dataclass(frozen=True)
class Event:
    """A gathering whose UEs contribute and receive. created: Unix time."""

    event: str
    title: str
    created: float
    join_code_required: bool


@dataclass(frozen=True)
class Joining:
    """What a UE says of itself when it joins; nothing of it identifies its owner. licence: of what it contributes."""

    device: str
    operating_system: str | None
    consent: Consent
    licence: str


@dataclass(frozen=True)
class Joined:
    """A UE's pseudonym at this event, and its token."""

    ue: str
    token: Token


@dataclass(frozen=True)
class UEAccount:
    """What a UE has at the service: photos and clips, their bytes, uploads under way, tokens that are good. Unix
    times; left: None while it is present."""

    ue: str
    device: str
    operating_system: str | None
    joined: float
    left: float | None
    contributions: int
    bytes: int
    uploads: int
    tokens: int


class Events:
    """The events of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def make(self, event: str, *, title: str = "", join_code: str | None = None) -> Event:
        """Add an event; with a join code only UEs that send it may join. Raises EventExistsError, EventError."""
        if not EVENT.fullmatch(event):
            raise EventError(f"event {event!r:.160} cannot be a name; use letters, digits, '_', '.' and '-'")
        made = Event(event, title, time.time(), join_code is not None)
        code = None if join_code is None else digest_of(join_code)
        try:
            with self.database.transaction() as connection:
                connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (event, title, code, made.created))
        except sqlite3.IntegrityError as error:
            raise EventExistsError(f"the event {event} exists already; join it, or choose another name") from error
        return made

    def make_absent(self, names: Iterable[str]) -> None:
        """Add those of these events that are not there yet, without join codes."""
        for event in names:
            try:
                self.make(event)
            except EventExistsError:
                continue

    def all(self) -> tuple[Event, ...]:
        """Every event, the oldest first."""
        rows = self.database.connection().execute("SELECT * FROM events ORDER BY created, event")
        return tuple(_event(row) for row in rows)

    def one(self, event: str) -> Event:
        """An event by its name. Raises NoEventError."""
        return _event(_row(self.database.connection(), event))

    def join(self, event: str, joining: Joining, *, join_code: str | None = None, hours: float) -> Joined:
        """Admit a UE under a new pseudonym, with a token for so many hours. Raises NoEventError, NotAdmittedError."""
        with self.database.transaction() as connection:
            code = _row(connection, event)["join_code_sha256"]
            if code is not None and not hmac.compare_digest(code, digest_of(join_code or "")):
                raise NotAdmittedError(f"{event} asks for a join code, and this is not it; read it at the event")
            ue = "ue" + secrets.token_hex(6)
            connection.execute(
                "INSERT INTO ues VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    event,
                    ue,
                    joining.device,
                    joining.operating_system,
                    json.dumps(joining.consent.model_dump()),
                    joining.licence,
                    time.time(),
                ),
            )
            return Joined(ue, issue(connection, role="ue", event=event, ue=ue, hours=hours))

    def renew(self, event: str, ue: str, *, token_sha256: str, hours: float) -> Token:
        """A new token of a UE; the one that asked for it ends. Raises EventError when it has ended meanwhile."""
        with self.database.transaction() as connection:
            now = time.time()
            ended = connection.execute(
                "UPDATE tokens SET revoked = ? WHERE sha256 = ? AND revoked IS NULL AND expires > ?",
                (now, token_sha256, now),
            )
            if ended.rowcount != 1:
                raise EventError("the token has ended meanwhile; join the event again")
            return issue(connection, role="ue", event=event, ue=ue, hours=hours)

    def leave(self, event: str, ue: str) -> None:
        """End a UE's presence and its tokens; what it contributed stays."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE ues SET left = ? WHERE event = ? AND ue = ? AND left IS NULL", (time.time(), event, ue)
            )
            revoke(connection, event=event, ue=ue)

    def revoke_tokens(self, event: str, ue: str) -> int:
        """End all tokens of a UE, as the operator may. Returns how many were good. Raises NoEventError, EventError."""
        with self.database.transaction() as connection:
            _row(connection, event)
            if connection.execute("SELECT 1 FROM ues WHERE event = ? AND ue = ?", (event, ue)).fetchone() is None:
                raise EventError(f"{event} has no UE {ue!r:.80}; its list of UEs names those it has")
            return revoke(connection, event=event, ue=ue)

    def accounts(self, event: str) -> tuple[UEAccount, ...]:
        """Every UE that joined, with what it has here, in the order of joining. Raises NoEventError."""
        connection = self.database.connection()
        _row(connection, event)
        rows = connection.execute(
            "SELECT ue, device, operating_system, joined, left, "
            "(SELECT count(*) FROM contributions c WHERE c.event = u.event AND c.ue = u.ue) AS contributions, "
            "(SELECT coalesce(sum(bytes), 0) FROM contributions c WHERE c.event = u.event AND c.ue = u.ue) AS bytes, "
            "(SELECT count(*) FROM uploads p WHERE p.event = u.event AND p.ue = u.ue) AS uploads, "
            "(SELECT count(*) FROM tokens t WHERE t.event = u.event AND t.ue = u.ue AND t.revoked IS NULL "
            "AND t.expires > ?) AS tokens FROM ues u WHERE event = ? ORDER BY joined, ue",
            (time.time(), event),
        )
        return tuple(UEAccount(**dict(row)) for row in rows)


def _row(connection: sqlite3.Connection, event: str) -> sqlite3.Row:
    row = connection.execute("SELECT * FROM events WHERE event = ?", (event,)).fetchone()
    if row is None:
        raise NoEventError(f"there is no event {event!r:.160}; GET /events lists those there are")
    return row


def _event(row: sqlite3.Row) -> Event:
    return Event(row["event"], row["title"], row["created"], row["join_code_sha256"] is not None)
