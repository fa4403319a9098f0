"""What people really hand in: every odd spelling, leftover and mixture through the one door."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from crowdnerf_lab.captures.bundle import CaptureSet, Consent, concert, read_bundle, write_captures
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.reading import read_captures, summary
from tests.captures.formats.known_scene import SIZE, KnownCamera, disagreement, known_cameras, picture, pictures
from tests.captures.formats.test_colmap import write_binary
from tests.captures.formats.test_polycam import write as write_polycam

CAMERAS = known_cameras()
LENS = {
    "fl_x": CAMERAS[0].focal[0],
    "fl_y": CAMERAS[0].focal[1],
    "cx": CAMERAS[0].centre[0],
    "cy": CAMERAS[0].centre[1],
    "w": SIZE[0],
    "h": SIZE[1],
}


def document(name=lambda camera: f"images/{camera.name}", *, lens=LENS, cameras=CAMERAS, **more) -> dict:
    frames = [{"file_path": name(camera), "transform_matrix": camera.opengl.tolist()} for camera in cameras]
    return {**lens, "frames": frames, **more}


def transforms(root: Path, content: dict | str | bytes, *, file: str = "transforms.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def posed(root: Path) -> Path:
    pictures(root / "images", CAMERAS)
    return transforms(root, document())


@pytest.mark.parametrize(
    "name",
    [
        lambda c: f"./images/{c.name}",
        lambda c: f"images\\{c.name}",
        lambda c: f".\\images\\{c.name}",
        lambda c: f"images/{Path(c.name).stem}",
        lambda c: f"Images/{c.name.upper()}",
        lambda c: f"images/{Path(c.name).stem}.png",
        lambda c: f" images/{c.name} ",
        lambda c: f"images//{c.name}",
        lambda c: f"/mnt/captures/scene/images/{c.name}",
        lambda c: f"C:\\Users\\Some One\\scene\\images\\{c.name}",
    ],
)
def test_names_as_other_systems_spell_them(tmp_path, name):
    pictures(tmp_path / "images", CAMERAS)
    assert disagreement(read_captures(transforms(tmp_path, document(name))), CAMERAS) < 0.01


def test_letters_composed_either_way_and_blanks(tmp_path):
    cameras = [KnownCamera(f"Zoë 写真 {i}.JPG", c.right, c.down, c.forward, c.eye) for i, c in enumerate(CAMERAS)]
    pictures(tmp_path / "images", cameras)
    decomposed = transforms(tmp_path, document(lambda c: f"images/{c.name}".replace("ë", "e\u0308"), cameras=cameras))
    assert disagreement(read_captures(decomposed), cameras) < 0.01


@pytest.mark.parametrize("folder", ["images_2", "images_4"])
@pytest.mark.parametrize("sized", [True, False])
def test_shrunk_copies_alone(tmp_path, folder, sized):
    factor = int(folder[-1])
    lens = LENS if sized else {key: value for key, value in LENS.items() if key not in "wh"}
    pictures(tmp_path / folder, CAMERAS, (SIZE[0] // factor, SIZE[1] // factor))
    captures = read_captures(transforms(tmp_path, document(lens=lens)))
    assert disagreement(captures, CAMERAS, scale=1 / factor) < 0.01


def test_a_byte_order_mark_numbers_as_text_and_fields_nobody_needs(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    more = {"applied_transform": [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]], "ply_file_path": "sparse.ply", "k3": None}
    content = b"\xef\xbb\xbf" + json.dumps(document(**more) | {"fl_x": str(LENS["fl_x"])}).encode()
    assert disagreement(read_captures(transforms(tmp_path, content)), CAMERAS) < 0.01


def test_another_name_for_the_file_and_utf_16(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    transforms(tmp_path, json.dumps(document()).encode("utf-16"), file="cameras_export.json")
    for path in (tmp_path, tmp_path / "cameras_export.json"):
        assert disagreement(read_captures(path), CAMERAS) < 0.01


@pytest.mark.parametrize(
    "lens",
    [
        {},
        {"fl_x": 0.0},
        {"fl_x": -5.0},
        {"fl_x": "wide"},
        {"camera_angle_x": 57.0},
        {"camera_angle_x": 0},
        LENS | {"w": 0},
        LENS | {"h": -48},
        LENS | {"k1": "NaN"},
        LENS | {"camera_model": "EQUIRECTANGULAR"},
        LENS | {"w": SIZE[1], "h": SIZE[0]},
    ],
)
def test_lenses_that_are_none_are_refused_by_name(tmp_path, lens):
    pictures(tmp_path / "images", CAMERAS)
    with pytest.raises(CaptureError, match=r"transforms\.json"):
        read_captures(transforms(tmp_path, document(lens=lens)))


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"frames": 3}', '{"frames": [1, null, "x"]}', "{" * 5000, b"\xff\xfe\x00"]
)
def test_files_that_are_no_transforms_are_refused(tmp_path, content):
    pictures(tmp_path / "images", CAMERAS)
    with pytest.raises(CaptureError, match=r"transforms\.json"):
        read_captures(transforms(tmp_path, content))


@pytest.mark.parametrize("name", ["", ".", "images", "images/", 7, None, "x" * 5000, "images/\ud800.jpg"])
def test_an_entry_that_names_nothing_is_left_out(tmp_path, name):
    pictures(tmp_path / "images", CAMERAS)
    broken = document()
    broken["frames"][1]["file_path"] = name
    captures = read_captures(transforms(tmp_path, broken))
    assert len(captures.photos) == 4
    assert len(captures.source.left_out) == 1


def test_numbers_that_leave_the_range_of_numbers(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    broken = document()
    broken["frames"][1] |= {"fl_x": 1e308, "w": SIZE[0] / 4, "h": SIZE[1] / 4}
    broken["frames"][2]["transform_matrix"][0][3] = 1e300
    captures = read_captures(transforms(tmp_path, broken))
    assert [left.file for left in captures.source.left_out] == ["images/00001.jpg", "images/00002.jpg"]
    assert len(scene_of_given(captures, held_out_every=0)) == 3
    (tmp_path / "transforms.json").unlink()
    record = {"image": "00000.jpg", "translation": [0, 0, 0], "rotation": [0, 0, 0, 1], "timestamp": 1e999}
    (tmp_path / "log.json").write_text(json.dumps([{**record, "fx": 50.0}, {**record, "fx": 50.0, "timestamp": 1}]))
    captures = read_captures(tmp_path)
    assert (len(captures.photos), len(captures.source.left_out)) == (1, 1)


@pytest.mark.parametrize("name", ["../secret.jpg", "images/../../secret.jpg", "..\\secret.jpg", "images/link.jpg"])
def test_names_and_links_that_leave_the_folder_are_refused(tmp_path, name):
    picture(tmp_path / "secret.jpg")
    root = tmp_path / "scene"
    pictures(root / "images", CAMERAS)
    (root / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    broken = document()
    broken["frames"][1]["file_path"] = name
    with pytest.raises(CaptureError, match=r"transforms\.json.*(does not stay inside|symbolic link)"):
        read_captures(transforms(root, broken))


def test_a_folder_of_a_folder_a_note_beside_and_leftovers(tmp_path):
    posed(tmp_path / "upload" / "my scene")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert disagreement(read_captures(tmp_path), CAMERAS) < 0.01
    (tmp_path / "README.txt").write_text("hello")
    captures = read_captures(tmp_path)
    assert disagreement(captures, CAMERAS) < 0.01
    assert captures.root == tmp_path / "upload" / "my scene"


def test_several_scenes_are_not_mixed(tmp_path):
    posed(tmp_path / "one")
    write_polycam(tmp_path / "two")
    with pytest.raises(CaptureError, match=r"2 scenes with poses of their own \(one, two\); give one"):
        read_captures(tmp_path)


def test_a_contributors_export_among_others_photos_is_no_reason_to_drop_these(tmp_path):
    posed(tmp_path / "one")
    pictures(tmp_path / "two", CAMERAS)
    captures = read_captures(tmp_path)
    assert {capture.ue: len(capture.photos) for capture in captures.captures} == {"one": 5, "two": 5}


def test_of_several_descriptions_the_one_that_says_most_is_taken(tmp_path):
    write_binary(posed(tmp_path) / "sparse" / "0", CAMERAS)
    assert "transforms.json" in read_captures(tmp_path).source.kind
    assert "COLMAP" in read_captures(tmp_path / "sparse").source.kind


def test_an_archive_is_unpacked_beside_itself_and_a_hostile_one_is_refused(tmp_path):
    posed(tmp_path / "scene")
    shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "scene")
    assert disagreement(read_captures(tmp_path / "upload.zip"), CAMERAS) < 0.01
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.txt", "x")
    with pytest.raises(CaptureError, match=r"evil\.zip"):
        read_captures(tmp_path / "evil.zip")


def test_what_is_read_can_be_kept_as_a_bundle_and_read_again(tmp_path):
    captures = read_captures(posed(tmp_path / "scene"), consent=Consent(train=True, publish=True), licence="CC0-1.0")
    write_captures(captures, tmp_path / "bundle")
    again = read_captures(tmp_path / "bundle")
    assert again.captures == captures.captures
    assert again.coordinates == "arbitrary"
    assert again.captures[0].licence == "CC0-1.0"
    assert len(scene_of_given(again)) == 5
    inside = tmp_path / "archive" / "inside"
    shutil.copytree(tmp_path / "bundle", inside)
    assert read_captures(tmp_path / "archive").captures == captures.captures


def test_the_labs_own_bundle_is_read_as_ever():
    known = concert()
    assert read_captures(known.root) == read_captures(known.root / "manifest.json") == read_bundle(known.root)


def test_one_line_says_what_was_recognised(tmp_path, caplog):
    posed(tmp_path)
    (tmp_path / "images" / CAMERAS[0].name).unlink()
    with caplog.at_level("INFO"):
        captures = read_captures(tmp_path)
    assert summary(captures) in caplog.text
    assert "4 photos and 0 clips of 1 UEs" in summary(captures)
    assert summary(captures).endswith("left out 1")


def test_nothing_usable_lists_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CaptureError) as caught:
        read_captures(tmp_path)
    for word in (
        "transforms.json",
        "COLMAP",
        "LLFF",
        "Record3D",
        "Polycam",
        "ARKit",
        "Stray",
        ".traj",
        ".tsv",
        "photo",
    ):
        assert word in str(caught.value)
    with pytest.raises(CaptureError, match="does not exist"):
        read_captures(tmp_path / "gone")
    with pytest.raises(CaptureError, match=r"neither"):
        read_captures(tmp_path / "notes.txt")


def test_the_refusal_names_what_is_there(tmp_path):
    picture(tmp_path / "old.gif")
    with pytest.raises(CaptureError, match=r"here are old\.gif"):
        read_captures(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match="it is empty"):
        read_captures(tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(CaptureError, match=r"give the archive itself: upload\.zip"):
        read_captures(tmp_path)


def test_a_manifest_of_another_program_is_no_obstacle_but_a_broken_one_is(tmp_path):
    pictures(tmp_path, CAMERAS)
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    assert len(read_captures(tmp_path).photos) == 5
    (tmp_path / "manifest.json").write_text('{"format": "crowdnerf_lab.captures", ')
    with pytest.raises(CaptureError, match=r"manifest\.json is not JSON"):
        read_captures(tmp_path)


def test_here(tmp_path, monkeypatch):
    pictures(tmp_path / "scene" / "images", CAMERAS)
    write_binary(tmp_path / "scene" / "sparse" / "0", CAMERAS)
    for place in ("scene", "scene/sparse/0"):
        monkeypatch.chdir(tmp_path / place)
        captures = read_captures(".")
        assert captures.name == "scene"
        assert disagreement(captures, CAMERAS) < 0.01


def test_half_a_model_is_no_folder_of_photos(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    write_binary(tmp_path / "sparse" / "0", CAMERAS)
    (tmp_path / "sparse" / "0" / "cameras.bin").unlink()
    with pytest.raises(CaptureError, match=r"holds no cameras\.txt"):
        read_captures(tmp_path)
    (tmp_path / "sparse" / "0" / "images.bin").unlink()
    (tmp_path / "images.txt").write_text("my list of images")
    assert len(read_captures(tmp_path).photos) == 5


def test_photos_without_a_camera_or_consent_are_no_scene(tmp_path):
    pictures(tmp_path, CAMERAS)
    captures: CaptureSet = read_captures(tmp_path)
    with pytest.raises(CaptureError, match="has no camera; calibrate"):
        scene_of_given(captures)
    refused = read_captures(posed(tmp_path / "scene"), consent=Consent(train=False, publish=False))
    with pytest.raises(CaptureError, match="nobody consents"):
        scene_of_given(refused)
