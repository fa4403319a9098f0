"""Who holds which pieces of what, among the UEs of an event: the service's side, and a UE's.

The service never connects to a peer, and never tells of an address that the peer did not speak from; what peers claim
is checked by those who fetch from them, piece by piece.
"""

import json
import random
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import Field, ValidationError

from crowdnerf_lab.findings import first_finding
from crowdnerf_lab.network.delivery.objects import DeliveryError, Described
from crowdnerf_lab.network.delivery.peers import Source
from crowdnerf_lab.network.delivery.pieces import SharedObject

PEER_S = 30.0
"""How long a peer is believed to be there after it was heard of."""
MOST_PEERS = 50
"""Told to one who asks, drawn by chance."""
MOST_OBJECTS = 64
"""That one UE may say to hold."""


class Peer(Described):
    """A UE that gives pieces. url: of the object there."""

    url: str = Field(max_length=200, pattern=r"^http://[0-9A-Za-z.:\[\]-]+/objects/[0-9a-f]{64}$")
    pieces: tuple[int, ...] = Field(max_length=256)


class Peers(Described):
    """An object, who holds pieces of it, and how soon to ask again. href: of the object at the service itself."""

    object: SharedObject
    href: str = Field(pattern=r"^/[^/\\]", max_length=1024)
    peers: tuple[Peer, ...] = Field(max_length=MOST_PEERS)
    ask_again_s: float = Field(gt=0)


class PeerBook:
    """The service's notes of who holds what, shared by its API processes; lost notes are made again in seconds."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._connections = threading.local()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection().execute(
            "CREATE TABLE IF NOT EXISTS peers (event TEXT, sha256 TEXT, ue TEXT, url TEXT, pieces TEXT, seen REAL, "
            "PRIMARY KEY (event, sha256, ue)) WITHOUT ROWID"
        )

    def announce(self, event: str, sha256: str, *, ue: str, peer: Peer) -> None:
        """Note what a UE holds; no piece: that it gives no longer. Raises DeliveryError for too many."""
        connection, now = self._connection(), time.time()
        connection.execute(
            "DELETE FROM peers WHERE seen < ? OR (event = ? AND sha256 = ? AND ue = ?)",
            (
                now - PEER_S,
                event,
                sha256,
                ue,
            ),
        )
        if not peer.pieces:
            return
        (held,) = connection.execute("SELECT count(*) FROM peers WHERE event = ? AND ue = ?", (event, ue)).fetchone()
        if held >= MOST_OBJECTS:
            raise DeliveryError(f"a UE gives at most {MOST_OBJECTS} objects at a time; stop giving another one")
        connection.execute(
            "INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, ?, ?)",
            (event, sha256, ue, peer.url, json.dumps(sorted(set(peer.pieces))), now),
        )

    def peers(self, event: str, sha256: str, *, but: str) -> tuple[Peer, ...]:
        """Some of the UEs that hold pieces of an object, without the one that asks."""
        rows = (
            self._connection()
            .execute(
                "SELECT url, pieces FROM peers WHERE event = ? AND sha256 = ? AND ue != ? AND seen >= ?",
                (event, sha256, but, time.time() - PEER_S),
            )
            .fetchall()
        )
        chosen = random.sample(rows, min(len(rows), MOST_PEERS))
        return tuple(Peer(url=url, pieces=tuple(json.loads(pieces))) for url, pieces in chosen)

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._connections, "one", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = OFF")
            self._connections.one = found
        return found


@dataclass(frozen=True)
class Tracker:
    """A UE's view of who holds an object: asks the service, and says what it holds itself.

    headers: with the UE's token; only the service sees them.
    """

    client: httpx.AsyncClient
    service: str
    event: str
    headers: Mapping[str, str]

    async def ask(self, sha256: str) -> Peers:
        """The object and its peers. Raises DeliveryError."""
        return self._read(await self._request("GET", params={"sha256": sha256}))

    async def announce(self, sha256: str, *, port: int, pieces: Sequence[int]) -> Peers:
        """Say which pieces are given at a port of this UE; none takes it back. The answer is that of `ask`."""
        return self._read(
            await self._request("POST", document={"sha256": sha256, "port": port, "pieces": list(pieces)})
        )

    def sources(self, peers: Peers) -> tuple[Source, ...]:
        """Where the object can be had: at the service, and at peers."""
        origin = Source("cloud", str(httpx.URL(self.service).join(peers.href)), headers=self.headers)
        return (origin, *(Source("peer", peer.url, frozenset(peer.pieces)) for peer in peers.peers))

    async def _request(
        self, method: str, *, params: Mapping[str, str] | None = None, document: object = None
    ) -> httpx.Response:
        url = httpx.URL(self.service).join(f"/events/{self.event}/peers")
        try:
            return await self.client.request(method, url, params=params, json=document, headers=dict(self.headers))
        except httpx.HTTPError as error:
            raise DeliveryError(
                f"the service does not say who holds what ({type(error).__name__}); try again"
            ) from error

    @staticmethod
    def _read(response: httpx.Response) -> Peers:
        if response.status_code != 200:
            raise DeliveryError(f"the service does not say who holds what: {response.status_code} {response.text:.200}")
        try:
            return Peers.model_validate_json(response.content)
        except ValidationError as error:
            raise DeliveryError(f"the service's list of peers: {first_finding(error)}; ask again") from error
