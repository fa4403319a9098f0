"""A UE that visits a service for its views, and reads what comes."""

import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.views.view_engine import EncodedView, decode_view
from tests.network.toy_views import EVENT, request_from

EMPTY = "nothing-yet"


@dataclass(frozen=True)
class Visit:
    """A service with a published field, and a UE that has joined its event. service: where it runs in this process."""

    url: str
    http: httpx.Client
    token: str
    service: Service | None = None

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, document: Any, *, event: str = EVENT, **options: Any) -> httpx.Response:
        content = document if isinstance(document, str | bytes) else json.dumps(document)
        headers = {"Content-Type": "application/json"} | options.pop("headers", self.authorization)
        return self.http.post(f"/events/{event}/views", content=content, headers=headers, **options)

    @contextmanager
    def stream(self, *, headers: dict[str, str] | None = None, event: str = EVENT) -> Iterator[ClientConnection]:
        url = self.url.replace("http", "ws", 1) + f"/events/{event}/views/stream"
        headers = self.authorization if headers is None else headers
        with connect(url, additional_headers=headers, proxy=None, ping_interval=None, close_timeout=2) as socket:
            yield socket


def settings_of(home: Path) -> ServiceSettings:
    return ServiceSettings(
        home=home,
        events=(EVENT, EMPTY),
        train=False,
        view_processes=1,
        view_deadline_ms=8000.0,
        requests_per_second=1e4,
        burst=10**6,
        refused_per_minute=10**6,
    )


def shown(visit: Visit) -> Visit:
    """A visit to a service that renders by now."""
    for _ in range(600):
        if visit.ask(document_of()).status_code == 200:
            break
        time.sleep(0.05)
    return visit


def joined(http: httpx.Client, event: str) -> str:
    answer = http.post(f"/events/{event}/ues", json={"device": "a test", "consent": {"train": True, "publish": True}})
    assert answer.status_code == 201, answer.text
    return answer.json()["token"]


def document_of(place: float = 0.0, *, width: int = 48, height: int = 32, **others: Any) -> dict[str, Any]:
    request = request_from(place, width=width, height=height)
    document = {
        "camera_to_world": np.array(request.camera_to_world).tolist(),
        "focal": list(request.focal),
        "centre": list(request.centre),
        "width": width,
        "height": height,
    }
    return document | others


def received(socket: ClientConnection) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """The next message: a view's header and picture, or a problem."""
    message = socket.recv(timeout=20)
    if isinstance(message, str):
        return json.loads(message), None
    (length,) = struct.unpack_from(">I", message)
    header = json.loads(message[4 : 4 + length])
    size = header["width"], header["height"]
    return header, decode_view(EncodedView(bytes(message[4 + length :]), header["media_type"], *size, 0, 0))
