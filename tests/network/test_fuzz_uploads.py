"""Uploads against a model of them, and against headers and bodies that nobody would send.

`FUZZ=50 pytest tests/network/test_fuzz_uploads.py` tries 50 times as much.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads.contributions import Contributions
from tests.network.direct_asgi import OFFSET_STREAM, DirectClient, DirectUE, checksum_of, metadata_of, photo

MORE = int(os.environ.get("FUZZ", "1"))
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def opened(home: Path) -> DirectClient:
    limits = {"max_upload_bytes": 1 << 20, "requests_per_second": 1e6, "burst": 10**6}
    return DirectClient(create_app(ServiceSettings(home=home, events=("concert",), train=False, **limits)))


class UploadModel(RuleBasedStateMachine):
    """What a UE was told is what the service keeps, whatever order, however often, and across restarts."""

    uploads: Bundle[str] = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.client = opened(self.home)
        self.ue, self.other = DirectUE(self.client), DirectUE(self.client)
        self.content: dict[str, bytes] = {}
        self.safe: dict[str, int] = {}
        self.keys: dict[str, str] = {}
        self.seed = 0

    def teardown(self) -> None:
        self.client.close()
        self.folder.cleanup()

    @rule(target=uploads, size=st.integers(5, 300), first=st.integers(0, 300), announced=st.booleans())
    def create(self, size: int, first: int, announced: bool) -> str:
        self.seed += 1
        content = photo(size, seed=self.seed)
        metadata = metadata_of(sha256=hashlib.sha256(content).hexdigest()) if announced else None
        key = f"k{self.seed}"
        answer = self.ue.create(size, body=content[:first], metadata=metadata, key=key)
        assert answer.status == 201
        upload = answer.headers["location"]
        self.content[upload], self.safe[upload] = content, min(first, size)
        self.keys[upload] = key
        assert self.ue.create(size, body=content, metadata=metadata, key=key).headers["location"] == upload
        if first == 0:
            self.safe[upload] = size
        return upload

    @rule(
        upload=uploads,
        size=st.integers(0, 120),
        checksum=st.sampled_from([None, "sha1", "sha256", "wrong"]),
        pieces=st.booleans(),
        broken=st.booleans(),
        astray=st.sampled_from([0, 0, 0, 1, -1, 7]),
    )
    def send(self, upload: str, size: int, checksum: str | None, pieces: bool, broken: bool, astray: int) -> None:
        content, safe = self.content[upload], self.safe[upload]
        offset = safe + astray
        if offset < 0:
            return
        body = content[safe : safe + size]
        said = {None: "", "wrong": checksum_of(body + b"?")}.get(checksum)
        said = checksum_of(body, algorithm=str(checksum)) if said is None else said
        sent = [body[:9], body[9:]] if pieces or broken else body
        answer = self.ue.send(upload, sent, offset=offset, checksum=said, broken=broken)
        if astray:
            assert (answer.status, answer.headers["upload-offset"]) == (409, str(safe))
            return
        if safe == len(content):
            assert answer.status == (400 if broken else 204)
        elif broken:
            assert answer.status == 400
            self.safe[upload] += 0 if checksum else len(body)
        elif checksum == "wrong":
            assert answer.status == 460
        else:
            assert (answer.status, answer.headers["upload-offset"]) == (204, str(safe + len(body)))
            self.safe[upload] += len(body)

    @rule(upload=uploads, surplus=st.integers(1, 50), pieces=st.booleans())
    def send_too_much(self, upload: str, surplus: int, pieces: bool) -> None:
        safe = self.safe[upload]
        body = self.content[upload][safe:] + bytes(surplus)
        assert self.ue.send(upload, [body] if pieces else body, offset=safe).status == 413

    @rule(upload=uploads)
    def another_ue_meddles(self, upload: str) -> None:
        assert self.other.send(upload, b"x", offset=self.safe[upload]).status == 404
        assert self.other.ask("DELETE", upload).status == 404
        assert self.other.ask("DELETE", self.other.contributions).json["contributions"] == 0

    @rule(upload=consumes(uploads))
    def terminate(self, upload: str) -> None:
        assert self.ue.ask("DELETE", upload).status == 204
        assert self.ue.ask("HEAD", upload).status == 404
        del self.content[upload], self.safe[upload]

    @rule(upload=uploads, tail=st.binary(max_size=40))
    def killed_before_the_row(self, upload: str, tail: bytes) -> None:
        """Bytes reached the file, and the process died before it could promise them."""
        path = self.home / "uploads" / upload.rpartition("/")[2]
        if path.exists():
            with path.open("ab") as file:
                file.write(tail)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.client.close()
        self.client = self.ue.client = self.other.client = opened(self.home)

    @invariant()
    def what_was_told_is_kept(self) -> None:
        whole = {upload for upload, safe in self.safe.items() if safe == len(self.content[upload])}
        for upload, safe in self.safe.items():
            assert self.ue.offset(upload) == safe
        listed = self.ue.ask("GET", self.ue.contributions).json["contributions"]
        alive = {each["id"]: each["state"] for each in listed if each["state"] != "forgotten"}
        expected = {u.rpartition("/")[2]: "received" if u in whole else "receiving" for u in self.safe}
        assert alive == expected
        found = Contributions(self.client.app.state.service.database).of("concert", self.ue.name)  # type: ignore[attr-defined]
        for contribution in found:
            if contribution.state == "received":
                upload = f"{self.ue.uploads}/{contribution.id}"
                assert contribution.path.read_bytes() == self.content[upload]


def test_uploads_are_what_a_ue_was_told() -> None:
    run_state_machine_as_test(
        UploadModel,
        settings=settings(max_examples=8 * MORE, stateful_step_count=12, deadline=None, suppress_health_check=QUIET),
    )


@pytest.fixture(scope="module")
def ue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectUE]:
    client = opened(tmp_path_factory.mktemp("service"))
    yield DirectUE(client)
    client.close()


LATIN = st.characters(max_codepoint=255, exclude_characters="\r\n\x00")
NUMBER = st.one_of(st.integers(-(1 << 70), 1 << 70).map(str), st.text(LATIN, max_size=12), st.sampled_from(["0", "9"]))
ENCODED = st.one_of(st.binary(max_size=60), st.just(b"image/jpeg"), st.just(b'{"time_s": 1}')).map(
    lambda value: base64.b64encode(value).decode()
)
KEYS = st.sampled_from(["filename", "filetype", "sha256", "capture", "", "a b", "x", "é"])
METADATA = st.one_of(
    st.lists(st.tuples(KEYS, ENCODED).map(" ".join), max_size=5).map(",".join), st.text(LATIN, max_size=200)
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Upload-Length": NUMBER,
        "Upload-Offset": NUMBER,
        "Upload-Metadata": METADATA,
        "Upload-Checksum": st.one_of(
            st.text(LATIN, max_size=40), st.tuples(st.sampled_from(["sha1", "sha256"]), ENCODED).map(" ".join)
        ),
        "Upload-Defer-Length": NUMBER,
        "Upload-Concat": st.text(LATIN, max_size=20),
        "Idempotency-Key": st.text(LATIN, max_size=300),
        "Content-Type": st.one_of(st.just(OFFSET_STREAM["Content-Type"]), st.text(LATIN, max_size=40)),
        "Content-Length": NUMBER,
        "Tus-Resumable": st.one_of(st.just("1.0.0"), st.text(LATIN, max_size=8)),
        "Expect": st.just("100-continue"),
    },
)


@settings(max_examples=150 * MORE, deadline=None, suppress_health_check=QUIET)
@given(
    method=st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "OPTIONS", "GET", "PUT"]),
    headers=HEADERS,
    body=st.one_of(st.binary(max_size=200), st.lists(st.binary(max_size=80), max_size=4)),
    broken=st.booleans(),
)
@example(method="POST", headers={"Upload-Length": "1", "Upload-Metadata": "capture Iw=="}, body=b"\xff", broken=False)
def test_whatever_is_sent_is_answered_clearly(
    ue: DirectUE, method: str, headers: dict[str, str], body: bytes | list[bytes], broken: bool
) -> None:
    upload = ue.create(1000, key="one-of-them").headers["location"]
    before = ue.offset(upload)
    path = ue.uploads if method == "POST" else upload
    answer = ue.client.ask(method, path, headers=ue.headers | headers, body=body, broken=broken)
    assert 200 <= answer.status < 500
    if answer.status >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json
        assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (answer.status, True, True)
        home = str(ue.client.app.state.service.settings.home)  # type: ignore[attr-defined]
        assert home not in problem["detail"]
        assert "Traceback" not in problem["detail"]
    if method == "DELETE" and answer.status == 204:
        assert ue.ask("HEAD", upload).status == 404
    elif method != "PATCH" or answer.status not in (204, 400, 415):
        assert ue.offset(upload) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.one_of(st.floats(), st.integers())
POSE = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=3, max_size=3) | JSON
CAPTURE = st.fixed_dictionaries(
    {"time_s": NUMBERS},
    optional={
        "focal_px": NUMBERS,
        "reported": st.fixed_dictionaries({"camera_to_world": POSE}) | JSON,
        "gps": st.fixed_dictionaries({"position": st.lists(NUMBERS, max_size=4)}, optional={"heading": NUMBERS}),
        "camera": JSON,
    },
)


@settings(max_examples=80 * MORE, deadline=None, suppress_health_check=QUIET)
@given(capture=CAPTURE | JSON)
def test_whatever_is_said_of_a_capture_is_taken_or_refused(ue: DirectUE, capture: object) -> None:
    text = json.dumps(capture)
    answer = ue.create(400, metadata=metadata_of(capture=text))
    assert answer.status in (201, 400, 422), answer
    if answer.status == 201:
        upload = answer.headers["location"]
        assert ue.ask("DELETE", upload).status == 204
