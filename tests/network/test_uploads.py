import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.api.problems import Problem
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads import upload_writing, uploads_routes
from crowdnerf_lab.network.uploads.media_kinds import kind_of
from crowdnerf_lab.network.uploads.tus import Creation
from crowdnerf_lab.network.uploads.upload_writing import KEEP_BYTES, Writing
from crowdnerf_lab.network.uploads.uploads import Uploads
from tests.network.direct_asgi import OFFSET_STREAM, DirectClient, DirectUE, checksum_of, metadata_of, photo


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectClient]:
    settings = ServiceSettings(
        home=tmp_path_factory.mktemp("service"),
        events=("concert", "match"),
        train=False,
        max_upload_bytes=4 << 20,
        quota_bytes=8 << 20,
        quota_files=12,
    )
    opened = DirectClient(create_app(settings))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def service(client: DirectClient) -> Service:
    return client.app.state.service  # type: ignore[attr-defined]


@pytest.fixture
def ue(client: DirectClient) -> DirectUE:
    return DirectUE(client)


@pytest.fixture
def store(service: Service) -> Uploads:
    return Uploads(service.database, service.settings)


def kept(service: Service, upload: str) -> Path:
    return service.settings.home / "uploads" / upload.rpartition("/")[2]


def waiting(service: Service) -> set[str]:
    return {path.stem for path in (service.settings.home / "inbox").glob("*/*")}


def test_options_tell_what_is_spoken_without_a_token(client: DirectClient) -> None:
    for path in ("/events/concert/uploads", f"/events/concert/uploads/{'0' * 32}"):
        told = client.ask("OPTIONS", path)
        assert told.status == 204
        assert told.headers["tus-resumable"] == told.headers["tus-version"] == "1.0.0"
        spoken = {"creation", "creation-with-upload", "checksum", "termination", "expiration"}
        assert set(told.headers["tus-extension"].split(",")) == spoken
        assert told.headers["tus-max-size"] == str(4 << 20)
        assert told.headers["tus-checksum-algorithm"] == "sha1,sha256"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.0, 1.0.0", "१.०.०".encode().decode("latin-1")])
def test_another_version_is_refused(ue: DirectUE, method: str, version: str | None) -> None:
    path = ue.uploads if method == "POST" else f"{ue.uploads}/{'0' * 32}"
    headers = ue.token | ({} if version is None else {"Tus-Resumable": version})
    answer = ue.client.ask(method, path, headers=headers)
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")
    assert answer.headers["tus-resumable"] == "1.0.0"


@pytest.mark.row("S22")
def test_a_photo_arrives_in_pieces(ue: DirectUE, service: Service) -> None:
    content = photo(3000)
    metadata = metadata_of(filename="stage.jpg", filetype="image/jpeg", capture='{"time_s": 12.5}', relativePath="x")
    created = ue.create(len(content), metadata=metadata)
    assert created.status == 201
    upload = created.headers["location"]
    assert upload.startswith(ue.uploads + "/")
    assert "upload-expires" in created.headers
    for offset in range(0, 3000, 1000):
        head = ue.client.ask("HEAD", upload, headers=ue.headers)
        assert (head.status, head.headers["upload-offset"], head.headers["upload-length"]) == (200, str(offset), "3000")
        assert (head.headers["cache-control"], head.headers["upload-metadata"]) == ("no-store", metadata)
        assert ue.status(upload)["state"] == "receiving"
        answer = ue.send(upload, content[offset : offset + 1000], offset=offset)
        assert (answer.status, answer.headers["upload-offset"]) == (204, str(offset + 1000))
        assert ("upload-expires" in answer.headers) == (offset < 2000)
    status = ue.status(upload)
    assert (status["state"], status["bytes"], status["offset"]) == ("received", 3000, 3000)
    assert status["sha256"] == hashlib.sha256(content).hexdigest()
    assert ue.offset(upload) == 3000
    (path,) = (service.settings.home / "inbox" / "concert").glob(f"{upload.rpartition('/')[2]}.*")
    assert (path.suffix, path.read_bytes()) == (".jpg", content)
    assert not kept(service, upload).exists()


