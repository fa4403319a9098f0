"""Rounds of training while the event runs: what UEs sent becomes versions, once, whatever is killed in between."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.captures.bundle import read_bundle
from crowdnerf_lab.captures.intake.sandbox import Sandbox
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.contributors import contributors_in
from crowdnerf_lab.fields.storage import sh_grid_of
from crowdnerf_lab.network.api.database import Database
from crowdnerf_lab.network.updates import pipeline
from crowdnerf_lab.network.updates.event_folder import EventFolder
from crowdnerf_lab.network.updates.pipeline import Update, sandbox_for, update_event
from crowdnerf_lab.network.updates.publication import FORGOTTEN
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.network.updates.usable_photos import judges_among
from crowdnerf_lab.network.uploads.contributions import Contributions
from crowdnerf_lab.refinement import Learned
from tests.network.toy_event import EVENT, QUICK, send, toy_home


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_for(QUICK) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def database(home: Path) -> Database:
    return toy_home(home)


def updated(home: Path, sandbox: Sandbox, settings: UpdateSettings = QUICK) -> Update | None:
    return update_event(home, EVENT, settings, sandbox=sandbox)


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Path:
    """A home whose event has learned from eight contributions, to be copied."""
    home = tmp_path_factory.mktemp("first") / "home"
    database = toy_home(home)
    send(database, count=8)
    assert updated(home, sandbox)
    database.close()
    return home


@pytest.fixture(scope="module")
def second_version(tmp_path_factory: pytest.TempPathFactory, first_version: Path, sandbox: Sandbox) -> Path:
    """The same after three contributions more, to be copied."""
    home = tmp_path_factory.mktemp("second") / "home"
    database = begun(first_version, home)
    send(database, start=8, count=3)
    assert updated(home, sandbox)
    database.close()
    return home


def begun(version: Path, home: Path) -> Database:
    """A copy of a home, to go on from."""
    shutil.copytree(version, home)
    return Database(home)


def states(database: Database) -> dict[str, str]:
    return dict(database.connection().execute("SELECT id, state FROM contributions").fetchall())


@pytest.mark.row("S23", "S40", "S61")
def test_contributions_become_a_version_and_later_ones_the_next(
    home: Path, database: Database, sandbox: Sandbox
) -> None:
    send(database, count=8)
    first = updated(home, sandbox)
    assert first is not None
    assert (first.version, first.photos, first.new) == (1, 6, 6)
    assert updated(home, sandbox) is None
    later = send(database, start=8, count=4)
    second = updated(home, sandbox)
    assert second is not None
    assert (second.version, second.photos, second.new) == (2, 10, 4)
    assert second.psnr_before == pytest.approx(first.psnr, abs=1e-6)
    assert set(states(database).values()) == {"published"}
    contributions = Contributions(database)
    assert {one.version for id in later if (one := contributions.one(id))} == {2}
    catalogue = Catalogue(home / "catalogue")
    (artefact,) = catalogue.artefacts(EVENT)
    assert artefact.card.kind == "baked_field"
    assert artefact.card.quality.psnr is not None
    assert not list((home / "inbox" / EVENT).iterdir())


def test_a_few_photos_wait_for_more_but_not_for_ever(home: Path, first_version: Path, sandbox: Sandbox) -> None:
    database = begun(first_version, home)
    patient = replace(QUICK, new_photos=8, patience_s=1e9)
    send(database, start=8, count=2, received=2e9)
    assert updated(home, sandbox, patient) is None
    assert sorted(states(database).values()).count("taken_in") == 2
    assert updated(home, sandbox, replace(patient, patience_s=-1e12)) is not None


def test_too_few_photos_give_no_first_version(home: Path, database: Database, sandbox: Sandbox) -> None:
    send(database, count=4)
    assert updated(home, sandbox) is None
    assert set(states(database).values()) <= {"taken_in", "refused"}
    assert Catalogue(home / "catalogue").events() == ()


def test_what_is_no_photo_is_refused_and_the_others_are_used(home: Path, database: Database, sandbox: Sandbox) -> None:
    ids = send(database, count=7)
    broken = Contributions(database).one(ids[3])
    assert broken is not None
    broken.path.write_bytes(broken.path.read_bytes()[:999])
    assert updated(home, sandbox) is not None
    found = Contributions(database).one(ids[3])
    assert found is not None
    assert found.state == "refused"
    assert found.reason
    assert str(home) not in found.reason
    assert ids[3] not in found.reason
    assert sorted(states(database).values()) == ["published"] * 6 + ["refused"]


def test_the_same_contributions_are_not_taken_in_twice(home: Path, database: Database, sandbox: Sandbox) -> None:
    """The worker dies between writing photos and saying so."""
    ids = send(database, count=6)
    patient = replace(QUICK, fewest_photos=99)
    contents = {id: one.path.read_bytes() for id in ids if (one := Contributions(database).one(id))}
    assert updated(home, sandbox, patient) is None
    before = read_bundle(home / "events" / EVENT / "captures")
    with database.transaction() as rows:
        rows.execute("UPDATE contributions SET state = 'received'")
    for id, content in contents.items():
        (home / "inbox" / EVENT / f"{id}.jpg").write_bytes(content)
    assert updated(home, sandbox, patient) is None
    assert read_bundle(home / "events" / EVENT / "captures").captures == before.captures
    assert set(states(database).values()) == {"taken_in"}


def test_a_version_that_would_be_worse_is_not_published(home: Path, first_version: Path, sandbox: Sandbox) -> None:
    database = begun(first_version, home)
    send(database, start=8, count=3)
    second = updated(home, sandbox, replace(QUICK, least_gain_db=50.0))
    assert second is not None
    assert second.version is None
    assert "worse" in second.reason
    catalogue = Catalogue(home / "catalogue")
    assert [version.number for version in catalogue.versions(EVENT)] == [1]
    assert sorted(states(database).values()).count("taken_in") == 3
    assert updated(home, sandbox, replace(QUICK, least_gain_db=50.0)) is None
    send(database, start=11, count=2)
    third = updated(home, sandbox)
    assert third is not None
    assert (third.version, third.new) == (2, 5)


@pytest.mark.row("S59")
def test_a_version_that_turns_out_to_be_worse_is_rolled_back(
    home: Path, second_version: Path, sandbox: Sandbox
) -> None:
    """The second version's field is spoiled on disk; the next judges find it, and the first is the latest again."""
    database = begun(second_version, home)
    folder = EventFolder(home, EVENT)
    spoiled = Learned.load(folder.round(2).folder)
    table = sh_grid_of(spoiled.field, folder.folder).table
    torch.nn.init.constant_(table, -1.0)
    spoiled.save(folder.round(2).folder)
    send(database, start=11, count=3)
    third = updated(home, sandbox, replace(QUICK, refine_steps=1, least_gain_db=0.5))
    assert third is not None
    catalogue = Catalogue(home / "catalogue")
    latest = catalogue.latest(EVENT)
    assert latest is not None
    assert latest.number == 1
    fourth = updated(home, sandbox)
    assert fourth is not None
    assert (fourth.version, fourth.new) == (3, 6)


