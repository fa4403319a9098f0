"""The view engine with real render processes: shared, cached, in time or refused, through new versions and deaths."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.views.view_engine import (
    Busy,
    EncodedView,
    Format,
    NoModel,
    ServedView,
    ViewEngine,
    ViewError,
    ViewPolicy,
    decode_view,
)
from tests.network.background_loop import BackgroundLoop, background_loop
from tests.network.toy_views import (
    EVENT,
    Limits,
    field_artefact,
    publish_field,
    request_from,
    running_engine,
    until,
)

LARGE = {"width": 480, "height": 320}


@dataclass(frozen=True)
class Running:
    """An engine with two processes over one catalogue, for tests that leave both as they were."""

    loop: BackgroundLoop
    engine: ViewEngine
    catalogue: Catalogue


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("views")
    catalogue = Catalogue(root / "catalogue")
    publish_field(catalogue, root)
    with background_loop() as loop:
        opened = running_engine(catalogue, limits=Limits(view_processes=2))
        engine = loop.run(opened.__aenter__())
        try:
            yield Running(loop, engine, catalogue)
        finally:
            loop.run(opened.__aexit__(None, None, None))


def picture_of(view: ServedView) -> NDArray[np.uint8]:
    return decode_view(EncodedView(view.content, view.media_type, view.width, view.height, 0.0, 0.0))


@pytest.mark.row("S8", "S70", "S71")
@pytest.mark.parametrize("format", ["webp", "jpeg", "avif", "png"])
def test_a_view_is_what_was_asked_for(running: Running, format: Format) -> None:
    request = request_from(0.3)
    view = running.loop.run(running.engine.view(EVENT, request, format=format, quality=95))
    assert (view.width, view.height, view.version) == (48, 32, 1)
    assert view.media_type == f"image/{format}"
    assert not view.degraded
    assert view.timings.render > 0
    assert view.timings.encode > 0
    picture = picture_of(view)
    elsewhere = picture_of(running.loop.run(running.engine.view(EVENT, request_from(0.9), format=format, quality=95)))
    again = picture_of(running.loop.run(running.engine.view(EVENT, request, format=format, quality=94)))
    difference = abs(picture.astype(int) - elsewhere).mean()
    assert abs(picture.astype(int) - again).mean() < difference / 2


@pytest.mark.row("S72")
def test_what_was_made_before_is_not_made_again(running: Running) -> None:
    request = request_from(1.0)
    first = running.loop.run(running.engine.view(EVENT, request))
    second = running.loop.run(running.engine.view(EVENT, request_from(1.0001)))
    assert (first.cached, second.cached) == (False, True)
    assert second.content == first.content
    assert not running.loop.run(running.engine.view(EVENT, request, quality=81)).cached


@pytest.mark.row("S72")
def test_who_asks_for_the_same_at_once_shares_one_render(running: Running) -> None:
    before = running.engine.statistics

    async def crowd() -> list[ServedView]:
        return await asyncio.gather(*(running.engine.view(EVENT, request_from(2.0, **LARGE)) for _ in range(12)))

    views = running.loop.run(crowd())
    after = running.engine.statistics
    assert len({view.content for view in views}) == 1
    assert after.shared - before.shared == 11
    assert after.served - before.served == 12


def test_encodings_of_one_picture_come_from_one_render(running: Running) -> None:
    async def crowd() -> list[ServedView]:
        ahead = [running.engine.view(EVENT, request_from(3 + i, **LARGE)) for i in range(4)]
        same = [running.engine.view(EVENT, request_from(9.0), quality=quality) for quality in (50, 70, 90)]
        return (await asyncio.gather(*ahead, *same))[4:]

    views = running.loop.run(crowd())
    assert len({view.timings.render for view in views}) == 1
    assert len({len(view.content) for view in views}) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"request": request_from(width=4000, height=4000)}, "ask for 1 to"),
        ({"format": "bmp"}, "give webp or jpeg or avif or png"),
        ({"quality": 0}, "1 to 100"),
        ({"deadline_ms": 0.0}, "more than 0"),
        ({"deadline_ms": float("nan")}, "more than 0"),
        ({"request": request_from(width=1, height=17_000)}, "16383 pixels a side"),
    ],
)
def test_what_cannot_be_made_is_refused(running: Running, changes: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"request": request_from()} | changes
    with pytest.raises(ViewError, match=says):
        running.loop.run(running.engine.view(EVENT, **arguments))


@pytest.mark.parametrize("event", ["nothing", "../toys", "a/b", ""])
def test_an_event_without_versions_shows_nothing(running: Running, event: str) -> None:
    with pytest.raises(NoModel, match="no published version"):
        running.loop.run(running.engine.view(event, request_from()))


@pytest.mark.row("S41", "S71")
def test_no_answer_comes_after_its_deadline(running: Running) -> None:
    """A crowd asks for far more than can be rendered: some are shown less, some are refused, nobody waits in vain."""
    lone_ms = running.loop.run(running.engine.view(EVENT, request_from(15.0, **LARGE))).timings.render

    async def one(place: float, deadline_ms: float) -> tuple[ServedView | Busy, float]:
        started = time.monotonic()
        try:
            view = await running.engine.view(EVENT, request_from(place, **LARGE), deadline_ms=deadline_ms)
            return view, time.monotonic() - started
        except Busy as busy:
            return busy, time.monotonic() - started

    async def crowd(first: int, deadline_ms: float) -> list[tuple[ServedView | Busy, float]]:
        return await asyncio.gather(*(one(first + i, deadline_ms) for i in range(150)))

    for times in (5, 10, 20):  # on a machine that is busy with something else, a view may take many times the first's
        deadline_ms = max(400.0, times * lone_ms)
        outcomes = running.loop.run(crowd(1000 * times, deadline_ms))
        shown = [view for view, _ in outcomes if isinstance(view, ServedView)]
        refused = [busy for busy, _ in outcomes if isinstance(busy, Busy)]
        assert max(seconds for _, seconds in outcomes) < deadline_ms / 1e3 + 0.5
        assert all(0 < busy.retry_after_s <= 30 for busy in refused)
        if shown:
            break
    assert shown
    assert refused
    assert any(view.degraded for view in shown)
    assert {view.width for view in shown} <= {480, 360, 240}
    assert running.loop.run(running.engine.view(EVENT, request_from(400.0, **LARGE))).width == 480


def test_a_view_that_nobody_waits_for_is_not_rendered(running: Running) -> None:
    async def leave() -> None:
        asking = [asyncio.create_task(running.engine.view(EVENT, request_from(500 + i, **LARGE))) for i in range(30)]
        await asyncio.sleep(0.02)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        started = time.monotonic()
        await running.engine.view(EVENT, request_from(600.0))
        assert time.monotonic() - started < 2.0
        assert running.engine.statistics.waiting == 0

    running.loop.run(leave())


def test_a_small_view_is_never_made_smaller_than_its_floor() -> None:
    policy = ViewPolicy()
    assert policy.scales_for(request_from(width=480, height=320)) == [1.0, 0.75, 0.5]
    assert policy.scales_for(request_from(width=60, height=50)) == [1.0, 0.75]
    assert policy.scales_for(request_from(width=24, height=16)) == [1.0]
    assert policy.scales_for(request_from(width=480, height=320), at_most=0.6) == [0.5]


async def asking(engine: ViewEngine, seen: list[ServedView], stop: asyncio.Event) -> None:
    """Ask for one new view after another; every one must come."""
    place = 0.0
    while not stop.is_set():
        place += 1.0
        seen.append(await engine.view(EVENT, request_from(place)))


@pytest.mark.row("S40", "S59")
def test_versions_change_while_views_are_served(tmp_path: Path) -> None:
    """A new version takes over, a withdrawn one is left, and no request is lost on the way."""
    catalogue = Catalogue(tmp_path / "catalogue")
    publish_field(catalogue, tmp_path / "one")

    async def swap() -> list[int]:
        async with running_engine(catalogue) as engine:
            seen: list[ServedView] = []
            stop = asyncio.Event()
            crowd = [asyncio.create_task(asking(engine, seen, stop)) for _ in range(3)]
            await until(lambda: len(seen) > 5)
            await asyncio.to_thread(publish_field, catalogue, tmp_path / "two")
            await until(lambda: seen[-1].version == 2)
            await asyncio.to_thread(catalogue.withdraw, EVENT, 2, reason="it measured worse")
            await until(lambda: seen[-1].version == 1)
            after = (await engine.view(EVENT, request_from(0.5))).version
            stop.set()
            await asyncio.gather(*crowd)  # raises what any of them met
            return [*dict.fromkeys(view.version for view in seen), after]

    assert asyncio.run(swap()) == [1, 2, 1]


@pytest.mark.row("S59")
def test_a_field_that_cannot_be_loaded_is_passed_over(tmp_path: Path) -> None:
    """The better field of the version is damaged on disk: the other one serves; then the version before."""
    catalogue = Catalogue(tmp_path / "catalogue")
    publish_field(catalogue, tmp_path, name="before")
    offered = [field_artefact(tmp_path, "good", psnr=20.0), field_artefact(tmp_path, "better", psnr=30.0)]
    catalogue.publish(offered, event=EVENT)
    bad = field_artefact(tmp_path, "bad", content=b"no field at all")
    catalogue.publish([bad], event=EVENT)
    better = next(each for each in catalogue.artefacts(EVENT, 2) if each.card.name == "better")
    damaged = better.model.read_bytes()[:-7]
    better.model.unlink()  # the stored file itself stays as it is
    better.model.write_bytes(damaged)

    async def shown() -> int:
        async with running_engine(catalogue) as engine:
            return (await engine.view(EVENT, request_from())).version

    assert asyncio.run(shown()) == 2


def test_a_first_version_is_shown_as_soon_as_it_is_published(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "catalogue")

    async def first() -> int:
        async with running_engine(catalogue) as engine:
            with pytest.raises(NoModel):
                await engine.view(EVENT, request_from())
            await asyncio.to_thread(publish_field, catalogue, tmp_path)
            return (await engine.view(EVENT, request_from())).version

    assert asyncio.run(first()) == 1


@pytest.mark.row("S59", "S71")
def test_processes_that_are_killed_cost_no_view(running: Running) -> None:
    async def kill_amidst() -> list[ServedView]:
        crowd = [asyncio.create_task(running.engine.view(EVENT, request_from(700 + i, **LARGE))) for i in range(8)]
        await until(lambda: running.engine.statistics.rendering > 0)
        for pid in running.engine.process_ids:
            os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*crowd)

    before = running.engine.statistics.restarts
    views = running.loop.run(kill_amidst())
    assert len(views) == 8
    running.loop.run(until(lambda: running.engine.ready and len(running.engine.process_ids) == 2))
    assert running.engine.statistics.restarts >= before + 2


def test_a_process_that_hangs_is_replaced_and_nobody_hangs_with_it(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "catalogue")
    publish_field(catalogue, tmp_path)

    async def hang() -> tuple[float, int]:
        async with running_engine(catalogue, policy=ViewPolicy(stuck_s=0.2)) as engine:
            (pid,) = engine.process_ids
            os.kill(pid, signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(Busy):
                await engine.view(EVENT, request_from(1.0), deadline_ms=100.0)
            waited = time.monotonic() - started
            return waited, (await engine.view(EVENT, request_from(2.0))).version

    waited, version = asyncio.run(hang())
    assert waited < 0.5
    assert version == 1


def test_closing_ends_the_processes_and_tells_who_waits(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "catalogue")
    publish_field(catalogue, tmp_path)

    async def close() -> tuple[tuple[int, ...], list[object]]:
        async with running_engine(catalogue) as engine:
            pids = engine.process_ids
            crowd = [asyncio.create_task(engine.view(EVENT, request_from(i, **LARGE))) for i in range(20)]
            await asyncio.sleep(0)
            await engine.close()
            return pids, await asyncio.gather(*crowd, return_exceptions=True)

    pids, outcomes = asyncio.run(close())
    assert any(isinstance(outcome, Busy) for outcome in outcomes)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


ENGINE = """
import asyncio, sys
from pathlib import Path
from crowdnerf_lab.catalogue.catalogue import Catalogue
from tests.network.toy_views import running_engine

async def run():
    async with running_engine(Catalogue(Path(sys.argv[1]))) as engine:
        print(*engine.process_ids, flush=True)
        await asyncio.sleep(60)

asyncio.run(run())
"""


def test_render_processes_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "catalogue")
    publish_field(catalogue, tmp_path)
    service = subprocess.Popen([sys.executable, "-c", ENGINE, str(catalogue.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        (pid,) = map(int, service.stdout.readline().split())
        os.kill(pid, 0)
    finally:
        service.kill()
        service.communicate()
    end = time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
