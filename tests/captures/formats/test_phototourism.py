"""Phototourism built as NeRF-W's split tables are: filename, id, split, dataset beside dense/sparse."""

from pathlib import Path

import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import disagreement, known_cameras, pictures
from tests.captures.formats.test_colmap import write_binary

CAMERAS = known_cameras(6)


def write(root: Path, *, model: bool = True) -> Path:
    pictures(root / "dense" / "images", CAMERAS)
    if model:
        write_binary(root / "dense" / "sparse", CAMERAS)
    rows = ["filename\tid\tsplit\tdataset"]
    for index, camera in enumerate(CAMERAS):
        rows.append(f"{camera.name}\t{10 + index}.0\t{'test' if index == 2 else 'train'}\tgate")
    rows += ["\t77\t\tgate", "nan\t78\ttrain\tgate", "gone.jpg\t99\ttrain\tgate"]
    (root / "gate.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("given", ["", "gate.tsv"])
def test_points_fall_where_they_should_and_every_photo_is_somebodys_own(tmp_path, given):
    captures = read_captures(write(tmp_path) / given)
    assert "Phototourism" in captures.source.kind
    assert disagreement(captures, CAMERAS) < 0.01
    assert len(captures.captures) == len({capture.ue for capture in captures.captures}) == 6
    scene = scene_of_given(captures)
    assert [Path(scene.image_names[row]).name for row in scene.held_out] == ["00002.jpg"]
    assert len(scene.train) == 5
    (left,) = captures.source.left_out
    assert left.file == "gone.jpg"
    assert "is not in the model" in left.problem


def test_a_table_without_a_model_is_refused(tmp_path):
    with pytest.raises(CaptureError, match="no COLMAP model"):
        read_captures(write(tmp_path, model=False))
