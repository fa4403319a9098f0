import asyncio
import json
from collections.abc import Iterator

import pytest

from crowdnerf_lab.network.api.context import Service
from crowdnerf_lab.network.service import create_app
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.uploads.contributions import CaptureMetadata, Contributions
from tests.network.direct_asgi import OFFSET_STREAM, Answer, DirectClient, DirectUE, metadata_of, photo

NORTH = [[1.0, 0.0, 0.0, 3.0], [0.0, 0.0, 1.0, -4.0], [0.0, -1.0, 0.0, 1.6]]
SAID = {
    "time_s": 61.5,
    "focal_px": 820.0,
    "gps": {"position": [3.0, -4.0, 1.6], "accuracy_m": 4.0, "heading": 0.1},
    "reported": {"camera_to_world": NORTH},
    "camera": {"camera_to_world": NORTH, "focal_px": [820.0, 821.0], "centre_px": [320.0, 240.0]},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectClient]:
    home = tmp_path_factory.mktemp("service")
    opened = DirectClient(create_app(ServiceSettings(home=home, events=("concert", "match"), train=False)))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def service(client: DirectClient) -> Service:
    return client.app.state.service  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def contributions(service: Service) -> Contributions:
    return Contributions(service.database)


@pytest.fixture
def ue(client: DirectClient) -> DirectUE:
    return DirectUE(client)


def id_of(upload: str) -> str:
    return upload.rpartition("/")[2]


def states(ue: DirectUE) -> list[str]:
    return [each["state"] for each in ue.ask("GET", ue.contributions).json["contributions"]]


@pytest.mark.row("S62", "S63")
def test_a_photo_comes_with_where_and_how_it_was_taken(ue: DirectUE, contributions: Contributions) -> None:
    content = photo(700)
    upload = ue.upload(content, metadata=metadata_of(filetype="image/jpeg", capture=json.dumps(SAID)))
    (found,) = contributions.of("concert", ue.name)
    assert contributions.one(id_of(upload)) == found
    assert (found.id, found.event, found.ue, found.state) == (id_of(upload), "concert", ue.name, "received")
    assert found.capture == CaptureMetadata.model_validate(SAID)
    assert found.capture.camera is not None
    assert (found.path.read_bytes(), found.bytes, found.media_type) == (content, 700, "image/jpeg")
    assert found in contributions.waiting("concert")
    assert contributions.waiting("match") == ()


def test_who_says_nothing_of_the_time_sends_what_happens_now(ue: DirectUE, contributions: Contributions) -> None:
    ue.upload(photo())
    (found,) = contributions.of("concert", ue.name)
    assert 0 <= found.capture.time_s < 300


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"time_s": "12"}, "time_s"),
        ({"time_s": 1e12}, "time_s"),
        ({}, "time_s"),
        ({"time_s": 1, "focal_px": 0}, "focal_px"),
        ({"time_s": 1, "focal_px": -5}, "focal_px"),
        ({"time_s": 1, "gps": {"position": [0, 0]}}, "gps.position"),
        ({"time_s": 1, "gps": {"position": [0, 0, 2e6]}}, "1e+06 m"),
        ({"time_s": 1, "gps": {"position": [0, 0, 0], "heading": 7}}, "heading"),
        ({"time_s": 1, "reported": {"camera_to_world": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]]}}, "not a rotation"),
        ({"time_s": 1, "reported": {"camera_to_world": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}}, "not a rotation"),
        ({"time_s": 1, "reported": {"camera_to_world": [[1, 0, 0, -3e6], [0, 1, 0, 0], [0, 0, 1, 0]]}}, "1e+06 m"),
        ({"time_s": 1, "faces": 0}, "faces"),
        ({"time_s": 1, "file": "../x"}, "file"),
        ([1], "capture"),
        (None, "capture"),
    ],
)
def test_metadata_that_cannot_be_true_is_refused(ue: DirectUE, wrong: object, said: str) -> None:
    answer = ue.create(400, metadata=metadata_of(capture=json.dumps(wrong)))
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-capture")
    assert said in answer.json["detail"]


def test_what_becomes_of_contributions_is_told_to_their_ue_alone(ue: DirectUE, contributions: Contributions) -> None:
    uploads = [ue.upload(photo(seed=seed)) for seed in range(4)]
    ids = [id_of(upload) for upload in uploads]
    half = ue.create(400, body=photo(seed=9)[:100]).headers["location"]
    assert contributions.mark(ids[:3], state="taken_in") == tuple(ids[:3])
    assert contributions.mark(ids[:2], state="published", version=4) == tuple(ids[:2])
    assert contributions.mark(ids[2:3], state="refused", reason="too dark") == tuple(ids[2:3])
    assert contributions.mark(ids[:1], state="published", version=5) == tuple(ids[:1])
    assert states(ue) == ["published", "published", "refused", "received", "receiving"]
    told = ue.status(uploads[0])
    assert (told["version"], told["reason"]) == (4, None), "the first version that learned from it"
    assert (ue.status(uploads[2])["reason"], ue.status(half)["offset"]) == ("too dark", 100)
    other = DirectUE(ue.client)
    assert states(other) == []
    for upload in (*uploads, half, "/" + "0" * 32, "/.."):
        assert other.ask("GET", f"{other.contributions}/{id_of(upload)}").status == 404


