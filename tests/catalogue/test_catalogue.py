"""The catalogue: versions whole or absent whatever dies when, files once, an index that can be lost."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.catalogue.artefact import Artefact, ArtefactError, open_artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue, CatalogueError
from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.ue import load_artefact
from tests.toy_catalogue import CENTRE, FOCAL, POSE, toy_graph, toy_model, write_toy_artefact


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Artefact]:
    """Three artefacts; all of them show the same probe views."""
    root = tmp_path_factory.mktemp("models")
    others = {"large": toy_graph(padding=200_000), "changed": toy_graph(padding=200_001)}
    return [write_toy_artefact(root), *(write_toy_artefact(root, name, content=c) for name, c in others.items())]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "catalogue")


def names_of(artefacts: tuple[Artefact, ...]) -> list[str]:
    return [artefact.card.name for artefact in artefacts]


@pytest.mark.row("S12", "S25", "S37")
def test_a_published_set_of_models_is_there_to_load(catalogue: Catalogue, models: list[Artefact]) -> None:
    version = catalogue.publish(models[:2], event="concert", note="first song")
    assert (version.number, version.artefacts, version.withdrawn) == (1, ("large", "toy"), None)
    held = Catalogue(catalogue.root).artefacts("concert")
    assert names_of(held) == ["large", "toy"]
    for artefact in held:
        assert open_artefact(artefact.folder) == artefact
    picture = load_artefact(held[1].folder).render(np.array(POSE), FOCAL, CENTRE)
    assert (picture == toy_model(toy_graph()).render(np.array(POSE), FOCAL, CENTRE)).all()


@pytest.mark.row("S40")
def test_versions_count_upwards_and_the_latest_can_be_withdrawn(catalogue: Catalogue, models: list[Artefact]) -> None:
    for note in ("one", "two", "three"):
        catalogue.publish(models[:1], event="concert", note=note)
    assert [version.number for version in catalogue.versions("concert")] == [1, 2, 3]
    back = catalogue.withdraw("concert", 3, reason="shows faces")
    assert back is not None
    assert (back.number, back.note) == (2, "two")
    assert catalogue.versions("concert")[2].withdrawn == "shows faces"
    assert catalogue.artefacts("concert") == catalogue.artefacts("concert", 2)
    assert catalogue.publish(models[:1], event="concert").number == 4
    for number in (1, 2, 4):
        last = catalogue.withdraw("concert", number, reason="all of it")
    assert last is None
    assert catalogue.artefacts("concert") == ()
    assert len(catalogue.artefacts("concert", 1)) == 1  # those who hold it can still ask what it is


@pytest.mark.row("S37")
def test_equal_files_are_stored_once(catalogue: Catalogue, models: list[Artefact]) -> None:
    for _ in range(3):
        catalogue.publish(models, event="concert")
    catalogue.publish(models, event="match")
    stored = [path for path in (catalogue.root / "files").rglob("*") if path.is_file()]
    distinct = {listed.sha256 for model in models for listed in model.card.files}
    assert {path.name for path in stored} == distinct
    folders = [catalogue.artefacts("concert", number)[0].model for number in (1, 3)]
    folders.append(catalogue.artefacts("match")[0].model)
    assert len({path.stat().st_ino for path in folders}) == 1


def test_where_links_cannot_be_made_files_are_copied(
    catalogue: Catalogue, models: list[Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    catalogue.publish(models[:1], event="concert")
    assert open_artefact(catalogue.artefacts("concert")[0].folder).card.name == "toy"


def test_a_stored_file_that_was_damaged_is_stored_again(catalogue: Catalogue, models: list[Artefact]) -> None:
    catalogue.publish(models[:1], event="concert")
    sha256 = next(listed.sha256 for listed in models[0].card.files if listed.path == "model.onnx")
    stored = catalogue.root / "files" / sha256[:2] / sha256
    stored.chmod(0o644)
    stored.write_bytes(b"rot")
    catalogue.publish(models[:1], event="concert")
    open_artefact(catalogue.artefacts("concert")[0].folder)
    with pytest.raises(ArtefactError, match=r"model\.onnx has 3 bytes"):
        open_artefact(catalogue.artefacts("concert", 1)[0].folder)


@pytest.mark.parametrize("event", ["", "..", "../x", "a/b", "a b", ".hidden", "x" * 129, "ü"])
def test_an_event_that_cannot_be_a_folder_is_refused(catalogue: Catalogue, models: list[Artefact], event: str) -> None:
    with pytest.raises(CatalogueError, match="cannot be a folder's name"):
        catalogue.publish(models[:1], event=event)
    with pytest.raises(CatalogueError, match="has no event"):
        catalogue.versions(event)


def test_what_is_not_there_is_named_with_what_is(catalogue: Catalogue, models: list[Artefact]) -> None:
    with pytest.raises(CatalogueError, match="has no event 'concert'; it has no event yet"):
        catalogue.artefacts("concert")
    catalogue.publish(models[:1], event="concert")
    with pytest.raises(CatalogueError, match="has no event 'match'; it has concert"):
        catalogue.latest("match")
    for ask in (catalogue.artefacts, lambda event, number: catalogue.withdraw(event, number, reason="")):
        with pytest.raises(CatalogueError, match="concert has no version 7; it has 1"):
            ask("concert", 7)
    with pytest.raises(CatalogueError, match=r"needs artefacts of different names, not \[\]"):
        catalogue.publish([], event="concert")
    with pytest.raises(CatalogueError, match=r"different names, not \['toy', 'toy'\]"):
        catalogue.publish([models[0], models[0]], event="concert")


def left_over(catalogue: Catalogue) -> list[str]:
    """Folders of an event that are no versions."""
    return [path.name for path in (catalogue.root / "events").glob("*/*") if not path.name.isdecimal()]


def test_a_tampered_artefact_publishes_nothing(catalogue: Catalogue, models: list[Artefact], tmp_path: Path) -> None:
    bad = write_toy_artefact(tmp_path, "bad")
    content = bytearray(bad.model.read_bytes())
    content[100] ^= 1
    bad.model.write_bytes(content)
    with pytest.raises(ArtefactError, match="SHA-256"):
        catalogue.publish([models[0], bad], event="concert")
    assert left_over(catalogue) == []
    assert catalogue.events() == ()


@pytest.mark.parametrize("failing", ["os.rename", "shutil.copyfile", "os.fsync"])
def test_a_full_disk_publishes_nothing(
    catalogue: Catalogue, models: list[Artefact], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(failing, full)
        with pytest.raises(FileError, match=r"free some space"):
            catalogue.publish(models[:2], event="concert")
    assert left_over(catalogue) == []
    assert catalogue.events() == ()
    assert catalogue.publish(models[:2], event="concert").number == 1


INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


def lose(root: Path) -> None:
    for name in INDEX_FILES:
        (root / name).unlink(missing_ok=True)


def overwrite(root: Path) -> None:
    lose(root)
    (root / "index.sqlite").write_bytes(b"this is no database" * 100)


def truncate(root: Path) -> None:
    """Everything in the main file, then most of it gone."""
    with sqlite3.connect(root / "index.sqlite") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with (root / "index.sqlite").open("r+b") as file:
        file.truncate(2 * 4096 + 17)


def drop_a_table(root: Path) -> None:
    with sqlite3.connect(root / "index.sqlite") as database:
        database.execute("DROP TABLE artefacts")
    database.close()


def of_another_schema(root: Path) -> None:
    lose(root)
    with sqlite3.connect(root / "index.sqlite") as database:
        database.execute("CREATE TABLE versions (other TEXT)")
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize("damage", [lose, overwrite, truncate, drop_a_table, of_another_schema])
def test_an_index_that_was_lost_or_damaged_is_made_anew(
    catalogue: Catalogue, models: list[Artefact], damage: object
) -> None:
    for n in (1, 2, 3):
        catalogue.publish(models[:n], event="concert", note=f"version {n}")
    catalogue.publish(models[:1], event="match")
    catalogue.withdraw("concert", 3, reason="rain")
    before = catalogue.versions("concert"), catalogue.artefacts("concert"), catalogue.versions("match")
    damage(catalogue.root)
    for again in (catalogue, Catalogue(catalogue.root)):
        assert (again.versions("concert"), again.artefacts("concert"), again.versions("match")) == before
    assert catalogue.publish(models[:1], event="concert").number == 4


def test_a_version_whose_folder_was_damaged_is_named(catalogue: Catalogue, models: list[Artefact]) -> None:
    catalogue.publish(models[:1], event="concert")
    catalogue.publish(models[:1], event="concert")
    document = catalogue.root / "events" / "concert" / "000002" / "version.json"
    document.write_text("{}")
    lose(catalogue.root)
    with pytest.raises(CatalogueError, match=r"version\.json is damaged \('artefacts'\); remove .*000002"):
        catalogue.versions("concert")


KILLED = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.catalogue import catalogue as module

root, where, *folders = sys.argv[1:]
calls = 0

def dying(original, at, *, after):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*arguments, **named)
        if calls == at and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

catalogue = module.Catalogue(Path(root))
if where == "linking":
    os.link = dying(os.link, 3, after=True)
elif where == "before the rename":
    os.rename = dying(os.rename, 1, after=False)
elif where == "after the rename":
    os.rename = dying(os.rename, 1, after=True)
elif where == "in the transaction":
    read = module.Catalogue._read

    class Deadly(tuple):
        def __iter__(self):
            os.kill(os.getpid(), signal.SIGKILL)

    module.Catalogue._read = lambda self, *which: replace(read(self, *which), cards=Deadly())
print("ready", flush=True)
while True:
    catalogue.publish([open_artefact(Path(folder)) for folder in folders], event="concert", note="by a process")
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("where", "appears"),
    [
        ("linking", False),
        ("before the rename", False),
        ("after the rename", True),
        ("in the transaction", True),
    ],
)
def test_a_publisher_killed_at_the_worst_moment_leaves_a_whole_version_or_none(
    catalogue: Catalogue, models: list[Artefact], where: str, appears: bool
) -> None:
    catalogue.publish(models[:1], event="concert")
    folders = [str(model.folder) for model in models]
    arguments = [sys.executable, "-c", KILLED, str(catalogue.root), where, *folders]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    versions = catalogue.versions("concert")
    assert len(versions) == 1 + appears
    if appears:
        assert versions[-1].artefacts == ("changed", "large", "toy")
        assert [open_artefact(held.folder) for held in catalogue.artefacts("concert")]
    assert Catalogue(catalogue.root).versions("concert") == versions
    assert catalogue.publish(models[:1], event="concert").number == len(versions) + 1
    assert left_over(catalogue) == []


@pytest.fixture
def publisher(catalogue: Catalogue, models: list[Artefact]) -> Iterator[subprocess.Popen[str]]:
    """A process that publishes version after version until somebody kills it."""
    arguments = [sys.executable, "-c", KILLED, str(catalogue.root), "never", *(str(model.folder) for model in models)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_readers_see_whole_versions_while_others_publish(
    catalogue: Catalogue, models: list[Artefact], publisher: subprocess.Popen[str]
) -> None:
    catalogue.publish(models[:1], event="concert")
    seen, until = [], time.monotonic() + 0.5
    while time.monotonic() < until or len(set(seen)) < 2:
        latest = catalogue.latest("concert")
        assert latest is not None
        held = catalogue.artefacts("concert", latest.number)
        assert names_of(held) in (["toy"], ["changed", "large", "toy"])
        open_artefact(random.Random(len(seen)).choice(held).folder)
        seen.append(latest.number)
        assert publisher.poll() is None
    assert seen == sorted(seen)
    numbers = [version.number for version in catalogue.versions("concert")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_two_publishers_never_take_the_same_number(
    catalogue: Catalogue, models: list[Artefact], publisher: subprocess.Popen[str]
) -> None:
    own = [catalogue.publish(models[:1], event="concert", note="by the test").number for _ in range(4)]
    os.kill(publisher.pid, signal.SIGKILL)
    publisher.wait()
    noted = {version.number: version.note for version in catalogue.versions("concert")}
    assert len(set(own)) == 4
    assert all(noted[number] == "by the test" for number in own)
    assert sorted(noted) == list(range(1, len(noted) + 1))


def test_a_card_of_version_1_is_published_as_one_of_version_2(catalogue: Catalogue, tmp_path: Path) -> None:
    old = write_toy_artefact(tmp_path)
    path = old.folder / "card.json"
    card = json.loads(path.read_text())
    for added in ("family", "coding", "view_cell", "bytes_uncoded", "steps", "layers", "energy"):
        del card[added]
    path.write_text(json.dumps(card | {"version": 1, "profile": "laptop_cpu"}))
    catalogue.publish([open_artefact(old.folder)], event="concert")
    (held,) = catalogue.artefacts("concert")
    assert (held.card.version, held.card.family, held.card.profile) == (2, "ray_mlp", "laptop_cpu")