def test_a_photo_may_come_with_its_creation(ue: DirectUE) -> None:
    content = photo()
    whole = ue.create(len(content), body=content)
    assert (whole.status, whole.headers["upload-offset"]) == (201, str(len(content)))
    assert ue.status(whole.headers["location"])["state"] == "received"
    half = ue.create(len(content), body=content[:150])
    assert (half.status, half.headers["upload-offset"]) == (201, "150")
    assert ue.send(half.headers["location"], content[150:], offset=150).status == 204


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({}, 400, "Upload-Length is missing"),
        ({"Upload-Length": "0"}, 400, "empty file"),
        ({"Upload-Length": "-1"}, 400, "-1"),
        ({"Upload-Length": "1e3"}, 400, "decimal digits"),
        ({"Upload-Length": "1_000"}, 400, "decimal digits"),
        ({"Upload-Length": "²"}, 400, "decimal digits"),
        ({"Upload-Length": "9" * 400}, 400, "decimal digits"),
        ({"Upload-Length": str(5 << 20)}, 413, "may have 4194304"),
        ({"Upload-Defer-Length": "1"}, 400, "Upload-Defer-Length is not supported"),
        ({"Upload-Length": "10", "Upload-Defer-Length": "1"}, 400, "Upload-Defer-Length is not supported"),
        ({"Upload-Length": "10", "Upload-Concat": "partial"}, 400, "Upload-Concat is not supported"),
        ({"Upload-Length": "10", "Upload-Metadata": "filename a.jpg"}, 400, "key base64"),
        ({"Upload-Length": "10", "Upload-Metadata": "filename YQ==" + "," + "filename YQ=="}, 400, "twice"),
        ({"Upload-Length": "10", "Upload-Metadata": "a," * 5000}, 400, "8192 at most"),
        ({"Upload-Length": "10", "Upload-Metadata": metadata_of(filetype="text/html")}, 415, "text/html"),
        ({"Upload-Length": "10", "Upload-Metadata": metadata_of(sha256="ab")}, 400, "64 hexadecimal"),
        ({"Upload-Length": "10", "Upload-Metadata": metadata_of(capture="{")}, 422, "capture"),
        ({"Upload-Length": "10", "Upload-Metadata": metadata_of(capture='{"time_s": NaN}')}, 422, "capture"),
        ({"Upload-Length": "10", "Upload-Metadata": metadata_of(capture='{"time_s": 1, "truth": 1}')}, 422, "truth"),
        (
            {"Upload-Length": "10", "Upload-Metadata": metadata_of(capture=b'{"time_s": 1, "x": "\xff"}')},
            422,
            "capture",
        ),
        ({"Upload-Length": "10", "Idempotency-Key": "a b"}, 400, "Idempotency-Key"),
        ({"Upload-Length": "10", "Upload-Checksum": "md5 AAAA"}, 400, "sha1, sha256"),
        ({"Upload-Length": "10", "Upload-Checksum": "sha1 AAAA"}, 400, "base64 of 20 bytes"),
    ],
)
def test_a_creation_that_makes_no_sense_is_refused_clearly(
    ue: DirectUE, headers: dict[str, str], status: int, said: str
) -> None:
    answer = ue.client.ask("POST", ue.uploads, headers=ue.headers | headers)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json["detail"]
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert ue.ask("GET", ue.contributions).json == {"contributions": []}


def test_a_header_that_stands_there_twice_is_refused(ue: DirectUE) -> None:
    headers = [*ue.headers.items(), ("Upload-Length", "10"), ("Upload-Length", "10")]
    assert "2 times" in ue.client.ask("POST", ue.uploads, headers=headers).json["detail"]


def test_a_body_of_another_type_is_refused(ue: DirectUE) -> None:
    encoded = OFFSET_STREAM | {"Content-Encoding": "gzip"}
    for headers in ({}, {"Content-Type": "image/jpeg"}, {"Content-Type": "application/octet-stream"}, encoded):
        creation = ue.client.ask("POST", ue.uploads, headers=ue.headers | headers | {"Upload-Length": "9"}, body=b"x")
        assert creation.status == 415
        upload = ue.create(400).headers["location"]
        piece = ue.client.ask("PATCH", upload, headers=ue.headers | headers | {"Upload-Offset": "0"}, body=photo())
        assert (piece.status, piece.headers["accept-patch"]) == (415, OFFSET_STREAM["Content-Type"])
        assert ue.offset(upload) == 0


