"""The phones of a simulated event at a real service, and what the service's records say of the evening."""

import asyncio
from pathlib import Path

import pytest

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.study import truth_of
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.api.running import end_server, is_claimed
from crowdnerf_lab.network.serving import serve
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ues.rehearsal import Rehearsal, positioned
from crowdnerf_lab.network.updates.evening import evening_of
from crowdnerf_lab.network.updates.event_folder import EventFolder, Outcome, Plan
from tests.network.toy_event import send, toy_home
from tests.network.toy_service import publish


def test_a_phone_is_told_its_true_camera_and_nothing_else_of_the_truth() -> None:
    photo = concert().photos[0]
    said = positioned(photo)
    assert said["camera"]["camera_to_world"] == [list(row) for row in truth_of(photo).camera_to_world]
    assert "truth" not in said


@pytest.mark.row("S11", "S63")
def test_phones_join_once_and_what_they_send_is_acknowledged_and_told(tmp_path: Path) -> None:
    captures = concert()

    async def two_phones(url: str) -> None:
        async with Rehearsal(url, captures) as crowd:
            early, late = crowd.early_and_late(phones=6)
            assert (len(early), len(late)) == (4, 2)
            assert not set(early) & set(late)
            sent = await crowd.send(early[:1])
            assert sent == len(next(each for each in captures.captures if each.ue == early[0]).photos)
            assert await crowd.send(early[:1]) == sent
            assert list(crowd.ues) == [early[0]]
            assert [status.state for status in await crowd.statuses()] == ["received"] * sent

    settings = ServiceSettings(tmp_path, train=False, view_processes=0)
    with serve(tmp_path, events=("concert",), settings=settings) as service:
        asyncio.run(two_phones(service.url))
        end_server(tmp_path)
        assert not is_claimed(tmp_path)


@pytest.mark.row("S40")
def test_the_evening_is_what_was_received_published_and_withdrawn(tmp_path: Path) -> None:
    send(toy_home(tmp_path), count=2, received=100.0)
    for seed, psnr in enumerate((18.0, 17.0)):
        version = publish(tmp_path, seed)
        plan = Plan(id=str(seed), start=None, photos=("a.jpg",), new=("a.jpg",), judges=("b.jpg",))
        begun = EventFolder(tmp_path, "concert").new_round(plan)
        begun.note(Outcome(version=version.number, reason="", psnr=psnr, psnr_before=None, seconds={}))
    Catalogue(tmp_path / "catalogue").withdraw("concert", 2, reason="it measured worse")
    evening = evening_of(tmp_path)
    assert evening.contributions == (0.0, 0.0)
    assert [(each.version, each.psnr, each.withdrawn) for each in evening.versions] == [
        (1, 18.0, None),
        (2, 17.0, "it measured worse"),
    ]
    assert all(each.seconds > 0 for each in evening.versions)
