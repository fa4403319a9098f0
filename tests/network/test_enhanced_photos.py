"""Upload, then infer: a UE's own photo comes back enhanced, to that UE alone, as long as it is not forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from crowdnerf_lab.network.api.tokens import issue
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.updates.pipeline import update_event
from crowdnerf_lab.network.uploads.contributions import Contribution, Contributions
from crowdnerf_lab.network.views.enhancement import EnhancementError, enhanced_photo
from crowdnerf_lab.network.views.view_engine import EncodedView, decode_view
from tests.network.service_in_thread import ServiceInThread, service_in_thread
from tests.network.toy_event import EVENT, QUICK, send, toy_home


@dataclass(frozen=True)
class Event:
    """A service whose event has learned from a few photos."""

    home: Path
    running: ServiceInThread
    ids: list[str]

    def one(self, number: int = 0) -> Contribution:
        found = Contributions(self.running.service.database).one(self.ids[number])
        assert found is not None
        return found

    def ask(self, id: str, *, ue: str) -> httpx.Response:
        with self.running.service.database.transaction() as rows:
            token = issue(rows, role="ue", event=EVENT, ue=ue, hours=1.0).text
        url = f"{self.running.url}/events/{EVENT}/contributions/{id}/enhanced"
        return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Event]:
    home = tmp_path_factory.mktemp("enhanced") / "home"
    database = toy_home(home)
    ids = send(database, count=8)
    assert update_event(home, EVENT, QUICK) is not None
    database.close()
    with service_in_thread(ServiceSettings(home=home, train=False, view_processes=1)) as running:
        yield Event(home, running, ids)


@pytest.mark.row("S24", "S58")
def test_a_ue_gets_its_own_photo_back_better(event: Event) -> None:
    photo = event.one()
    answer = event.ask(photo.id, ue=photo.ue)
    assert answer.status_code == 200, answer.text
    width, height = int(answer.headers["x-view-width"]), int(answer.headers["x-view-height"])
    assert max(width, height) <= 640
    assert answer.headers["x-view-version"] == "1"
    picture = decode_view(EncodedView(answer.content, answer.headers["content-type"], width, height, 0.0, 0.0))
    assert picture.std() > 1


def test_nobody_elses_photo_is_enhanced_or_told_of(event: Event) -> None:
    photo = event.one()
    stranger = next(one.ue for number in range(8) if (one := event.one(number)).ue != photo.ue)
    assert event.ask(photo.id, ue=stranger).status_code == 404
    assert event.ask("0" * 32, ue=photo.ue).status_code == 404


def test_one_photo_at_a_time(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = event.one()
    monkeypatch.setattr(event.running.service.enhancing, "locked", lambda: True)  # as while another one is enhanced
    answer = event.ask(photo.id, ue=photo.ue)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("state", "status"), [("received", 409), ("refused", 409), ("forgotten", 410)])
def test_what_is_not_of_the_event_is_not_enhanced(event: Event, state: str, status: int) -> None:
    photo = event.one(1)
    rows = event.running.service.database.connection()
    before = photo.state
    rows.execute("UPDATE contributions SET state = ? WHERE id = ?", (state, photo.id))
    try:
        answer = event.ask(photo.id, ue=photo.ue)
        with pytest.raises(EnhancementError, match="not among"):
            enhanced_photo(event.home, EVENT, photo.id)
    finally:
        rows.execute("UPDATE contributions SET state = ? WHERE id = ?", (before, photo.id))
    assert answer.status_code == status
    assert answer.json()["status"] == status
