import asyncio
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from crowdnerf_lab.network import serving
from crowdnerf_lab.network.api.running import NOTE, Running, RunningError, announced, is_claimed, running_on
from crowdnerf_lab.network.serving import serve
from crowdnerf_lab.network.settings import ServiceSettings
from tests.network.toy_service import CAPABILITY, JOINING, bearer, publish

QUIET = ServiceSettings(Path("unused"), events=("concert",), train=False, view_processes=0)
FILE = "/events/concert/versions/1/artefacts/toy/files/model.onnx"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    home = tmp_path_factory.mktemp("served")
    publish(home, 0, padding=200_000)
    with serve(home, settings=QUIET) as service:
        yield service


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def token(client):
    return bearer(client.post("/events/concert/ues", json=JOINING).json()["token"])


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    patience = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < patience:
        time.sleep(0.05)
    return not any(map(runs, pids))


def children(pid: int) -> list[int]:
    found = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return found + [further for child in found for further in children(child)]


def test_one_line_starts_a_service_that_answers(service, client):
    assert service.alive
    assert service.ours
    assert client.get("/health").json()["database"] == "ready"
    assert client.get("/events").json()["events"][0]["event"] == "concert"
    made = client.post("/events", json={"event": "encore"}, headers=bearer(service.operator_token))
    assert made.status_code == 201
    assert re.fullmatch(r"RunningService\(url='http://127.0.0.1:\d+', .*ours=True\)", repr(service))


def test_selection_and_download_over_a_real_connection(client, token):
    offer = client.post("/events/concert/models:select", json={"capability": CAPABILITY}, headers=token).json()
    file = next(file for file in offer["artefacts"][0]["files"] if file["path"] == "model.onnx")
    whole = client.get(file["href"], headers=token | {"Accept-Encoding": "identity"})
    assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
    part = client.get(file["href"], headers=token | {"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, whole.content[1000:2000])
    head = client.head(file["href"], headers=token | {"Accept-Encoding": "identity"})
    assert (head.headers["content-length"], head.content) == (str(file["bytes"]), b"")
    coded = client.get(file["href"], headers=token | {"Accept-Encoding": "gzip;q=1, identity;q=0"})
    assert (coded.headers["content-encoding"], coded.content) == ("gzip", whole.content)


def test_a_crowd_downloads_at_once(service, token):
    async def crowd() -> list[bytes]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=60, trust_env=False) as client:
            answers = await asyncio.gather(
                *(client.get(FILE, headers=token | {"Accept-Encoding": "identity"}) for _ in range(100))
            )
        return [answer.content for answer in answers]

    contents = asyncio.run(crowd())
    assert len(contents) == 100
    assert len(set(contents)) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /events/concert/ues HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_bytes_that_are_no_request_hurt_nobody(service, client, sent):
    host, port = httpx.URL(service.url).host, httpx.URL(service.url).port
    with socket.create_connection((host, port), timeout=2) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.1 200 OK\r\nx"))
    assert client.get("/health").status_code == 200


def test_a_second_call_joins_the_first_server(service):
    second = serve(service.home)
    assert (second.url, second.pid, second.ours) == (service.url, service.pid, False)
    second.close()
    assert service.alive


def test_a_home_has_one_port(service):
    with pytest.raises(RunningError, match="not at port 1; stop it first"):
        serve(service.home, port=1)


def test_a_port_in_use_is_named(service, tmp_path):
    port = httpx.URL(service.url).port
    with pytest.raises(RunningError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
        serve(tmp_path, port=port, settings=QUIET)
    assert not is_claimed(tmp_path)


def test_the_command_line_says_who_has_the_home(service):
    command = [sys.executable, "-m", "crowdnerf_lab.network", "--home", str(service.home), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert f"a server runs at {service.url} (process {service.pid})" in ended.stderr


def test_a_server_of_another_version_is_not_used(service, monkeypatch):
    monkeypatch.setattr(serving, "version", lambda _: "99.0")
    with pytest.raises(RunningError, match=r"a server of version .* runs at"):
        serve(service.home)


def test_settings_that_cannot_be_end_in_a_clear_error(tmp_path):
    with pytest.raises(RunningError, match="burst: Input should be greater than or equal to 1"):
        serve(tmp_path, settings=ServiceSettings(tmp_path, burst=0))


def test_a_dead_servers_note_is_not_believed(tmp_path):
    announced(tmp_path, Running("http://127.0.0.1:1", 1, "0"))
    assert running_on(tmp_path) is None
    assert not is_claimed(tmp_path)


def test_it_stops_within_seconds_though_somebody_waits(tmp_path):
    with serve(tmp_path, settings=QUIET) as service:
        url = httpx.URL(service.url)
        headers = bearer(httpx.post(f"{url}/events/concert/ues", json=JOINING, trust_env=False).json()["token"])
        with socket.create_connection((url.host, url.port)) as waiting:
            lines = [f"{name}: {value}" for name, value in ({"Host": "x"} | headers).items()]
            path = "/events/concert/versions/latest?newer_than=9&wait_s=60"
            waiting.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
            time.sleep(0.3)
            started = time.monotonic()
            service.close()
            assert time.monotonic() - started < 9
    assert not service.alive
    assert not runs(service.pid)
    assert not (tmp_path / NOTE).exists()
    service.close()
    assert "Application startup complete" in service.log.read_text()


def test_the_service_and_its_processes_end_with_the_notebook(tmp_path):
    code = f"""
        import os, sys, time
        from pathlib import Path
        from crowdnerf_lab.network.serving import serve
        from crowdnerf_lab.network.settings import ServiceSettings
        settings = ServiceSettings(Path({str(tmp_path)!r}), events=("concert",), train=False, view_processes=1)
        print(serve(Path({str(tmp_path)!r}), settings=settings).pid, flush=True)
        time.sleep(60)
    """
    notebook = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert notebook.stdout is not None
    server = int(notebook.stdout.readline())
    everybody = [server, *children(server)]
    assert len(everybody) >= 2
    os.kill(notebook.pid, signal.SIGINT)  # an interrupted kernel: the cell ends, the service does not suffer half-way
    os.kill(notebook.pid, signal.SIGKILL)
    notebook.wait()
    notebook.stdout.close()
    assert gone_within(everybody, 15)


def test_an_interrupt_while_it_starts_leaves_nothing_behind(tmp_path, monkeypatch):
    started = []

    def interrupted(home, process, *, begins_at):
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "_answering", interrupted)
    with pytest.raises(KeyboardInterrupt):
        serve(tmp_path, settings=QUIET)
    assert started[0].poll() is not None
    assert not is_claimed(tmp_path)


def test_two_api_processes_end_when_their_parent_is_killed(tmp_path):
    with serve(tmp_path, settings=QUIET, workers=2) as service:
        everybody = [service.pid, *children(service.pid)]
        assert len(everybody) >= 3
        os.kill(service.pid, signal.SIGKILL)
        assert gone_within(everybody, 15)


def test_uvicorn_runs_it_too(tmp_path):
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    environment = os.environ | ServiceSettings(tmp_path, train=False, view_processes=0).to_environment()
    command = [sys.executable, "-m", "uvicorn", "--factory", "crowdnerf_lab.network.service:app", "--port", str(number)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 60
        status = 0
        while status != 200 and time.monotonic() < patience:
            try:
                status = httpx.get(f"http://127.0.0.1:{number}/health", trust_env=False).status_code
            except httpx.TransportError:
                time.sleep(0.1)
        assert status == 200
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)
