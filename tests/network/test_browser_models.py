"""What browsers run of artefacts: plain graphs and rows of the same models, over HTTP like every file."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from crowdnerf_lab.catalogue.artefact import Artefact, ArtefactError
from crowdnerf_lab.catalogue.catalogue import Catalogue
from crowdnerf_lab.coding.baked_stream import coded_baked
from crowdnerf_lab.coding.coded_graph import packed_graph
from crowdnerf_lab.fields.baked_rows import rows_file
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.network.models.browser_models import BrowserModelError, browser_model_of, main
from crowdnerf_lab.network.ue import load_artefact
from tests.network.toy_service import toy_service
from tests.toy_artefacts import random_grid
from tests.toy_catalogue import CENTRE, FOCAL, HEIGHT, POSE, WIDTH, toy_graph, write_toy_artefact


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    """One light field and one baked field, each as it runs and coded."""
    root = tmp_path_factory.mktemp("artefacts")
    field, graph = bake(random_grid()), root / "graph.onnx"
    graph.write_bytes(toy_graph())
    plain = field.save(root / "field").read_bytes()
    baked = {"kind": "baked_field", "file": "model.cnlf"}
    coded = {"coding": "progressive", "bytes_uncoded": 1}
    return {
        "graph": write_toy_artefact(root, "graph"),
        "coded-graph": write_toy_artefact(
            root, "coded-graph", content=packed_graph(graph, coding="progressive"), **coded
        ),
        "field": write_toy_artefact(root, "field-whole", content=plain, **baked),
        "coded-field": write_toy_artefact(root, "field-coded", content=coded_baked(field), **baked, **coded),
    }


@pytest.mark.parametrize("name", ["graph", "coded-graph"])
def test_a_light_field_comes_as_a_graph_that_shows_the_same(artefacts: dict[str, Artefact], name: str) -> None:
    model = browser_model_of(artefacts[name])
    assert (model.kind, model.width, model.height) == ("onnx", WIDTH, HEIGHT)
    session = onnxruntime.InferenceSession(gzip.decompress(model.content), providers=["CPUExecutionProvider"])
    camera = {"camera_to_world": POSE, "focal": FOCAL, "centre": CENTRE}
    (image,) = session.run(["image"], {name: np.array(value, np.float32) for name, value in camera.items()})
    local = load_artefact(artefacts[name].folder)
    expected = local.draw(*(np.array(value, np.float32) for value in camera.values()))
    np.testing.assert_array_equal(np.asarray(image)[0], expected)


@pytest.mark.parametrize("name", ["field", "coded-field"])
def test_a_baked_field_comes_as_its_rows(artefacts: dict[str, Artefact], name: str) -> None:
    model = browser_model_of(artefacts[name])
    assert model.kind == "baked_rows"
    assert gzip.decompress(model.content) == rows_file(bake(random_grid()))


def test_the_same_artefact_gives_the_same_bytes(artefacts: dict[str, Artefact]) -> None:
    one, other = (browser_model_of(artefacts["coded-graph"]) for _ in range(2))
    assert one.sha256 == other.sha256 == hashlib.sha256(one.content).hexdigest()
    assert one.bytes == len(one.content)


def test_what_is_damaged_or_no_model_is_refused(tmp_path: Path) -> None:
    changed = write_toy_artefact(tmp_path, "changed")
    changed.model.write_bytes(changed.model.read_bytes()[::-1])
    with pytest.raises(ArtefactError, match="SHA-256"):
        browser_model_of(changed)
    beginning = packed_graph(_graph(tmp_path), coding="progressive")[:-40]
    for content, coding in ((b"nonsense", {"coding": "range", "bytes_uncoded": 1}), (beginning, {})):
        others = {"coding": "progressive", "bytes_uncoded": 1} | coding
        with pytest.raises(BrowserModelError, match="a browser cannot run bad"):
            browser_model_of(write_toy_artefact(tmp_path, "bad", content=content, **others))


def test_the_process_writes_both_files_or_an_empty_one(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    main(artefacts["graph"].folder, tmp_path / "graph")
    assert gzip.decompress((tmp_path / "graph.gz").read_bytes()) == (tmp_path / "graph").read_bytes() == toy_graph()
    bad = write_toy_artefact(tmp_path, "bad", content=b"nonsense", coding="range", bytes_uncoded=1)
    main(bad.folder, tmp_path / "bad-for-browsers")
    assert [(path.name, path.stat().st_size) for path in tmp_path.glob("bad-for-*")] == [("bad-for-browsers", 0)]


def test_the_route_sends_it_once_made_with_tags_and_ranges(tmp_path: Path, artefacts: dict[str, Artefact]) -> None:
    bad = write_toy_artefact(tmp_path, "bad", content=b"nonsense", coding="range", bytes_uncoded=1)
    with toy_service(tmp_path / "home") as toy:
        Catalogue(toy.home / "catalogue").publish([artefacts["coded-graph"], bad], event="concert")
        ue, place = toy.token(), "/events/concert/versions/1/artefacts"
        answer = toy.client.get(f"{place}/coded-graph/browser", headers=ue | {"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
        expected = gzip.decompress(browser_model_of(artefacts["coded-graph"]).content)
        assert answer.content == expected
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert int(answer.headers["content-length"]) == browser_model_of(artefacts["coded-graph"]).bytes
        tag = answer.headers["etag"]
        again = toy.client.get(f"{place}/coded-graph/browser", headers=ue | {"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        plain = toy.client.get(f"{place}/coded-graph/browser", headers=ue | {"Accept-Encoding": "identity"})
        assert plain.content == expected
        assert "content-encoding" not in plain.headers
        part = toy.client.get(f"{place}/coded-graph/browser", headers=ue | {"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, expected[2:6])
        head = toy.client.head(f"{place}/coded-graph/browser", headers=ue | {"Accept-Encoding": "gzip"})
        assert (head.headers["etag"], head.content) == (tag, b"")
        refused = toy.client.get(f"{place}/bad/browser", headers=ue)
        assert (refused.status_code, refused.json()["type"]) == (404, "/problems/no-browser-model")
        assert toy.client.get(f"{place}/nobody/browser", headers=ue).status_code == 404
        assert toy.client.get(f"{place}/bad/browser").status_code == 401


def test_who_asks_too_early_is_asked_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdnerf_lab.network.models.browser_models_routes.PATIENCE_S", 0.0)
    with toy_service(tmp_path) as toy:
        toy.publish(0)
        answer = toy.client.get("/events/concert/versions/1/artefacts/toy/browser", headers=toy.token())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def _graph(folder: Path) -> Path:
    path = folder / "graph.onnx"
    path.write_bytes(toy_graph())
    return path
