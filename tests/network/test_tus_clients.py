"""Uploads against a client that others wrote (tuspy), through real sockets, while the server is killed."""

import hashlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader.uploader import Uploader

from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads.contributions import Contributions
from tests.network.direct_asgi import photo
from tests.network.mortal_server import MortalServer

PIECE = 1 << 14


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MortalServer]:
    with MortalServer(ServiceSettings(home=tmp_path, events=("concert",), train=False)) as running:
        yield running


def joined(server: MortalServer) -> tuple[str, TusClient]:
    """The pseudonym of a new UE, and a tus client with its token."""
    document = {"device": "a phone", "consent": {"train": True, "publish": False}}
    answer = httpx.post(f"{server.url}/events/concert/ues", json=document, timeout=30).json()
    headers = {"Authorization": f"Bearer {answer['token']}"}
    return answer["ue"], TusClient(f"{server.url}/events/concert/uploads", headers=headers)


def patient(ask: Callable[[], Any], *, tries: int = 100) -> Any:
    """What a client with patience does when the server is away."""
    for _ in range(tries):
        try:
            return ask()
        except (TusCommunicationError, TusUploadFailed, httpx.TransportError):
            time.sleep(0.02)
    return ask()


def uploader(client: TusClient, content: bytes, *, checksum: bool) -> Uploader:
    metadata = {"filename": "stage.jpg", "filetype": "image/jpeg", "capture": '{"time_s": 3}'}
    stream = io.BytesIO(content)
    return client.uploader(file_stream=stream, chunk_size=PIECE, metadata=metadata, upload_checksum=checksum)


@pytest.mark.row("S22")
def test_a_client_that_others_wrote_uploads(server: MortalServer, tmp_path: Path) -> None:
    ue, client = joined(server)
    content = photo(5 * PIECE + 77)
    for checksum in (False, True):
        uploader(client, content, checksum=checksum).upload()
    found = Contributions(Database(tmp_path)).of("concert", ue)
    assert [(each.state, each.path.read_bytes() == content) for each in found] == [("received", True)] * 2


def test_it_goes_on_after_the_server_was_killed_in_the_middle(server: MortalServer, tmp_path: Path) -> None:
    ue, client = joined(server)
    content = photo(8 * PIECE)
    sending = uploader(client, content, checksum=True)
    sending.upload(stop_at=3 * PIECE)
    server.kill()
    server.start()
    again = client.uploader(url=sending.url, file_stream=io.BytesIO(content), chunk_size=PIECE)
    assert again.offset == 3 * PIECE
    again.upload()
    (found,) = Contributions(Database(tmp_path)).of("concert", ue)
    assert (found.state, found.sha256) == ("received", hashlib.sha256(content).hexdigest())


def test_a_connection_that_breaks_costs_only_what_had_not_arrived(server: MortalServer) -> None:
    _, client = joined(server)
    content = photo(4 * PIECE)
    sending = uploader(client, content, checksum=False)
    sending.set_url(sending.create_url())
    where = urlsplit(str(sending.url))
    said = [f"PATCH {where.path} HTTP/1.1", f"Host: {where.netloc}", f"Content-Length: {len(content)}"]
    said += [f"{name}: {value}" for name, value in sending.get_headers().items()]
    said += ["Upload-Offset: 0", "Content-Type: application/offset+octet-stream", "", ""]
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall("\r\n".join(said).encode() + content[: 2 * PIECE + 5])
        time.sleep(0.1)
    end = time.monotonic() + 5
    while sending.get_offset() < 2 * PIECE + 5 and time.monotonic() < end:
        time.sleep(0.02)
    sending.offset = sending.get_offset()
    assert sending.offset == 2 * PIECE + 5
    sending.upload()


def test_twenty_kills_lose_and_double_nothing_acknowledged(server: MortalServer, tmp_path: Path) -> None:
    """Four UEs' worth of threads upload, with and without checksums, until the server has been killed 20 times."""
    ue, client = joined(server)
    rewound: list[tuple[int, int]] = []
    sent: list[str] = []
    enough, progress = threading.Event(), threading.Event()

    def send(first: int) -> None:
        for seed in range(first, 10**9, 4):
            if enough.is_set():
                return
            content = photo(6 * PIECE + seed, seed=seed)
            sending = uploader(client, content, checksum=seed % 2 == 0)
            sending.set_url(patient(sending.create_url))
            acknowledged = 0
            while acknowledged < len(content):
                sending.offset = patient(sending.get_offset)
                if sending.offset < acknowledged:
                    rewound.append((acknowledged, sending.offset))
                try:
                    while sending.offset < len(content):
                        sending.upload_chunk()
                        acknowledged = sending.offset
                        progress.set()
                except (TusUploadFailed, TusCommunicationError):
                    continue
                acknowledged = sending.offset
            sent.append(hashlib.sha256(content).hexdigest())

    threads = [threading.Thread(target=send, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for kill in range(20):
        progress.clear()
        assert progress.wait(10)
        time.sleep(0.0037 * kill % 0.02)
        server.kill()
        server.start()
    enough.set()
    for thread in threads:
        thread.join()
    assert rewound == []
    found = Contributions(Database(tmp_path)).of("concert", ue)
    assert sorted(each.sha256 for each in found) == sorted(sent)
    assert all(sha256_of(each.path) == each.sha256 for each in found)
    assert len(sent) >= 4