def test_a_piece_goes_on_where_the_upload_is(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400, body=content[:100]).headers["location"]
    for offset in (0, 99, 101, 400, 1 << 40):
        answer = ue.send(upload, content[100:200], offset=offset)
        assert (answer.status, answer.headers["upload-offset"]) == (409, "100")
    for offset in ("-1", "", "1.5", "0x10", "+100"):
        headers = ue.headers | OFFSET_STREAM | {"Upload-Offset": offset}
        assert ue.client.ask("PATCH", upload, headers=headers, body=content[100:200]).status == 400
    assert ue.send(upload, b"", offset=100).status == 204
    assert ue.offset(upload) == 100


def test_more_than_announced_is_refused_and_nothing_of_it_kept(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400, body=content[:100]).headers["location"]
    assert ue.send(upload, content[100:] + b"x", offset=100).status == 413
    assert ue.send(upload, [content[100:], b"x"], offset=100).status == 413
    assert ue.offset(upload) == 100
    assert ue.send(upload, content[100:], offset=100).status == 204
    assert ue.send(upload, b"x", offset=400).status == 413
    assert ue.send(upload, b"", offset=400).status == 204
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_checksum_decides_about_its_piece(ue: DirectUE, algorithm: str) -> None:
    content = photo()
    upload = ue.create(400, body=content[:100]).headers["location"]
    wrong = ue.send(upload, content[100:], offset=100, checksum=checksum_of(b"another", algorithm=algorithm))
    assert (wrong.status, wrong.json["title"]) == (460, "Checksum Mismatch")
    assert ue.offset(upload) == 100
    right = checksum_of(content[100:], algorithm=algorithm)
    assert ue.send(upload, content[100:], offset=100, checksum=right).status == 204


def test_first_bytes_that_were_garbled_on_the_way_do_not_cost_the_upload(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400).headers["location"]
    right = checksum_of(content)
    assert ue.send(upload, b"?" + content[1:], offset=0, checksum=right).status == 460
    assert ue.send(upload, content, offset=0, checksum=right).status == 204
    other = ue.create(400).headers["location"]
    assert ue.send(other, bytes(90), offset=0, checksum=checksum_of(bytes(90))).status == 415


def test_a_file_that_is_not_the_announced_one_is_discarded(ue: DirectUE, service: Service) -> None:
    content = photo()
    metadata = metadata_of(sha256=hashlib.sha256(content).hexdigest())
    upload = ue.create(400, body=content[:100], metadata=metadata).headers["location"]
    assert ue.send(upload, content[100:-1] + b"?", offset=100).status == 460
    assert ue.ask("HEAD", upload).status == 404
    assert not kept(service, upload).exists()
    assert upload.rpartition("/")[2] not in waiting(service)
    assert ue.status(ue.upload(content, metadata=metadata))["state"] == "received"


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(400), b"<svg xmlns=", b"\x00" * 400, b"GIF89a" + bytes(90)])
def test_what_is_no_photo_or_clip_is_discarded_at_its_first_bytes(ue: DirectUE, content: bytes) -> None:
    announced = metadata_of(filename="stage.jpg", filetype="image/jpeg")
    answer = ue.create(len(content), body=content[:64], metadata=announced)
    assert (answer.status, answer.json["type"]) == (415, "/problems/media-type")
    assert ue.ask("GET", ue.contributions).json == {"contributions": []}


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\xff\xd8\xff\xe1", ".jpg"),
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", ".webp"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", ".heic"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", ".avif"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf", ".avif"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", ".mp4"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  ", ".mov"),
        (b"\x00\x00\x00\x08wide\x00\x01\x00\x00mdat", ".mov"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", ".mkv"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", ".webm"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", None),
        (b"\x1a\x45\xdf\xa3\x00", None),
        (b"", None),
    ],
)
def test_first_bytes_tell_the_kind(head: bytes, suffix: str | None) -> None:
    kind = kind_of(head)
    assert (kind.suffix if kind else None) == suffix


