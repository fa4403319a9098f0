import asyncio
import gzip
import hashlib
from email import message_from_bytes, policy

import numpy as np
import pytest
import zstandard

from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.network.models import downloads
from crowdnerf_lab.network.models.downloads import FileMemory, StoredFile
from crowdnerf_lab.network.ue import load_artefact
from tests.network.toy_service import CAPABILITY, toy_service
from tests.toy_catalogue import CENTRE, FOCAL, HEIGHT, POSE, WIDTH

PATH = "/events/concert/versions/1/artefacts/toy/files/model.onnx"


@pytest.fixture(scope="module", params=["in memory", "in pieces"])
def toy(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in pieces":
            patch.setattr(downloads, "SMALL_BYTES", 0)
            patch.setattr(downloads, "PIECE_BYTES", 1000)
        with toy_service(tmp_path_factory.mktemp("downloads"), burst=10_000) as toy:
            toy.publish(0)
            yield toy


@pytest.fixture(scope="module")
def content(toy):
    return (toy.home / "catalogue/events/concert/000001/toy/model.onnx").read_bytes()


@pytest.fixture(scope="module")
def get(toy):
    ue = toy.token()

    def get(method: str = "GET", **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return toy.client.request(method, PATH, headers={"Accept-Encoding": "identity"} | ue | named)

    return get


@pytest.fixture(scope="module")
def etag(content):
    return f'"{hashlib.sha256(content).hexdigest()}"'


def test_a_file_comes_whole_with_its_tag(get, content, etag):
    answer = get()
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["etag"] == etag
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "content-encoding" not in answer.headers


@pytest.mark.row("S27")
@pytest.mark.row("S68")
def test_what_was_downloaded_is_verified_and_renders(toy, tmp_path):
    headers = toy.token()
    body = {"capability": CAPABILITY}
    offer = toy.client.post("/events/concert/models:select", json=body, headers=headers).json()["artefacts"][0]
    for file in offer["files"]:
        (tmp_path / file["path"]).write_bytes(toy.client.get(file["href"], headers=headers).content)
    card = f"/events/concert/versions/1/artefacts/{offer['name']}/files/card.json"
    (tmp_path / "card.json").write_bytes(toy.client.get(card, headers=headers).content)
    open_artefact(tmp_path)
    picture = load_artefact(tmp_path).render(np.array(POSE), FOCAL, CENTRE, width=WIDTH, height=HEIGHT)
    assert picture.std() > 1


@pytest.mark.row("S68")
@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 999), (999, 3000), (20_000, None)])
def test_an_interrupted_download_goes_on(get, content, etag, first, last):
    answer = get(Range=f"bytes={first}-{'' if last is None else last}", If_Range=etag)
    end = len(content) if last is None else last + 1
    assert (answer.status_code, answer.content) == (206, content[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(content)}"
    assert answer.headers["etag"] == etag


def test_a_suffix_is_the_end(get, content):
    assert get(Range="bytes=-7").content == content[-7:]
    assert get(Range=f"bytes=-{len(content) + 5}").content == content


def test_another_state_of_the_file_comes_whole(get, content, etag):
    for condition in ('"another"', f"W/{etag}", "Mon, 23 Nov 2026 01:00:00 GMT", "x"):
        answer = get(Range="bytes=0-9", If_Range=condition)
        assert (answer.status_code, answer.content) == (200, content)


def test_ranges_outside_tell_the_size(get, content):
    answer = get(Range=f"bytes={len(content)}-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert answer.headers["content-type"] == "application/problem+json"


def test_several_ranges_come_as_parts(get, content):
    answer = get(Range="bytes=5-9,100-2099,-3")
    assert answer.status_code == 206
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = list(message_from_bytes(head + answer.content, policy=policy.HTTP).iter_parts())
    assert [part["Content-Range"] for part in parts] == [
        f"bytes {first}-{last}/{len(content)}"
        for first, last in ((5, 9), (100, 2099), (len(content) - 3, len(content) - 1))
    ]
    assert content[5:10] in answer.content
    assert content[100:2100] in answer.content


def test_hostile_ranges_cost_no_more_than_the_file(get, content):
    for header in ("bytes=" + ",".join(["0-"] * 1000), "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 2000, 2))):
        assert len(get(Range=header).content) <= len(content)


def test_what_a_ue_has_is_not_sent_again(get, etag):
    for condition in (etag, f"W/{etag}", f'"x", {etag}', "*", etag[:-1] + '-zstd"'):
        answer = get(If_None_Match=condition)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["cache-control"].endswith("immutable")
    assert get(If_None_Match='"x"').status_code == 200
    assert get(If_None_Match=etag, Range="bytes=0-1").status_code == 304


def test_a_precondition_that_fails(get, etag):
    assert get(If_Match='"x"').status_code == 412
    assert get(If_Match=f"W/{etag}").status_code == 412
    assert get(If_Match=etag).status_code == 200
    assert get(If_Match="*").status_code == 200


def test_head_tells_the_size_and_sends_nothing(get, content, etag):
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = get("HEAD", **headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert (answer.headers["content-length"], answer.headers["etag"]) == (str(len(content)), etag)


def decoded(answer) -> bytes:
    """The test client decodes gzip and zstd where it can; its raw bytes otherwise."""
    for decode in (gzip.decompress, lambda content: zstandard.ZstdDecompressor().decompress(content)):
        try:
            return decode(answer.content)
        except (OSError, zstandard.ZstdError):
            continue
    return answer.content


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_a_coding_is_used_where_it_pays(get, content, etag, coding):
    answer = get(Accept_Encoding=f"{coding}, identity;q=0")
    assert answer.headers["content-encoding"] == coding
    assert int(answer.headers["content-length"]) < 0.95 * len(content)
    assert answer.headers["etag"] == f'{etag[:-1]}-{coding}"'
    assert answer.headers["vary"] == "Accept-Encoding"
    assert decoded(answer) == content
    part = get(Accept_Encoding=coding, Range="bytes=0-9")
    assert "content-encoding" not in part.headers
    assert part.content == content[:10]


def test_no_coding_at_all_is_not_acceptable(get):
    assert get(Accept_Encoding="identity;q=0, br").status_code == 406


def test_pictures_are_not_coded_again(toy):
    headers = toy.token() | {"Accept-Encoding": "gzip, identity;q=0"}
    answer = toy.client.get(PATH.replace("model.onnx", "probe_0.png"), headers=headers)
    assert answer.status_code in (200, 406)
    assert answer.status_code == 406 or int(answer.headers["content-length"]) < 3000


def test_memory_holds_so_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "SMALL_BYTES", 1000)

    async def fill() -> None:
        memory = FileMemory(250)
        for name in "abc":
            (tmp_path / name).write_bytes(name.encode() * 100)
            file = StoredFile(tmp_path / name, 100, name)
            assert await memory.content(file) == name.encode() * 100
        assert memory.held == 200
        (tmp_path / "c").unlink()
        assert await memory.content(StoredFile(tmp_path / "c", 100, "c")) == b"c" * 100
        (tmp_path / "d").write_bytes(b"d" * 251)
        assert await memory.content(StoredFile(tmp_path / "d", 251, "d")) is None

    asyncio.run(fill())


def test_a_file_that_was_removed_is_gone(tmp_path):
    with toy_service(tmp_path) as toy:
        toy.publish(0)
        headers = toy.token()
        assert toy.client.get("/events/concert/versions/1", headers=headers).status_code == 200
        (tmp_path / "catalogue/events/concert/000001/toy/model.onnx").unlink()
        answer = toy.client.get(PATH, headers=headers)
        assert answer.status_code == 410
        assert str(tmp_path) not in answer.text
