"""The browser UE's half in the kernel: what its page may ask, and what stays without a browser."""

import gzip
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import crowdnerf_lab as cn
from crowdnerf_lab.catalogue.artefact import Artefact
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.network.links.link_profiles import LINKS
from crowdnerf_lab.network.settings import ServiceSettings
from crowdnerf_lab.network.ue import load_artefact
from crowdnerf_lab.network.views.view_request import ViewError
from crowdnerf_lab.widgets.browser_ue_widget import BrowserUE, BrowserUEError, probe_view
from crowdnerf_lab.widgets.ue_networks import ServiceNetwork
from tests.network.service_in_thread import service_in_thread
from tests.toy_browser_artefacts import FIELD, STUDENT, browser_artefacts
from tests.toy_catalogue import HEIGHT, WIDTH
from tests.toy_field import ToyField


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefact, Artefact]:
    return browser_artefacts(tmp_path_factory.mktemp("artefacts"))


@pytest.fixture
def ue(artefacts: tuple[Artefact, Artefact]) -> Iterator[BrowserUE]:
    made = cn.widgets.ue(artefacts)
    yield made
    made.close()


def lossless(ue: BrowserUE, document: dict[str, Any]) -> np.ndarray:
    camera = {name: document[name] for name in ("camera_to_world", "focal", "centre", "width", "height")}
    answer, (content,) = ue.answer({"kind": "view", "camera": camera, "encoding": {"format": "png", "quality": 100}})
    assert answer["media_type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_page_learns_what_there_is(ue: BrowserUE):
    event, buffers = ue.answer({"kind": "event"})
    assert event["event"] == "concert"
    assert [card["name"] for card in event["cards"]] == [FIELD, STUDENT]
    assert [link["name"] for link in event["links"]] == list(LINKS)
    assert buffers == []


@pytest.mark.row("S27", "S68")
def test_a_page_gets_what_it_can_run(ue: BrowserUE):
    for name, begins in ((STUDENT, b"\x08"), (FIELD, None)):
        _, (content,) = ue.answer({"kind": "model", "name": name})
        unpacked = gzip.decompress(content)
        assert begins is None or unpacked.startswith(begins)
    assert b"crowdnerf_lab.baked_rows/" in unpacked[:4096]
    _, (runtime,) = ue.answer({"kind": "runtime"})
    assert gzip.decompress(runtime).startswith(b"\0asm")


@pytest.mark.row("S70", "S71")
def test_the_kernel_renders_views_from_the_best_field(ue: BrowserUE, artefacts: tuple[Artefact, Artefact]):
    field, _ = artefacts
    document = probe_view(field.card.model_dump(mode="json"))
    drawn = load_artefact(field.folder).render(
        np.array(document["camera_to_world"]), document["focal"], document["centre"], width=WIDTH, height=HEIGHT
    )
    assert np.abs(lossless(ue, document).astype(int) - drawn).max() <= 1


def test_the_kernel_renders_views_from_a_field_that_is_given(artefacts: tuple[Artefact, Artefact]):
    given, served = cn.widgets.ue(artefacts[1], field=ToyField()), cn.widgets.ue(artefacts)
    document = probe_view(artefacts[1].card.model_dump(mode="json"))
    assert not np.array_equal(lossless(given, document), lossless(served, document))
    for each in (given, served):
        each.close()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"kind": "model", "name": "../../etc/passwd"}, "there is no model"),
        ({"kind": "teleport"}, "run the cell again"),
        ({}, "run the cell again"),
    ],
)
def test_whatever_a_page_asks_is_answered_in_words(ue: BrowserUE, message: dict[str, Any], says: str):
    with pytest.raises(BrowserUEError, match=says):
        ue.answer(message)


def test_a_view_that_is_none_is_refused(ue: BrowserUE):
    camera = {"camera_to_world": [[1, 0, 0, 0]] * 3, "focal": [1, 1], "centre": [0, 0], "width": 1e9, "height": 1}
    with pytest.raises(ViewError, match="width"):
        ue.answer({"kind": "view", "camera": camera, "encoding": {"format": "webp", "quality": 80}})


def test_questions_are_answered_by_messages_of_the_same_number(ue: BrowserUE, monkeypatch: pytest.MonkeyPatch):
    sent: dict[str, Any] = {}
    both = threading.Event()

    def send(content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        sent[content["id"]] = content
        if len(sent) == 2:
            both.set()

    monkeypatch.setattr(ue, "send", send)
    for message in (
        {"kind": "event", "id": "a"},
        {"kind": "view", "id": "b"},
        "nonsense",
        {"kind": "report", "report": 3},
    ):
        ue._receive(ue, message, [])
    assert both.wait(20)
    assert sent["a"]["answer"]["event"] == "concert"
    assert "camera" in sent["b"]["problem"]
    assert ue.measured == {}


def test_what_a_page_measured_can_be_read_and_observed(ue: BrowserUE):
    seen: list[Any] = []
    ue.observe(lambda change: seen.append(change.new["path"]), "measured")
    ue._receive(ue, {"kind": "report", "report": {"path": "device", "model": STUDENT}}, [])
    assert ue.measured["model"] == STUDENT
    assert seen == ["device"]


def test_a_still_figure_shows_both_and_what_they_cost(ue: BrowserUE):
    names = [note.text for note in ue.still().layout.annotations]
    assert names[0] == "network"
    assert any("baked_field.fog" in name for name in names)
    ue.measured = {"model": STUDENT, "device": {"median_ms": 12.3}, "model_bytes": 2_500_000}
    notes = [note.text for note in ue.still().layout.annotations]
    assert any(note.endswith("12 ms in the browser, 2.50 MB") for note in notes)


@pytest.mark.parametrize("source", [7, [], ["artefact"]])
def test_what_is_no_network_is_refused(source: Any):
    with pytest.raises(BrowserUEError, match=r"give a workbench|build some"):
        cn.widgets.ue(source)


def test_a_kernel_that_has_nothing_to_render_from_says_so(artefacts: tuple[Artefact, Artefact]):
    with pytest.raises(BrowserUEError, match="give field="):
        cn.widgets.ue(artefacts[1])


def test_a_service_can_be_the_network(artefacts: tuple[Artefact, Artefact], tmp_path: Path):
    Catalogue(tmp_path / "catalogue").publish(artefacts, event="concert")
    settings = ServiceSettings(tmp_path, events=("concert",), train=False, view_processes=0)
    with service_in_thread(settings) as service:
        ue = cn.widgets.ue(service.url)
        event, _ = ue.answer({"kind": "event"})
        assert event["version"] == 1
        assert {card["name"] for card in event["cards"]} == {FIELD, STUDENT}
        _, (content,) = ue.answer({"kind": "model", "name": STUDENT})
        assert gzip.decompress(content) == artefacts[1].model.read_bytes()
        _, (probe,) = ue.answer({"kind": "probe", "name": STUDENT})
        assert probe == (artefacts[1].folder / "probe_0.png").read_bytes()
        with pytest.raises(BrowserUEError, match="renders no views"):
            lossless(ue, probe_view(event["cards"][0]))
        ue.close()
        with pytest.raises(BrowserUEError, match="no event 'opera'"):
            ServiceNetwork(service.url, event="opera").event()


def test_without_the_extra_the_remedy_is_named():
    code = "import sys; sys.modules['anywidget'] = None; import crowdnerf_lab as cn; cn.widgets.ue"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "crowdnerf-lab[lab]"' in done.stderr
