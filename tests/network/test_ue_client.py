"""A UE against the real service: it joins, uploads, fetches models and follows the event's versions."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from PIL import Image

from crowdnerf_lab.captures.bundle import Photo, ReportedPose
from crowdnerf_lab.catalogue.artefact import card_layers
from crowdnerf_lab.catalogue.capability import Capability, CapabilityError
from crowdnerf_lab.coding.coded_graph import encode_graph
from crowdnerf_lab.coding.layered_file import read_layers
from crowdnerf_lab.network.links.link import LinkProfile, shaped_tcp
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue_client import UE, NoViewError, UESettings, capability_here, capture_of
from crowdnerf_lab.network.ues import model_download
from crowdnerf_lab.network.ues.answers import NetworkError, RefusedError, TokenEndedError
from crowdnerf_lab.network.ues.event_connection import Patience
from tests.network.service_in_thread import ServiceInThread, service_in_thread
from tests.toy_catalogue import (
    CENTRE,
    FOCAL,
    HEIGHT,
    POSE,
    WIDTH,
    quality_of,
    toy_graph,
    toy_model,
    write_toy_artefact,
)

CAPABILITY = Capability(runtimes=("onnxruntime",), precisions=("float32",), memory_mb=1000, link_mbit_s=20, rtt_ms=50)
HASTY = UESettings(patience=Patience(attempts=4, first_s=0.01, most_s=0.05), poll_s=5.0, deadline_ms=500.0)
VIEW = {"width": WIDTH, "height": HEIGHT}
SLOW_LINK = LinkProfile("slow", "slow", down_mbit_s=0.4, up_mbit_s=1.0, rtt_ms=20)
Result = TypeVar("Result")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ServiceInThread]:
    settings = ServiceSettings(home=tmp_path / "service", events=("concert",), train=False, view_processes=0)
    with service_in_thread(settings) as service:
        yield service


def publish(running: ServiceInThread, tmp_path: Path, *, seed: int = 0, **others: Any) -> int:
    """Another version of the toy model; returns its number."""
    others = {"content": toy_graph(seed=seed), "measured_as": toy_model(toy_graph(seed=seed))} | others
    made = write_toy_artefact(tmp_path / f"made{seed}", "toy", **others)
    return running.service.catalogue.publish([made], event="concert").number


def progressive(tmp_path: Path, *, seed: int = 0) -> dict[str, Any]:
    """What makes a toy artefact travel in layers."""
    graph = tmp_path / f"graph{seed}.onnx"
    graph.write_bytes(toy_graph(seed=seed, layers=4))
    coded = encode_graph(graph, tmp_path / f"graph{seed}.cnlf", coding="progressive", step=0.01)
    ends = read_layers(coded.read_bytes(), kind="crowdnerf_lab.coded_graph/1", name=coded).ends
    return {
        "content": coded.read_bytes(),
        "measured_as": toy_model(toy_graph(seed=seed, layers=4)),
        "file": "model.cnlf",
        "coding": "progressive",
        "bytes_uncoded": graph.stat().st_size,
        "layers": card_layers(coded, ends=ends),
    }


def joined(
    url: str, home: Path, use: Callable[[UE], Coroutine[Any, Any, Result]], *, keep_fresh: bool = False
) -> Result:
    """Join as a UE of this home, and what `use` makes of it; nothing may still run afterwards."""

    async def run() -> Result:
        async with UE(url, capability=CAPABILITY, home=home, settings=HASTY, keep_fresh=keep_fresh) as ue:
            await ue.join()
            result = await use(ue)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []
        return result

    return asyncio.run(run())


def operator(running: ServiceInThread, method: str, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {running.operator_token}"}
    return httpx.request(method, running.url + path, headers=headers, trust_env=False)


@pytest.mark.row("S27", "S67", "S68", "S69")
def test_it_asks_for_what_fits_fetches_it_and_shows_views_of_it(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def use(ue: UE) -> None:
        model = await ue.model()
        assert model is not None
        assert ue.version == 1
        assert "toy: 20.0 dB" in ue.reason
        view = await ue.view(POSE, FOCAL, CENTRE, **VIEW)
        assert (view.path, view.version, view.bytes) == ("device", 1, 0)
        assert view.picture.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(view.picture, model.render(np.array(POSE), FOCAL, CENTRE))
        assert view.milliseconds["total"] == view.milliseconds["load"] + view.milliseconds["render"] > 0
        before = ue.bytes_received
        assert await ue.model() is model
        assert ue.bytes_received - before < 10_000  # the answer to its question, not the model again

    joined(running.url, tmp_path / "ue", use)


@pytest.mark.row("S38")
def test_a_set_of_models_shows_something_soon_and_then_the_best(running: ServiceInThread, tmp_path: Path) -> None:
    """A small model first, of which there is something to see within a second; then one that takes ten to arrive."""
    soon = write_toy_artefact(tmp_path / "made", "soon", quality=quality_of(15.0))
    best = write_toy_artefact(
        tmp_path / "made",
        "best",
        content=toy_graph(seed=1, padding=400_000),
        measured_as=toy_model(toy_graph(seed=1)),
        quality=quality_of(20.0),
    )
    running.service.catalogue.publish([soon, best], event="concert")

    async def use(ue: UE) -> None:
        ue.circumstances(link_mbit_s=0.32)
        seen = [model async for model in ue.models_as_they_arrive(most=2)]
        pictures = [model.render(np.array(POSE), FOCAL, CENTRE) for model in seen]
        assert len(seen) == 2
        shown = (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).picture
        assert not np.array_equal(*pictures)
        assert np.array_equal(shown, pictures[1])

    joined(running.url, tmp_path / "ue", use)


def test_a_restarted_ue_keeps_its_pseudonym_and_its_models(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def first(ue: UE) -> str | None:
        await ue.model()
        return ue.name

    async def second(ue: UE) -> tuple[str | None, int | None, str]:
        return ue.name, ue.version, (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).path

    name = joined(running.url, tmp_path / "ue", first)
    assert joined(running.url, tmp_path / "ue", second) == (name, 1, "device")


def test_a_file_that_was_damaged_on_its_disk_is_fetched_again(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def fetch(ue: UE) -> bool:
        return (await ue.model()) is not None

    joined(running.url, tmp_path / "ue", fetch)
    (model,) = (tmp_path / "ue").rglob("model.onnx")
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    assert joined(running.url, tmp_path / "ue", fetch)
    assert model.read_bytes() == toy_graph()


def test_what_the_network_has_for_nobody_is_said(running: ServiceInThread, tmp_path: Path) -> None:
    async def use(ue: UE) -> str:
        assert await ue.model() is None
        with pytest.raises(NoViewError, match=r"no view: asking for a view: .*; and the device: no model is on"):
            await ue.view(POSE, FOCAL, CENTRE, **VIEW)
        return ue.reason

    assert "the event has no models yet" in joined(running.url, tmp_path / "ue", use)


@pytest.mark.row("S30")
def test_it_follows_the_event_s_versions_and_goes_back_with_them(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def until(ue: UE, version: int) -> None:
        async with asyncio.timeout(10):
            while (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).version != version:
                await asyncio.sleep(0.02)

    async def use(ue: UE) -> None:
        assert await ue.model() is not None
        await until(ue, 1)
        assert publish(running, tmp_path, seed=1) == 2
        await until(ue, 2)
        running.service.catalogue.withdraw("concert", 2, reason="it measures worse")
        await until(ue, 1)

    joined(running.url, tmp_path / "ue", use, keep_fresh=True)


def test_what_is_not_followed_is_refreshed_when_asked(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def use(ue: UE) -> list[bool]:
        first = await ue.refresh()
        same = await ue.refresh()
        publish(running, tmp_path, seed=1)
        return [first, same, await ue.refresh(), await ue.refresh()]

    assert joined(running.url, tmp_path / "ue", use) == [True, False, True, False]


@pytest.mark.row("S30")
@pytest.mark.parametrize("delta", ["as it is", "damaged"])
def test_a_newer_version_comes_as_a_delta_or_whole(
    running: ServiceInThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delta: str
) -> None:
    graph = toy_graph(layers=1)
    changed = bytearray(graph)
    changed[-2000] ^= 1
    publish(running, tmp_path, content=graph)
    if delta == "damaged":
        answered = model_download.EventConnection.ask

        async def spoiled(self: Any, method: str, url: str, **others: Any) -> Any:
            answer = await answered(self, method, url, **others)
            return answer if "/delta" not in url else type(answer)(200, {}, b"spoiled", 0.0)

        monkeypatch.setattr(model_download.EventConnection, "ask", spoiled)

    async def use(ue: UE) -> int:
        await ue.model()
        write = write_toy_artefact(tmp_path / "next", "toy", content=bytes(changed))
        running.service.catalogue.publish([write], event="concert")
        for _ in range(20):  # a delta that is still being made is not offered yet
            if (await ue.select()).artefacts[0].delta is not None:
                break
            await asyncio.sleep(0.1)
        before = ue.bytes_received
        assert await ue.refresh()
        assert await ue.model() is not None
        held = ue._local.held[0]
        assert held.artefact.model.read_bytes() == bytes(changed)
        return ue.bytes_received - before

    received = joined(running.url, tmp_path / "ue", use)
    assert (received > len(graph)) == (delta == "damaged")


@pytest.mark.row("S49")
def test_the_first_layers_show_something_while_the_rest_arrives(running: ServiceInThread, tmp_path: Path) -> None:
    settings = progressive(tmp_path)
    publish(running, tmp_path, **settings)
    size = len(settings["content"])

    async def run() -> None:
        async with (
            shaped_tcp(running.url, SLOW_LINK) as url,
            UE(url, capability=CAPABILITY, home=tmp_path / "ue", settings=HASTY, keep_fresh=False) as ue,
        ):
            await ue.join()
            seen = []
            async for model in ue.models_as_they_arrive():
                view = await ue.view(POSE, FOCAL, CENTRE, **VIEW)
                seen.append((model.complete, ue.bytes_received < size, view.path))
            assert seen[0] == (False, True, "device")
            assert seen[-1] == (True, False, "device")

    asyncio.run(run())


def test_a_download_that_nobody_waits_for_any_more_is_resumed_later(running: ServiceInThread, tmp_path: Path) -> None:
    settings = progressive(tmp_path)
    publish(running, tmp_path, **settings)

    async def run() -> int:
        async with (
            shaped_tcp(running.url, SLOW_LINK) as url,
            UE(url, capability=CAPABILITY, home=tmp_path / "ue", settings=HASTY, keep_fresh=False) as ue,
        ):
            await ue.join()
            arriving = ue.models_as_they_arrive()
            assert not (await anext(arriving)).complete
            await arriving.aclose()
            before = ue.bytes_received
            model = await ue.model()
            assert model is not None
            assert model.complete
            return ue.bytes_received - before

    assert asyncio.run(run()) < len(settings["content"])


def test_the_views_to_measure_a_model_by_come_when_asked_for(running: ServiceInThread, tmp_path: Path) -> None:
    publish(running, tmp_path)

    async def use(ue: UE) -> None:
        await ue.model(probes=True)
        folder = ue._local.held[0].artefact.folder
        assert {path.name for path in folder.iterdir()} == {"card.json", "model.onnx", "probe_0.png", "probe_1.png"}

    joined(running.url, tmp_path / "ue", use)


def photo(tmp_path: Path, *, size: int = 64, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    path = tmp_path / f"photo{seed}.png"
    Image.fromarray(noise).save(path)
    return path


def test_a_photo_is_sent_with_what_its_capture_says(running: ServiceInThread, tmp_path: Path) -> None:
    taken = Photo(
        file="photo.png", width=64, height=64, focal_px=50.0, time_s=3.5, reported=ReportedPose(camera_to_world=POSE)
    )

    async def use(ue: UE) -> None:
        sent = await ue.upload(photo(tmp_path), capture=capture_of(taken))
        assert sent.state == "received"
        again = await ue.upload(photo(tmp_path), capture=capture_of(taken))
        assert again.id == sent.id
        (row,) = running.service.database.connection().execute("SELECT * FROM contributions").fetchall()
        said = json.loads(row["capture"])
        assert (said["time_s"], said["focal_px"]) == (3.5, 50.0)
        assert row["bytes"] == photo(tmp_path).stat().st_size
        await ue.forget_me()
        assert (await ue.status(sent.id)).state == "forgotten"

    joined(running.url, tmp_path / "ue", use)


def test_an_upload_survives_connections_that_break(running: ServiceInThread, tmp_path: Path) -> None:
    """Through a proxy that cuts every connection after some bytes: it is resumed until all of it is there."""
    path = photo(tmp_path, size=200)

    async def run() -> None:
        cut = UESettings(patience=HASTY.patience, chunk_bytes=20_000)
        async with (
            cutting(running.url, after=50_000) as url,
            UE(url, capability=CAPABILITY, home=tmp_path / "ue", settings=cut) as ue,
        ):
            await ue.join()
            sent = await ue.send(path, capture={"time_s": 0.0})
            assert sent.interruptions >= 1
            assert (await ue.status(sent.id)).state == "received"

    asyncio.run(run())


def test_an_upload_goes_on_with_a_service_that_was_restarted(tmp_path: Path) -> None:
    """The second service has the first one's home and its port, and knows how much had arrived."""
    settings = ServiceSettings(home=tmp_path / "service", events=("concert",), train=False, view_processes=0)
    small_pieces = UESettings(patience=Patience(attempts=200, first_s=0.02, most_s=0.05), chunk_bytes=500)
    path = photo(tmp_path, size=80)

    async def run() -> None:
        with ExitStack() as lives:
            first = lives.enter_context(service_in_thread(settings))
            rows = first.service.database.connection()
            async with UE(first.url, capability=CAPABILITY, home=tmp_path / "ue", settings=small_pieces) as ue:
                await ue.join()
                sending = asyncio.create_task(ue.send(path, capture={"time_s": 0.0}))
                while not (row := rows.execute("SELECT offset FROM uploads").fetchone()) or row["offset"] < 2000:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(lives.close)
                assert not sending.done()
                lives.enter_context(service_in_thread(settings, port=int(first.url.rpartition(":")[2])))
                sent = await sending
                assert sent.interruptions >= 1
                assert (await ue.status(sent.id)).state == "received"
        (kept,) = (tmp_path / "service" / "inbox" / "concert").iterdir()
        assert kept.read_bytes() == path.read_bytes()

    asyncio.run(run())


