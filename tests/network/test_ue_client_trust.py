"""A UE and a service that lies, breaks off or floods: nothing wrong is kept, nothing goes where it should not."""

import asyncio
import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import websockets

from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.network.ue_client import UE, UESettings
from crowdnerf_lab.network.ues.answers import (
    NetworkError,
    RefusedError,
    TokenEndedError,
    UntrustedAnswerError,
    retry_after_s,
)
from crowdnerf_lab.network.ues.event_connection import Patience
from tests.network.hostile_server import TOKEN, Asked, Reply, Server, serving
from tests.toy_catalogue import write_toy_artefact

CAPABILITY = Capability(runtimes=("onnxruntime",), precisions=("float32",), memory_mb=1000, link_mbit_s=20, rtt_ms=50)
HASTY = UESettings(patience=Patience(attempts=3, first_s=0.001, most_s=0.002))
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return write_toy_artefact(tmp_path_factory.mktemp("published"))


def joined(
    server: Server, home: Path, use: Callable[[UE], Coroutine[Any, Any, Result]], *, settings: UESettings = HASTY
) -> Result:
    """Join as a UE of this home, and what `use` makes of it."""

    async def run() -> Result:
        async with UE(server.url, capability=CAPABILITY, home=home, settings=settings, keep_fresh=False) as ue:
            await ue.join()
            return await use(ue)

    return asyncio.run(run())


def offered(artefact: Artefact, **changes: Any) -> dict[str, Any]:
    """A select answer for the toy artefact; changes: of the offer."""
    card = artefact.card.model_dump(mode="json")
    files = [file | {"href": f"/files/{file['path']}"} for file in card["files"]]
    offer = {"name": card["name"], "card": card, "files": files} | changes
    return {"version": 1, "artefacts": [offer], "reason": "it fits", "inference": "device"}


def answering(artefact: Artefact, send: Callable[[Asked], Reply], **changes: Any) -> Callable[[Asked], Reply]:
    """A service that offers the artefact and sends its files as it is told."""

    def answer(asked: Asked) -> Reply:
        if asked.path.endswith("/ues/me/token"):
            return Reply.json(TOKEN)
        return Reply.json(offered(artefact, **changes)) if asked.path.endswith("models:select") else send(asked)

    return answer


def below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_what_breaks_off_is_resumed_where_it_broke_off(artefact: Artefact, tmp_path: Path) -> None:
    content = artefact.model.read_bytes()
    ranges = []

    def files(asked: Asked) -> Reply:
        wanted = asked.headers.get("range")
        ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
        return Reply(206 if wanted else 200, content[start:], headers, cut=1000 if len(ranges) < 4 else None)

    with serving(answering(artefact, files)) as server:
        model = joined(server, tmp_path, lambda ue: ue.model())
    assert model is not None
    assert model.complete
    assert ranges == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    digest = artefact.card.files[0].sha256
    assert [asked.headers.get("if-range") for asked in server.asked][-1] == f'"{digest}"'


def test_a_service_that_forgets_ranges_sends_it_whole_again(artefact: Artefact, tmp_path: Path) -> None:
    content, sent = artefact.model.read_bytes(), []

    def files(_asked: Asked) -> Reply:
        sent.append(1)
        return Reply(200, content, cut=500 if len(sent) == 1 else None)

    with serving(answering(artefact, files)) as server:
        assert joined(server, tmp_path, lambda ue: ue.model()) is not None
    assert len(sent) == 2


def test_another_process_goes_on_with_what_an_earlier_one_had(artefact: Artefact, tmp_path: Path) -> None:
    content, wanted = artefact.model.read_bytes(), []

    def breaking(asked: Asked) -> Reply:
        return Reply(200, content, cut=0 if asked.headers.get("range") else 700)

    def whole(asked: Asked) -> Reply:
        wanted.append(asked.headers.get("range"))
        return Reply(206, content[700:], {"Content-Range": f"bytes 700-{len(content) - 1}/{len(content)}"})

    with serving(answering(artefact, breaking)) as server:
        with pytest.raises(NetworkError, match="does not answer"):
            joined(server, tmp_path, lambda ue: ue.model())
        server.answer = answering(artefact, whole)
        assert joined(server, tmp_path, lambda ue: ue.model()) is not None
    assert wanted == ["bytes=700-"]


