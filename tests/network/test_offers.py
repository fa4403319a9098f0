import asyncio
import json

import pytest

from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.models import offers
from crowdnerf_lab.network.models.offers import NoVersionError, Offers, WithdrawnError
from tests.network.toy_service import publish


def with_offers(home, ask):
    """Run `ask` on the offers of a home in an event loop."""

    async def run():
        shown = Offers(Catalogue(home / "catalogue"))
        try:
            return await ask(shown)
        finally:
            await shown.close()

    return asyncio.run(run())


def test_a_version_is_offered_as_soon_as_it_is_published(tmp_path):
    async def ask(shown):
        assert await shown.latest("concert") is None
        for number in (1, 2, 3):
            await asyncio.to_thread(publish, tmp_path, number)
            assert (await shown.latest("concert")).version.number == number
        with pytest.raises(NoVersionError, match="no version 4"):
            await shown.version("concert", 4)

    with_offers(tmp_path, ask)


def test_what_is_offered_stays_in_memory_until_something_changes(tmp_path, monkeypatch):
    publish(tmp_path, 0)
    reads = []
    read = Offers._read
    monkeypatch.setattr(Offers, "_read", lambda self, *about: reads.append(about) or read(self, *about))

    async def ask(shown):
        before = await shown.latest("concert")
        for _ in range(20):
            assert await shown.latest("concert") is before
        assert len(reads) == 1
        await asyncio.to_thread(publish, tmp_path, 1)
        await asyncio.gather(*(shown.latest("concert") for _ in range(20)))
        assert len(reads) == 2

    with_offers(tmp_path, ask)


def test_a_withdrawn_version_is_offered_no_longer(tmp_path):
    publish(tmp_path, 0)
    publish(tmp_path, 1)

    async def ask(shown):
        assert (await shown.version("concert", 2)).version.number == 2
        Catalogue(tmp_path / "catalogue").withdraw("concert", 2, reason="worse")
        with pytest.raises(WithdrawnError, match="worse; select again"):
            await shown.version("concert", 2)
        assert (await shown.latest("concert")).version.number == 1
        assert (await shown.any_version("concert", 2)).version.withdrawn == "worse"

    with_offers(tmp_path, ask)


def test_an_index_that_is_made_anew_is_noticed(tmp_path):
    publish(tmp_path, 0)

    async def ask(shown):
        assert (await shown.latest("concert")).version.number == 1
        (tmp_path / "catalogue/index.sqlite").unlink()
        await asyncio.to_thread(publish, tmp_path, 1)
        assert (await shown.latest("concert")).version.number == 2

    with_offers(tmp_path, ask)


def test_a_damaged_version_does_not_take_the_others_away(tmp_path, caplog):
    publish(tmp_path, 0)

    async def ask(shown):
        assert (await shown.latest("concert")).version.number == 1
        broken = tmp_path / "catalogue/events/concert/000002"
        broken.mkdir()
        (broken / "version.json").write_text(json.dumps({"number": 2}))
        assert (await shown.latest("concert")).version.number == 1
        assert "offered on" in caplog.text

    with_offers(tmp_path, ask)


def test_a_thousand_who_wait_cost_one_watcher(tmp_path, monkeypatch):
    publish(tmp_path, 0)
    looks = []

    async def ask(shown):
        await shown.latest("concert")  # read from disk once, however slow the disk
        stamp = shown._stamp
        monkeypatch.setattr(shown, "_stamp", lambda event: looks.append(event) or stamp(event))
        waiting = [asyncio.create_task(shown.newer("concert", than=1, wait_s=60)) for _ in range(1000)]
        while len(looks) < 1000:  # each looks once before it waits
            await asyncio.sleep(offers.WATCH_S)
        looks.clear()
        await asyncio.sleep(5 * offers.WATCH_S)
        assert len(looks) <= 8
        await asyncio.to_thread(publish, tmp_path, 1)
        found = await asyncio.gather(*waiting)
        assert {version.number for version in found} == {2}

    with_offers(tmp_path, ask)


def test_waiting_ends(tmp_path):
    publish(tmp_path, 0)

    async def ask(shown):
        assert await shown.newer("concert", than=1, wait_s=0.2) is None
        assert await shown.newer("nowhere", than=0, wait_s=0.2) is None

    with_offers(tmp_path, ask)