@asynccontextmanager
async def cutting(target: str, *, after: int) -> AsyncIterator[str]:
    """The URL of a proxy whose connections break after so many bytes from the UE."""
    port, ended = int(target.rpartition(":")[2]), []

    async def carry(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await there.read(8192):
            writer.write(piece)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        answers, left = asyncio.create_task(carry(there, writer)), after
        while left > 0 and (piece := await reader.read(min(left, 8192))):
            left -= len(piece)
            back.write(piece)
            await back.drain()
        answers.cancel()
        for side in (writer, back):
            side.transport.abort()
        await asyncio.gather(answers, return_exceptions=True)
        ended.append(left)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert 0 in ended
    finally:
        server.close()
        await asyncio.sleep(0.1)  # for connections that are just ending


@pytest.mark.parametrize(("name", "content", "says"), [("absent", None, "cannot be read"), ("empty", b"", "is empty")])
def test_what_is_no_photo_is_not_sent(
    running: ServiceInThread, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NetworkError, match=says):
        joined(running.url, tmp_path / "ue", lambda ue: ue.upload(path, capture={"time_s": 0.0}))


def test_what_the_service_does_not_take_is_said_at_once(running: ServiceInThread, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no photo at all")
    with pytest.raises(RefusedError, match=r"uploading notes\.txt"):
        joined(running.url, tmp_path / "ue", lambda ue: ue.upload(text, capture={"time_s": 0.0}))


def test_a_token_is_renewed_before_it_ends_and_a_revoked_one_is_named(tmp_path: Path) -> None:
    settings = ServiceSettings(
        home=tmp_path / "service", events=("concert",), train=False, view_processes=0, token_hours=2.5 / 3600
    )
    with service_in_thread(settings) as running:

        async def use(ue: UE) -> None:
            token = await ue.connection.authorization()
            for _ in range(10):
                await ue.select()
                await asyncio.sleep(0.25)
            assert await ue.connection.authorization() != token
            assert operator(running, "DELETE", f"/events/concert/ues/{ue.name}/tokens").json()["revoked"] == 1
            with pytest.raises(TokenEndedError, match=r"revoked.*join the event again"):
                await ue.select()
            with pytest.raises(TokenEndedError, match=r"join\(anew=True\)"):
                await ue.join()
            before = ue.name
            assert (await ue.join(anew=True)).ue != before
            await ue.select()
            await ue.leave()
            assert ue.name is None

        joined(running.url, tmp_path / "ue", use)


def test_an_unknown_event_and_a_service_that_is_not_there_are_said(running: ServiceInThread, tmp_path: Path) -> None:
    async def join(url: str, event: str) -> None:
        async with UE(url, event=event, capability=CAPABILITY, home=tmp_path / "ue") as ue:
            await ue.join()

    with pytest.raises(RefusedError, match=r"joining circus: .*no event 'circus'"):
        asyncio.run(join(running.url, "circus"))
    with pytest.raises(NetworkError, match=r"http://127\.0\.0\.1:1 does not answer"):
        asyncio.run(join("http://127.0.0.1:1", "concert"))


def test_circumstances_say_what_they_change_and_refuse_nonsense(tmp_path: Path) -> None:
    async def run() -> None:
        async with UE("http://127.0.0.1:1", capability=CAPABILITY, home=tmp_path) as ue:
            assert ue.circumstances(memory_mb=CAPABILITY.memory_mb) == ()
            assert ue.circumstances(battery_wh=1.0) == ("energy",)
            assert ue.circumstances(memory_mb=10, busy=0.5, position=(1, 2, 3)) == ("place", "processor", "memory")
            with pytest.raises(CapabilityError, match="busy"):
                ue.circumstances(busy=1.5)
            assert ue.capability.busy == 0.5

    asyncio.run(run())


def test_this_machine_can_say_what_it_is() -> None:
    here = capability_here()
    assert "onnxruntime" in here.runtimes
    assert here.memory_mb > 1
    assert 0 <= here.busy < 1
