"""A service without rendering and training, its test client, and UEs that joined it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from crowdnerf_lab.catalogue.catalogue import Catalogue, Version
from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from tests.toy_catalogue import toy_graph, write_toy_artefact

JOINING = {"device": "a phone", "operating_system": "android", "consent": {"train": True, "publish": False}}
CAPABILITY = {
    "runtimes": ["onnxruntime"],
    "precisions": ["float32"],
    "memory_mb": 500,
    "link_mbit_s": 20,
    "rtt_ms": 50,
}


@dataclass
class ToyService:
    """A running application. client: shows no token by itself."""

    home: Path
    client: TestClient
    service: Service

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": "Bearer " + (self.home / "operator.token").read_text().strip()}

    def join(self, *, event: str = "concert", **others: Any) -> dict[str, Any]:
        answer = self.client.post(f"/events/{event}/ues", json=JOINING | others)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def token(self, *, event: str = "concert") -> dict[str, str]:
        """The Authorization header of a UE that has just joined."""
        return bearer(self.join(event=event)["token"])

    def publish(self, seed: int = 0, *, padding: int = 20_000, names: tuple[str, ...] = ("toy",)) -> Version:
        return publish(self.home, seed, padding=padding, names=names)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def publish(
    home: Path, seed: int = 0, *, event: str = "concert", padding: int = 20_000, names: tuple[str, ...] = ("toy",)
) -> Version:
    """A version of toy artefacts of so many bytes, whose weights depend on the seed."""
    content = toy_graph(seed=seed, padding=padding)
    made = [write_toy_artefact(home / "made" / str(seed), name, content=content) for name in names]
    return Catalogue(home / "catalogue").publish(made, event=event, note=f"seed {seed}")


@contextmanager
def toy_service(home: Path, **settings: Any) -> Iterator[ToyService]:
    given: Mapping[str, Any] = {"events": ("concert",), "train": False, "view_processes": 0} | settings
    application = create_app(ServiceSettings(home, **given))
    with TestClient(application, raise_server_exceptions=False) as client:
        yield ToyService(home, client, application.state.service)