def test_the_operator_may_withdraw_and_training_goes_on_from_what_stands(
    home: Path, second_version: Path, sandbox: Sandbox
) -> None:
    database = begun(second_version, home)
    Catalogue(home / "catalogue").withdraw(EVENT, 2, reason="somebody did not like it")
    send(database, start=11, count=3)
    third = updated(home, sandbox)
    assert third is not None
    assert (third.version, third.new) == (3, 6)
    plan = EventFolder(home, EVENT).round(3).plan
    assert plan is not None
    assert plan.start == 1


def test_who_wants_to_be_forgotten_is_in_no_version_any_more(home: Path, database: Database, sandbox: Sandbox) -> None:
    send(database, count=10)
    assert updated(home, sandbox)
    contributions = Contributions(database)
    contributions.forget(EVENT, "ue01")
    again = updated(home, sandbox)
    assert again is not None
    assert again.version == 2
    catalogue = Catalogue(home / "catalogue")
    assert catalogue.versions(EVENT)[0].withdrawn == FORGOTTEN
    (artefact,) = catalogue.artefacts(EVENT)
    assert "ue01" not in {contributor.ue for contributor in artefact.card.provenance.trained_on}
    folder = home / "events" / EVENT
    assert not list(folder.rglob("*ue01*"))
    fields = list((folder / "rounds").rglob("*.safetensors"))
    assert fields
    assert all("ue01" not in (contributors_in(path) or ()) for path in fields)
    plans = [path.read_text() for path in (folder / "rounds").rglob("plan.json")]
    assert not any("ue01/" in plan for plan in plans)
    assert contributions.forget_wishes(EVENT) == ()
    assert {each.state for each in contributions.of(EVENT, "ue01")} == {"forgotten"}


def test_a_wish_during_training_stops_the_version(
    home: Path, database: Database, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pipeline.artefacts_of
    contributions = Contributions(database)

    def build_while_somebody_leaves(*arguments: object, **named: object) -> object:
        contributions.forget(EVENT, "ue01")
        return build(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "artefacts_of", build_while_somebody_leaves)
    send(database, count=10)
    stopped = updated(home, sandbox)
    assert stopped is not None
    assert stopped.version is None
    monkeypatch.undo()
    assert Catalogue(home / "catalogue").events() == ()
    again = updated(home, sandbox)
    assert again is not None
    assert again.version == 1


def test_judges_stay_judges_and_are_never_chosen_among_the_met() -> None:
    files = [f"ue{i % 3}/{hashlib.sha256(str(i).encode()).hexdigest()[:24]}.jpg" for i in range(40)]
    first = judges_among(files[:20], met=(), before=(), every=5, most=12)
    assert len(first) == 4
    met = set(files[:20]) - set(first)
    second = judges_among(files, met=met, before=first, every=5, most=12)
    assert len(second) == 8
    assert set(first) < set(second)
    assert not met & set(second)
    assert len(judges_among(files, met=met, before=first, every=2, most=6)) == 6
    assert set(judges_among(files[:20], met=files[:20], before=first[:1], every=1, most=12)) == set(first[:1])