@pytest.mark.row("S68")
@pytest.mark.parametrize("wrong", ["another file", "longer", "for ever"])
def test_a_file_that_is_not_the_one_announced_is_not_kept(artefact: Artefact, tmp_path: Path, wrong: str) -> None:
    content = artefact.model.read_bytes()
    sent = {
        "another file": Reply(200, content[:-1] + bytes([content[-1] ^ 1])),
        "longer": Reply(200, content + b"x"),
        "for ever": Reply(200, content * 50, length=10**12),
    }[wrong]
    with (
        serving(answering(artefact, lambda _asked: sent)) as server,
        pytest.raises(UntrustedAnswerError, match="nothing of it is kept"),
    ):
        joined(server, tmp_path, lambda ue: ue.model())
    kept = [path for path in below(tmp_path) if path.name not in ("identity.json", "card.json")]
    assert sum(path.stat().st_size for path in kept) == 0


@pytest.mark.parametrize("path", ["../../outside", "/etc/outside", "a/../../outside", ".hidden", "c:\\outside"])
def test_no_file_is_written_outside_of_the_ue_s_folder(artefact: Artefact, tmp_path: Path, path: str) -> None:
    card = artefact.card.model_dump(mode="json")
    for file in card["files"]:
        if file["path"] == card["model"]:
            file["path"] = path
    card["model"] = path
    files = [file | {"href": "/files/model"} for file in card["files"]]
    content = artefact.model.read_bytes()
    home = tmp_path / "inner" / "home"
    with (
        serving(answering(artefact, lambda _asked: Reply(200, content), card=card, files=files)) as server,
        pytest.raises(UntrustedAnswerError, match="malformed"),
    ):
        joined(server, home, lambda ue: ue.model())
    assert {path.name for path in below(tmp_path)} == {"identity.json"}


@pytest.mark.parametrize("name", ["../up", "..", "a/b", "", "x" * 200])
def test_a_model_s_name_is_no_path(artefact: Artefact, tmp_path: Path, name: str) -> None:
    card = artefact.card.model_dump(mode="json") | {"name": name}
    with (
        serving(answering(artefact, lambda _asked: Reply(), name=name, card=card)) as server,
        pytest.raises(UntrustedAnswerError, match="malformed"),
    ):
        joined(server, tmp_path, lambda ue: ue.model())


@pytest.mark.parametrize("href", ["http://127.0.0.1:1/x", "//127.0.0.1:1/x", "https://127.0.0.1/x", "file:///x"])
def test_no_link_leads_away_from_the_service_with_the_token(artefact: Artefact, tmp_path: Path, href: str) -> None:
    files = [file | {"href": href} for file in artefact.card.model_dump(mode="json")["files"]]
    with (
        serving(answering(artefact, lambda _asked: Reply(), files=files)) as server,
        pytest.raises(UntrustedAnswerError, match="leads elsewhere"),
    ):
        joined(server, tmp_path, lambda ue: ue.model())


def test_redirects_are_not_followed(artefact: Artefact, tmp_path: Path) -> None:
    moved = Reply(307, headers={"Location": "http://127.0.0.1:1/"})
    with serving(answering(artefact, lambda _asked: moved)) as server, pytest.raises(RefusedError, match="307"):
        joined(server, tmp_path, lambda ue: ue.model())


def test_more_than_the_ue_takes_is_not_even_begun(artefact: Artefact, tmp_path: Path) -> None:
    small = UESettings(most_model_bytes=100, patience=HASTY.patience)
    with (
        serving(answering(artefact, lambda _asked: Reply())) as server,
        pytest.raises(UntrustedAnswerError, match="this UE takes 100"),
    ):
        joined(server, tmp_path, lambda ue: ue.model(), settings=small)
    assert not any(asked.path.startswith("/files") for asked in server.asked)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>"),
        Reply(200, b"[1]"),
        Reply(200, b"[" * 100_000),
        Reply.json({"version": -1}),
        Reply.json({"version": 1, "artefacts": [{}]}),
        Reply.json({"version": "1; rm -rf", "artefacts": "x"}),
        Reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
        Reply(200, b" " * ((16 << 20) + 1)),
    ],
    ids=["html", "list", "deep", "negative", "empty offer", "text", "compressed", "too long"],
)
def test_an_answer_that_is_none_is_an_error_and_not_a_crash(tmp_path: Path, reply: Reply) -> None:
    with serving(lambda _asked: reply) as server, pytest.raises(UntrustedAnswerError, match="selecting a model"):
        joined(server, tmp_path, lambda ue: ue.model())


