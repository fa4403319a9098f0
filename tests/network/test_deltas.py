import asyncio
import random

import pytest

from crowdnerf_lab.catalogue.delta import apply_delta
from crowdnerf_lab.files import sha256_of
from crowdnerf_lab.network.models.deltas import Deltas
from crowdnerf_lab.network.models.downloads import StoredFile


@pytest.fixture
def versions(tmp_path):
    """Three files: the second is the first with a few bytes changed, the third has nothing in common with it."""
    noise = random.Random(0).randbytes(20_000)
    contents = (noise, noise[:9000] + b"changed" + noise[9007:], random.Random(1).randbytes(20_000))
    files = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        files.append(StoredFile(path, len(content), sha256_of(path)))
    return files


def test_a_delta_is_made_once_for_all_who_ask(tmp_path, versions, monkeypatch):
    made = []
    start = asyncio.create_subprocess_exec

    async def counted(*command, **others):
        made.append(command)
        return await start(*command, **others)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)

    async def ask():
        deltas = Deltas(tmp_path / "deltas")
        found = await asyncio.gather(*(deltas.between(versions[0], versions[1], wait_s=30) for _ in range(50)))
        again = await Deltas(tmp_path / "deltas").between(versions[0], versions[1], wait_s=0)
        return {*found, again}

    (delta,) = asyncio.run(ask())
    assert len(made) == 1
    content = delta.path.read_bytes()
    assert (len(content), sha256_of(delta.path)) == (delta.bytes, delta.sha256)
    assert delta.bytes < versions[1].bytes / 10
    old, new = (file.path.read_bytes() for file in versions[:2])
    assert apply_delta(old, content, name="delta") == new


def test_where_no_delta_pays_there_is_none_and_nobody_waits_again(tmp_path, versions):
    async def ask():
        deltas = Deltas(tmp_path / "deltas")
        assert await deltas.between(versions[0], versions[2], wait_s=30) is None
        assert not deltas.under_way(versions[0], versions[2])
        assert await deltas.between(versions[0], versions[2], wait_s=0) is None
        assert not deltas.under_way(versions[0], versions[2])

    asyncio.run(ask())
    assert [path.stat().st_size for path in (tmp_path / "deltas").iterdir()] == [0]


def test_who_cannot_wait_goes_without_and_the_making_can_be_stopped(tmp_path, versions):
    async def ask():
        deltas = Deltas(tmp_path / "deltas")
        assert await deltas.between(versions[0], versions[1], wait_s=0) is None
        assert deltas.under_way(versions[0], versions[1])
        await asyncio.sleep(0.05)
        await deltas.close()
        assert not deltas.under_way(versions[0], versions[1])

    asyncio.run(ask())
    assert not (tmp_path / "deltas").exists() or not list((tmp_path / "deltas").glob("*.delta"))


def test_a_file_that_is_gone_gives_no_delta(tmp_path, versions, caplog):
    versions[0].path.unlink()

    async def ask():
        deltas = Deltas(tmp_path / "deltas")
        for _ in range(3):
            assert await deltas.between(versions[0], versions[1], wait_s=30) is None

    asyncio.run(ask())
    assert caplog.text.count("no delta from 0.bin") == 1  # tried once
