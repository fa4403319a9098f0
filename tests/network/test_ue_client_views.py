"""A UE's views, from the real service and from its own model: in turn, as circumstances and failures have it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.catalogue.capability import Capability
from crowdnerf_lab.catalogue.card import Latency
from crowdnerf_lab.catalogue.limits import Target
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.ue_client import UE, NoViewError, UESettings
from crowdnerf_lab.network.ues.answers import NetworkError
from crowdnerf_lab.network.ues.crowd_of_ues import crowd_of_ues, visits
from crowdnerf_lab.network.ues.event_connection import Patience, http_client
from crowdnerf_lab.network.ues.lean_ue import LeanUE
from crowdnerf_lab.network.ues.path_choice import Hysteresis
from crowdnerf_lab.network.views.view_request import ViewError
from tests.network.service_in_thread import ServiceInThread, service_in_thread
from tests.network.toy_views import field_artefact
from tests.toy_catalogue import CENTRE, FOCAL, HEIGHT, MACHINE, POSE, WIDTH, write_toy_artefact

AT_EASE = Capability(
    runtimes=("onnxruntime",),
    precisions=("float32",),
    memory_mb=100,
    link_mbit_s=20,
    rtt_ms=50,
    battery_wh=10.0,
    position=(0.0, 0.0, 0.0),
)
CHANGES = {
    "place": ({"position": (9.0, 0.0, 0.0)}, {"position": (0.0, 0.0, 0.0)}),
    "energy": ({"battery_wh": 0.01}, {"battery_wh": 10.0}),
    "processor": ({"busy": 0.9}, {"busy": 0.0}),
    "memory": ({"memory_mb": 1.0}, {"memory_mb": 100.0}),
}
"""What happens to a UE, and how it ends."""
NIMBLE = UESettings(
    deadline_ms=20_000.0,
    patience=Patience(attempts=3, first_s=0.01, most_s=0.05),
    hysteresis=Hysteresis(rest_s=0.0, silence_s=0.2, probation_s=0.2),
)
VIEW = {"width": WIDTH, "height": HEIGHT}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceInThread]:
    """A service with a model for devices and a field for itself, once it renders."""
    root = tmp_path_factory.mktemp("views")
    settings = ServiceSettings(home=root / "service", events=("concert",), train=False, view_processes=1)
    device = write_toy_artefact(
        root / "made",
        "toy",
        peak_memory_mb=20.0,
        latency=Latency(median_ms=20, p95_ms=30, frames=5, threads=1, runtime="none", machine=MACHINE),
        energy={"frame_mj": 5.0, "assumption": "made up for the tests"},
        view_cell={"centre": (0.0, 0.0, 0.0), "radius": 5.0},
    )
    with service_in_thread(settings) as service:
        service.service.catalogue.publish([device, field_artefact(root / "made")], event="concert")
        yield service


def ue_at(
    url: str, home: Path, *, settings: UESettings = NIMBLE, target: Target | None = None, keep_fresh: bool = False
) -> UE:
    return UE(url, capability=AT_EASE, home=home, settings=settings, target=target, keep_fresh=keep_fresh)


def test_without_a_model_the_network_renders_and_says_what_it_cost(running: ServiceInThread, tmp_path: Path) -> None:
    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            await ue.join()
            view = await ue.view(POSE, FOCAL, CENTRE, **VIEW)
            assert (view.path, view.version, view.reason) == ("network", 1, "no model is on this device yet")
            assert view.picture.shape == (HEIGHT, WIDTH, 3)
            assert np.std(view.picture) > 1
            assert {"request", "queue", "render", "encode", "decode", "total"} <= set(view.milliseconds)
            assert view.milliseconds["render"] + view.milliseconds["encode"] <= view.milliseconds["request"]
            assert view.milliseconds["request"] <= view.milliseconds["total"]
            assert 0 < view.bytes < 10_000
            assert view.rendered == (WIDTH, HEIGHT)

    asyncio.run(run())


@pytest.mark.row("S28", "S39", "S69")
@pytest.mark.parametrize("trigger", CHANGES)
def test_it_goes_to_the_network_and_comes_back(running: ServiceInThread, tmp_path: Path, trigger: str) -> None:
    worse, better = CHANGES[trigger]
    target = Target(max_ms=50.0, max_bytes=1_000_000)

    async def run() -> None:
        async with ue_at(running.url, tmp_path, target=target) as ue:
            await ue.join()
            assert await ue.model() is not None
            views = [await ue.view(POSE, FOCAL, CENTRE, **VIEW)]
            assert ue.circumstances(**worse) == (trigger,)
            views.append(await ue.view(POSE, FOCAL, CENTRE, **VIEW))
            assert ue.circumstances(**better) == (trigger,)
            views.append(await ue.view(POSE, FOCAL, CENTRE, **VIEW))
        assert [view.path for view in views] == ["device", "network", "device"]
        assert [view.because for view in views] == [(), (trigger,), (trigger,)]
        assert np.array_equal(views[0].picture, views[2].picture)
        assert not np.array_equal(views[0].picture, views[1].picture)

    asyncio.run(run())


def test_a_device_that_misses_its_frame_time_asks_the_network_and_tries_again(
    running: ServiceInThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hindered, rendered = [True], LocalModel.render

    def slowly(self: LocalModel, *pose: object, **size: object) -> object:
        if hindered[0]:
            import time

            time.sleep(0.15)
        return rendered(self, *pose, **size)

    monkeypatch.setattr(LocalModel, "render", slowly)

    async def run() -> None:
        async with ue_at(running.url, tmp_path, target=Target(max_ms=100.0)) as ue:
            await ue.join()
            await ue.model()
            paths = [(await ue.view(POSE, FOCAL, CENTRE, **VIEW)) for _ in range(4)]
            assert [view.path for view in paths] == ["device"] * 3 + ["network"]
            assert (paths[-1].because, "misses its 100 ms" in paths[-1].reason) == (("processor",), True)
            hindered[0] = False
            await asyncio.sleep(0.3)
            assert (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).path == "device"

    asyncio.run(run())


@pytest.mark.row("S39")
def test_a_network_that_is_gone_leaves_what_is_here_and_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    device = write_toy_artefact(tmp_path / "made", "toy", peak_memory_mb=20.0)
    settings = ServiceSettings(home=tmp_path / "service", events=("concert",), train=False, view_processes=1)

    async def run() -> None:
        async with ue_at("http://127.0.0.1:1", tmp_path / "ue") as ue:
            with service_in_thread(settings) as service:
                service.service.catalogue.publish([device, field_artefact(tmp_path / "made")], event="concert")
                ue.connection.url = service.url
                await ue.join()
                await ue.model()
                ue.circumstances(memory_mb=1.0)
                assert (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).path == "network"
            instead = await ue.view(POSE, FOCAL, CENTRE, **VIEW)
            assert instead.path == "device"
            assert "the network fails" in instead.reason
            assert "does not answer" in instead.reason
            with service_in_thread(settings) as service:
                ue.connection.url = service.url
                await asyncio.sleep(0.3)
                assert (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).path == "network"

    asyncio.run(run())


def test_without_either_it_says_what_is_wrong_with_both(tmp_path: Path, running: ServiceInThread) -> None:
    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            await ue.join()
            ue.connection.url = "http://127.0.0.1:1"
            with pytest.raises(
                NoViewError, match=r"does not answer .*; and the device: no model is on this device yet"
            ):
                await ue.view(POSE, FOCAL, CENTRE, **VIEW)

    asyncio.run(run())


def test_a_camera_that_cannot_be_is_refused_before_anybody_is_asked(running: ServiceInThread, tmp_path: Path) -> None:
    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            for pose in (np.full((3, 4), np.nan), np.zeros((3, 4)), np.zeros((2, 2))):
                with pytest.raises(ViewError):
                    await ue.view(pose, FOCAL, CENTRE, **VIEW)

    asyncio.run(run())


def test_a_moving_camera_is_shown_the_newest_pose_and_the_others_are_counted(
    running: ServiceInThread, tmp_path: Path
) -> None:
    poses = [np.array(POSE) + np.eye(3, 4, 3) * 0.01 * i for i in range(25)]

    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            await ue.join()
            views = [view async for view in ue.views_along(poses, FOCAL, CENTRE, **VIEW, frames_per_s=200.0)]
        assert len(views) + sum(view.dropped for view in views) == len(poses)
        assert all(view.path == "network" and view.picture.shape == (HEIGHT, WIDTH, 3) for view in views)
        assert all(view.milliseconds["request"] >= view.milliseconds["render"] for view in views)

    asyncio.run(run())


def test_a_stream_may_be_left_early_and_leaves_nothing_behind(running: ServiceInThread, tmp_path: Path) -> None:
    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            await ue.join()
            moving = ue.views_along([np.array(POSE)] * 1000, FOCAL, CENTRE, **VIEW, frames_per_s=50.0)
            assert (await anext(moving)).path == "network"
            await moving.aclose()
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run())


@pytest.mark.row("S27")
def test_twenty_ues_share_a_client_and_are_all_served(running: ServiceInThread, tmp_path: Path) -> None:
    coming = visits(20, seconds=0.5, arrivals="poisson", view_share=0.2, seed=1)

    async def run() -> None:
        async with http_client(connections=20) as client:
            ues = [
                UE(running.url, capability=AT_EASE, home=tmp_path / f"ue{i}", client=client, keep_fresh=False)
                for i in range(len(coming))
            ]
            await asyncio.gather(*(ue.join() for ue in ues))

            async def shown(ue: UE) -> int:
                return (await ue.view(POSE, FOCAL, CENTRE, **VIEW)).bytes

            async def fetched(ue: UE) -> int:
                assert await ue.model() is not None
                return ue.bytes_received

            serve = [
                (lambda ue=ue: shown(ue)) if visit.kind == "view" else (lambda ue=ue: fetched(ue))
                for ue, visit in zip(ues, coming, strict=True)
            ]
            report = await crowd_of_ues(coming, serve, patience_s=20.0)
            assert report.errors == ()
            assert [one.kind for one in report.served].count("view") == 4
            assert min(one.bytes for one in report.served) > 100
            assert 0 < report.quantile_s(0.5) <= report.quantile_s(0.95) < 20
            for ue in ues:
                await ue.close()
            assert len({ue.name for ue in ues}) == 20

    asyncio.run(run())


def test_crowds_come_as_they_are_told() -> None:
    burst, even, poisson = (visits(1000, seconds=2.0, arrivals=how) for how in ("burst", "even", "poisson"))
    assert {visit.at_s for visit in burst} == {0.0}
    assert np.diff([visit.at_s for visit in even]) == pytest.approx(0.002)
    assert poisson[-1].at_s == pytest.approx(2.0, rel=0.15)
    gaps = np.diff([visit.at_s for visit in poisson])
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.15)  # exponential
    assert all(sum(visit.kind == "view" for visit in crowd) == 100 for crowd in (burst, even, poisson))
    assert poisson == visits(1000, seconds=2.0, arrivals="poisson")
    assert poisson != visits(1000, seconds=2.0, arrivals="poisson", seed=1)


def test_who_is_not_served_waited_for_ever_and_a_late_driver_counts() -> None:
    async def slow() -> int:
        await asyncio.sleep(0.05)
        return 1

    async def refused() -> int:
        raise OSError("status 429")

    async def for_ever() -> int:
        await asyncio.sleep(60)
        return 1

    coming = visits(4, arrivals="burst", view_share=0.0)
    report = asyncio.run(crowd_of_ues(coming, [slow, slow, refused, for_ever], patience_s=0.3))
    assert report.refused == 2
    assert set(report.errors) == {"status 429", "not served within 0.3 s"}
    assert 0.05 <= report.quantile_s(0.5) < 0.3
    assert report.quantile_s(0.75) == float("inf")
    assert report.bytes == 2
    assert replace(report, served=()).quantile_s(0.95) == 0.0


def question() -> bytes:
    return json.dumps({"capability": AT_EASE.model_dump(mode="json", exclude_none=True)}).encode()


def test_a_lean_ue_asks_for_the_same_as_a_whole_one(running: ServiceInThread, tmp_path: Path) -> None:
    pose = {"camera_to_world": POSE, "focal": FOCAL, "centre": CENTRE, **VIEW}

    async def run() -> None:
        async with ue_at(running.url, tmp_path) as ue:
            await ue.join()
            offer = (await ue.select()).artefacts[0]
            token = (await ue.connection.authorization())["Authorization"].removeprefix("Bearer ")
            lean = LeanUE(running.url, event="concert", token=token)
            received = [await lean.fetch_model(question()) for _ in range(2)]
            assert received[0] == received[1] > offer.model.bytes
            view = await ue.view(POSE, FOCAL, CENTRE, **VIEW)
            assert await lean.fetch_view(json.dumps(pose).encode()) == view.bytes
            with pytest.raises(NetworkError, match="status 422"):
                await lean.fetch_view(b"{}")
            nobody = LeanUE(running.url, event="concert", token="nobody")
            with pytest.raises(NetworkError, match="status 401"):
                await nobody.fetch_model(question())
            lean.close()
            nobody.close()
        await asyncio.sleep(0)  # for connections that are just ending

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "artefacts"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no HTTP"),
        (b"nonsense\r\n\r\n", "no HTTP"),
        (b"x" * 70_000, "endless headers"),
        (b"", "closed the connection"),
    ],
)
def test_a_lean_ue_is_not_served_by_nonsense(answer: bytes, says: str) -> None:
    async def run() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            lean = LeanUE(url, event="concert", token="t")
            try:
                with pytest.raises(NetworkError, match=says):
                    await lean.fetch_model(question())
            finally:
                lean.close()
                await asyncio.sleep(0.05)

    asyncio.run(run())