def test_what_is_marked_at_once_is_marked_whole_or_not(ue: DirectUE, contributions: Contributions) -> None:
    ids = [id_of(ue.upload(photo(seed=seed))) for seed in range(3)]

    def broken() -> Iterator[str]:
        yield from ids[:2]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        contributions.mark(broken(), state="taken_in")
    assert states(ue) == ["received"] * 3


def test_waiting_is_in_the_order_of_arrival(ue: DirectUE, contributions: Contributions) -> None:
    ids = [id_of(ue.upload(photo(seed=seed))) for seed in range(5)]
    mine = [each.id for each in contributions.waiting("concert") if each.ue == ue.name]
    assert mine == ids
    contributions.mark(ids[:2], state="taken_in")
    assert [each.id for each in contributions.waiting("concert") if each.ue == ue.name] == ids[2:]


@pytest.mark.row("S63")
def test_to_be_forgotten_takes_one_request_and_touches_nobody_else(
    ue: DirectUE, service: Service, contributions: Contributions
) -> None:
    other = DirectUE(ue.client)
    theirs = other.upload(photo(seed=3))
    told = metadata_of(filename="Ada in row 4.jpg", capture=json.dumps(SAID))
    uploads = [ue.upload(photo(seed=seed), metadata=told) for seed in range(3)]
    half = ue.create(400, body=photo(seed=9)[:100], metadata=told).headers["location"]
    contributions.mark([id_of(uploads[0])], state="published", version=1)
    (contributions.one(id_of(uploads[0])) or pytest.fail("gone")).path.unlink()
    assert contributions.forget_wishes("concert") == ()

    done = ue.ask("DELETE", ue.contributions)
    assert (done.status, done.json) == (200, {"contributions": 3, "bytes": 2 * 400 + 100})
    assert states(ue) == ["forgotten"] * 3
    assert ue.ask("HEAD", half).status == ue.ask("HEAD", uploads[1]).status == 404
    files = [path for path in service.settings.home.rglob("*") if path.is_file()]
    ids = {id_of(upload) for upload in (*uploads, half)}
    assert not [path for path in files if path.stem in ids]
    rows = service.database.connection().execute("SELECT * FROM uploads WHERE ue = ?", (ue.name,)).fetchall()
    assert rows == []
    assert [each.capture for each in contributions.of("concert", ue.name)] == [CaptureMetadata(time_s=0.0)] * 3

    assert contributions.forget_wishes("concert") == (ue.name,)
    assert contributions.forget_wishes("match") == ()
    assert ue.ask("DELETE", ue.contributions).json == {"contributions": 0, "bytes": 0}
    assert contributions.mark(ids, state="taken_in") == (), "what was forgotten meanwhile stays forgotten"
    refused = ue.create(400)
    assert (refused.status, refused.json["type"]) == (403, "/problems/forgotten")
    contributions.forgotten("concert", ue.name)
    assert contributions.forget_wishes("concert") == ()
    assert {ue.status(upload)["sha256"] for upload in uploads} == {None}
    assert ue.create(400).status == 403
    assert other.status(theirs)["state"] == "received"
    assert DirectUE(ue.client).create(400).status == 201


def test_who_sent_nothing_may_ask_to_be_forgotten_and_go_on(ue: DirectUE, contributions: Contributions) -> None:
    assert ue.ask("DELETE", ue.contributions).json == {"contributions": 0, "bytes": 0}
    assert ue.name not in contributions.forget_wishes("concert")
    assert ue.create(400).status == 201


def test_forgetting_wins_over_a_piece_that_is_on_its_way(ue: DirectUE, service: Service) -> None:
    content = photo()
    upload = ue.create(400).headers["location"]
    headers = ue.headers | OFFSET_STREAM | {"Upload-Offset": "0"}

    async def both() -> tuple[Answer, Answer]:
        gate = asyncio.Event()
        body = [content[:200], content[200:]]
        sending = asyncio.create_task(ue.client.asked("PATCH", upload, headers=headers, body=body, gate=gate))
        await asyncio.sleep(0.05)
        forgotten = await ue.client.asked("DELETE", ue.contributions, headers=ue.headers)
        gate.set()
        return await sending, forgotten

    sent, forgotten = ue.client.run(both())
    assert (sent.status, forgotten.status) == (404, 200)
    assert states(ue) == []
    left = [path for path in service.settings.home.rglob("*") if path.stem == id_of(upload)]
    assert left == []


def test_events_are_apart(ue: DirectUE) -> None:
    upload = ue.upload(photo())
    elsewhere = ue.contributions.replace("concert", "match")
    assert ue.ask("GET", elsewhere).status == 403
    assert ue.ask("DELETE", elsewhere).status == 403
    assert ue.ask("GET", elsewhere.replace("match", "nowhere")).status in (403, 404)
    assert ue.status(upload)["state"] == "received"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_without_a_token_nothing_is_told(ue: DirectUE, method: str) -> None:
    answer = ue.client.ask(method, ue.contributions)
    assert (answer.status, "www-authenticate" in answer.headers) == (401, True)
    operator = (ue.client.app.state.service.settings.home / "operator.token").read_text().strip()  # type: ignore[attr-defined]
    assert ue.client.ask(method, ue.contributions, headers={"Authorization": f"Bearer {operator}"}).status == 403
