"""Artefacts: whole or absent, and refused when anything was changed on the way."""

import json
import os
import shutil
from pathlib import Path

import pytest

from crowdnerf_lab.catalogue.artefact import Artefact, ArtefactError, card_files, open_artefact, write_artefact
from crowdnerf_lab.catalogue.verification import CARD
from crowdnerf_lab.files import FileError
from crowdnerf_lab.network.ue import load_artefact
from tests.toy_catalogue import toy_graph, write_toy_artefact


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return write_toy_artefact(tmp_path_factory.mktemp("published"), content=toy_graph(padding=5000))


@pytest.fixture
def copy(published: Artefact, tmp_path: Path) -> Path:
    """A copy of the artefact's folder to damage."""
    return Path(shutil.copytree(published.folder, tmp_path / "copy"))


def changed(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def both_refuse(folder: Path, says: str) -> None:
    """The network's full check and the minimal UE's say the same."""
    for opener in (open_artefact, load_artefact):
        with pytest.raises(ArtefactError, match=says):
            opener(folder)


def test_an_artefact_opens_as_it_was_written(published: Artefact) -> None:
    assert open_artefact(published.folder) == published


@pytest.mark.row("S68")
def test_a_truncated_graph_is_refused(copy: Path) -> None:
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    both_refuse(copy, r"model\.onnx has \d+ bytes, its card says \d+; fetch the artefact again")


@pytest.mark.row("S68")
def test_a_wrong_checksum_is_refused(copy: Path) -> None:
    graph = copy / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    both_refuse(copy, r"model\.onnx does not have the SHA-256 that its card says; do not use it")


def test_a_probe_view_is_checked_too(copy: Path) -> None:
    (copy / "probe_0.png").write_bytes(b"not the picture")
    both_refuse(copy, r"probe_0\.png has 15 bytes")


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "model.onnx").unlink()
    both_refuse(copy, r"model\.onnx is missing \(No such file or directory\); fetch the artefact again")


@pytest.mark.parametrize("path", ["../model.onnx", "/etc/passwd", "a/../../b", "..\\model.onnx"])
def test_a_path_that_leaves_the_folder_is_refused(copy: Path, path: str) -> None:
    files = json.loads((copy / CARD).read_text())["files"]
    changed(copy, files=[files[0] | {"path": path}, *files[1:]])
    for opener in (open_artefact, load_artefact):
        with pytest.raises(ArtefactError, match=r"card\.json"):
            opener(copy)


def test_a_link_that_leaves_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.move(copy / "model.onnx", outside)
    (copy / "model.onnx").symlink_to(outside)
    both_refuse(copy, r"leaves .* through a symbolic link")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"card\.json is not JSON"),
        (b"[" * 100_000, r"card\.json is not JSON"),
        (b"[]", r"card\.json says format and version None"),
        (b'{"format": "crowdnerf_lab.artefact", "version": 3}', r"version \('crowdnerf_lab\.artefact', 3\), not"),
        (b'{"format": "crowdnerf_lab.artefact", "version": 1}', r"."),
    ],
)
def test_a_card_that_is_none_is_refused(copy: Path, content: bytes, says: str) -> None:
    (copy / CARD).write_bytes(content)
    both_refuse(copy, says)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    both_refuse(tmp_path, r"cannot read .*card\.json: No such file or directory")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bytes": 1}, r"bytes is 1 but model\.onnx has"),
        ({"model": "other.onnx"}, r"other\.onnx is not among the files"),
        ({"computes_in": "int2"}, r"computes_in: .*not 'int2'"),
        ({"probe_psnr": 1e9}, r"probe_psnr: .*not 1000000000"),
        ({"trust_me": True}, r"trust_me: .*; remove it"),
        ({"name": "../elsewhere"}, r"name: .*not '\.\./elsewhere'"),
        ({"probes": []}, r"probes: .*not \[\]"),
    ],
)
def test_a_card_with_an_impossible_field_is_refused(copy: Path, changes: dict[str, object], says: str) -> None:
    changed(copy, **changes)
    with pytest.raises(ArtefactError, match=rf"card\.json: {says}"):
        open_artefact(copy)


def test_a_graph_that_is_none_is_refused_though_its_checksum_is_right(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"no graph")
    files = json.loads((copy / CARD).read_text())["files"]
    right = card_files({"model.onnx": copy / "model.onnx"})[0].model_dump()
    changed(copy, bytes=8, files=[right, *[file for file in files if file["path"] != "model.onnx"]])
    open_artefact(copy)
    with pytest.raises(ArtefactError, match="ONNX Runtime refuses the graph"):
        load_artefact(copy)


def test_a_ue_that_does_not_know_the_kind_says_so(copy: Path) -> None:
    changed(copy, kind="hologram")
    with pytest.raises(ArtefactError, match="cannot run a model of kind 'hologram'; update it or ask the network"):
        load_artefact(copy)


def sources(artefact: Artefact) -> dict[str, Path]:
    return {file.path: artefact.folder / file.path for file in artefact.card.files}


def test_publishing_again_replaces_the_old_one(published: Artefact, tmp_path: Path) -> None:
    first = write_artefact(published.card, tmp_path, files=sources(published))
    (first.folder / "stray").write_text("left over")
    second = write_artefact(published.card, tmp_path, files=sources(published))
    assert open_artefact(second.folder) == second
    assert not (second.folder / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == [published.card.name]


def test_files_that_are_not_what_the_card_says_are_not_published(published: Artefact, tmp_path: Path) -> None:
    files = sources(published) | {"model.onnx": published.folder / "probe_0.png"}
    with pytest.raises(ArtefactError, match=r"model\.onnx has \d+ bytes, its card says"):
        write_artefact(published.card, tmp_path, files=files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["shutil.copyfile", "os.rename", "os.fsync"])
def test_a_full_disk_publishes_nothing(
    published: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(failing, full)
        with pytest.raises(FileError, match=r"could not publish .*free some space or choose another folder"):
            write_artefact(published.card, tmp_path, files=sources(published))
    assert list(tmp_path.iterdir()) == []


def test_when_replacing_fails_the_old_one_stays(
    published: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_artefact(published.card, tmp_path, files=sources(published))
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("os.rename", second_fails)
    with pytest.raises(FileError):
        write_artefact(published.card, tmp_path, files=sources(published))
    assert open_artefact(first.folder) == first
    assert [path.name for path in tmp_path.iterdir()] == [published.card.name]
