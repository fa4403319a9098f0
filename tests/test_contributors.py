"""Whose photos a model learned from is told by its file, and older files still open."""

import json
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.catalogue.artefact import open_artefact
from crowdnerf_lab.contributors import contributors_in, contributors_of
from crowdnerf_lab.fields.storage import load_field, save_field
from crowdnerf_lab.light_fields.storage import load_light_field, save_light_field
from tests.toy_artefacts import random_grid, small_scene, toy_ladder, untrained_student


def test_only_those_whose_photos_are_trained_on_are_contributors():
    scene = small_scene()
    assert contributors_of(scene) == ("ue00", "ue01", "ue03"), "all photos of ue02 are held out"
    assert contributors_of(replace(scene, train=torch.tensor([3, 7]))) == ("ue03",)


@pytest.mark.row("S63")
def test_fields_and_students_tell_whom_they_learned_from(tmp_path):
    field = save_field(random_grid(), tmp_path / "field.safetensors", trained_on=("ue00", "ue 1"))
    student = save_light_field(untrained_student(), tmp_path / "student.safetensors", trained_on=("ue03",))
    assert contributors_in(field) == ("ue00", "ue 1")
    assert contributors_in(student) == ("ue03",)
    assert torch.equal(load_field(field).state_dict()["table"], random_grid().table)
    assert load_light_field(student).size == "XS"


def test_files_that_say_nothing_open_as_before(tmp_path):
    field = save_field(random_grid(), tmp_path / "field.safetensors")
    student = save_light_field(untrained_student(), tmp_path / "student.safetensors")
    assert contributors_in(field) is None
    assert contributors_in(student) is None
    load_field(field)
    load_light_field(student)


def test_cards_name_contributors_with_their_licences_and_older_cards_name_none(tmp_path):
    ladder = toy_ladder(tmp_path, students=[], frames=1, licences={"ue01": "CC0-1.0"})
    (artefact,) = ladder.build_all(progress=False)
    named = {contributor.ue: contributor.licence for contributor in artefact.card.provenance.trained_on}
    assert named == {"ue00": "CC-BY-4.0", "ue01": "CC0-1.0", "ue03": "CC-BY-4.0"}
    path = artefact.folder / "card.json"
    assert contributors_in(path) == ("ue00", "ue01", "ue03")
    card = json.loads(path.read_text())
    del card["provenance"]["trained_on"]
    path.write_text(json.dumps(card))
    assert open_artefact(artefact.folder).card.provenance.trained_on == ()
    assert contributors_in(path) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"provenance": {"trained_on": [3]}}', b"\xff\x00"])
def test_damaged_files_say_nothing(tmp_path, content):
    for name in ("a.safetensors", "card.json"):
        (tmp_path / name).write_bytes(content)
        assert contributors_in(tmp_path / name) is None
