"""The workbench: what a notebook asks for is there, made when missing, and the same when asked again."""

from pathlib import Path

import pytest
import torch

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.exporting import write_transforms
from crowdnerf_lab.contributors import contributors_in
from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.light_fields.light_field import LightFieldError
from crowdnerf_lab.light_fields.planes import planes_across
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.workbench import RUNS_VARIABLE, Workbench, open_workbench
from tests.toy_field import toy_scene


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUNS_VARIABLE, str(tmp_path_factory.mktemp("runs")))
        return open_workbench("tiny")


def small_field(bench: Workbench) -> SHGrid:
    return SHGrid(bench.scene().bounds, shape=SHGridShape(resolutions=(16, 32), log2_rows=10, occupancy_cells=16))


def test_a_workbench_is_a_folder_named_after_its_preset(bench: Workbench):
    assert bench.root.name == bench.preset.name == "tiny"
    assert bench.root.is_dir()


def test_an_unknown_preset_is_refused_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="choose one of tiny"):
        open_workbench("huge")
    assert not list(tmp_path.iterdir())


def test_screening_is_done_once_and_kept(bench: Workbench):
    first = bench.captures()
    manifest = bench.root / "screened" / "manifest.json"
    written = manifest.stat().st_mtime_ns
    assert bench.captures() == first
    assert manifest.stat().st_mtime_ns == written
    assert 100 < len(first.photos) < 144


def test_the_scene_has_the_preset_s_sizes(bench: Workbench):
    scene, sizes = bench.scene(), bench.preset
    assert len(scene.held_out) == sizes.held_out_views
    assert len(scene.train) == len(bench.captures().photos)
    assert max(scene.image(0).shape) == 320 // sizes.photo_downscale


def test_views_are_the_held_out_ones_at_the_ue_s_size(bench: Workbench):
    views, scene = bench.views(), bench.scene()
    assert len(views) == len(scene.held_out)
    assert views.truths[0].shape == (bench.preset.view_height, bench.preset.view_width, 3)
    torch.testing.assert_close(views.cameras.camera_to_world, scene.cameras[scene.held_out].camera_to_world)
    request = bench.request(1)
    torch.testing.assert_close(request.cameras().focal[0], views.cameras.focal[1])


def test_every_kind_of_model_shows_every_view(bench: Workbench):
    field, scene = small_field(bench), bench.scene()
    student = RayMLP(planes_across(scene.cameras, scene.bounds), "XS")
    for model in (field, bake(field), student):
        renders = bench.renders(model)
        assert [render.shape for render in renders] == [truth.shape for truth in bench.views().truths]
        assert all(bool((render >= 0).all() and (render <= 1).all()) for render in renders)


def test_a_kept_field_and_student_are_taken_up_again(bench: Workbench):
    field = small_field(bench)
    torch.nn.init.normal_(field.table, std=0.1, generator=torch.Generator().manual_seed(0))
    learned_from = {capture.ue for capture in bench.captures().captures}
    assert set(contributors_in(bench.keep_field(field)) or ()) == learned_from
    assert torch.equal(bench.field().table, field.table)
    for name in ("ray_mlp XS", "plane_features XS", "light_slab XS"):
        student = bench.untrained_student(name)
        assert student.view_size == (bench.preset.view_width, bench.preset.view_height)
        assert set(contributors_in(bench.keep_student(name, student)) or ()) == learned_from
        assert torch.equal(bench.picture(bench.student(name)), bench.picture(student))


def test_a_student_of_no_known_family_is_refused(bench: Workbench):
    with pytest.raises(LightFieldError, match="ray_mlp, plane_features, light_slab"):
        bench.untrained_student("gaussians S")


def test_a_ladder_offers_every_student_coded_and_one_uncoded_to_compare_with(bench: Workbench):
    bench.keep_field(small_field(bench))
    for name in bench.preset.students:
        bench.keep_student(name, bench.untrained_student(name))
    ladder = bench.ladder()
    rungs = ladder.shortlist()
    assert set(rungs) <= set(ladder.candidates())
    assert {rung.size for rung in rungs if rung.coding == "none" and rung.stored_as == "baked"} == {"full"}
    assert {rung.stored_as for rung in rungs} == {*bench.preset.formats, "baked"}
    uncoded = {(rung.family, rung.stored_as) for rung in rungs if rung.coding == "none"}
    assert uncoded == {(name.split()[0], "onnx_float32") for name in bench.preset.students} | {("baked_field", "baked")}


def test_captures_of_ones_own_are_taken_in_and_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A scene whose cameras another program found: its own views judge a field, and no concert is needed."""
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    scene = toy_scene()
    write_transforms(scene.with_split(range(len(scene)), []), tmp_path / "mine")
    own = open_workbench("tiny", folder=tmp_path / "mine")
    assert own.root.parent == tmp_path / "runs" / "tiny"
    assert own.align == "metadata"
    assert not own.located
    kept = own.captures()
    assert 3 <= len(kept.photos) <= len(scene)
    assert all(photo.camera and photo.faces is not None for photo in kept.photos)
    assert set(own.recorded_poses()) == {"another tool"}
    assert 1 <= len(own.views()) <= own.preset.held_out_views
    with pytest.raises(CaptureError, match="nowhere does not exist"):
        open_workbench("tiny", folder=tmp_path / "nowhere")