def test_a_service_s_words_cannot_steer_a_terminal(tmp_path: Path) -> None:
    words = {"title": "No\x1b[2J\r\n", "detail": "x" * 5000}
    with serving(lambda _asked: Reply.json(words, 403)) as server, pytest.raises(RefusedError) as refused:
        joined(server, tmp_path, lambda ue: ue.model())
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert refused.value.status == 403


def test_a_busy_service_is_asked_again_when_it_says_so(artefact: Artefact, tmp_path: Path) -> None:
    content, busy = artefact.model.read_bytes(), [503, 429]

    def answer(asked: Asked) -> Reply:
        if asked.path.endswith("models:select") and busy:
            return Reply(busy.pop(), headers={"Retry-After": "0"})
        return answering(artefact, lambda _asked: Reply(200, content))(asked)

    with serving(answer) as server:
        assert joined(server, tmp_path, lambda ue: ue.model()) is not None
    assert busy == []


def test_a_revoked_token_says_that_the_event_must_be_joined_again(tmp_path: Path) -> None:
    problem = {"title": "Unauthorized", "detail": "the token was revoked"}
    with serving(lambda _asked: Reply.json(problem, 401)) as server:
        with pytest.raises(TokenEndedError, match=r"was revoked; .*join the event again"):
            joined(server, tmp_path, lambda ue: ue.model())
        with pytest.raises(TokenEndedError, match=r"join\(anew=True\)"):  # the token of before is renewed, not replaced
            joined(server, tmp_path, lambda ue: ue.model())


def test_a_token_is_shown_to_no_other_service(tmp_path: Path) -> None:
    async def nothing(_ue: UE) -> None: ...

    with serving(lambda _asked: Reply(500)) as first:
        joined(first, tmp_path, nothing)
    identity = tmp_path / "concert" / "identity.json"
    assert identity.stat().st_mode & 0o777 == 0o600
    assert json.loads(identity.read_bytes())["url"] == first.url
    with serving(lambda _asked: Reply(500)) as second:
        joined(second, tmp_path, nothing)
    assert [asked.headers.get("authorization") for asked in second.asked] == [None]