@pytest.mark.row("S22")
def test_the_lab_s_own_photos_and_clips_are_recognised(clip: Path) -> None:
    photos = sorted((Path(__file__).resolve().parents[2] / "data/concert").rglob("*.jpg"))[:3]
    assert photos
    assert {kind_of(path.read_bytes()[:64]).media_type for path in photos} == {"image/jpeg"}  # type: ignore[union-attr]
    assert kind_of(clip.read_bytes()[:64]).media_type == "video/mp4"  # type: ignore[union-attr]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip as PyAV writes one, of two grey pictures."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(2):
            for packet in stream.encode(av.VideoFrame(32, 32, "yuv420p")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.row("S22")
def test_a_clip_becomes_a_contribution(ue: DirectUE, clip: Path) -> None:
    status = ue.status(ue.upload(clip.read_bytes(), metadata=metadata_of(filetype="video/mp4")))
    assert (status["state"], status["media_type"]) == ("received", "video/mp4")


def test_a_body_that_breaks_off_is_kept_as_far_as_it_came(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400).headers["location"]
    ue.send(upload, [content[:70], content[70:90]], offset=0, broken=True)
    assert ue.offset(upload) == 90
    ue.send(upload, [content[90:]], offset=90, checksum=checksum_of(content[90:]), broken=True)
    assert ue.offset(upload) == 90, "bytes that a checksum should have covered count all together or not at all"
    assert ue.send(upload, content[90:], offset=90).status == 204
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_body_that_falls_silent_ends(ue: DirectUE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_routes, "IDLE_S", 0.05)
    upload = ue.create(400).headers["location"]
    headers = ue.headers | OFFSET_STREAM | {"Upload-Offset": "0"}

    async def silent() -> Any:
        body = [photo()[:80], b"never"]
        return await ue.client.asked("PATCH", upload, headers=headers, body=body, gate=asyncio.Event())

    assert ue.client.run(silent()).status == 408
    assert ue.offset(upload) == 80


def test_of_two_writers_at_once_one_waits(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400).headers["location"]
    headers = ue.headers | OFFSET_STREAM | {"Upload-Offset": "0"}

    async def both() -> tuple[Any, Any]:
        gate = asyncio.Event()
        slow = asyncio.create_task(
            ue.client.asked("PATCH", upload, headers=headers, body=[content[:100], content[100:]], gate=gate)
        )
        await asyncio.sleep(0.05)
        fast = await ue.client.asked("PATCH", upload, headers=headers, body=content)
        gate.set()
        return await slow, fast

    slow, fast = ue.client.run(both())
    assert (slow.status, fast.status, fast.headers["retry-after"]) == (204, 423, "1")
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


def test_many_writers_leave_one_whole_file(ue: DirectUE, store: Uploads) -> None:
    """Eight threads send one file to one upload in pieces of their own size; 409 and 423 are all they meet."""
    content = photo(5000)
    upload = store.create("concert", ue.name, announced=Creation(length=len(content)))
    problems: list[Problem] = []

    def send(size: int) -> None:
        while not (now := store.one("concert", ue.name, id=upload.id)).complete:
            try:
                writing = Writing(store, now, offset=now.offset)
                try:
                    writing.append(content[now.offset : now.offset + size])
                    writing.finish()
                finally:
                    writing.close()
            except Problem as problem:
                problems.append(problem)
                time.sleep(0.002)

    threads = [threading.Thread(target=send, args=(97 + 31 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {problem.status for problem in problems} <= {409, 423}
    assert ue.status(f"/{upload.id}")["sha256"] == hashlib.sha256(content).hexdigest()


def test_bytes_are_on_disk_before_they_are_acknowledged(ue: DirectUE, monkeypatch: pytest.MonkeyPatch) -> None:
    content, synchronised, real = photo(3000), [], os.fsync

    def watched(descriptor: int) -> None:
        real(descriptor)
        synchronised.append(os.fstat(descriptor).st_size if os.path.isfile(f"/proc/self/fd/{descriptor}") else None)

    upload = ue.create(3000).headers["location"]
    monkeypatch.setattr(os, "fsync", watched)
    for offset in range(0, 3000, 1000):
        synchronised.clear()
        assert ue.send(upload, content[offset : offset + 1000], offset=offset).status == 204
        assert offset + 1000 in synchronised
        assert (None in synchronised) == (offset in (0, 2000)), "names are new with the first and the last piece"


def test_a_long_piece_is_kept_on_the_way(store: Uploads, ue: DirectUE) -> None:
    upload = store.create("concert", ue.name, announced=Creation(length=3 * KEEP_BYTES))
    writing = Writing(store, upload, offset=0)
    content = photo(KEEP_BYTES + 10)
    writing.append(content)
    assert store.one("concert", ue.name, id=upload.id).offset == len(content)
    writing.close()


def test_bytes_that_the_disk_lost_are_asked_for_again(ue: DirectUE, service: Service) -> None:
    content = photo()
    upload = ue.create(400, body=content[:200]).headers["location"]
    os.truncate(kept(service, upload), 120)
    assert ue.offset(upload) == 120
    assert ue.send(upload, content[120:], offset=120).status == 204
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


def test_bytes_that_were_not_acknowledged_are_overwritten(ue: DirectUE, service: Service) -> None:
    content = photo()
    upload = ue.create(400, body=content[:200]).headers["location"]
    with kept(service, upload).open("ab") as file:
        file.write(b"of a process that was killed before it could say so" * 10)
    assert ue.offset(upload) == 200
    assert ue.send(upload, content[200:], offset=200).status == 204
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_kill_between_inbox_and_row_leaves_an_upload_that_goes_on(
    ue: DirectUE, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = photo()
    upload = ue.create(400, body=content[:200]).headers["location"]
    linked = upload_writing._linked

    def linked_and_killed(path: Path, target: Path) -> None:
        linked(path, target)
        raise RuntimeError("killed")

    monkeypatch.setattr(upload_writing, "_linked", linked_and_killed)
    assert ue.send(upload, content[200:], offset=200).status == 500
    monkeypatch.undo()
    assert upload.rpartition("/")[2] in waiting(service)
    assert ue.status(upload)["state"] == "receiving"
    assert ue.offset(upload) == 200
    assert ue.send(upload, content[200:], offset=200).status == 204
    assert ue.status(upload)["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("key", "metadata"), [("k-1", None), (None, metadata_of(sha256="ab" * 32))])
def test_the_same_again_gives_the_same_upload(ue: DirectUE, key: str | None, metadata: str | None) -> None:
    first, again = (ue.create(400, key=key, metadata=metadata) for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert first.headers["location"] == again.headers["location"]
    assert len(ue.ask("GET", ue.contributions).json["contributions"]) == 1
    assert DirectUE(ue.client).create(400, key=key, metadata=metadata).headers["location"] != first.headers["location"]


def test_a_creation_with_upload_that_is_repeated_loses_and_doubles_nothing(ue: DirectUE) -> None:
    content = photo()
    first = ue.create(400, body=content[:300], key="again")
    again = ue.create(400, body=content[:300], key="again")
    assert (again.headers["location"], again.headers["upload-offset"]) == (first.headers["location"], "300")
    assert ue.send(first.headers["location"], content[300:], offset=300).status == 204
    done = ue.create(400, body=content, key="again")
    assert (done.status, done.headers["upload-offset"]) == (201, "400")
    assert ue.status(done.headers["location"])["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_key_is_for_one_file(ue: DirectUE) -> None:
    ue.create(400, key="mine")
    assert ue.create(401, key="mine").status == 422
    assert ue.create(400, key="mine", metadata=metadata_of(sha256="cd" * 32)).status == 422


def test_creations_at_once_make_one_upload(ue: DirectUE, store: Uploads) -> None:
    made: list[str] = []
    announced = Creation(length=400, sha256="ef" * 32)

    def create() -> None:
        made.append(store.create("concert", ue.name, announced=announced).id)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made))) == (8, 1)


def test_a_terminated_upload_is_gone(ue: DirectUE, service: Service) -> None:
    upload = ue.create(400, body=photo()[:100]).headers["location"]
    assert kept(service, upload).exists()
    assert ue.ask("DELETE", upload).status == 204
    assert not kept(service, upload).exists()
    for method in ("HEAD", "DELETE"):
        assert ue.ask(method, upload).status == 404
    assert ue.send(upload, photo()[100:], offset=100).status == 404
    assert ue.create(400, key="new").status == 201


def test_a_complete_upload_can_be_taken_back_until_it_is_taken_in(ue: DirectUE, service: Service) -> None:
    upload, late = ue.upload(photo()), ue.upload(photo(seed=1))
    assert ue.ask("DELETE", upload).status == 204
    assert ue.ask("HEAD", upload).status == 404
    assert ue.status(upload)["state"] == "forgotten"
    assert upload.rpartition("/")[2] not in waiting(service)
    with service.database.transaction() as rows:
        rows.execute("UPDATE contributions SET state = 'taken_in' WHERE id = ?", (late.rpartition("/")[2],))
    assert ue.ask("DELETE", late).status == 409
    assert ue.status(late)["state"] == "taken_in"


def test_post_means_what_the_override_says(ue: DirectUE) -> None:
    content = photo()
    upload = ue.create(400, body=content[:100]).headers["location"]

    def posted(meant: str, *, body: bytes = b"", **others: str) -> Any:
        headers = ue.headers | OFFSET_STREAM | {"X-HTTP-Method-Override": meant} | others
        return ue.client.ask("POST", upload, headers=headers, body=body)

    assert posted("PATCH", body=content[100:200], **{"Upload-Offset": "100"}).status == 204
    assert posted("HEAD").headers["upload-offset"] == "200"
    assert posted("DELETE").status == 204
    assert posted("HEAD").status == 404
    for meant in ("", "GET", "patch", "POST"):
        refused = posted(meant)
        assert (refused.status, "PATCH" in refused.headers["allow"]) == (405, True)


def test_an_expired_upload_is_gone_and_swept(ue: DirectUE, service: Service, store: Uploads) -> None:
    upload, other = (
        ue.create(400, body=photo()[:100], key="late").headers["location"],
        ue.create(400, body=photo()[:99]),
    )
    with service.database.transaction() as rows:
        rows.execute("UPDATE uploads SET expires = 1 WHERE id = ?", (upload.rpartition("/")[2],))
    for method in ("HEAD", "DELETE"):
        assert ue.ask(method, upload).status == 410
    assert ue.send(upload, photo()[100:], offset=100).status == 410
    whole = ue.upload(photo(seed=2))
    stray = service.settings.home / "uploads" / ("5" * 32)
    stray.write_bytes(b"of an upload that was deleted while its process was killed")
    assert store.sweep() >= 1
    assert not stray.exists()
    assert ue.ask("HEAD", upload).status == 404
    assert ue.offset(other.headers["location"]) == 99
    assert whole.rpartition("/")[2] in waiting(service)
    assert ue.create(400, key="late").headers["location"] != upload


def test_quotas_hold_for_what_is_announced(ue: DirectUE, client: DirectClient) -> None:
    assert ue.create(4 << 20).status == ue.create(3 << 20).status == 201
    refused = ue.create(2 << 20)
    assert (refused.status, refused.json["type"]) == (413, "/problems/quota-exceeded")
    last = ue.create(1 << 20)
    assert last.status == 201
    assert ue.create(1).status == 413
    assert ue.ask("DELETE", last.headers["location"]).status == 204
    assert ue.create(1).status == 201
    many = DirectUE(client)
    assert [many.create(10).status for _ in range(13)] == [201] * 12 + [413]


def test_a_full_disk_is_said_and_costs_nothing_acknowledged(
    ue: DirectUE, monkeypatch: pytest.MonkeyPatch, store: Uploads
) -> None:
    content = photo()
    upload = ue.create(400, body=content[:100]).headers["location"]
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        answer = ue.send(upload, content[100:], offset=100)
    assert (answer.status, answer.json["type"]) == (507, "/problems/disk-full")
    assert ue.offset(upload) == 100
    with pytest.raises(Problem, match="full"):
        Uploads(store.database, replace(store.settings, max_upload_bytes=1 << 60, quota_bytes=1 << 60)).create(
            "concert", ue.name, announced=Creation(length=1 << 59)
        )


def test_another_ue_s_upload_does_not_exist(ue: DirectUE, client: DirectClient) -> None:
    upload, other = ue.create(400, body=photo()[:100]).headers["location"], DirectUE(client)
    unknown = f"{ue.uploads}/{'0' * 32}"
    for method in ("HEAD", "DELETE"):
        assert other.ask(method, upload).status == other.ask(method, unknown).status == 404
    assert other.send(upload, photo()[100:], offset=100).status == 404
    assert ue.offset(upload) == 100


@pytest.mark.parametrize("id", ["..%2f..%2fservice.sqlite", "%00", "a" * 5000, "%F0%9F%93%B7", ".", "'; DROP TABLE"])
def test_an_id_that_is_none_is_not_found(ue: DirectUE, id: str) -> None:
    for method in ("HEAD", "DELETE", "PATCH"):
        headers = ue.headers | OFFSET_STREAM | {"Upload-Offset": "0"}
        assert ue.client.ask(method, f"{ue.uploads}/{id}", headers=headers).status == 404


def test_a_name_is_no_path(ue: DirectUE, service: Service) -> None:
    for name in ("../../../../etc/cron.d/x", "C:\\evil.jpg", "a\x00b.jpg", "\u202egpj.exe", "x" * 600, "con", ""):
        ue.upload(photo(), metadata=metadata_of(filename=name))
        assert ue.ask("DELETE", ue.contributions).status == 200
        ue.__init__(ue.client)  # type: ignore[misc]
    names = {path.name for path in service.settings.home.rglob("*") if path.is_file()}
    assert all(set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz.-") for name in names), names