def test_before_joining_nothing_is_asked(tmp_path: Path) -> None:
    async def ask(url: str) -> None:
        async with UE(url, capability=CAPABILITY, home=tmp_path) as ue:
            await ue.model()

    with (
        serving(lambda _asked: Reply()) as server,
        pytest.raises(NetworkError, match=r"has not joined concert; `await ue\.join\(\)` first"),
    ):
        asyncio.run(ask(server.url))
    assert server.asked == []


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://", "http://x?y=1", ""])
def test_what_is_no_address_is_said_at_once(url: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no service's address"):
        UE(url, capability=CAPABILITY, home=tmp_path)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("1.5") == 1.5
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("999999999") == 3600
    assert retry_after_s("soon") is retry_after_s(None) is None


def test_hashes_are_those_of_the_card(artefact: Artefact, tmp_path: Path) -> None:
    """What the store holds is named by what it is."""
    with serving(answering(artefact, lambda _asked: Reply(200, artefact.model.read_bytes()))) as server:
        joined(server, tmp_path, lambda ue: ue.model())
    for path in (tmp_path / "concert" / "models" / "files").glob("??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.mark.parametrize(
    ("created", "later", "says"),
    [
        ({"Location": "http://127.0.0.1:1/x"}, {}, "leads elsewhere"),
        ({}, {}, "does not say where the upload is"),
        ({"Location": "/uploads/1", "Upload-Offset": "99999"}, {}, "claims 99999 of 1000 bytes"),
        ({"Location": "/uploads/1", "Upload-Offset": "-1"}, {}, "claims -1 of 1000 bytes"),
        ({"Location": "/uploads/1", "Upload-Offset": "0"}, {"Upload-Offset": "0"}, "the service says it has 0"),
        ({"Location": "/uploads/1", "Upload-Offset": "0"}, {}, "the service says it has None"),
        ({"Location": "/uploads/1"}, {}, "does not say how much it has"),
    ],
)
def test_an_upload_ends_with_an_error_when_the_service_talks_nonsense(
    tmp_path: Path, created: dict[str, str], later: dict[str, str], says: str
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x" * 1000)

    def answer(asked: Asked) -> Reply:
        return Reply(201, headers=created) if asked.method == "POST" else Reply(204, headers=later)

    with serving(answer) as server, pytest.raises(UntrustedAnswerError, match=says):
        joined(server, tmp_path / "ue", lambda ue: ue.send(photo, capture={"time_s": 0.0}))


def test_an_upload_without_progress_ends(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x" * 1000)
    with serving(lambda _asked: Reply(503)) as server, pytest.raises(RefusedError, match=r"uploading photo\.png"):
        joined(server, tmp_path / "ue", lambda ue: ue.send(photo, capture={"time_s": 0.0}))
    assert len(server.asked) == 1 + HASTY.patience.attempts


def test_the_same_photo_is_announced_by_the_same_key_and_another_capture_by_another(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x" * 1000)

    def answer(_asked: Asked) -> Reply:
        return Reply(201, headers={"Location": "/uploads/1", "Upload-Offset": "1000"})

    with serving(answer) as server:
        for home, time_s in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
            joined(server, tmp_path / home, lambda ue, at=time_s: ue.send(photo, capture={"time_s": at}))
    keys = [asked.headers["idempotency-key"] for asked in server.asked if asked.path.endswith("/uploads")]
    assert keys[0] == keys[1] != keys[2]


NO_PICTURE = bytes.fromhex("ffd8ffe0")
HEADER = {"sequence": 1, "width": 24, "height": 16, "media_type": "image/webp", "version": 1, "dropped": 0}


def message(header: Any, content: bytes = NO_PICTURE, *, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(encoded) if length is None else length) + encoded + content


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "no view"),
        (b"\xff\xff\xff\xff", "no view"),
        (message(HEADER, length=1 << 31), "no view"),
        (message(b"[" * 9000), "no view"),
        (message(HEADER | {"sequence": 77}), "no view"),
        (message(HEADER | {"width": 9999}), r"a view of 9999 x 16 for 24 x 16"),
        (message(HEADER | {"width": 0}), r"a view of 0 x 16"),
        (message(HEADER), "damaged"),
        ("no JSON", "neither view nor problem"),
        ('{"status": 401, "title": "Unauthorized"}', "Unauthorized"),
        ('{"status": 429, "title": "Too Many Requests", "sequence": 3}', "Too Many Requests"),
    ],
    ids=[
        "empty",
        "short",
        "long header",
        "deep",
        "unknown",
        "larger",
        "none",
        "no picture",
        "text",
        "problem",
        "busy for all",
    ],
)
def test_a_stream_of_nonsense_is_an_error(tmp_path: Path, sent: bytes | str, says: str) -> None:
    async def run() -> None:
        async def send(socket: websockets.ServerConnection) -> None:
            await socket.recv()
            await socket.send(sent)
            await socket.wait_closed()

        async with websockets.serve(send, "127.0.0.1", 0) as server:
            ue.connection.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async for _view in ue.views_along([np.eye(3, 4)] * 3, (20.0, 20.0), (12.0, 8.0), width=24, height=16):
                pass

    with serving(lambda _asked: Reply(500)) as server:
        ue = UE(server.url, capability=CAPABILITY, home=tmp_path, keep_fresh=False)

        async def joined_and_run() -> None:
            async with ue:
                await ue.join()
                await run()

        with pytest.raises((UntrustedAnswerError, RefusedError), match=says):
            asyncio.run(joined_and_run())


@pytest.mark.parametrize("module", ["crowdnerf_lab.network.ue_client", "crowdnerf_lab.network.ues.crowd_of_ues"])
def test_a_ue_needs_neither_torch_nor_the_service(module: str) -> None:
    heavy = "{'torch', 'numba', 'onnxruntime', 'fastapi', 'uvicorn', 'scipy'}"
    script = f"import sys, {module}; print(sorted(set(sys.modules) & {heavy}))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
